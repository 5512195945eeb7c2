package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"seedbed/appliance/api"
)

// Change is one event of Live; one of its fields is set.
type Change struct {
	ID          int // to go on from; 0 in the middle of what belongs together
	Restart     *api.Restart
	Jobs        *api.Jobs
	Machines    *api.Machines
	Deployments *api.Deployments
	Alive       *api.Alive
}

// maxLive bounds one event in bytes.
const maxLive = 256 << 20

// liveTimeout is how long the appliance may be silent; it says that it is there every 15 s. A constant, but in tests.
var liveTimeout = time.Minute

// Live calls fn with what changes, one call at a time, until ctx is done, the connection ends or fn returns an error. after is the
// last ID of an earlier Live, or 0.
func (c *Client) Live(ctx context.Context, after int, fn func(Change) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(liveTimeout, func() { cancel(errSlow) })
	defer silence.Stop()
	header := http.Header{"Accept": {"text/event-stream"}}
	if after > 0 {
		header.Set("Last-Event-ID", strconv.Itoa(after))
	}
	resp, err := c.send(ctx, "GET", "/live", header, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	in.Buffer(make([]byte, 64<<10), maxLive)
	var change Change
	name := ""
	for in.Scan() {
		silence.Stop() // fn may take its time
		field, value, _ := bytes.Cut(in.Bytes(), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "id":
			change.ID, _ = strconv.Atoi(string(value)) // 0 is no ID
		case "event":
			name = string(value)
		case "data":
			if err := change.decode(name, value); err != nil {
				return err
			}
		case "":
			if change != (Change{}) {
				if err := fn(change); err != nil {
					return err
				}
			}
			change, name = Change{}, ""
		}
		silence.Reset(liveTimeout)
	}
	if err := in.Err(); err != nil {
		return c.unreached(ctx, fmt.Errorf("the appliance stopped to say what changes: %w", err))
	}
	return fmt.Errorf("the appliance stopped to say what changes: %w", ErrNotRunning)
}

func (c *Change) decode(name string, data []byte) error {
	var to any
	switch name {
	case "restart":
		c.Restart = new(api.Restart)
		to = c.Restart
	case "jobs":
		c.Jobs = new(api.Jobs)
		to = c.Jobs
	case "machines":
		c.Machines = new(api.Machines)
		to = c.Machines
	case "deployments":
		c.Deployments = new(api.Deployments)
		to = c.Deployments
	case "alive":
		c.Alive = new(api.Alive)
		to = c.Alive
	default:
		return nil // of a later version
	}
	return json.Unmarshal(data, to)
}
