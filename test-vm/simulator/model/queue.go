package model

import "math/bits"

// kind says what an event is about.
type kind uint8

const (
	sent     kind = iota // the uplink of peer x is done with its burst, of flow y
	crossed              // a burst of flow x is through the uplink of switch y, or down to it
	arrived              // a burst of flow x is through the downlink
	handled              // a burst of flow x had its time on a processor
	told                 // message x is there
	checked              // peer x has checked and written piece y
	ticked               // tick of peer x
	scripted             // entry x of the script is due
)

// event is something that happens at a time, in nanoseconds since the start. Of equal times the one scheduled first is first.
type event struct {
	at    int64
	order uint64
	x, y  int32
	kind  kind
}

func (e *event) before(o *event) bool {
	return e.at < o.at || e.at == o.at && e.order < o.order
}

// queue holds the events to come. Those of the next moments lie in a heap that is small enough for the processor's nearest cache,
// those of the next half second or so in slots by time, the others in a second heap.
type queue struct {
	near, far heap
	slots     [slots][]event
	filled    [slots / 64]uint64
	current   int64 // slot number, ever rising, of what is in near
	length    int
	order     uint64
}

const (
	slots    = 8192
	slotTime = 17 // bits: 131 us
)

func (q *queue) push(e event) {
	q.order++
	e.order = q.order
	q.length++
	switch slot := e.at >> slotTime; {
	case slot <= q.current:
		q.near.push(e)
	case slot < q.current+slots:
		q.slots[slot%slots] = append(q.slots[slot%slots], e)
		q.filled[slot%slots/64] |= 1 << (slot % 64)
	default:
		q.far.push(e)
	}
}

// pop returns the next event; ok is false when there is none.
func (q *queue) pop() (e event, ok bool) {
	if q.length == 0 {
		return e, false
	}
	for len(q.near) == 0 {
		q.advance()
	}
	q.length--
	return q.near.pop(), true
}

// advance moves to the next slot that holds something.
func (q *queue) advance() {
	next := q.nextFilled()
	if len(q.far) > 0 && q.far[0].at>>slotTime < next {
		next = q.far[0].at >> slotTime
	}
	q.current = next
	for len(q.far) > 0 && q.far[0].at>>slotTime <= next {
		q.near.push(q.far.pop())
	}
	i := next % slots
	if q.filled[i/64]>>(i%64)&1 == 0 {
		return
	}
	for _, e := range q.slots[i] {
		q.near.push(e)
	}
	q.slots[i] = q.slots[i][:0]
	q.filled[i/64] &^= 1 << (i % 64)
}

// nextFilled returns the number of the next slot that holds something, or one behind all slots.
func (q *queue) nextFilled() int64 {
	for slot := q.current + 1; slot < q.current+slots; {
		i := slot % slots
		if w := q.filled[i/64] >> (i % 64); w != 0 {
			return slot + int64(bits.TrailingZeros64(w))
		}
		slot += 64 - i%64
	}
	return 1<<63 - 1
}

// heap is a binary heap, the next event first.
type heap []event

func (h *heap) push(e event) {
	*h = append(*h, e)
	s := *h
	i := len(s) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !e.before(&s[up]) {
			break
		}
		s[i] = s[up]
		i = up
	}
	s[i] = e
}

func (h *heap) pop() event {
	s := *h
	top, last := s[0], s[len(s)-1]
	s = s[:len(s)-1]
	*h = s
	if len(s) == 0 {
		return top
	}
	i := 0
	for {
		down := 2*i + 1
		if down >= len(s) {
			break
		}
		if down+1 < len(s) && s[down+1].before(&s[down]) {
			down++
		}
		if !s[down].before(&last) {
			break
		}
		s[i] = s[down]
		i = down
	}
	s[i] = last
	return top
}
