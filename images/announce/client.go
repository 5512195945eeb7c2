package announce

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// Client announces to one tracker. Safe for concurrent use.
type Client struct {
	// URL of the tracker: "https://10.77.0.1/announce".
	URL string
	// HTTP carries the certificate by which the tracker knows the peer; nil means http.DefaultClient.
	HTTP *http.Client
	// Log is told when the tracker cannot be reached (Warn, once) and when it can again (Info); nil discards.
	Log *slog.Logger
	// Answered, where set, is given each answer of Run whole, before found is. It is called as found is.
	Answered func(Response)
}

// Waits of Run: after a failure, doubling up to the longest, and for the last word.
const (
	firstRetry = time.Second
	lastRetry  = 15 * time.Second
	goodbye    = 2 * time.Second
	answerTime = 15 * time.Second
)

// ErrRefused says that the tracker was reached and refused; its sentence follows.
var ErrRefused = errors.New("the tracker refused")

// Announce tells the tracker once and returns its answer. A failure that the tracker names wraps ErrRefused.
func (c *Client) Announce(ctx context.Context, r Request) (Response, error) {
	u, joint := c.URL, "?"
	if strings.Contains(u, "?") {
		joint = "&"
	}
	response, err := c.get(ctx, u+joint+r.Query())
	if err != nil {
		return Response{}, fmt.Errorf("announce to %s: %w", c.URL, err)
	}
	return response, nil
}

// get sends one request and returns the tracker's answer. A failure that the tracker names wraps ErrRefused.
func (c *Client) get(ctx context.Context, target string) (Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return Response{}, err
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	answer, err := client.Do(request)
	if err != nil {
		return Response{}, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, MaxResponse+1))
	if err != nil {
		return Response{}, err
	}
	response, err := DecodeResponse(body)
	switch {
	case err != nil && answer.StatusCode != http.StatusOK:
		return Response{}, errors.New(answer.Status)
	case err == nil && response.Failure != "":
		return Response{}, fmt.Errorf("%w: %s", ErrRefused, response.Failure)
	}
	return response, err
}

// Run announces at once and then at the tracker's interval until ctx ends, tries again sooner after a failure, and says
// goodbye. state returns the request without its Event, and found, if not nil, is given the addresses of each answer;
// both are called on the goroutine of Run, one after the other.
func (c *Client) Run(ctx context.Context, state func() Request, found func([]netip.AddrPort)) {
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	event, complete, retry, failing := Started, false, firstRetry, false
	for ctx.Err() == nil {
		r := state()
		r.Event = event
		if event == Regular && r.Left == 0 && !complete {
			r.Event = Completed
		}
		limit, cancel := context.WithTimeout(ctx, answerTime)
		answer, err := c.Announce(limit, r)
		cancel()
		wait := retry
		switch {
		case err == nil:
			event, complete, retry = Regular, r.Left == 0, firstRetry
			wait = max(answer.Interval, time.Second)
			if failing {
				log.Info("tracker reached again", "url", c.URL)
			}
			failing = false
			if c.Answered != nil {
				c.Answered(answer)
			}
			if found != nil {
				found(answer.Peers)
			}
		case ctx.Err() == nil:
			if !failing {
				log.Warn("tracker not reached", "url", c.URL, "err", err)
			}
			failing, retry = true, min(2*retry, lastRetry)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
	if event == Regular {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
		defer cancel()
		r := state()
		r.Event = Stopped
		if _, err := c.Announce(limit, r); err != nil {
			log.Debug("goodbye to tracker not heard", "url", c.URL, "err", err)
		}
	}
}
