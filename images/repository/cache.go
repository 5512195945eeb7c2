package repository

import (
	"container/list"
	"context"
	"sync"

	"seedbed/images"
)

// windowLength is the unit of read-ahead in a pack, in bytes: large enough to hide the latency of object storage
// behind a piece of 4 MiB, which is some 1.5 MB encoded.
const windowLength = 1 << 20

// aheadWindows is how many windows are fetched behind the one being read.
const aheadWindows = 2

// cache keeps windows of packs that were read lately or will be read soon. Safe for concurrent use.
type cache struct {
	r     *Repository
	limit int64
	ahead chan struct{} // a token per read-ahead under way

	mu      sync.Mutex
	windows map[windowKey]*window // guarded by mu, as all below
	order   *list.List            // of *window, the most recently used first
	length  int64                 // bytes of windows
}

type windowKey struct {
	pack  images.Digest
	index int64
}

// window is one window, or the fetching of it.
type window struct {
	key    windowKey
	length int64
	place  *list.Element
	done   chan struct{} // closed when bytes and err are set
	bytes  []byte
	err    error
}

func newCache(r *Repository, limit int64) *cache {
	return &cache{r: r, limit: max(limit, 4*windowLength), ahead: make(chan struct{}, 4), windows: map[windowKey]*window{},
		order: list.New()}
}

// read returns a copy of the bytes [offset, end) of a pack and fetches ahead up to limit, the end of what is likely to
// be read next. length is the length of the pack's records.
func (c *cache) read(ctx context.Context, pack images.Digest, offset, end, limit, length int64) ([]byte, error) {
	out := make([]byte, 0, end-offset)
	last := (end - 1) / windowLength
	for i := offset / windowLength; i <= last; i++ {
		w, err := c.window(windowKey{pack, i}, length)
		if err != nil {
			return nil, err
		}
		if i == offset/windowLength {
			c.fetchAhead(pack, i+1, max(last, min(last+aheadWindows, (limit-1)/windowLength)), length)
		}
		select {
		case <-w.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if w.err != nil {
			return nil, w.err
		}
		from := max(offset-i*windowLength, 0)
		to := min(end-i*windowLength, int64(len(w.bytes)))
		out = append(out, w.bytes[from:to]...)
	}
	return out, nil
}

// fetchAhead starts fetching the windows [first, last] as far as tokens are left.
func (c *cache) fetchAhead(pack images.Digest, first, last, length int64) {
	for i := first; i <= last; i++ {
		select {
		case c.ahead <- struct{}{}:
		default:
			return
		}
		w, err := c.window(windowKey{pack, i}, length)
		if err != nil {
			<-c.ahead
			return
		}
		go func() { // ends with the fetch, which Close waits for
			<-w.done
			<-c.ahead
		}()
	}
}

// window returns a window, and starts fetching it if nobody has.
func (c *cache) window(key windowKey, length int64) (*window, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w, ok := c.windows[key]; ok {
		c.order.MoveToFront(w.place)
		return w, nil
	}
	finished, err := c.r.begin()
	if err != nil {
		return nil, err
	}
	w := &window{key: key, length: min(windowLength, length-key.index*windowLength), done: make(chan struct{})}
	w.place = c.order.PushFront(w)
	c.windows[key] = w
	c.length += w.length
	go func() {
		defer finished()
		w.bytes, w.err = fetchRange(c.r.ctx, c.r.bucket, packKey(key.pack), key.index*windowLength, w.length)
		close(w.done)
		c.fetched(w)
	}()
	return w, nil
}

// fetched forgets a window that could not be fetched and makes room.
func (c *cache) fetched(w *window) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.err != nil {
		c.remove(w)
	}
	for e := c.order.Back(); e != nil && c.length > c.limit; {
		old := e.Value.(*window)
		e = e.Prev()
		select {
		case <-old.done:
			c.remove(old)
		default: // its fetcher makes room
		}
	}
}

// remove takes a window out, if it is still in. The caller holds mu.
func (c *cache) remove(w *window) {
	if c.windows[w.key] == w {
		delete(c.windows, w.key)
		c.order.Remove(w.place)
		c.length -= w.length
	}
}

// drop forgets what is cached of a pack, so that damaged bytes are read again.
func (c *cache) drop(pack images.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, w := range c.windows {
		if key.pack != pack {
			continue
		}
		select {
		case <-w.done:
			c.remove(w)
		default:
		}
	}
}
