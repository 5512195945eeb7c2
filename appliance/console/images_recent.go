package console

import (
	"context"
	"strings"
	"sync"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
)

// recentImages is what the repository said last, which live parts look at: to list what is far away takes time, so that it is listed anew
// only when an event tells of a change, and now and then.
type recentImages struct {
	mu   sync.Mutex // guards what follows, and has those who ask at once share an answer
	list []api.ImageListing
	at   time.Time
	// event is the last event that the list is newer than, asked is when later ones were last asked for.
	event int64
	asked time.Time
	// rows are the list's with what the fleet knows, counted at counted.
	rows    []imageRow
	counted time.Time
}

// recentFor is how old the list may be where no event tells of a change; eventsAtOnce is how many events are looked through at once.
const (
	recentFor    = time.Minute
	eventsAtOnce = 200
)

// listImages returns the images as they are now.
func (c *console) listImages(ctx context.Context) ([]api.ImageListing, error) {
	if c.Images == nil {
		return nil, nil
	}
	c.listed.mu.Lock()
	defer c.listed.mu.Unlock()
	return c.relist(ctx)
}

// relist asks the repository. The caller holds listed.mu.
func (c *console) relist(ctx context.Context) ([]api.ImageListing, error) {
	r, at := &c.listed, time.Now()
	last, err := c.Fleet.Events(ctx, fleet.EventQuery{Before: 1<<63 - 1, Limit: 1}) // first: what happens meanwhile is told again
	if err != nil {
		return nil, err
	}
	list, err := c.Images.List(ctx)
	if err != nil {
		return nil, err
	}
	r.list, r.at, r.asked, r.rows = list, at, at, nil
	if len(last) > 0 {
		r.event = last[0].ID
	}
	return list, nil
}

// recentList returns the images as they were a moment ago.
func (c *console) recentList(ctx context.Context) ([]api.ImageListing, error) {
	if c.Images == nil {
		return nil, nil
	}
	c.listed.mu.Lock()
	defer c.listed.mu.Unlock()
	return c.recent(ctx)
}

// recent is recentList. The caller holds listed.mu.
func (c *console) recent(ctx context.Context) ([]api.ImageListing, error) {
	r := &c.listed
	switch {
	case time.Since(r.at) > recentFor:
		return c.relist(ctx)
	case time.Since(r.asked) < liveEvery*9/10:
		return r.list, nil
	}
	events, err := c.Fleet.Events(ctx, fleet.EventQuery{After: r.event, Limit: eventsAtOnce})
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		if strings.HasPrefix(e.Kind, "image.") {
			return c.relist(ctx)
		}
		r.event = e.ID
	}
	r.asked = time.Now()
	return r.list, nil
}

// recentRows returns the rows of the images as they were a moment ago: the same for all who look.
func (c *console) recentRows(ctx context.Context) ([]imageRow, error) {
	if c.Images == nil {
		return nil, nil
	}
	r := &c.listed
	r.mu.Lock()
	defer r.mu.Unlock()
	list, err := c.recent(ctx)
	if err != nil {
		return nil, err
	}
	if r.rows == nil || time.Since(r.counted) > liveEvery*9/10 {
		r.rows, r.counted = c.imageRows(list), time.Now()
	}
	return r.rows, nil
}

// rowOf finds the image that a page is about: "debian:2", "debian" for its latest version, or the beginning of a digest.
func rowOf(rows []imageRow, ref string) (found imageRow, ok bool) {
	for _, r := range rows {
		switch {
		case r.Ref == ref, len(ref) >= 6 && strings.HasPrefix(r.Digest.String(), ref):
			return r, true
		case r.Name == ref && (!ok || r.Created.After(found.Created)):
			found, ok = r, true
		}
	}
	return found, ok
}
