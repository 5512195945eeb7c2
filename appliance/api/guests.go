package api

import (
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/netip"

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
	return withProblems(mux, log)
}

func remoteOf(r *http.Request) netip.Addr {
	remote, _ := netip.ParseAddrPort(r.RemoteAddr)
	return remote.Addr().Unmap().WithZone("")
}

// Announces returns the tracker's handler, which tells the fleet of each swarm in which somebody lacks something, and names nobody to
// those whose boot or token was revoked: their certificates say for hours that they are invited.
func Announces(f *fleet.Fleet, tracker http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
			if err := f.Revoked(r.TLS.VerifiedChains[0][0]); err != nil {
				w.Header().Set("Content-Type", "text/plain")
				w.WriteHeader(http.StatusForbidden)
				w.Write(announce.Response{Failure: err.Error()}.Encode()) // a caller that is gone needs no answer
				return
			}
		}
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
