package repository

import (
	"container/list"
	"context"
	"sync"
)

// cache keeps values that were fetched lately or will be needed soon, up to a number of bytes. Several callers who want
// one value share one fetching of it. Safe for concurrent use.
type cache[K comparable, V any] struct {
	r     *Repository
	limit int64 // bytes

	mu     sync.Mutex
	slots  map[K]*slot[K, V] // guarded by mu, as all below
	order  *list.List        // of *slot, the most recently used first
	length int64             // bytes of values, estimated for those being fetched
}

// slot is one value, or the fetching of it.
type slot[K comparable, V any] struct {
	key    K
	length int64 // guarded by the cache's mu
	place  *list.Element
	done   chan struct{} // closed when value and err are set
	value  V
	err    error
}

// fetching returns a value and its length in bytes. It does not end with the caller who began it, since others may wait.
type fetching[V any] func(ctx context.Context) (value V, length int64, err error)

func newCache[K comparable, V any](r *Repository, limit int64) *cache[K, V] {
	return &cache[K, V]{r: r, limit: limit, slots: map[K]*slot[K, V]{}, order: list.New()}
}

// get returns a value, fetched now if it is not here. estimate is its length in bytes as far as is known.
func (c *cache[K, V]) get(ctx context.Context, key K, estimate int64, fetch fetching[V]) (value V, err error) {
	s, err := c.start(key, estimate, fetch)
	if err != nil {
		return value, err
	}
	return s.wait(ctx)
}

func (s *slot[K, V]) wait(ctx context.Context) (value V, err error) {
	select {
	case <-s.done:
		return s.value, s.err
	case <-ctx.Done():
		return value, ctx.Err()
	}
}

// isDone reports whether the value is here.
func (s *slot[K, V]) isDone() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// peek returns the slot of a key, or nil.
func (c *cache[K, V]) peek(key K) *slot[K, V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.slots[key]
	if s != nil {
		c.order.MoveToFront(s.place)
	}
	return s
}

// start returns the slot of a key, and begins to fetch its value if nobody has.
func (c *cache[K, V]) start(key K, estimate int64, fetch fetching[V]) (*slot[K, V], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.slots[key]; ok {
		c.order.MoveToFront(s.place)
		return s, nil
	}
	finished, err := c.r.begin()
	if err != nil {
		return nil, err
	}
	s := &slot[K, V]{key: key, length: estimate, done: make(chan struct{})}
	s.place = c.order.PushFront(s)
	c.slots[key] = s
	c.length += s.length
	c.makeRoom()
	go func() { // ends with the fetch, which Close waits for
		defer finished()
		var length int64
		s.value, length, s.err = fetch(c.r.ctx)
		close(s.done)
		c.fetched(s, length)
	}()
	return s, nil
}

// fetched counts a value, or forgets one that could not be fetched.
func (c *cache[K, V]) fetched(s *slot[K, V], length int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.slots[s.key] != s {
		return
	}
	c.length += length - s.length
	s.length = length
	if s.err != nil {
		c.remove(s)
	}
	c.makeRoom()
}

// makeRoom forgets what was not used for longest. Values being fetched stay. The caller holds mu.
func (c *cache[K, V]) makeRoom() {
	for e := c.order.Back(); e != nil && c.length > c.limit; {
		s := e.Value.(*slot[K, V])
		e = e.Prev()
		if s.isDone() {
			c.remove(s)
		}
	}
}

// remove takes a slot out. The caller holds mu.
func (c *cache[K, V]) remove(s *slot[K, V]) {
	delete(c.slots, s.key)
	c.order.Remove(s.place)
	c.length -= s.length
}

// drop forgets a value that turned out to be damaged, so that it is fetched again.
func (c *cache[K, V]) drop(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.slots[key]; ok && s.isDone() {
		c.remove(s)
	}
}
