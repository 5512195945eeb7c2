package swarm

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

// Limits bound what goes out and what comes in, in bytes a second, for all swarms that share them. Nil is none. Safe for
// concurrent use.
type Limits struct{ up, down *rate.Limiter }

// NewLimits returns token buckets for the tile data sent and for all that is received; 0 is no limit.
func NewLimits(upload, download int64) *Limits {
	return &Limits{newBucket(upload), newBucket(download)}
}

// Upload is the limit of what is sent, as content, in bytes a second; 0 is none.
func (l *Limits) Upload() float64 {
	if l == nil || l.up == nil {
		return 0
	}
	return float64(l.up.Limit())
}

// MinLimit is the lowest limit in bytes a second: below it a tile takes so long that the other end gives a link up.
const MinLimit = 64 << 10

// Shape of the buckets. What a peer sends in t seconds is at most rate x (t + bucketTime), or 4 KiB more; a goroutine
// that wakes up to bucketTime late loses nothing. Takers get grains in the order in which they ask, so that one link
// keeps no other waiting for longer than grainTime each.
const (
	bucketTime = 50 * time.Millisecond
	grainTime  = 5 * time.Millisecond
	minGrain   = 4 << 10
	maxGrain   = 128 << 10
)

// contentShare is what limits leave for content: 1,448 bytes of a packet of 1,500 are not headers of IP and TCP, and each 16 KiB
// have 22 bytes of TLS. A limit so holds for what a cable carries, as one expects who gives a tenth of it.
const contentShare = 1448.0 / 1500 * 16384 / (16384 + 22)

// newBucket returns a token bucket for content, nil for no limit. The limit is one of bytes with their headers.
func newBucket(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	content := float64(bytesPerSecond) * contentShare
	return rate.NewLimiter(rate.Limit(content), int(max(content*bucketTime.Seconds(), minGrain)))
}

// pacer makes one direction of one link wait for its buckets. Immutable; the zero value never waits.
type pacer struct {
	buckets []*rate.Limiter
	grain   int     // bytes taken at once
	rate    float64 // of the narrowest bucket, bytes a second
}

// newPacer leaves out the buckets that are nil.
func newPacer(buckets ...*rate.Limiter) (p pacer) {
	for _, b := range buckets {
		if b == nil {
			continue
		}
		if p.buckets = append(p.buckets, b); p.rate == 0 || float64(b.Limit()) < p.rate {
			p.rate = float64(b.Limit())
		}
	}
	p.grain = int(min(max(p.rate*grainTime.Seconds(), minGrain), maxGrain))
	return p
}

// limited reports whether there is anything to wait for.
func (p pacer) limited() bool { return len(p.buckets) > 0 }

// take returns when n bytes may pass, or with ctx's error. While it waits it calls alive, if not nil, each second at
// least.
func (p pacer) take(ctx context.Context, n int, alive func()) error {
	for p.limited() && n > 0 {
		some := min(n, p.grain)
		now, delay := time.Now(), time.Duration(0)
		for _, b := range p.buckets {
			delay = max(delay, b.ReserveN(now, some).DelayFrom(now))
		}
		n -= some
		if err := rest(ctx, delay, alive); err != nil {
			return err
		}
	}
	return nil
}

// rest sleeps; see take.
func rest(ctx context.Context, d time.Duration, alive func()) error {
	for d > 0 {
		step := min(d, time.Second)
		timer := time.NewTimer(step)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		if d -= step; alive != nil {
			alive()
		}
	}
	return nil
}

// share returns the part of n bytes that passes in t, between least and n; n without a limit.
func (p pacer) share(n int, t time.Duration, least int) int {
	if !p.limited() {
		return n
	}
	return min(n, max(least, int(p.rate*t.Seconds())))
}
