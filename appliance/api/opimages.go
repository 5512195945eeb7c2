package api

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"seedbed/appliance/fleet"
	"seedbed/images/packed"
)

type ImagePath struct {
	Ref string `path:"ref" maxLength:"256" doc:"NAME (its latest version), NAME:VERSION, or at least six digits of a digest."`
}

type addImage struct{ Body ImageOrder }

func (i *addImage) check(ctx context.Context) error { return mayHere(ctx, "a new image") }

type checkDisk struct {
	ImagePath
	Body DiskOrder
}

func (c *checkDisk) check(ctx context.Context) error { return mayHere(ctx, "a comparison with a disk") }

type verifyImages struct{ Body VerifyOrder }

func (v *verifyImages) check(ctx context.Context) error {
	if v.Body.HealFrom == "" {
		return nil
	}
	return mayHere(ctx, "healing from a disk")
}

// noted has an event tell of a change to images that was done.
func (o *Operators) noted(ctx context.Context, kind, text string) error {
	return o.fleet.Note(context.WithoutCancel(ctx), kind, text)
}

func (o *Operators) addImages() {
	lib := o.images
	add(o, "GET", "/images", "listImages", "List the images", func(ctx context.Context, in *Cut) (*paged[ImageListing], error) {
		list, err := lib.List(ctx)
		if err != nil {
			return nil, err
		}
		return page(list, *in, func(i ImageListing) string { return i.Name + ":" + datedKey(i.Created, i.Version) })
	})
	long(o, "POST", "/images", "addImage", "Make an image of a disk, or of a file with one, on the appliance's host", fleet.RoleOperator,
		func(ctx context.Context, in *addImage, progress func(Progress)) (any, error) {
			d, err := lib.Add(ctx, in.Body, progress)
			if err == nil {
				err = o.noted(ctx, "image.added", "image "+d.Manifest.Name+":"+d.Manifest.Version+" was made of "+in.Body.Path)
			}
			return d, err
		})
	add(o, "GET", "/images/{ref}", "getImage", "Show what an image consists of", func(ctx context.Context, in *ImagePath) (*answer[*ImageDetail], error) {
		return body(lib.Show(ctx, in.Ref))
	})
	add(o, "DELETE", "/images/{ref}", "removeImage", "Take a version of an image away, named NAME:VERSION", func(ctx context.Context, in *ImagePath) (*nothing, error) {
		if err := fleet.May(ctx, fleet.RoleAdmin, "remove images"); err != nil {
			return nil, err
		}
		if err := lib.Remove(ctx, in.Ref); err != nil {
			return nil, err
		}
		return done(o.noted(ctx, "image.removed", "image "+in.Ref+" was removed"))
	})
	add(o, "GET", "/images/{ref}/usage", "imageUsage", "Say what an image takes and shares", func(ctx context.Context, in *ImagePath) (*answer[*ImageUsage], error) {
		return body(lib.Usage(ctx, in.Ref))
	})
	add(o, "GET", "/images/{ref}/diff/{to}", "imageDiff", "Say what a machine with one image must fetch for another", func(ctx context.Context, in *struct {
		ImagePath
		To string `path:"to" maxLength:"256"`
	}) (*answer[*ImageDiff], error) {
		return body(lib.Diff(ctx, in.Ref, in.To))
	})
	long(o, "POST", "/images/{ref}/check-disk", "checkDisk", "Compare a disk of the appliance's host with an image, and repair it", fleet.RoleOperator,
		func(ctx context.Context, in *checkDisk, progress func(Progress)) (any, error) {
			if in.Body.Repair { // before anything is written
				if err := o.noted(ctx, "disk.repair", "the disk "+in.Body.Path+" of the appliance's host is compared with image "+in.Ref+", and what differs is written"); err != nil {
					return nil, err
				}
			}
			return lib.CheckDisk(ctx, in.Ref, in.Body, progress)
		})
	long(o, "POST", "/verify", "verifyImages", "Read and hash images", fleet.RoleOperator, func(ctx context.Context, in *verifyImages, progress func(Progress)) (any, error) {
		r, err := lib.Verify(ctx, in.Body, progress)
		if err != nil {
			return nil, err
		}
		for _, e := range r.Events(in.Body.Image == "", true) {
			err = errors.Join(err, o.noted(ctx, e.Kind, e.Text))
		}
		return r, err
	})
	long(o, "POST", "/prune", "prune", "Free the room of what no image uses", fleet.RoleAdmin, func(ctx context.Context, in *struct{ Body PruneRequest }, progress func(Progress)) (any, error) {
		in.Body.PruneOrder.Grace = time.Duration(in.Body.Grace)
		r, err := lib.Prune(ctx, in.Body.PruneOrder, progress)
		if err == nil && !in.Body.DryRun {
			err = o.noted(ctx, "image.pruned", "a person had the room freed of what no image uses")
		}
		return r, err
	})
	o.addOpening()
	o.addExport()
}

func (o *Operators) addOpening() {
	lib := o.images
	long(o, "POST", "/images/{ref}/open", "openImage", "Let stock BitTorrent clients have an image", fleet.RoleAdmin, func(ctx context.Context, in *ImagePath, progress func(Progress)) (any, error) {
		s, err := lib.OpenSwarm(ctx, in.Ref, progress)
		if err == nil {
			err = o.noted(ctx, "image.opened", "image "+s.Image+" is open to stock clients: whoever reaches the appliance can have it")
		}
		return s, err
	})
	add(o, "POST", "/images/{ref}/close", "closeImage", "Let no stock client have an image any more", func(ctx context.Context, in *ImagePath) (*nothing, error) {
		if err := fleet.May(ctx, fleet.RoleOperator, "close images"); err != nil {
			return nil, err
		}
		if err := lib.CloseSwarm(ctx, in.Ref); err != nil {
			return nil, err
		}
		return done(o.noted(ctx, "image.closed", "image "+in.Ref+" is not open to stock clients any more"))
	})
	add(o, "GET", "/images/{ref}/torrent", "imageTorrent", "The .torrent file of an open image", func(ctx context.Context, in *struct {
		ImagePath
		Announce string `query:"announce" maxLength:"1024" doc:"URL of the tracker; the appliance's own if not said."`
		Plain    bool   `query:"plain" doc:"v1 alone, for clients that do not read hybrid torrents."`
	}) (*document, error) {
		b, err := lib.Torrent(ctx, in.Ref, TorrentOrder{in.Announce, in.Plain})
		return &document{"application/x-bittorrent", b}, err
	}, produces("application/x-bittorrent"))
}

// addExport adds the one operation whose answer is a disk.
func (o *Operators) addExport() {
	op := operation("GET", "/images/{ref}/disk", "exportDisk", "A disk with an image: offset, length and bytes of what is not zero, or compressed as it is", produces(diskKind, packed.Kind))
	huma.Register(o.api, op, func(ctx context.Context, in *struct {
		ImagePath
		Length int64  `query:"length" minimum:"0" doc:"Bytes of the disk; 0 is as captured."`
		Format string `query:"format" enum:"records,zstd" default:"records" doc:"zstd is the whole disk as one stream, to be kept as NAME.img.zst."`
	}) (*huma.StreamResponse, error) {
		if err := fleet.May(ctx, fleet.RoleOperator, "export images"); err != nil {
			return nil, o.problem(ctx, op.OperationID, err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			r, w := humago.Unwrap(hc)
			if in.Format == "zstd" {
				o.exportPacked(w, r, in.Ref, in.Length)
				return
			}
			s := &diskSender{w: w, buffered: bufio.NewWriterSize(w, 1<<20)}
			err := o.images.Export(r.Context(), in.Ref, in.Length, s)
			if err != nil && !s.begun {
				o.refuse(w, r, err)
				return
			}
			if err != nil && r.Context().Err() == nil {
				o.log.Warn("export not finished", "image", in.Ref, "err", err)
			}
			s.end(err)
		}}, nil
	})
}

// exportPacked answers with a disk as one compressed stream. One that breaks is cut off, so that the caller sees it.
func (o *Operators) exportPacked(w http.ResponseWriter, r *http.Request, ref string, length int64) {
	d, err := o.images.Show(r.Context(), ref)
	if err != nil {
		o.refuse(w, r, err)
		return
	}
	out := &PackedDisk{Response: w, Name: d.Manifest.Name + "-" + d.Manifest.Version + packed.Suffix}
	if err = o.images.Export(r.Context(), ref, length, out); err == nil {
		err = out.Finish()
	}
	switch {
	case err != nil && !out.Begun():
		o.refuse(w, r, err)
	case err != nil:
		if r.Context().Err() == nil {
			o.log.Warn("export not finished", "image", ref, "err", err)
		}
		panic(http.ErrAbortHandler)
	}
}
