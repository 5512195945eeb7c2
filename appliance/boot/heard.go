package boot

import (
	"net/netip"
	"time"
)

// Heard is a DHCP exchange that an appliance heard, as it tells the others of its site. A machine may fetch its script and its
// token from any of them, and behind a relay that knows one appliance only that one heard it.
type Heard struct {
	MAC  string     `json:"mac"`
	Addr netip.Addr `json:"addr"`
	// Ago is how long ago its last packet came; Scripted how long ago its script was fetched, below 0 where none was.
	Ago      time.Duration `json:"ago"`
	Scripted time.Duration `json:"scripted"`
}

// maxHeard bounds what is told: a room that boots at once.
const maxHeard = 2000

// Heard returns the exchanges by which machines may fetch a token now, at most maxHeard.
func (s *Server) Heard() (list []Heard) {
	now := s.cfg.Now()
	s.tracks.mu.Lock()
	defer s.tracks.mu.Unlock()
	for mac, k := range s.tracks.byMAC {
		if len(list) == maxHeard {
			break
		}
		if k.learnt || !k.addr.IsValid() || now.Sub(k.seen) > ExchangeTimeout && now.Sub(k.scripted) > scriptTimeout {
			continue
		}
		h := Heard{MAC: mac.String(), Addr: k.addr, Ago: now.Sub(k.seen), Scripted: -1}
		if !k.scripted.IsZero() {
			h.Scripted = now.Sub(k.scripted)
		}
		list = append(list, h)
	}
	return list
}

// Learn takes over what another appliance heard a moment ago. What was heard here since counts more.
func (s *Server) Learn(list []Heard) {
	now := s.cfg.Now()
	for _, h := range list[:min(len(list), maxHeard)] {
		mac, err := ParseMAC(h.MAC)
		if err != nil || !h.Addr.Is4() || h.Ago < 0 || h.Ago > scriptTimeout {
			continue
		}
		s.tracks.with(mac, func(k *track) {
			seen := now.Add(-h.Ago)
			if !seen.After(k.seen) && !(k.learnt && k.addr == h.Addr) {
				return
			}
			if k.addr != h.Addr {
				k.token = nil
			}
			k.seen, k.learnt = seen, true
			if h.Scripted >= 0 {
				k.scripted = now.Add(-h.Scripted)
			}
			s.tracks.address(k, h.Addr)
		})
	}
}
