package seed

import (
	"context"
	"fmt"
	"sync"

	"seedbed/images"
)

// description is what describes an image, in the repository. Safe for concurrent use.
type description struct {
	whole   func(ctx context.Context, d images.Digest) ([]byte, error) // checked
	part    func(ctx context.Context, d images.Digest, offset, length int64) ([]byte, error)
	objects map[images.Digest]*object
	total   int64

	mu   sync.Mutex // guards left
	left int64      // bytes that may still be kept in memory
}

// object is a map, a layer or a region of the frame.
type object struct {
	length int64

	mu    sync.Mutex // guards the rest; held while it is read from the repository, so that it is read once
	kept  bool
	bytes []byte
}

// keptDescription bounds what is kept in memory of one image, in bytes: more is read from the repository each time, unchecked,
// and compared with its digest by who gets it.
const keptDescription = 64 << 20

func (s *Seeders) describe(m *images.Manifest) *description {
	d := &description{whole: s.config.Layer, part: s.config.LayerRange, objects: map[images.Digest]*object{}, left: keptDescription}
	for _, r := range m.Layers() {
		if d.objects[r.Digest] == nil {
			d.objects[r.Digest] = &object{length: r.Length}
			d.total += r.Length
		}
	}
	return d
}

// Length implements relay.Objects.
func (d *description) Length(digest images.Digest) (int64, bool) {
	o := d.objects[digest]
	if o == nil {
		return 0, false
	}
	return o.length, true
}

// Total implements relay.Objects.
func (d *description) Total() int64 { return d.total }

// Read implements relay.Objects.
func (d *description) Read(ctx context.Context, digest images.Digest, offset, length int64) ([]byte, error) {
	o := d.objects[digest]
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.kept && !d.room(o.length) {
		return d.part(ctx, digest, offset, length)
	}
	if !o.kept {
		b, err := d.whole(ctx, digest)
		if err != nil {
			d.room(-o.length)
			return nil, err
		}
		o.bytes, o.kept = b, true
	}
	if int64(len(o.bytes)) < offset+length {
		return nil, fmt.Errorf("layer %s has %d bytes, want %d", digest.Short(), len(o.bytes), o.length)
	}
	return o.bytes[offset : offset+length], nil
}

// room takes so many bytes of what may be kept, if they are left.
func (d *description) room(n int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left < n {
		return false
	}
	d.left -= n
	return true
}
