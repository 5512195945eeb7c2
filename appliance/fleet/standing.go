package fleet

import (
	"context"
	"slices"

	"seedbed/appliance/job"
	"seedbed/images"
)

// Standing is what all seed nodes are to do, whatever is deployed. There is one.
type Standing struct {
	Version int64 `json:"version"`
	// Warm are the images to be held, the one ordered last at the end; Drop those of which nothing is to be kept.
	Warm []job.NodeTask  `json:"warm,omitempty"`
	Drop []images.Digest `json:"drop,omitempty"`
}

var standingKey = Key{KindStanding, "site"}

func (s *Standing) Ref() Key     { return standingKey }
func (s *Standing) Row() *int64  { return &s.Version }
func (s *Standing) Shelf() Shelf { return Shelf{} }
func (s *Standing) copy() Record {
	own := *s
	own.Warm, own.Drop = slices.Clone(s.Warm), slices.Clone(s.Drop)
	return &own
}

// standing returns what seed nodes are to do. The caller holds mu, or writing.
func (s *records) standing() *Standing {
	if have, ok := s.others[standingKey]; ok {
		return have.(*Standing)
	}
	return new(Standing)
}

// editStanding returns the draft's own record of what seed nodes are to do.
func (d *draft) editStanding() *Standing {
	if have := lookup[*Standing](d, KindStanding, standingKey.ID); have != nil {
		return edit(d, have)
	}
	own := new(Standing)
	d.add(own)
	return own
}

// warm has an image held.
func (s *Standing) warm(t job.NodeTask) {
	s.forget(t.Image)
	s.Warm = append(s.Warm, t)
	s.Warm = s.Warm[max(0, len(s.Warm)-maxWarmed):]
}

// drop has nothing kept of an image.
func (s *Standing) drop(d images.Digest) {
	s.forget(d)
	s.Drop = append(s.Drop, d)
	s.Drop = s.Drop[max(0, len(s.Drop)-maxWarmed):]
}

func (s *Standing) forget(d images.Digest) {
	s.Warm = slices.DeleteFunc(s.Warm, func(t job.NodeTask) bool { return t.Image == d })
	s.Drop = slices.DeleteFunc(s.Drop, func(o images.Digest) bool { return o == d })
}

// tidyStanding has what is deployed again kept afterwards, though it was dropped before.
func (f *Fleet) tidyStanding(ctx context.Context) error {
	f.mu.RLock()
	drop := f.state.standing().Drop
	var again []images.Digest
	if len(drop) > 0 {
		for _, t := range f.deployed(nil) {
			if slices.Contains(drop, t.Image) {
				again = append(again, t.Image)
			}
		}
	}
	f.mu.RUnlock()
	if len(again) == 0 {
		return nil
	}
	return f.schedule(ctx, func(d *draft) error {
		own := d.editStanding()
		own.Drop = slices.DeleteFunc(own.Drop, func(o images.Digest) bool { return slices.Contains(again, o) })
		return nil
	})
}
