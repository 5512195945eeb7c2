package swarm

import (
	"net/netip"
	"time"

	"seedbed/images/announce"
)

// book holds the addresses of peers and says when to dial which. It knows no sockets and no clock. Owned by one
// goroutine.
type book struct {
	timing  timing
	entries map[netip.AddrPort]*entry
	closed  bool // no address is added but by replace
}

// entry is one address.
type entry struct {
	seed bool // never forgotten
	// busy says that it is being dialled, linked, or ourselves.
	busy     bool
	failures int
	next     time.Time // not dialled before
}

// Bounds of the book: addresses in all, and failures in a row after which one is forgotten (10 minutes of them).
const (
	maxAddresses = 4096
	maxFailures  = 60
)

func newBook(t timing) *book { return &book{timing: t, entries: map[netip.AddrPort]*entry{}} }

// add makes an address known. What is known already keeps its place.
func (b *book) add(a netip.AddrPort, seed bool) {
	if !a.IsValid() || a.Port() == 0 || a.Addr().IsUnspecified() {
		return
	}
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	if e := b.entries[a]; e != nil {
		e.seed = e.seed || seed
		return
	}
	if len(b.entries) < maxAddresses && !b.closed {
		b.entries[a] = &entry{seed: seed}
	}
}

// replace makes these the only addresses. Appliances and seed nodes are never forgotten.
func (b *book) replace(peers map[netip.AddrPort]announce.Role) {
	b.closed = false
	for a := range b.entries {
		if _, stays := peers[a]; !stays {
			delete(b.entries, a)
		}
	}
	for a, role := range peers {
		seed := role == announce.Appliance || role == announce.SeedNode
		if b.add(a, seed); b.entries[a] != nil {
			b.entries[a].seed = seed
		}
	}
	b.closed = true
}

// reopen lets addresses be added again, and begins with seeds.
func (b *book) reopen(seeds []netip.AddrPort) {
	b.closed = false
	for _, a := range seeds {
		b.add(a, true)
	}
}

// due returns addresses to dial now and marks them busy: every seed, and others as long as there are fewer than n.
func (b *book) due(now time.Time, n int) (list []netip.AddrPort) {
	for _, seed := range []bool{true, false} {
		for a, e := range b.entries {
			if e.seed == seed && !e.busy && !now.Before(e.next) && (seed || len(list) < n) {
				e.busy = true
				list = append(list, a)
			}
		}
	}
	return list
}

// linked says that there is a link to the address, whoever began it.
func (b *book) linked(a netip.AddrPort) {
	b.add(a, false)
	if e := b.entries[a]; e != nil {
		e.busy, e.failures = true, 0
	}
}

// self says that the address is our own.
func (b *book) self(a netip.AddrPort) {
	if e := b.entries[a]; e != nil {
		e.busy = true
	}
}

// freed says that dialling failed or the link is gone: it is dialled again, later with each failure in a row. An
// address that is not in the book, as the zero value, is left alone.
func (b *book) freed(a netip.AddrPort, now time.Time) {
	e := b.entries[a]
	if e == nil {
		return
	}
	if e.failures++; e.failures > maxFailures && !e.seed {
		delete(b.entries, a)
		return
	}
	limit := b.timing.peerMax
	if e.seed {
		limit = b.timing.seedMax
	}
	wait := b.timing.backoff << min(e.failures-1, 10)
	e.busy, e.next = false, now.Add(min(wait, limit))
}
