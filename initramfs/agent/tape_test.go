package agent

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"

	"seedbed/initramfs/disk"
)

// tape records what is done to a disk, and can cut the power.
type tape struct {
	before []byte // the disk at the beginning
	// permit, if not nil, is asked before the first change.
	permit func() error
	// cut is called once, when as many changes and flushes were made as kill says; nothing is written from then on.
	kill int // 0: never
	cut  func()

	mu      sync.Mutex // guards everything below
	clock   int        // moments: the begin and the end of a change or flush is one
	changes []change
	flushes []flush
	begun   int
	denied  error
}

type change struct {
	offset     int64
	bytes      []byte
	begun, end int // moments; end is never where the change did not end
}

type flush struct{ begun, end int }

const never = int(^uint(0) >> 1)

var errCut = errors.New("power cut")

// observe is for disk.Device.Observe.
func (p *tape) observe(c disk.Change) (ended func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun++
	if p.begun == 1 && p.permit != nil {
		p.denied = p.permit()
	}
	if p.kill > 0 && p.begun > p.kill {
		if p.begun == p.kill+1 {
			p.cut()
		}
		return nil, errCut
	}
	now := p.tick()
	if c.Flush {
		n := len(p.flushes)
		p.flushes = append(p.flushes, flush{now, never})
		return func() { p.mu.Lock(); defer p.mu.Unlock(); p.flushes[n].end = p.tick() }, nil
	}
	b := make([]byte, c.Length)
	copy(b, c.Bytes)
	n := len(p.changes)
	p.changes = append(p.changes, change{c.Offset, b, now, never})
	return func() { p.mu.Lock(); defer p.mu.Unlock(); p.changes[n].end = p.tick() }, nil
}

func (p *tape) tick() int { p.clock++; return p.clock - 1 }

// Ways in which a power cut treats what was written since the last flush.
const (
	loseAll     = iota
	loseNone    // as after a kill of the process
	loseWrites  // each write as a whole is there or not
	loseSectors // each sector is there or not
	tear        // of each write a part is there, from its begin or up to its end
	losses
)

// reel plays a tape: the states that a disk may be in after a power cut, in ascending order of moments.
type reel struct {
	*tape
	durable []byte // what no power cut takes back
	pending []int  // changes that are begun and not durable
	next    int    // the change that begins next
	flushed int    // flushes that have ended, of those in flushes
	state   []byte
}

func (p *tape) play() *reel {
	return &reel{tape: p, durable: bytes.Clone(p.before), state: make([]byte, len(p.before))}
}

// at returns the disk after a power cut after a moment; it is valid until the next call.
func (r *reel) at(moment, loss int, random *rand.Rand) []byte {
	for r.next < len(r.changes) && r.changes[r.next].begun <= moment {
		r.pending = append(r.pending, r.next)
		r.next++
	}
	for r.flushed < len(r.flushes) && r.flushes[r.flushed].end <= moment {
		var still []int
		for _, n := range r.pending {
			if c := r.changes[n]; c.end < r.flushes[r.flushed].begun {
				copy(r.durable[c.offset:], c.bytes)
			} else {
				still = append(still, n)
			}
		}
		r.pending = still
		r.flushed++
	}
	copy(r.state, r.durable)
	for _, n := range r.pending {
		apply(r.state, r.changes[n], loss, random)
	}
	return r.state
}

// apply does to a disk what is left of a change.
func apply(state []byte, c change, loss int, random *rand.Rand) {
	const sector = 512
	sectors := (len(c.bytes) + sector - 1) / sector
	from, to := 0, len(c.bytes)
	switch loss {
	case loseAll:
		return
	case loseWrites:
		if random.IntN(2) == 0 {
			return
		}
	case loseSectors:
		for s := range sectors {
			if random.IntN(2) == 0 {
				copy(state[c.offset+int64(s*sector):], c.bytes[s*sector:min(len(c.bytes), (s+1)*sector)])
			}
		}
		return
	case tear:
		if at := min(len(c.bytes), random.IntN(sectors+1)*sector); random.IntN(2) == 0 {
			from = at
		} else {
			to = at
		}
	}
	copy(state[c.offset+int64(from):], c.bytes[from:to])
}
