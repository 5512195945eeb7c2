package fsmap

import (
	"cmp"
	"slices"

	"seedbed/images"
)

// lvmMaxVolumes bounds the logical volumes of a group, and the segments of each.
const lvmMaxVolumes = 1 << 16

// parseLVMGroup reads the volume group that the metadata text describes.
func parseLVMGroup(v *volume, text *lvmSection) (*lvmGroup, error) {
	if len(text.order) != 1 {
		return nil, unmapped("its metadata has %d volume groups", len(text.order))
	}
	g := &lvmGroup{v: v, name: text.order[0], volumes: map[string]*lvmVolume{}}
	s := text.sections[g.name]
	physical := s.section("physical_volumes")
	if n := len(physical.order); n != 1 {
		return nil, unmapped("volume group %s has %d physical volumes, and the system needs all of them", g.name, n)
	}
	g.physical = physical.order[0]
	pv := physical.sections[g.physical]
	g.extent, g.start, g.count = s.number("extent_size")*lvmSector, pv.number("pe_start")*lvmSector, pv.number("pe_count")
	if g.extent <= 0 || g.start < 0 || g.count < 0 || g.start > v.length || g.count > (v.length-g.start)/g.extent {
		return nil, unmapped("volume group %s says that it has %d extents of %d bytes from byte %d, its partition has %d", g.name, g.count, g.extent, g.start, v.length)
	}
	g.order = s.section("logical_volumes").order
	if len(g.order) > lvmMaxVolumes {
		return nil, unmapped("volume group %s has %d volumes", g.name, len(g.order))
	}
	for _, name := range g.order {
		l, err := g.parseVolume(name, s.section("logical_volumes").sections[name])
		if err != nil {
			return nil, err
		}
		g.volumes[name] = l
	}
	for _, name := range g.order {
		g.markParts(s.section("logical_volumes").sections[name])
	}
	return g, g.checkParts()
}

// parseVolume reads one logical volume.
func (g *lvmGroup) parseVolume(name string, s *lvmSection) (*lvmVolume, error) {
	l := &lvmVolume{v: g.v, linear: true, hidden: !slices.Contains(s.values["status"], any("VISIBLE"))}
	segments := slices.Clone(s.order)
	start := func(name string) int64 { return s.sections[name].number("start_extent") }
	slices.SortFunc(segments, func(a, b string) int { return cmp.Compare(start(a), start(b)) })
	if int64(len(segments)) != s.number("segment_count") || len(segments) > lvmMaxVolumes {
		return nil, unmapped("LV %s/%s has %d segments, not %d", g.name, name, len(segments), s.number("segment_count"))
	}
	next := int64(0)
	for _, segment := range segments {
		c := s.sections[segment]
		n := c.number("extent_count")
		if start(segment) != next || n < 1 {
			return nil, unmapped("segment at extent %d of LV %s/%s does not follow the last one", start(segment), g.name, name)
		}
		next += n
		if err := g.addSegment(l, name, c, n); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// addSegment enters the parts of a segment of n extents.
func (g *lvmGroup) addSegment(l *lvmVolume, name string, c *lvmSection, n int64) error {
	if kind := c.text("type"); kind != "striped" {
		l.linear = false
		for _, list := range c.values {
			if slices.Contains(list, any(g.physical)) {
				return unmapped("LV %s/%s is of type %s: what it takes is not known", g.name, name, kind)
			}
		}
		return nil // made of other volumes, which are in the list too
	}
	stripes, places := c.number("stripe_count"), c.values["stripes"]
	if stripes < 1 || n%stripes != 0 || int64(len(places)) != 2*stripes {
		return unmapped("LV %s/%s has %d stripes in %d extents", g.name, name, stripes, n)
	}
	if stripes > 1 {
		l.linear = false
	}
	for i := range stripes {
		at, ok := places[2*i+1].(int64)
		if places[2*i] != any(g.physical) {
			l.linear = false // on another volume
			continue
		}
		if !ok || at < 0 || n/stripes > g.count || at > g.count-n/stripes {
			return unmapped("LV %s/%s refers to extents [%v, +%d) of %d", g.name, name, places[2*i+1], n/stripes, g.count)
		}
		part := images.Extent{Offset: g.start + at*g.extent, Length: n / stripes * g.extent}
		l.parts, l.starts = append(l.parts, part), append(l.starts, l.length)
		l.length += part.Length
	}
	return nil
}

// markParts hides the volumes that a volume is made of, or that it has a snapshot of: they are not what they seem.
func (g *lvmGroup) markParts(s *lvmSection) {
	for _, c := range s.sections {
		for key, list := range c.values {
			for _, value := range list {
				name, _ := value.(string)
				if l := g.volumes[name]; l != nil && key != "type" && !(key == "stripes" && name == g.physical) {
					l.linear = false
				}
			}
		}
	}
}

// checkParts checks that no extent belongs to two volumes.
func (g *lvmGroup) checkParts() error {
	var all []images.Extent
	for _, l := range g.volumes {
		all = append(all, l.parts...)
	}
	slices.SortFunc(all, func(a, b images.Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	for i := 1; i < len(all); i++ {
		if all[i].Offset < all[i-1].End() {
			return unmapped("byte %d belongs to two logical volumes; check it with vgck", all[i].Offset)
		}
	}
	return nil
}
