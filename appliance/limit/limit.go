// Package limit bounds how often strangers may ask for something: a bucket of tokens for each address, in bounded memory.
package limit

import (
	"net/netip"
	"sync"
	"time"
)

// Config of a Limiter. Each address may ask Burst times at once and PerSecond times a second from then on; both are needed.
type Config struct {
	PerSecond float64
	Burst     int
	// Addresses bounds those that are remembered; 0 is 16,384, some 1.5 MB. Those beyond share one bucket.
	Addresses int
}

// Limiter is safe for concurrent use.
type Limiter struct {
	each  time.Duration // between two requests in the long run
	ahead time.Duration // how far a bucket may be behind
	most  int

	mu      sync.Mutex // guards what follows
	due     map[netip.Addr]time.Time
	swept   time.Time
	refused int64 // requests that had to wait
}

// New returns a limiter that knows nobody.
func New(c Config) *Limiter {
	if c.Addresses <= 0 {
		c.Addresses = 16384
	}
	each := time.Duration(float64(time.Second) / c.PerSecond)
	return &Limiter{each: each, ahead: each * time.Duration(max(c.Burst, 1)), most: c.Addresses, due: map[netip.Addr]time.Time{}}
}

// sweepEvery bounds how often all addresses are looked at for room.
const sweepEvery = time.Second

// Wait counts a request of an address and returns 0, or how long the address has to wait before it may ask again; such a request
// does not count. Of an IPv6 address the network counts, of which one machine may have all addresses (RFC 4291 §2.5.4).
//
// The bucket is kept as the time at which it is full again (the generic cell rate algorithm, ITU-T I.371 annex A).
func (l *Limiter) Wait(a netip.Addr, now time.Time) time.Duration {
	a = bucketOf(a)
	l.mu.Lock()
	defer l.mu.Unlock()
	due, known := l.due[a]
	if !known && len(l.due) >= l.most {
		if l.sweep(now); len(l.due) >= l.most {
			a = netip.Addr{} // the bucket of all who find no place
			due = l.due[a]
		}
	}
	if due.Before(now) {
		due = now
	}
	if next := due.Add(l.each); next.Sub(now) <= l.ahead {
		l.due[a] = next
		return 0
	}
	l.refused++
	return due.Add(l.each).Sub(now) - l.ahead
}

// sweep forgets the buckets that are full: they say nothing. The caller holds mu.
func (l *Limiter) sweep(now time.Time) {
	if now.Sub(l.swept) < sweepEvery {
		return
	}
	l.swept = now
	for a, due := range l.due {
		if !due.After(now) {
			delete(l.due, a)
		}
	}
}

// Refusals returns how many requests had to wait.
func (l *Limiter) Refusals() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

func bucketOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}
