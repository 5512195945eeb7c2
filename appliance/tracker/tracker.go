// Package tracker tells the machines of a swarm of each other: the announce service of BEP 3 over mutual TLS. A machine
// may announce to the swarm that its certificate names and to no other; to an open swarm anybody may, over plain HTTP.
package tracker

import (
	"crypto/x509"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"seedbed/images"
	"seedbed/images/announce"
	"seedbed/images/swarm"
)

// Config of a tracker; the zero value is usable.
type Config struct {
	// Interval is how often machines are asked to announce; zero means 15 s. A machine that was not heard of for three
	// intervals is forgotten.
	Interval time.Duration
	// Want is how many addresses a machine gets at most; zero means 60.
	Want int
	// Log is told of machines that come and go (Debug) and of those refused (Warn); nil discards.
	Log *slog.Logger
}

// Bounds of what a tracker keeps: swarms, and machines in one. What is beyond finds no place until others expire.
const (
	maxSwarms   = 4096
	maxMachines = 10000
	expiry      = 3 // intervals
)

// Tracker is an http.Handler for the path of announces. Safe for concurrent use.
type Tracker struct {
	cfg Config

	mu     sync.Mutex // guards what follows and all in it
	swarms map[[20]byte]*swarmPeers
	open   map[[20]byte][20]byte // names of open swarms, v1 and v2 -> the one in swarms; see Open
}

// swarmPeers are the peers of one swarm.
type swarmPeers struct {
	seeds    []netip.AddrPort // the appliances' seeders; they do not announce
	machines map[netip.AddrPort]machine
	open     bool
}

// machine is one that announced.
type machine struct {
	id   [20]byte
	left int64
	seen time.Time
}

// New returns a tracker that knows nobody.
func New(cfg Config) *Tracker {
	if cfg.Interval <= 0 {
		cfg.Interval = 15 * time.Second
	}
	if cfg.Want <= 0 {
		cfg.Want = 60
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Tracker{cfg: cfg, swarms: map[[20]byte]*swarmPeers{}, open: map[[20]byte][20]byte{}}
}

// AddSeed makes an appliance's seeder known to everyone who announces to the swarm.
func (t *Tracker) AddSeed(h images.InfoHash, a netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.swarm(h.Wire()); s != nil && !slices.Contains(s.seeds, a) {
		s.seeds = append(s.seeds, a)
	}
}

// RemoveSeed takes back AddSeed.
func (t *Tracker) RemoveSeed(h images.InfoHash, a netip.AddrPort) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.swarms[h.Wire()]; s != nil {
		s.seeds = slices.DeleteFunc(s.seeds, func(b netip.AddrPort) bool { return a == b })
	}
}

// Machines counts the machines of a swarm: those that hold everything, and those that lack something.
func (t *Tracker) Machines(h images.InfoHash) (complete, lacking int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.swarms[h.Wire()]; s != nil {
		t.expire(s)
		return s.count()
	}
	return 0, 0
}

// Peers returns the addresses of the machines of a swarm.
func (t *Tracker) Peers(h images.InfoHash) []netip.AddrPort {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.swarms[h.Wire()]
	if s == nil {
		return nil
	}
	t.expire(s)
	return slices.Collect(maps.Keys(s.machines))
}

// swarm returns a swarm, made where it is unknown; nil when there are too many. The caller holds mu.
func (t *Tracker) swarm(wire [20]byte) *swarmPeers {
	s := t.swarms[wire]
	if s != nil {
		return s
	}
	if len(t.swarms) >= maxSwarms {
		for w, old := range t.swarms {
			if t.expire(old); len(old.machines)+len(old.seeds) == 0 {
				delete(t.swarms, w)
			}
		}
		if len(t.swarms) >= maxSwarms {
			return nil
		}
	}
	s = &swarmPeers{machines: map[netip.AddrPort]machine{}}
	t.swarms[wire] = s
	return s
}

// expire forgets machines that were silent for long.
func (t *Tracker) expire(s *swarmPeers) {
	limit := time.Now().Add(-expiry * t.cfg.Interval)
	if s.open {
		limit = time.Now().Add(-openExpiry)
	}
	maps.DeleteFunc(s.machines, func(_ netip.AddrPort, m machine) bool { return m.seen.Before(limit) })
}

func (s *swarmPeers) count() (complete, lacking int) {
	for _, m := range s.machines {
		if m.left == 0 {
			complete++
		} else {
			lacking++
		}
	}
	return complete, lacking
}

// ServeHTTP answers one announce. The server has verified the client's certificate, where one was given, against the
// site's CA (tls.VerifyClientCertIfGiven or stricter).
func (t *Tracker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, answer := t.answer(r)
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(status)
	w.Write(answer.Encode())
}

func (t *Tracker) answer(r *http.Request) (int, announce.Response) {
	fail := func(status int, sentence string) (int, announce.Response) {
		if r.TLS == nil { // anybody; and BEP 3 knows no other status
			t.cfg.Log.Debug("announce refused", "peer", r.RemoteAddr, "err", sentence)
			return http.StatusOK, announce.Response{Failure: sentence}
		}
		t.cfg.Log.Warn("announce refused", "peer", r.RemoteAddr, "err", sentence)
		return status, announce.Response{Failure: sentence}
	}
	if r.Method != http.MethodGet {
		return fail(http.StatusMethodNotAllowed, "an announce is a GET request")
	}
	request, err := announce.ParseRequest(r.URL.RawQuery)
	if err != nil {
		return fail(http.StatusBadRequest, err.Error())
	}
	switch name, open := t.openName(request.InfoHash); {
	case open:
		request.InfoHash = name
	case r.TLS == nil:
		return fail(http.StatusForbidden, "no open swarm has this infohash here")
	case len(r.TLS.VerifiedChains) == 0:
		return fail(http.StatusForbidden, "an announce needs the job's certificate")
	case !invited(r.TLS.VerifiedChains[0][0], request.InfoHash):
		return fail(http.StatusForbidden, "the certificate does not name this swarm")
	}
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return fail(http.StatusBadRequest, "the connection has no address")
	}
	address := netip.AddrPortFrom(remote.Addr().Unmap().WithZone(""), request.Port)
	answer, ok := t.note(address, request, time.Now())
	if !ok {
		return fail(http.StatusServiceUnavailable, "the tracker is full; try again later")
	}
	t.cfg.Log.Debug("announce", "peer", address, "event", string(request.Event), "left", request.Left, "told", len(answer.Peers))
	return http.StatusOK, answer
}

// invited reports whether the certificate names the swarm of which the announce gives the first 20 bytes.
func invited(c *x509.Certificate, wire [20]byte) bool {
	for _, u := range c.URIs {
		if hex, ok := strings.CutPrefix(u.String(), swarm.URIInfoHash); ok {
			if h, err := images.ParseInfoHash(hex); err == nil && h.Wire() == wire {
				return true
			}
		}
	}
	return false
}

// note keeps what a machine announced and chooses the peers to tell it: every seeder, and machines at random; to one
// that holds everything only those that lack something. ok is false when the tracker is full.
func (t *Tracker) note(a netip.AddrPort, r announce.Request, now time.Time) (answer announce.Response, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.swarm(r.InfoHash)
	if s == nil {
		return answer, false
	}
	t.expire(s)
	// A machine that booted again announces under a new ID: its old self is gone, whatever port it had.
	maps.DeleteFunc(s.machines, func(b netip.AddrPort, m machine) bool {
		return b == a || (m.id == r.PeerID && b.Addr() == a.Addr())
	})
	answer.Interval, answer.Dictionary = t.cfg.Interval, r.Dictionary
	if r.Event == announce.Stopped {
		answer.Seeds, answer.Leechers = s.count()
		return answer, true
	}
	if len(s.machines) >= maxMachines {
		return answer, false
	}
	for b, m := range s.machines {
		if r.Left > 0 || m.left > 0 {
			answer.Peers = append(answer.Peers, b)
		}
	}
	rand.Shuffle(len(answer.Peers), func(i, j int) {
		answer.Peers[i], answer.Peers[j] = answer.Peers[j], answer.Peers[i]
	})
	if want := t.cfg.Want; len(answer.Peers) > want {
		answer.Peers = answer.Peers[:want]
	}
	answer.Peers = append(slices.Clone(s.seeds), answer.Peers...)
	if r.Dictionary {
		answer.IDs = s.ids(answer.Peers)
	}
	s.machines[a] = machine{id: r.PeerID, left: r.Left, seen: now}
	answer.Seeds, answer.Leechers = s.count()
	answer.Seeds += len(s.seeds)
	return answer, true
}
