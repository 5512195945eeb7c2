// Package tracker tells the machines of a swarm of each other: the announce service of BEP 3 over mutual TLS. A machine
// may announce to the swarm that its certificate names and to no other; to an open swarm anybody may, over plain HTTP.
package tracker

import (
	"crypto/sha256"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/announce"
	"seedbed/images/schedule"
	"seedbed/images/swarm"
)

// Config of a tracker; the zero value is usable.
type Config struct {
	// Interval is how often machines are asked to announce; zero means 15 s. While neighbours come and go it is a third, in a
	// small swarm a second at first.
	// A machine that was not heard of for three of the intervals that it was told is forgotten.
	Interval time.Duration
	// Want is how many addresses a peer of an open swarm gets at most; zero means 60.
	Want int
	// Policy says who may be linked with whom; nil is one group. See SetPolicy.
	Policy *schedule.Policy
	// Names returns the names by which a policy may know the machine with this ID, which is among them; nil means only
	// the ID. It must not call the tracker.
	Names func(machine string) []string
	// Log is told of machines that come and go (Debug) and of those refused (Warn); nil discards.
	Log *slog.Logger
}

// Bounds of what a tracker keeps: swarms, and machines in one. What is beyond finds no place until others expire.
const (
	maxSwarms   = 4096
	maxMachines = 10000
	expiry      = 3 // intervals
	// maxOpenOfOne are the peers of an open swarm at one address, of IPv6 in one network, that others are told of: anybody may announce
	// there, by any port. More, as of a room behind one router, are told of the seeders and of others all the same.
	maxOpenOfOne = 64
)

// Tracker is an http.Handler for the path of announces. Safe for concurrent use.
type Tracker struct {
	cfg Config

	mu     sync.Mutex // guards what follows and all in it
	swarms map[[20]byte]*swarmPeers
	open   map[[20]byte]openName // by every name of an open swarm; see Open
}

// New returns a tracker that knows nobody.
func New(cfg Config) *Tracker {
	if cfg.Interval <= 0 {
		cfg.Interval = 15 * time.Second
	}
	if cfg.Want <= 0 {
		cfg.Want = 60
	}
	if cfg.Policy == nil {
		cfg.Policy = schedule.NoPolicy()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Tracker{cfg: cfg, swarms: map[[20]byte]*swarmPeers{}, open: map[[20]byte]openName{}}
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
		s.expire(time.Now())
		return s.complete, len(s.machines) - s.complete
	}
	return 0, 0
}

// Peers returns the addresses of the machines of a swarm that may be linked with the appliance.
func (t *Tracker) Peers(h images.InfoHash) []netip.AddrPort {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.swarms[h.Wire()]
	if s == nil {
		return nil
	}
	s.expire(time.Now())
	list := make([]netip.AddrPort, 0, len(s.machines))
	for a, m := range s.machines {
		if t.cfg.Policy.MayLinkAppliance(m.who) {
			list = append(list, a)
		}
	}
	return list
}

// swarm returns a swarm, made where it is unknown; nil when there are too many. The caller holds mu.
func (t *Tracker) swarm(wire [20]byte) *swarmPeers {
	s := t.swarms[wire]
	if s != nil {
		return s
	}
	if len(t.swarms) >= maxSwarms {
		for w, old := range t.swarms {
			if old.expire(time.Now()); len(old.machines)+len(old.seeds) == 0 {
				delete(t.swarms, w)
			}
		}
		if len(t.swarms) >= maxSwarms {
			return nil
		}
	}
	s = newSwarmPeers(t.cfg.Policy)
	t.swarms[wire] = s
	return s
}

// refusal says why somebody gets no answer.
type refusal struct {
	status   int    // of HTTP
	sentence string // for the peer
}

// ServeHTTP answers one announce, or one request for sources. The server has verified the client's certificate, where one was
// given, against the site's CA (tls.VerifyClientCertIfGiven or stricter).
func (t *Tracker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	what, answering := "announce", t.answer
	if strings.HasSuffix(r.URL.Path, announce.SourcesPath) {
		what, answering = "request for sources", t.sources
	}
	status := http.StatusOK
	answer, refused := answering(r)
	if refused != nil {
		answer = announce.Response{Failure: refused.sentence}
		level := slog.LevelDebug
		if r.TLS != nil { // else it is anybody; and BEP 3 knows no other status
			level, status = slog.LevelWarn, refused.status
		}
		t.cfg.Log.Log(r.Context(), level, what+" refused", "peer", r.RemoteAddr, "err", refused.sentence)
	}
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(status)
	w.Write(answer.Encode())
}

func (t *Tracker) answer(r *http.Request) (announce.Response, *refusal) {
	request, err := announce.ParseRequest(r.URL.RawQuery)
	name, open := t.openName(request.InfoHash)
	if open {
		request.InfoHash = name.swarm
	}
	from, refused := admit(r, err, request.InfoHash, open)
	if refused != nil {
		return announce.Response{}, refused
	}
	address := netip.AddrPortFrom(from, request.Port)
	who := identityOf(r)
	who.plain = name.plain
	answer, ok := t.note(address, who, request, time.Now())
	if !ok {
		return announce.Response{}, &refusal{http.StatusServiceUnavailable, "the tracker is full; try again later"}
	}
	t.cfg.Log.Debug("announce", "peer", address, "event", string(request.Event), "left", request.Left, "told", len(answer.Peers))
	return answer, nil
}

// admit returns the address of who asks about a swarm, or why it is told nothing. unread is the error of its query.
func admit(r *http.Request, unread error, wire [20]byte, open bool) (from netip.Addr, refused *refusal) {
	switch {
	case r.Method != http.MethodGet:
		return from, &refusal{http.StatusMethodNotAllowed, "a tracker is asked with GET"}
	case unread != nil:
		return from, &refusal{http.StatusBadRequest, unread.Error()}
	case open:
	case r.TLS == nil:
		return from, &refusal{http.StatusForbidden, "no open swarm has this infohash here"}
	case len(r.TLS.VerifiedChains) == 0:
		return from, &refusal{http.StatusForbidden, "this needs the job's certificate"}
	case !invited(r.TLS.VerifiedChains[0][0], wire):
		return from, &refusal{http.StatusForbidden, "the certificate does not name this swarm"}
	}
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return from, &refusal{http.StatusBadRequest, "the connection has no address"}
	}
	return bare(remote.Addr()), nil
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

// identity is what the certificate of who announces says of it; the zero value is that of a peer without one.
type identity struct {
	machine string // ID, "" for others than machines
	part    bool   // it takes a part of the content only
	kept    string // which part: what it keeps of its disk; "" is not known
	seed    bool   // a seed node
	plain   bool   // it came under an open swarm's plain v1 name

	certificate string // SHA-256 of its DER
}

func identityOf(r *http.Request) (i identity) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return i
	}
	leaf := r.TLS.VerifiedChains[0][0]
	sum := sha256.Sum256(leaf.Raw)
	i.certificate = string(sum[:])
	for _, u := range leaf.URIs {
		name := u.String()
		if id, ok := strings.CutPrefix(name, job.URIMachine); ok {
			i.machine = id
		}
		i.part = i.part || name == swarm.URIRolePart
		if kept, ok := strings.CutPrefix(name, job.URIKept); ok {
			i.kept = kept
		}
		i.seed = i.seed || name == swarm.URIRoleSeed
	}
	return i
}

// who returns what a policy may want to know of a peer.
func (t *Tracker) who(i identity, a netip.Addr) schedule.Who {
	w := schedule.Who{Address: a, Part: i.part, Same: i.kept}
	switch {
	case i.machine == "":
	case t.cfg.Names == nil:
		w.Names = []string{i.machine}
	default:
		w.Names = t.cfg.Names(i.machine)
	}
	return w
}

// note keeps what a machine announced and returns its answer: the seeders and neighbours that the topology gives it. ok is
// false when the tracker is full.
func (t *Tracker) note(a netip.AddrPort, i identity, r announce.Request, now time.Time) (answer announce.Response, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.swarm(r.InfoHash)
	if s == nil {
		return answer, false
	}
	s.expire(now)
	answer.Interval, answer.Dictionary = t.cfg.Interval, r.Dictionary
	m := s.arrive(a, r.PeerID, now)
	if r.Event == announce.Stopped {
		if m != nil {
			s.remove(m, now)
		}
		answer.Seeds, answer.Leechers = s.complete, len(s.machines)-s.complete
		return answer, true
	}
	if m == nil {
		if len(s.machines) >= maxMachines {
			return answer, false
		}
		if s.open && s.at[networkOf(a.Addr())] >= maxOpenOfOne {
			t.answerOpen(s, &machine{address: a, id: r.PeerID, who: t.who(i, a.Addr()), plain: i.plain, left: r.Left}, &answer)
			answer.Seeds, answer.Leechers = s.complete+len(s.seeds), len(s.machines)-s.complete
			return answer, true
		}
		m = s.add(a, t.who(i, a.Addr()), i.seed, r, now)
	}
	m.plain = i.plain
	s.progress(m, r, t.cfg.Interval, now)
	if s.top == nil {
		t.answerOpen(s, m, &answer)
	} else {
		answer.Interval = s.answer(m, &answer, t.cfg.Interval, now)
	}
	m.expires = now.Add(expiry * max(answer.Interval, t.cfg.Interval/soon))
	if s.open {
		m.expires = now.Add(openExpiry)
	}
	answer.Seeds, answer.Leechers = s.complete+len(s.seeds), len(s.machines)-s.complete
	return answer, true
}
