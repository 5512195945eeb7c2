package fsmap

import (
	"fmt"
	"io"
	"slices"

	"seedbed/images"
)

// lvmGroup is a volume group on one physical volume. Positions are in bytes of the partition.
type lvmGroup struct {
	v             *volume
	name          string
	physical      string // name of the physical volume in the text
	start         int64  // of the first physical extent
	extent, count int64  // length of an extent, how many there are
	volumes       map[string]*lvmVolume
	order         []string
}

// end is the first byte behind the last physical extent.
func (g *lvmGroup) end() int64 { return g.start + g.count*g.extent }

// lvmVolume is a logical volume: an io.ReaderAt of what its parts hold, one after the other.
type lvmVolume struct {
	v      *volume
	linear bool            // all of it is in parts, in order
	hidden bool            // of use to other volumes alone
	parts  []images.Extent // of the partition
	starts []int64         // where each part begins within the volume
	length int64
}

// ReadAt implements io.ReaderAt. It is safe for concurrent use if the partition's is.
func (l *lvmVolume) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d", off)
	}
	done := 0
	for done < len(p) && off < l.length {
		i, exact := slices.BinarySearch(l.starts, off)
		if !exact {
			i--
		}
		within := off - l.starts[i]
		n := min(l.parts[i].Length-within, int64(len(p)-done))
		k, err := l.v.r.ReadAt(p[done:done+int(n)], l.parts[i].Offset+within)
		done, off = done+k, off+int64(k)
		if int64(k) < n {
			return done, err
		}
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// toPartition returns where the ranges of the volume lie on the partition.
func (l *lvmVolume) toPartition(list []images.Extent) (out []images.Extent) {
	i := 0
	for _, e := range list {
		for ; i < len(l.parts); i++ {
			here := images.Extent{Offset: l.starts[i], Length: l.parts[i].Length}
			if x := e.Intersect(here); x.Length > 0 {
				out = append(out, images.Extent{Offset: l.parts[i].Offset + x.Offset - here.Offset, Length: x.Length})
			}
			if here.End() > e.End() {
				break // the next range may begin in this part too
			}
		}
	}
	return out
}

// scanVolume returns what is in use in one volume.
func (g *lvmGroup) scanVolume(name string) ([]images.Extent, error) {
	l := g.volumes[name]
	full := func(why string) ([]images.Extent, error) {
		if o := g.v.options; o.RefuseOpaque && !o.Full {
			return nil, fmt.Errorf("LV %s/%s: %w: %s", g.name, name, ErrOpaque, why)
		}
		g.v.warnings = append(g.v.warnings, fmt.Sprintf("LV %s/%s: %s", g.name, name, why))
		return l.parts, nil
	}
	switch {
	case l.hidden: // those that it belongs to say why
		return l.parts, nil
	case !l.linear:
		return full("it is not linear: every byte of its parts is copied")
	case l.length == 0:
		return nil, nil
	}
	r, err := g.v.scanWithin(l, l.length, g.v.options)
	if err != nil {
		return nil, fmt.Errorf("LV %s/%s: %w", g.name, name, err)
	}
	for _, d := range r.Dropped {
		g.v.dropped = append(g.v.dropped, Dropped{Name: fmt.Sprintf("%s of LV %s/%s", d.Name, g.name, name), Length: d.Length})
	}
	if r.Warning != "" {
		return full(r.Warning) // refused above if that was asked for
	}
	return l.toPartition(r.Used), nil
}
