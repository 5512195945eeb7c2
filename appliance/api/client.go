package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// Client talks to a running appliance over its local socket. Safe for concurrent use.
type Client struct {
	http   *http.Client
	socket string
}

// NewClient returns a client of the socket; it connects with the first request.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &Client{http: &http.Client{Transport: &http.Transport{DialContext: dial}}, socket: socket}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// ErrNotRunning says that no appliance answers on the socket.
var ErrNotRunning = errors.New("the appliance is not running")

// Running reports whether an appliance answers.
func (c *Client) Running(ctx context.Context) bool {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// List implements Images.
func (c *Client) List(ctx context.Context) (l []ImageListing, err error) {
	return l, c.call(ctx, "GET", "/v1/images", nil, &l)
}

// Show implements Images.
func (c *Client) Show(ctx context.Context, ref string) (*ImageDetail, error) {
	d := new(ImageDetail)
	return d, c.call(ctx, "GET", "/v1/images/"+url.PathEscape(ref), nil, d)
}

// Add implements Images.
func (c *Client) Add(ctx context.Context, o ImageOrder, progress func(Progress)) (*ImageDetail, error) {
	return long[*ImageDetail](ctx, c, "/v1/images", o, progress)
}

// Machines lists the machines.
func (c *Client) Machines(ctx context.Context) (l []fleet.MachineView, err error) {
	return l, c.call(ctx, "GET", "/v1/machines", nil, &l)
}

// Admit admits the machine with this code, ID, name or MAC.
func (c *Client) Admit(ctx context.Context, name string) (*fleet.Machine, error) {
	m := new(fleet.Machine)
	return m, c.call(ctx, "POST", "/v1/machines/"+url.PathEscape(name)+"/admit", nil, m)
}

// Deployments lists the deployments.
func (c *Client) Deployments(ctx context.Context) (l []fleet.Deployment, err error) {
	return l, c.call(ctx, "GET", "/v1/deployments", nil, &l)
}

// Deploy makes a deployment.
func (c *Client) Deploy(ctx context.Context, o fleet.Order) (*fleet.Deployment, error) {
	d := new(fleet.Deployment)
	return d, c.call(ctx, "POST", "/v1/deployments", o, d)
}

// Capture gives a machine the job to make an image of its disk.
func (c *Client) Capture(ctx context.Context, o fleet.CaptureOrder) (*fleet.JobView, error) {
	j := new(fleet.JobView)
	return j, c.call(ctx, "POST", "/v1/captures", o, j)
}

// CloseDeployment ends the growth of a deployment to all machines.
func (c *Client) CloseDeployment(ctx context.Context, id string) error {
	return c.call(ctx, "POST", "/v1/deployments/"+url.PathEscape(id)+"/close", nil, nil)
}

// Jobs lists the jobs.
func (c *Client) Jobs(ctx context.Context) (l []fleet.JobView, err error) {
	return l, c.call(ctx, "GET", "/v1/jobs", nil, &l)
}

// Operate cancels, pauses or resumes a job, as verb says.
func (c *Client) Operate(ctx context.Context, id, verb string) error {
	return c.call(ctx, "POST", "/v1/jobs/"+url.PathEscape(id)+"/"+url.PathEscape(verb), nil, nil)
}

// Events lists at most limit events with an ID above after.
func (c *Client) Events(ctx context.Context, after int64, limit int) (l []fleet.Event, err error) {
	q := url.Values{"after": {strconv.FormatInt(after, 10)}, "limit": {strconv.Itoa(limit)}}
	return l, c.call(ctx, "GET", "/v1/events?"+q.Encode(), nil, &l)
}

// call sends body as JSON and decodes the answer into into, where that is not nil.
func (c *Client) call(ctx context.Context, method, path string, body, into any) error {
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("read the appliance's answer: %w", err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://seedbed"+path, content)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if _, ok := errors.AsType[*net.OpError](err); ok && ctx.Err() == nil {
			return nil, fmt.Errorf("%w (start it with `seedbed serve`): %w", ErrNotRunning, err)
		}
		return nil, err
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	var p job.Problem
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxOrder)).Decode(&p); err != nil {
		return nil, fmt.Errorf("the appliance answered %s", resp.Status)
	}
	return nil, &fleet.Refusal{Code: p.Code, Detail: p.Detail}
}

// long runs an operation that answers in Lines, and returns its result.
func long[T any](ctx context.Context, c *Client, path string, body any, progress func(Progress)) (result T, err error) {
	resp, err := c.send(ctx, "POST", path, body)
	if err != nil {
		return result, err
	}
	defer resp.Body.Close()
	in := json.NewDecoder(bufio.NewReader(resp.Body))
	for {
		var l Line
		if err := in.Decode(&l); err != nil {
			return result, fmt.Errorf("the appliance stopped in the middle of its answer: %w", err)
		}
		switch {
		case l.Problem != nil:
			return result, &fleet.Refusal{Code: l.Problem.Code, Detail: l.Problem.Detail}
		case l.End && len(l.Result) == 0:
			return result, nil
		case l.End:
			return result, json.Unmarshal(l.Result, &result)
		case l.Progress != nil && progress != nil:
			progress(*l.Progress)
		}
	}
}
