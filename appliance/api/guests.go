package api

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images/announce"
)

// Guests returns the handler of the endpoints of guests: job.PathJoin and job.PathNode. The server's TLS has verified client
// certificates under the site's CA where one was given.
func Guests(f *fleet.Fleet, log *slog.Logger) http.Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	mux.Handle("POST "+job.PathJoin, handle(log, func(w http.ResponseWriter, r *http.Request) (any, error) {
		j, err := read[job.Join](w, r, maxHello)
		if err != nil {
			return nil, err
		}
		var cert *x509.Certificate
		if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 && j.Token == "" {
			cert = r.TLS.VerifiedChains[0][0]
		}
		return f.Join(r.Context(), cert, false, remoteOf(r), j)
	}))
	node := func(c fleet.Caller, w http.ResponseWriter, r *http.Request) (any, error) {
		report, err := read[job.NodeReport](w, r, maxReport)
		if err != nil {
			return nil, err
		}
		return f.NodeReport(r.Context(), c, remoteOf(r), report)
	}
	mux.Handle("POST "+job.PathNode, handle(log, authenticated(f.AuthenticateReader, node)))
	return mux
}

func remoteOf(r *http.Request) netip.Addr {
	remote, _ := netip.ParseAddrPort(r.RemoteAddr)
	return remote.Addr().Unmap().WithZone("")
}

// Announces returns the tracker's handler, which tells the fleet of each swarm in which somebody lacks something.
func Announces(f *fleet.Fleet, tracker http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if q, err := announce.ParseRequest(r.URL.RawQuery); err == nil && q.Left > 0 && r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
			f.Announced(r.Context(), r.TLS.VerifiedChains[0][0], q.InfoHash)
		}
		tracker.ServeHTTP(w, r)
	})
}

// NewToken is what the order for a token returns: the token, and what has to be given to the program that is to use it.
type NewToken struct {
	Token  *fleet.Token `json:"token"`
	Ticket *job.Ticket  `json:"ticket"`
}

// WarmOrder has the seed nodes fetch an image.
type WarmOrder struct {
	Image string  `json:"image"`
	Share float64 `json:"share"` // 0 to 1
}

// Warmed answers WarmOrder.
type Warmed struct {
	Nodes int `json:"nodes"`
}

// DropOrder has the seed nodes remove an image.
type DropOrder struct {
	Image string `json:"image"`
}

// OperatorGuests returns the operator's endpoints about tokens, seed nodes and guests on this host, below /v1/guests/.
func OperatorGuests(f *fleet.Fleet, log *slog.Logger) http.Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	on := func(pattern string, e endpoint) { mux.Handle(pattern, handle(log, e)) }
	on("GET /v1/guests/tokens", func(http.ResponseWriter, *http.Request) (any, error) { return list(f.Tokens(), nil) })
	on("POST /v1/guests/tokens", func(w http.ResponseWriter, r *http.Request) (any, error) {
		o, err := read[fleet.TokenOrder](w, r, maxOrder)
		if err != nil {
			return nil, err
		}
		t, ticket, err := f.NewToken(r.Context(), o)
		return NewToken{t, ticket}, err
	})
	on("POST /v1/guests/tokens/{id}/revoke", func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return f.RevokeToken(r.Context(), r.PathValue("id"))
	})
	on("POST /v1/guests/join", func(w http.ResponseWriter, r *http.Request) (any, error) {
		j, err := read[job.Join](w, r, maxHello)
		if err != nil {
			return nil, err
		}
		return f.Join(r.Context(), nil, true, netip.Addr{}, j)
	})
	on("GET /v1/guests/nodes", func(http.ResponseWriter, *http.Request) (any, error) { return list(f.Nodes(), nil) })
	on("POST /v1/guests/warm", func(w http.ResponseWriter, r *http.Request) (any, error) {
		o, err := read[WarmOrder](w, r, maxOrder)
		if err != nil {
			return nil, err
		}
		n, err := f.Warm(r.Context(), o.Image, o.Share)
		return Warmed{n}, err
	})
	on("POST /v1/guests/drop", func(w http.ResponseWriter, r *http.Request) (any, error) {
		o, err := read[DropOrder](w, r, maxOrder)
		if err != nil {
			return nil, err
		}
		return f.DropImage(r.Context(), o.Image)
	})
	return mux
}

// NewToken makes a token.
func (c *Client) NewToken(ctx context.Context, o fleet.TokenOrder) (*NewToken, error) {
	t := new(NewToken)
	return t, c.call(ctx, "POST", "/v1/guests/tokens", o, t)
}

// Tokens lists the tokens.
func (c *Client) Tokens(ctx context.Context) (l []fleet.Token, err error) {
	return l, c.call(ctx, "GET", "/v1/guests/tokens", nil, &l)
}

// RevokeToken ends a token.
func (c *Client) RevokeToken(ctx context.Context, id string) (*fleet.Token, error) {
	t := new(fleet.Token)
	return t, c.call(ctx, "POST", "/v1/guests/tokens/"+url.PathEscape(id)+"/revoke", nil, t)
}

// Join gets a certificate for a swarm without a token.
func (c *Client) Join(ctx context.Context, j job.Join) (*job.Joined, error) {
	answer := new(job.Joined)
	return answer, c.call(ctx, "POST", "/v1/guests/join", j, answer)
}

// Nodes lists the seed nodes.
func (c *Client) Nodes(ctx context.Context) (l []fleet.NodeView, err error) {
	return l, c.call(ctx, "GET", "/v1/guests/nodes", nil, &l)
}

// Warm has the seed nodes fetch an image, and returns how many there are.
func (c *Client) Warm(ctx context.Context, o WarmOrder) (int, error) {
	w := new(Warmed)
	err := c.call(ctx, "POST", "/v1/guests/warm", o, w)
	return w.Nodes, err
}

// Drop has the seed nodes remove an image.
func (c *Client) Drop(ctx context.Context, o DropOrder) (*fleet.Dropped, error) {
	d := new(fleet.Dropped)
	return d, c.call(ctx, "POST", "/v1/guests/drop", o, d)
}
