package agent

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"seedbed/appliance/job"
	"seedbed/images/announce"
)

// A site may have several appliances, of which any answers. A request goes to the one that answered last; one that does not
// answer costs a request its share of the time, once: it is asked last from then on.

// leastAttempt is what an appliance gets to answer in at least, where the request's own time allows.
const leastAttempt = 3 * time.Second

// share returns the context for one attempt when so many appliances are left to be asked: each gets as much of the time as those
// after it.
func share(ctx context.Context, left int) (context.Context, context.CancelFunc) {
	end, bounded := ctx.Deadline()
	if !bounded || left <= 1 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, max(time.Until(end)/time.Duration(left), leastAttempt))
}

// bases returns the base URLs of the appliances, the one to ask first at the beginning, and the client to ask them with.
func (c *client) bases() ([]string, *http.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.appliances), c.http
}

// last has an appliance asked after all others, since it did not answer. Its connections are closed: one that stands still would
// hold the next request too.
func (c *client) last(base string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := slices.Index(c.appliances, base)
	if at < 0 || len(c.appliances) == 1 {
		return
	}
	c.appliances = append(slices.Delete(slices.Clone(c.appliances), at, at+1), base)
	c.http.CloseIdleConnections()
}

// forEach returns the time for a request that each appliance may take so long to answer.
func (c *client) forEach(one time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return one * time.Duration(max(len(c.appliances), 2))
}

// know takes up appliances that were not known, behind those that are.
func (c *client) know(bases []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := slices.Clone(c.appliances)
	for _, b := range bases {
		if b != "" && !slices.Contains(list, b) {
			list = append(list, b)
		}
	}
	c.appliances = list
}

// tracked calls f with the trackers of the appliances, one after the other, until one answers.
func (d *deployment) tracked(ctx context.Context, f func(ctx context.Context, tracker *announce.Client) error) (err error) {
	bases, http := d.a.client.bases()
	for i, base := range bases {
		attempt, cancel := share(ctx, len(bases)-i)
		err = f(attempt, &announce.Client{URL: base + job.PathAnnounce, HTTP: http, Log: d.a.log})
		cancel()
		if err == nil || errors.Is(err, announce.ErrRefused) || ctx.Err() != nil {
			return err
		}
		d.a.client.last(base)
	}
	return err
}
