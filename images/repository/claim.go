package repository

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Whoever removes or rewrites objects holds the claim on the bucket, which expires unless it is renewed. It is a sequence
// of objects prune/lock/NNNNNNNNNN, of which the highest counts: it says who holds the claim and for how long from the time
// that the bucket gave the object, or that nobody does. The claim is taken and renewed by creating the next number, which
// exactly one can; a holder that slept through its expiry finds a higher number than its own.
//
//	"held OWNER MILLISECONDS HOST\n" or "free\n"
const (
	claimPrefix = "prune/lock/"
	// claimExpiry is how long a claim of a program that died is in the way.
	claimExpiry = 10 * time.Minute
	// claimHistory is how many superseded objects stay, so that a listing that is not of one moment sees the last ones.
	claimHistory = 8
)

// ErrPruning says that another process prunes, compacts or heals the repository.
var ErrPruning = errors.New("the repository is being pruned or healed")

// claim is the right to remove and rewrite objects. Safe for concurrent use.
type claim struct {
	r      *Repository
	owner  string
	expiry time.Duration

	mu      sync.Mutex
	number  int     // guarded by mu, as all below
	renewed instant // before the number was created
	lost    error

	stop    context.CancelFunc
	renewal sync.WaitGroup
}

// claim takes the claim, or returns an error that wraps ErrPruning. The caller releases it.
func (r *Repository) claim(ctx context.Context) (*claim, error) {
	var owner [8]byte
	rand.Read(owner[:])
	c := &claim{r: r, owner: hex.EncodeToString(owner[:]), expiry: r.cfg.claimExpiry}
	number, err := c.highest(ctx)
	if err != nil {
		return nil, err
	}
	if number > 0 {
		if err := c.expectFree(ctx, number); err != nil {
			return nil, err
		}
	}
	c.number = number
	if err := c.renew(ctx); err != nil {
		return nil, err
	}
	renewing, stop := context.WithCancel(r.ctx)
	c.stop = stop
	c.renewal.Go(func() {
		tick := time.NewTicker(c.expiry / 4)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if err := c.renew(renewing); err != nil && renewing.Err() == nil {
					r.log.Warn("the claim on the repository cannot be renewed", "err", err)
				}
			case <-renewing.Done():
				return
			}
		}
	})
	return c, nil
}

func claimKey(number int) string { return fmt.Sprintf("%s%010d", claimPrefix, number) }

// highest returns the number that counts, 0 if there is none, and removes those that are long superseded.
func (c *claim) highest(ctx context.Context) (highest int, err error) {
	var all []int
	for o, err := range c.r.bucket.List(ctx, claimPrefix) {
		if err != nil {
			return 0, fmt.Errorf("list claims: %w", err)
		}
		if n, err := strconv.Atoi(strings.TrimPrefix(o.Key, claimPrefix)); err == nil && n > 0 && n < math.MaxInt32 {
			all = append(all, n)
			highest = max(highest, n)
		}
	}
	for _, n := range all {
		if n <= highest-claimHistory {
			if err := c.r.bucket.Delete(ctx, claimKey(n)); err != nil {
				return 0, err
			}
		}
	}
	return highest, nil
}

// expectFree returns an error unless the claim of that number is given back or expired.
func (c *claim) expectFree(ctx context.Context, number int) error {
	o, err := c.r.bucket.Stat(ctx, claimKey(number))
	if err != nil {
		return err
	}
	b, err := fetch(ctx, c.r.bucket, o.Key, 1<<10)
	if err != nil {
		return err
	}
	var owner, host string
	var life int64
	if _, err := fmt.Sscanf(string(b), "held %s %d %s", &owner, &life, &host); err != nil {
		return nil // given back; or damaged, then the next number settles it
	}
	now, err := c.r.bucketTime(ctx)
	if err != nil {
		return err
	}
	left := o.Modified.Add(time.Duration(life) * time.Millisecond).Sub(now)
	if left <= 0 {
		c.r.log.Warn("taking over from a process that did not finish", "claim", o.Key, "host", host)
		return nil
	}
	return fmt.Errorf("%w by %s; wait for it (if it died, at most %v more)", ErrPruning, host, left.Round(time.Second))
}

// clockPrefix is of objects that exist while somebody asks for the time.
const clockPrefix = "prune/clock/"

// bucketTime returns the time by the bucket's own clock.
func (r *Repository) bucketTime(ctx context.Context) (time.Time, error) {
	var id [8]byte
	rand.Read(id[:])
	key := clockPrefix + hex.EncodeToString(id[:])
	if err := r.bucket.Put(ctx, key, bytes.NewReader([]byte("\n")), 1); err != nil {
		return time.Time{}, err
	}
	o, err := r.bucket.Stat(ctx, key)
	if e := r.bucket.Delete(ctx, key); err == nil {
		err = e
	}
	return o.Modified, err
}

// renew creates the next number.
func (c *claim) renew(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost != nil {
		return c.lost
	}
	begun := now()
	host, _ := os.Hostname() // for people
	if host == "" {
		host = "unknown"
	}
	b := fmt.Appendf(nil, "held %s %d %s:%d\n", c.owner, c.expiry.Milliseconds(), host, os.Getpid())
	for {
		err := c.r.put(ctx, claimKey(c.number+1), b)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrExists) {
			return err
		}
		there, e := fetch(ctx, c.r.bucket, claimKey(c.number+1), 1<<10)
		if e != nil {
			return e
		}
		if !bytes.Equal(there, b) {
			c.lost = fmt.Errorf("%w: another process has taken over", ErrPruning)
			return c.lost
		}
		c.number++ // an attempt whose answer was lost, who knows when: its time is running
	}
	c.number++
	highest, err := c.highest(ctx)
	if err != nil {
		return err
	}
	if highest > c.number {
		c.lost = fmt.Errorf("%w: another process has taken over", ErrPruning)
		return c.lost
	}
	c.renewed = begun
	return nil
}

// check returns nil while nobody else can have the claim, for a third of its expiry longer. It is called before each
// change that needs the claim.
func (c *claim) check(ctx context.Context) error {
	c.mu.Lock()
	age, lost := c.renewed.age(), c.lost
	c.mu.Unlock()
	if lost != nil || age < c.expiry*2/3 {
		return lost
	}
	if age < c.expiry {
		return c.renew(ctx)
	}
	return fmt.Errorf("%w: this process could not renew its claim for %v", ErrPruning, age)
}

// delete removes an object under the claim, in less time than another process needs to take it.
func (c *claim) delete(ctx context.Context, key string) error {
	if err := c.check(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.expiry/4)
	defer cancel()
	return c.r.bucket.Delete(ctx, key)
}

// release gives the claim back.
func (c *claim) release() {
	c.stop()
	c.renewal.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lost != nil || c.renewed.age() >= c.expiry {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.ctx), c.expiry/4)
	defer cancel()
	if err := c.r.bucket.Put(ctx, claimKey(c.number+1), strings.NewReader("free\n"), 5); err != nil {
		c.r.log.Warn("the claim on the repository cannot be given back, it expires", "err", err)
	}
}
