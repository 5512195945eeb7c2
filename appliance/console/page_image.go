package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/packed"
	"seedbed/images/restore"
)

// imagePage is one version of an image.
var imagePage = &page{path: "/images/{image}", name: "image", under: "images", title: imageTitle, data: imageData, live: imageLive, routes: []route{
	{pattern: "GET /images/{image}/usage", serve: imageUsage},
	{pattern: "GET /images/{image}/diff", serve: imageDiff},
	{pattern: "GET /images/{image}/disk", role: fleet.RoleOperator, serve: exportDisk},
	{pattern: "GET /images/{image}/remove", role: fleet.RoleAdmin, serve: removeDialog},
	{pattern: "POST /images/{image}/remove", role: fleet.RoleAdmin, serve: removeImage},
}}

func imageTitle(v *visit, data any) string {
	if view, ok := data.(*imageView); ok {
		return view.Ref
	}
	return v.PathValue("image")
}

type imageView struct {
	*api.ImageDetail
	Ref        string // "debian:2"
	Created    time.Time
	Used       int64 // bytes
	Partitions []imagePartition
	Origin     origin
	imageNow
	Works []workRow
	// FileName and PackedName are those of exported disks.
	FileName, PackedName string
}

// imageNow is what changes on the page.
type imageNow struct {
	Path     string
	Others   []string // that it may be compared with, its earlier versions first
	Among    string   // all images that there are
	Machines []held
	More     int // machines that are not listed
}

// imagePartition is a partition as people read it.
type imagePartition struct {
	images.Partition
	What  string  // of its type: "EFI system"
	Part  float64 // of the disk, 0 to 1
	Taken string  // how it was captured
}

// origin says where an image comes from.
type origin struct {
	Job, Machine, MachineName, By string
	At                            time.Time
	Text                          string // of the manifest, or of the event
}

// held is a machine whose disk holds the image.
type held struct{ ID, Name string }

// machinesShown bounds the machines that are listed.
const machinesShown = 24

func imageData(c *console, v *visit) (any, error) {
	if err := c.noImages(); err != nil {
		return nil, err
	}
	d, err := c.Images.Show(v.Context(), v.PathValue("image"))
	if err != nil {
		return nil, err
	}
	m := d.Manifest
	ref := m.Name + ":" + m.Version
	view := &imageView{ImageDetail: d, Ref: ref, Created: m.CreatedAt(), Used: m.UsedLength(),
		Works: c.workRows(v, ref), FileName: m.Name + "-" + m.Version + ".raw", PackedName: m.Name + "-" + m.Version + packed.Suffix}
	for _, p := range m.Partitions {
		view.Partitions = append(view.Partitions, imagePartition{p, v.partitionType(p.Type), float64(p.Length) / float64(m.DiskLength), v.taken(p.MapKind)})
	}
	if view.Origin, err = originOf(v.Context(), c.Fleet, d); err != nil {
		return nil, err
	}
	list, err := c.listImages(v.Context())
	if err != nil {
		return nil, err
	}
	view.imageNow = c.imageNow(list, m.Name, ref, d.Digest)
	return view, nil
}

// imageNow says what changes about an image, as it is now.
func (c *console) imageNow(list []api.ImageListing, name, ref string, digest images.Digest) imageNow {
	now := imageNow{Path: "/images/" + url.PathEscape(ref), Others: othersOf(list, name, ref)}
	among := fnv.New64a()
	for _, i := range list {
		_, _ = among.Write(i.Digest[:]) // never fails
	}
	now.Among = fmt.Sprintf("%016x", among.Sum64())
	for _, m := range c.Fleet.Machines() {
		if m.Deployed == nil || m.Deployed.Image != digest {
			continue
		}
		if len(now.Machines) == machinesShown {
			now.More++
			continue
		}
		now.Machines = append(now.Machines, held{m.ID, m.Name})
	}
	return now
}

// othersOf returns the images that one can be compared with: its own versions, those before it first, then others.
func othersOf(list []api.ImageListing, name, ref string) (others []string) {
	rank := func(i api.ImageListing) int {
		if i.Name == name {
			return 0
		}
		return 1
	}
	var created time.Time
	for _, i := range list {
		if i.Name+":"+i.Version == ref {
			created = i.Created
		}
	}
	later := func(i api.ImageListing) int {
		if i.Created.After(created) {
			return 1
		}
		return 0
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b api.ImageListing) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(later(a), later(b)), b.Created.Compare(a.Created), strings.Compare(a.Name, b.Name), strings.Compare(b.Version, a.Version))
	})
	for _, i := range list {
		if other := i.Name + ":" + i.Version; other != ref && i.Problem == "" {
			others = append(others, other)
		}
	}
	return others
}

// partitionTypes are the types that people meet: GUIDs (UEFI 2.10 §5.3.3 and their systems' documents), and MBR types.
var partitionTypes = map[string]string{
	"c12a7328-f81f-11d2-ba4b-00a0c93ec93b": text("EFI system"), "e3c9e316-0b5c-4db8-817d-f92df00215ae": text("Microsoft reserved"),
	"ebd0a0a2-b9e5-4433-87c0-68b6b72699c7": text("Windows data"), "de94bba4-06d1-4d40-a16a-bfd50179d6ac": text("Windows recovery"),
	"0fc63daf-8483-4772-8e79-3d69d8477de4": text("Linux data"), "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": text("Linux swap"),
	"4f68bce3-e8cd-4db1-96e7-fbcaf984b709": text("Linux root"), "21686148-6449-6e6f-744e-656564454649": text("BIOS boot"),
	"bc13c2ff-59e6-4262-a352-b275fd6f7172": text("Linux boot loader"), "07": text("Windows data"), "82": text("Linux swap"), "83": text("Linux data"), "ef": text("EFI system"),
}

func (v *visit) partitionType(kind string) string {
	if name := partitionTypes[strings.ToLower(kind)]; name != "" {
		return v.t(name)
	}
	return kind
}

// taken says how a partition was captured.
func (v *visit) taken(kind string) string {
	switch kind {
	case "used":
		return v.t("what its file system uses")
	case "full":
		return v.t("all of it")
	case "header":
		return v.t("its header alone: swap space is made anew")
	case images.MapNone:
		return v.t("not captured; left as it is")
	}
	return kind
}

// originOf finds where an image comes from: the job that captured it, else the event that tells.
func originOf(ctx context.Context, f *fleet.Fleet, d *api.ImageDetail) (o origin, err error) {
	ref := d.Manifest.Name + ":" + d.Manifest.Version
	o.Text = d.Manifest.Origin
	for _, j := range f.Jobs() {
		if j.Kind == job.Capture && j.Image == d.Digest && j.State == job.Succeeded {
			o.Job, o.Machine, o.MachineName, o.At = j.ID, j.Machine, j.MachineName, j.Ended
		}
	}
	list, err := f.Events(ctx, fleet.EventQuery{Kind: "image.", Before: 1<<63 - 1, Limit: 1000})
	if err != nil {
		return o, err
	}
	for _, e := range list {
		if (e.Kind == "image.added" || e.Kind == "image.captured") && slices.Contains(imageIn.FindAllString(e.Text, -1), ref) {
			o.At, o.By, o.Text = e.At, e.Actor, e.Text
			if o.Machine == "" && e.Machine != "" {
				o.Machine, o.Job = e.Machine, e.Job
				if m, err := f.Machine(e.Machine); err == nil {
					o.MachineName = m.Name
				}
			}
		}
	}
	return o, nil
}

// imageLive says what is done with the image, who holds it, and what it can be compared with. An image that is gone ends the page.
func imageLive(c *console, v *visit) (*live, error) {
	ref := v.PathValue("image")
	rows, err := c.recentRows(v.Context())
	if err != nil {
		return nil, err
	}
	row, there := rowOf(rows, ref)
	if !there {
		return nil, &fleet.Refusal{Code: fleet.CodeImageUnknown, Detail: "there is no image " + ref + " any more"}
	}
	list := make([]api.ImageListing, len(rows))
	for i, r := range rows {
		list[i] = r.ImageListing
	}
	now := c.imageNow(list, row.Name, row.Ref, row.Digest)
	l := &live{parts: []part{v.part("image", "held", "", "held", now), v.part("image", "taken", "", "taken", now), v.part("image", "compare", "", "compare", now)}}
	l.parts = append(l.parts, v.worksLive("image", c.workRows(v, row.Ref))...)
	return l, nil
}

// usageView is what an image takes, with shares of what it stores.
type usageView struct {
	*api.ImageUsage
	Own    float64
	Shared []sharedRow
}

type sharedRow struct {
	Image, URL string
	Stored     int64
	Part       float64
}

// imageUsage says what an image takes and shares.
func imageUsage(c *console, v *visit) (*answer, error) {
	if err := c.noImages(); err != nil {
		return nil, err
	}
	u, err := c.Images.Usage(v.Context(), v.PathValue("image"))
	if err != nil {
		return nil, err
	}
	view := usageView{ImageUsage: u, Own: shareOf(u.Own, u.Stored)}
	for _, s := range u.Shared {
		view.Shared = append(view.Shared, sharedRow{s.Image, "/images/" + url.PathEscape(s.Image), s.Stored, shareOf(s.Stored, u.Stored)})
	}
	slices.SortFunc(view.Shared, func(a, b sharedRow) int {
		return cmp.Or(cmp.Compare(b.Stored, a.Stored), strings.Compare(a.Image, b.Image))
	})
	return show("image", "usage", view), nil
}

// shareOf is a share of 0 to 1.
func shareOf(n, of int64) float64 {
	if of <= 0 {
		return 0
	}
	return float64(n) / float64(of)
}

// diffView is what a machine with one image fetches for another.
type diffView struct {
	*api.ImageDiff
	Sum  api.PartitionDiff
	Rows []diffRow
}

type diffRow struct {
	api.PartitionDiff
	Part float64
}

// imageDiff says what changed between another image and this one.
func imageDiff(c *console, v *visit) (*answer, error) {
	if err := c.noImages(); err != nil {
		return nil, err
	}
	from := strings.TrimSpace(v.URL.Query().Get("from"))
	if from == "" {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: text("choose the image that this one is compared with")}
	}
	d, err := c.Images.Diff(v.Context(), from, v.PathValue("image"))
	if err != nil {
		return nil, err
	}
	view := diffView{ImageDiff: d}
	for _, p := range d.Partitions {
		view.Rows = append(view.Rows, diffRow{p, shareOf(p.Tiles, p.Total)})
		s := &view.Sum
		s.Tiles, s.Total, s.Length, s.Encoded, s.ZeroTiles = s.Tiles+p.Tiles, s.Total+p.Total, s.Length+p.Length, s.Encoded+p.Encoded, s.ZeroTiles+p.ZeroTiles
	}
	return show("image", "diff", view), nil
}

// Part is the share of all tiles that differs.
func (d diffView) Part() float64 { return shareOf(d.Sum.Tiles, d.Sum.Total) }

// exportDisk streams a disk with the image, as it is or compressed.
func exportDisk(c *console, v *visit) (*answer, error) {
	if err := c.noImages(); err != nil {
		return nil, err
	}
	d, err := c.Images.Show(v.Context(), v.PathValue("image"))
	if err != nil {
		return nil, err
	}
	var out interface {
		api.DiskOutput
		Finish() error
		Begun() bool
	}
	name := d.Manifest.Name + "-" + d.Manifest.Version
	switch format := v.FormValue("format"); format {
	case "":
		out = &rawDisk{w: v.w, name: name + ".raw"}
	case "zstd":
		out = &api.PackedDisk{Response: v.w, Name: name + packed.Suffix}
	default:
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: text("a disk is exported as it is, or as zstd")}
	}
	if err = c.Images.Export(v.Context(), v.PathValue("image"), 0, out); err == nil {
		err = out.Finish()
	}
	if err == nil || !out.Begun() {
		return nil, err
	}
	if v.Context().Err() == nil {
		c.Log.Warn("export not finished", "image", v.PathValue("image"), "err", err)
	}
	panic(http.ErrAbortHandler) // the browser shows that the download broke
}

// rawDisk implements api.DiskOutput over HTTP: the bytes of the disk as they are.
type rawDisk struct {
	to     restore.Sequential
	w      http.ResponseWriter
	name   string
	length int64
	begun  bool
}

func (d *rawDisk) Begin(length, _ int64) error {
	d.to.W, d.length, d.begun = d.w, length, true
	h := d.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	h.Set("Content-Disposition", `attachment; filename="`+d.name+`"`)
	return nil
}

func (d *rawDisk) Write(offset int64, b []byte) error { return d.to.Write(offset, b) }
func (d *rawDisk) Finish() error                      { return d.to.Finish(d.length) }
func (d *rawDisk) Begun() bool                        { return d.begun }

// removeDialog asks whether a version is to be removed.
func removeDialog(c *console, v *visit) (*answer, error) {
	if err := c.noImages(); err != nil {
		return nil, err
	}
	ref := v.PathValue("image")
	count := 0
	if d, err := c.Images.Show(v.Context(), ref); err == nil { // a damaged one can be removed too
		for _, m := range c.Fleet.Machines() {
			if m.Deployed != nil && m.Deployed.Image == d.Digest {
				count++
			}
		}
	} else if refusal, ok := errors.AsType[*fleet.Refusal](err); ok && refusal.Code == fleet.CodeImageUnknown {
		return nil, err
	}
	return show("image", "remove", map[string]any{"Ref": ref, "Path": "/images/" + url.PathEscape(ref), "Machines": count}), nil
}

// removeImage makes a version exist no more.
func removeImage(c *console, v *visit) (*answer, error) {
	if err := c.noImages(); err != nil {
		return nil, err
	}
	ref := v.PathValue("image")
	if v.FormValue("name") != ref {
		return nil, &fleet.Refusal{Code: fleet.CodeUnconfirmed, Detail: v.t("type %s to confirm that it is removed", ref)}
	}
	if err := c.Images.Remove(v.Context(), ref); err != nil {
		return nil, err
	}
	if err := c.Fleet.Note(context.WithoutCancel(v.Context()), "image.removed", "image "+ref+" was removed"); err != nil {
		return nil, err
	}
	return goTo("/images", v.t("Image %s is removed.", ref)), nil
}
