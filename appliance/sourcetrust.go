package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/images"
	"seedbed/images/fsmap"
	"seedbed/images/intake"
	"seedbed/images/parttable"
	"seedbed/images/repository"
	"seedbed/images/source"
)

// sourceRecord says which image a source became. It lies in the spool: without it a source is read.
type sourceRecord struct {
	Files   []source.File `json:"files"`
	Options string        `json:"options"` // of the capture, as far as they change the content
	Face    images.Digest `json:"face"`    // over partition table and file systems' names
	Image   images.Digest `json:"image"`
}

// settledAfter is how old the last change of a file must be, so that one more change has another time on any file system
// (FAT counts in 2 s).
const settledAfter = 2 * time.Second

// newSourceRecord describes a source as it is now, and names the file of its record.
func (l *library) newSourceRecord(src *source.Source, o api.ImageOrder) (r sourceRecord, name string, err error) {
	r.Files = src.Files
	r.Options = fmt.Sprint(o.Partitions, o.Full, o.FullPartitions, o.KeepContents, o.RefuseEncrypted, src.SectorLength, o.PieceLength)
	text := r.Options
	for _, f := range r.Files {
		text += "\x00" + f.Path
	}
	if r.Face, err = face(src); err != nil {
		return r, "", err
	}
	return r, filepath.Join(l.data, "spool", "sources", images.Sum([]byte(text)).String()+".json"), nil
}

// face hashes what can be read of a source at once: its partition table and the names of its file systems.
func face(src *source.Source) (images.Digest, error) {
	table, err := parttable.Read(src, src.Length, src.SectorLength)
	if err != nil {
		return images.Digest{}, err
	}
	text := fmt.Appendf(nil, "%s %d %d\n", table.Kind, src.Length, src.SectorLength)
	for _, r := range table.Frame() {
		text = fmt.Appendf(text, "%s %d %v\n", r.Kind, r.Offset, images.Sum(r.Bytes))
	}
	for _, p := range table.Partitions {
		info, err := fsmap.Probe(io.NewSectionReader(src, p.Offset, p.Length), p.Length)
		if err != nil {
			return images.Digest{}, err
		}
		text = fmt.Appendf(text, "%d %d %d %q %q\n", p.Number, p.Offset, p.Length, info.FS, info.UUID)
	}
	return images.Sum(text), nil
}

// rememberSource notes which image a source that began to be read at some time became. Disks have no time of last change,
// and files that changed just before may change again without another time: of those nothing is noted.
func (l *library) rememberSource(src *source.Source, o api.ImageOrder, p *intake.Published, began time.Time) error {
	recent := func(f source.File) bool { return f.Time.After(began.Add(-settledAfter)) }
	if len(src.Files) == 0 || o.Live || slices.ContainsFunc(src.Files, recent) {
		return nil
	}
	r, name, err := l.newSourceRecord(src, o)
	if err != nil {
		return err
	}
	r.Image = p.Digest
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(name+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name) // a record that is lost or cut costs one reading
}

// addUnread makes a version with the content of the image that the source became before. Without one that is certain it
// returns no detail and why.
func (l *library) addUnread(ctx context.Context, src *source.Source, o api.ImageOrder, session *repository.Session) (d *api.ImageDetail, why string, err error) {
	if len(src.Files) == 0 {
		return nil, "", &fleet.Refusal{Code: fleet.CodeInvalid, Detail: "a disk does not say when it was last written, so that it cannot be trusted unread; leave --trust-source out"}
	}
	now, name, err := l.newSourceRecord(src, o)
	if err != nil {
		return nil, "", sourceRefusal(err)
	}
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, "there is no earlier image of it with the same options", nil
	}
	var was sourceRecord
	if err == nil {
		err = json.Unmarshal(b, &was)
	}
	if err != nil {
		return nil, fmt.Sprintf("the record of its earlier image cannot be read: %v", err), nil
	}
	if was.Options != now.Options || was.Face != now.Face || !slices.Equal(was.Files, now.Files) {
		return nil, "it changed since its earlier image", nil
	}
	image, err := l.image(ctx, was.Image.String())
	if err != nil {
		return nil, fmt.Sprintf("its earlier image is gone: %v", err), nil
	}
	spec, err := intake.SpecOf(image.Manifest, func(d images.Digest) ([]byte, error) { return l.Layer(ctx, d) })
	if err == nil {
		err = pin(ctx, session, spec)
	}
	if err != nil {
		return nil, fmt.Sprintf("its earlier image is not whole: %v", err), nil
	}
	from := image.Manifest.Name + ":" + image.Manifest.Version
	spec.Created, spec.Origin = time.Now().Unix(), "content of "+from+", source not read"
	if err := src.Unchanged(); err != nil {
		return nil, "", sourceRefusal(err)
	}
	published, err := session.Commit(ctx, spec)
	if err != nil {
		return nil, "", sourceRefusal(err)
	}
	if d, err = l.Show(ctx, published.Digest.String()); err != nil {
		return nil, "", err
	}
	d.Warnings = src.Warnings
	d.Added = unread(image.Manifest, src.Format, from)
	return d, "", nil
}

// unread describes what an image was made of without reading.
func unread(m *images.Manifest, format, from string) *api.Added {
	a := &api.Added{Format: format, From: from, UsedLength: m.UsedLength()}
	for i := range m.Partitions {
		a.DataLength += m.Partitions[i].DataTiles * images.TileLength
		a.ZeroLength += m.Partitions[i].ZeroTiles * images.TileLength
	}
	return a
}

// pin makes the session hold on to every tile of a description, or says that one is missing.
func pin(ctx context.Context, session intake.Sink, spec *intake.Spec) error {
	for i := range spec.Partitions {
		p := &spec.Partitions[i]
		keys, err := p.Keys()
		if err != nil {
			return err
		}
		for some := range slices.Chunk(keys, intake.MaxHave) {
			known, err := session.Have(ctx, some)
			if err != nil {
				return err
			}
			if slices.Contains(known, false) {
				return fmt.Errorf("partition %d: %w", p.Number, intake.ErrMissing)
			}
		}
	}
	return nil
}
