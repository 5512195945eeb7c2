package swarm

import (
	"sync"

	"seedbed/images"
	"seedbed/images/peerwire"
)

// outbox holds what is to be sent on one link: short messages, and tiles that the peer asked for. Safe for concurrent
// use; filling it never blocks.
type outbox struct {
	mu      sync.Mutex // guards everything below
	control []byte     // encoded messages
	uploads []upload
	blocks  []peerwire.Span // requests of a stock peer
	late    int             // messages that nobody was woken for
	replies int             // answers among the messages that the peer made us give

	wake chan struct{} // holds one token after something was added
}

// upload is a peer's request, in the order of arrival.
type upload struct {
	piece  int
	hashes bool // the tile hashes are to go ahead
	tiles  images.TileSet
}

// Bounds of one outbox. A peer that does not read while so much waits for it is cut: announcing every piece of the
// largest swarm takes 9 MiB.
const (
	maxControl = 16 << 20
	maxUploads = 512
	maxReplies = 4096
)

func newOutbox() *outbox { return &outbox{wake: make(chan struct{}, 1)} }

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// send queues a message; false says that the peer does not read.
func (o *outbox) send(m peerwire.Message) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.control = peerwire.Append(o.control, m)
	o.signal()
	return len(o.control) <= maxControl
}

// sendLate queues a message that need not go before another does, or hurry is called, or there are n of them; false says
// that the peer does not read.
func (o *outbox) sendLate(m peerwire.Message, n int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.control = peerwire.Append(o.control, m)
	if o.late++; o.late >= n {
		o.signal()
	}
	return len(o.control) <= maxControl
}

// hurry sends what waits for company.
func (o *outbox) hurry() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.late > 0 {
		o.signal()
	}
}

// sendTile queues an sb_tile message under the receiver's number for it.
func (o *outbox) sendTile(kind byte, m peerwire.TileMessage) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.control = peerwire.AppendTile(o.control, kind, m)
	o.signal()
	return len(o.control) <= maxControl
}

// maxAnswers bounds the bytes that may wait where a peer asks for what makes long answers of short questions: behind it
// such are refused.
const maxAnswers = 4 << 20

// full reports whether so much waits.
func (o *outbox) full() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.control) > maxAnswers
}

// replied says that the last message was an answer which costs the peer nothing to provoke. The error is misconduct: more
// of them wait than a peer can have use for.
func (o *outbox) replied() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.replies++; o.replies > maxReplies {
		return misconduct{"asks and does not read"}
	}
	return nil
}

// serve queues a request; false says that too many wait.
func (o *outbox) serve(u upload) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.uploads) >= maxUploads {
		return false
	}
	o.uploads = append(o.uploads, u)
	o.signal()
	return true
}

// cancel takes tiles of a piece out of the queue.
func (o *outbox) cancel(piece int, tiles images.TileSet) {
	o.mu.Lock()
	defer o.mu.Unlock()
	kept := o.uploads[:0]
	for _, u := range o.uploads {
		if u.piece == piece {
			if u.tiles = u.tiles.Minus(tiles); u.tiles.IsEmpty() {
				continue
			}
		}
		kept = append(kept, u)
	}
	o.uploads = kept
}

// takeControl returns the queued messages, swapping in empty for them.
func (o *outbox) takeControl(empty []byte) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	control := o.control
	o.control, o.replies, o.late = empty[:0], 0, 0
	return control
}

// take returns the next at most n tiles to send.
func (o *outbox) take(n int) (next upload, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.uploads) == 0 {
		return next, false
	}
	first := &o.uploads[0]
	next = upload{piece: first.piece, hashes: first.hashes}
	for i := range first.tiles.All() {
		if n--; n < 0 {
			break
		}
		next.tiles.Add(i)
	}
	first.hashes = false
	if first.tiles = first.tiles.Minus(next.tiles); first.tiles.IsEmpty() {
		o.uploads = o.uploads[1:]
		if len(o.uploads) == 0 {
			o.uploads = nil
		}
	}
	return next, true
}
