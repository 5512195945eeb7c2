package announce

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// SourcesPath follows the path of announces: GET SourcesPath with the query of a SourcesRequest, answered as an announce is.
// Peers are those to ask, best first. None of them and an interval say that somebody will have it soon: ask again. None and no
// interval say that nobody is to be asked: what is lacking is fetched in another way, and counts as a copy on its way until Held.
const SourcesPath = "/sources"

// SourcesRequest asks a tracker from whom to fetch what describes an image, before taking part in its swarm; or says that it
// was fetched.
type SourcesRequest struct {
	InfoHash [20]byte // see Request
	// Port is where the peer gives others what it has; 0 is nowhere.
	Port uint16
	// Held says that it has everything: nobody is asked for.
	Held bool
	// Length is that of what is to be fetched, in bytes.
	Length int64
	// Failed are those that were asked in vain, in that order. The last MaxFailed of them are told.
	Failed []netip.AddrPort
}

// MaxFailed bounds the addresses in the query of a SourcesRequest.
const MaxFailed = 16

// Query returns the request as the query of a URL, without question mark.
func (r SourcesRequest) Query() string {
	v := url.Values{"info_hash": {string(r.InfoHash[:])}, "port": {strconv.Itoa(int(r.Port))}, "length": {strconv.FormatInt(r.Length, 10)}}
	if r.Held {
		v.Set("held", "1")
	}
	for _, a := range r.Failed[max(0, len(r.Failed)-MaxFailed):] {
		v.Add("failed", a.String())
	}
	return v.Encode()
}

// ParseSourcesRequest reads the query. The error is a sentence for the peer.
func ParseSourcesRequest(query string) (r SourcesRequest, err error) {
	v, err := url.ParseQuery(query)
	if err != nil {
		return r, errors.New("the query cannot be read")
	}
	if s := v.Get("info_hash"); len(s) != len(r.InfoHash) {
		return r, fmt.Errorf("info_hash has %d bytes, want %d", len(s), len(r.InfoHash))
	}
	copy(r.InfoHash[:], v.Get("info_hash"))
	port, err := strconv.ParseUint(v.Get("port"), 10, 16)
	if err != nil {
		return SourcesRequest{}, errors.New("port is not a number from 0 to 65535")
	}
	length, err := strconv.ParseInt(v.Get("length"), 10, 64)
	if err != nil || length < 0 || length > 1<<62 {
		return SourcesRequest{}, errors.New("length is not a number of bytes")
	}
	r.Port, r.Length, r.Held = uint16(port), length, v.Get("held") == "1"
	if len(v["failed"]) > MaxFailed {
		return SourcesRequest{}, fmt.Errorf("%d peers that failed, at most %d", len(v["failed"]), MaxFailed)
	}
	for _, s := range v["failed"] {
		a, err := netip.ParseAddrPort(s)
		if err != nil || a.Addr().Zone() != "" {
			return SourcesRequest{}, errors.New("failed is not an address and a port")
		}
		r.Failed = append(r.Failed, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
	}
	return r, nil
}

// sourcesTime bounds one request for sources: the tracker waits with its answer.
const sourcesTime = 20 * time.Second

// Sources asks for sources until the tracker names some, says that there are none, or fails. A failure that the tracker
// names wraps ErrRefused.
func (c *Client) Sources(ctx context.Context, r SourcesRequest) ([]netip.AddrPort, error) {
	for {
		answer, err := c.sources(ctx, r)
		if err != nil || len(answer.Peers) > 0 || answer.Interval == 0 {
			return answer.Peers, err
		}
		r.Failed = nil // it was told
		select {
		case <-time.After(sourcesPause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// sourcesPause keeps one who is told to ask again from asking without a pause.
const sourcesPause = 50 * time.Millisecond

func (c *Client) sources(ctx context.Context, r SourcesRequest) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, sourcesTime)
	defer cancel()
	answer, err := c.get(ctx, strings.TrimSuffix(c.URL, "/")+SourcesPath+"?"+r.Query())
	if err != nil {
		return Response{}, fmt.Errorf("sources from %s: %w", c.URL, err)
	}
	return answer, nil
}
