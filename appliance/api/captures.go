package api

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/intake"
)

// Uploads take the images that machines capture. Safe for concurrent use.
type Uploads interface {
	Begin(ctx context.Context, c fleet.Caller, b job.CaptureBegin) (job.CaptureSession, error)
	Have(ctx context.Context, c fleet.Caller, id string, keys []images.TileKey) ([]bool, error)
	// Slot waits until a body of tiles may be read; release is called when it has been dealt with.
	Slot(ctx context.Context, c fleet.Caller, id string) (release func(), err error)
	Put(ctx context.Context, c fleet.Caller, id string, tiles []intake.Tile) error
	Commit(ctx context.Context, c fleet.Caller, id string, s *intake.Spec) (*intake.Published, error)
	Close(c fleet.Caller, id string) error
}

const (
	// tileBodies bounds the bodies of tiles in memory: 6 of 16 MiB.
	tileBodies = 6
	// leastRate is what a body must come in with at least, in bytes a second, or it makes way for those of other machines.
	leastRate = 512 << 10
	// shortSpec is the description of an image of 30 GiB and its maps, in bytes; shortSpecs of them are in memory at once
	// beside a longer one, so that the machine with the largest disk, or the slowest, does not keep the others waiting.
	shortSpec  = 16 << 20
	shortSpecs = 2
)

// bodyGrace is what a body has beyond leastRate. Constant, but in tests.
var bodyGrace = 15 * time.Second

// captures answers the endpoints of captures.
type captures struct {
	*agents
	uploads Uploads
	bodies  chan struct{} // bodies of tiles in memory
	specs   chan struct{} // the one long description of an image in memory
	short   chan struct{} // short ones
}

// Captures returns the handler of job.PathCaptures and all below it, for a server like that of Agents.
func Captures(f *fleet.Fleet, uploads Uploads, log *slog.Logger) http.Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a := &captures{agents: newAgents(f), uploads: uploads, bodies: make(chan struct{}, tileBodies), specs: make(chan struct{}, 1),
		short: make(chan struct{}, shortSpecs)}
	mux := http.NewServeMux()
	on := func(pattern string, e func(fleet.Caller, http.ResponseWriter, *http.Request) (any, error)) {
		mux.Handle(pattern, handle(log, a.known(e)))
	}
	on("POST "+job.PathCaptures, a.begin)
	on("POST "+job.PathCaptures+"/{id}"+job.PathCaptureHave, a.have)
	on("POST "+job.PathCaptures+"/{id}"+job.PathCaptureTiles, a.tiles)
	on("POST "+job.PathCaptures+"/{id}"+job.PathCaptureCommit, a.commit)
	on("DELETE "+job.PathCaptures+"/{id}", func(c fleet.Caller, _ http.ResponseWriter, r *http.Request) (any, error) {
		return nil, a.uploads.Close(c, r.PathValue("id"))
	})
	return withProblems(mux, log)
}

func (a *captures) begin(c fleet.Caller, w http.ResponseWriter, r *http.Request) (any, error) {
	b, err := read[job.CaptureBegin](w, r, maxHello)
	if err != nil {
		return nil, err
	}
	return a.uploads.Begin(r.Context(), c, b)
}

func (a *captures) have(c fleet.Caller, w http.ResponseWriter, r *http.Request) (any, error) {
	if err := a.fleet.AtWork(c); err != nil { // before it takes room
		return nil, err
	}
	raw, err := readTimed(w, r, intake.MaxKeysLength)
	if err != nil {
		return nil, err
	}
	keys, err := intake.DecodeKeys(raw)
	if err != nil {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: err.Error()}
	}
	list, err := a.uploads.Have(r.Context(), c, r.PathValue("id"), keys)
	if err != nil {
		return nil, err
	}
	return octets(intake.EncodeBits(list)), nil
}

// tiles reads a body only when the capture is known to be the caller's and there is room for it.
func (a *captures) tiles(c fleet.Caller, w http.ResponseWriter, r *http.Request) (any, error) {
	id := r.PathValue("id")
	release, err := a.uploads.Slot(r.Context(), c, id)
	if err != nil {
		return nil, err
	}
	defer release()
	free, err := enter(r.Context(), a.bodies)
	if err != nil {
		return nil, err
	}
	defer free()
	raw, err := readTimed(w, r, intake.MaxTilesLength)
	if err != nil {
		return nil, err
	}
	tiles, err := intake.DecodeTiles(raw)
	if err != nil {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: err.Error()}
	}
	return nil, a.uploads.Put(r.Context(), c, id, tiles)
}

// commit holds one long description of an image in memory at a time: that of 2 TiB of data has 1 GiB.
func (a *captures) commit(c fleet.Caller, w http.ResponseWriter, r *http.Request) (any, error) {
	id := r.PathValue("id")
	release, err := a.uploads.Slot(r.Context(), c, id)
	if err != nil {
		return nil, err
	}
	defer release()
	room := a.specs
	if r.ContentLength <= shortSpec {
		room = a.short
	}
	free, err := enter(r.Context(), room)
	if err != nil {
		return nil, err
	}
	defer free()
	raw, err := readTimed(w, r, intake.MaxSpecLength)
	if err != nil {
		return nil, err
	}
	spec, err := intake.DecodeSpec(raw)
	if err != nil {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: err.Error()}
	}
	return a.uploads.Commit(r.Context(), c, id, spec)
}

// enter takes a place in a bounded room, and returns how to leave it.
func enter(ctx context.Context, room chan struct{}) (leave func(), err error) {
	select {
	case room <- struct{}{}:
		return func() { <-room }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// readTimed reads a body whose length the request states, at most limit bytes. It must come in at leastRate.
func readTimed(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	n := r.ContentLength
	if n < 0 || n > limit {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: fmt.Sprintf("a body of %d bytes; its length must be stated and at most %d", n, limit)}
	}
	until := http.NewResponseController(w)
	if err := until.SetReadDeadline(time.Now().Add(bodyGrace + time.Duration(n/leastRate)*time.Second)); err != nil {
		return nil, fmt.Errorf("bound the time of a body: %w", err)
	}
	b, err := readGrowing(r.Body, n)
	if err == nil { // else the bound stays: the server throws away what has not come
		err = until.SetReadDeadline(time.Time{})
	}
	if err != nil {
		// Not a refusal: the machine's link may be at fault, and it asks again.
		return nil, fmt.Errorf("read a body of %d bytes, of which %d came: %w", n, len(b), err)
	}
	return b, nil
}

// readGrowing reads n bytes into memory that grows with what comes, not with what was stated: once an eighth is there, the
// rest is believed.
func readGrowing(r io.Reader, n int64) ([]byte, error) {
	b := make([]byte, 0, min(n, intake.MaxTilesLength))
	for int64(len(b)) < n {
		if len(b) == cap(b) {
			b = append(make([]byte, 0, min(n, 8*int64(cap(b)))), b...)
		}
		got, err := io.ReadFull(r, b[len(b):cap(b)])
		b = b[:len(b)+got]
		if err != nil {
			return b, err
		}
	}
	return b, nil
}
