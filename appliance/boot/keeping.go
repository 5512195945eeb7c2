package boot

import (
	"slices"

	"seedbed/appliance/bootdoctor"
)

// ChangedBoots returns the boots of which something was seen since it was called last, whole, to be kept.
func (s *Server) ChangedBoots() (list []bootdoctor.Boot) {
	s.diary.mu.Lock()
	defer s.diary.mu.Unlock()
	for _, p := range s.diary.pages {
		if p.freshLast {
			list = append(list, copyOf(p.last))
		}
		if p.fresh {
			list = append(list, copyOf(p.now))
		}
		p.fresh, p.freshLast = false, false
	}
	return list
}

// UnkeptBoots has ChangedBoots return boots again that could not be kept.
func (s *Server) UnkeptBoots(list []bootdoctor.Boot) {
	s.diary.mu.Lock()
	defer s.diary.mu.Unlock()
	for i := range list {
		mac, err := ParseMAC(list[i].MAC)
		p := s.diary.pages[mac]
		if err != nil || p == nil {
			continue
		}
		p.fresh = p.fresh || p.now.Began.Equal(list[i].Began)
		p.freshLast = p.freshLast || p.last.Began.Equal(list[i].Began)
	}
}

// RestoreBoots takes up boots that an appliance saw before it was started anew: what follows of them goes on there. It is for the start,
// before anything is seen; boots of one machine come in any order.
func (s *Server) RestoreBoots(list []bootdoctor.Boot) {
	s.diary.mu.Lock()
	defer s.diary.mu.Unlock()
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b bootdoctor.Boot) int { return a.Began.Compare(b.Began) })
	for _, b := range list {
		mac, err := ParseMAC(b.MAC)
		if err != nil || len(b.Steps) == 0 || b.Began.IsZero() || len(s.diary.pages) >= maxDiaries && s.diary.pages[mac] == nil {
			continue
		}
		p := s.diary.of(mac)
		if len(p.now.Steps) > 0 {
			p.last = p.now
		}
		p.now, p.http = copyOf(b), b.HTTPBoot
		if len(p.now.Steps) > maxSteps {
			p.now.Steps = p.now.Steps[:maxSteps]
		}
	}
}

func copyOf(b bootdoctor.Boot) bootdoctor.Boot {
	b.Steps = slices.Clone(b.Steps)
	return b
}

// Boots returns the present and the last boot of a card as this appliance saw them, the present one first; nil where it saw none.
func (s *Server) Boots(mac string) (list []bootdoctor.Boot) {
	m, err := ParseMAC(mac)
	if err != nil {
		return nil
	}
	now, last := s.Steps(m)
	for _, b := range []bootdoctor.Boot{now, last} {
		if len(b.Steps) > 0 {
			list = append(list, b)
		}
	}
	return list
}
