package tracker

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"seedbed/images/announce"
)

// sourcesWait is how long a request for sources waits for its turn; it is to be made again then.
const sourcesWait = 10 * time.Second

// sources answers one request for sources, see announce.SourcesPath.
func (t *Tracker) sources(r *http.Request) (announce.Response, *refusal) {
	q, err := announce.ParseSourcesRequest(r.URL.RawQuery)
	from, refused := admit(r, err, q.InfoHash, false)
	if refused != nil {
		return announce.Response{}, refused
	}
	return t.source(r.Context(), netip.AddrPortFrom(from, q.Port), identityOf(r), q), nil
}

// source returns whom a machine is to fetch from, and waits until there is somebody.
func (t *Tracker) source(ctx context.Context, a netip.AddrPort, i identity, q announce.SourcesRequest) announce.Response {
	key, who, began := i.machine, t.who(i, a.Addr()), time.Now()
	if key == "" {
		key = i.certificate
	}
	ask := func() (one *asker, list []netip.AddrPort, wait bool) {
		t.mu.Lock()
		defer t.mu.Unlock()
		s := t.swarm(q.InfoHash)
		switch {
		case s == nil || s.desk == nil:
			return nil, nil, false
		case q.Held:
			s.desk.held(key, a, who, time.Now())
			return nil, nil, false
		}
		if one = s.desk.asker(key, who, q.Length, time.Now()); one == nil {
			return nil, nil, false
		}
		list, wait = s.desk.ask(one, q.Failed, time.Now())
		q.Failed = nil
		return one, list, wait
	}
	for {
		one, list, wait := ask()
		if !wait {
			return announce.Response{Peers: list}
		}
		if time.Since(began) > sourcesWait {
			return announce.Response{Interval: time.Second}
		}
		look := time.NewTimer(waitsForInside)
		select {
		case list = <-one.ready:
			look.Stop()
			return announce.Response{Peers: list}
		case <-look.C:
		case <-ctx.Done():
			look.Stop()
			t.giveUp(q.InfoHash, one)
			return announce.Response{}
		}
	}
}

// giveUp forgets one who asked and went away.
func (t *Tracker) giveUp(wire [20]byte, one *asker) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.swarms[wire]; s != nil && s.desk != nil && s.desk.askers[one.key] == one {
		s.desk.forget(one, time.Now())
	}
}
