package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"

	"seedbed/images"
)

// OpenSwarm is the open swarm of an image.
type OpenSwarm struct {
	Image  string        `json:"image"` // "debian:1"
	Digest images.Digest `json:"digest"`
	// InfoHash is the v2 infohash of the hybrid torrent, V1 the other one as 40 hexadecimal digits.
	InfoHash images.InfoHash `json:"info_hash"`
	V1       string          `json:"v1"`
	// Announce is the tracker, Torrent where the .torrent file is, Magnet a link; empty while no appliance serves them.
	Announce string `json:"announce,omitempty"`
	Torrent  string `json:"torrent,omitempty"`
	Magnet   string `json:"magnet,omitempty"`
}

// Opening are the operations on open swarms. Safe for concurrent use; progress as in Upkeep.
type Opening interface {
	// OpenSwarm opens an image to stock BitTorrent clients. One that is open already stays so.
	OpenSwarm(ctx context.Context, ref string, progress func(Progress)) (*OpenSwarm, error)
	// CloseSwarm takes that back.
	CloseSwarm(ctx context.Context, ref string) error
	// Torrent returns the .torrent file of an open image. An empty announce is the appliance's own tracker.
	Torrent(ctx context.Context, ref, announce string) ([]byte, error)
}

// serveOpening adds the endpoints of Opening.
func serveOpening(mux *http.ServeMux, lib Opening, log *slog.Logger) {
	mux.HandleFunc("POST /v1/images/{ref}/open", func(w http.ResponseWriter, r *http.Request) {
		stream(w, func(progress func(Progress)) (any, error) {
			return lib.OpenSwarm(r.Context(), r.PathValue("ref"), progress)
		})
	})
	mux.Handle("POST /v1/images/{ref}/close", handle(log, func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return nil, lib.CloseSwarm(r.Context(), r.PathValue("ref"))
	}))
	mux.Handle("GET /v1/images/{ref}/torrent", handle(log, func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return lib.Torrent(r.Context(), r.PathValue("ref"), r.URL.Query().Get("announce"))
	}))
}

// OpenSwarm implements Opening.
func (c *Client) OpenSwarm(ctx context.Context, ref string, progress func(Progress)) (*OpenSwarm, error) {
	return long[*OpenSwarm](ctx, c, "/v1/images/"+url.PathEscape(ref)+"/open", nil, progress)
}

// CloseSwarm implements Opening.
func (c *Client) CloseSwarm(ctx context.Context, ref string) error {
	return c.call(ctx, "POST", "/v1/images/"+url.PathEscape(ref)+"/close", nil, nil)
}

// Torrent implements Opening.
func (c *Client) Torrent(ctx context.Context, ref, announce string) (b []byte, err error) {
	return b, c.call(ctx, "GET", "/v1/images/"+url.PathEscape(ref)+"/torrent?"+url.Values{"announce": {announce}}.Encode(), nil, &b)
}
