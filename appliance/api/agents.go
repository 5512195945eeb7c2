package api

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
)

// Content gives agents the description of images; the content itself travels through the swarm. Safe for concurrent use.
type Content interface {
	// Manifest returns the encoded manifest and its detached signature.
	Manifest(ctx context.Context, d images.Digest) (manifest, signature []byte, err error)
	// Layer returns the layer, which the manifest names.
	Layer(ctx context.Context, d images.Digest) ([]byte, error)
	// LayerRange returns the bytes [offset, offset+length) of a layer, unchecked.
	LayerRange(ctx context.Context, d images.Digest, offset, length int64) ([]byte, error)
}

// Limits of what an agent may send, in bytes.
const (
	maxHello     = 16 << 10
	maxInventory = 1 << 20 // 1,000 disks; fleet.MaxStrangeInventory of a machine that nobody admitted
	maxReport    = 1 << 20 // a bitmap of 2^20 pieces in base64, and the last lines of a log
	maxReceipt   = 4 << 20 // 9,999 partitions
	maxFrame     = images.MaxFrameLength + 4<<20
)

// framesAtOnce bounds the frames held in memory.
const framesAtOnce = 8

type agents struct {
	fleet   *fleet.Fleet
	content Content
	frames  chan struct{}

	mu     sync.Mutex      // guards what follows
	saving map[string]bool // machines of which a frame is being read: one has one of the few places
	asking map[string]int  // requests under way, by boot
}

// requestsAtOnce bounds those of one boot that are under way: an agent reports, claims, fetches what describes an image and uploads
// tiles, some at once. With more of them one machine could hold as much memory as its link fills. A seed node fetches what describes
// many images at once.
const (
	requestsAtOnce      = 16
	guestRequestsAtOnce = 256
)

// Agents returns the handler of the endpoints of package job. The server's TLS has verified client certificates under
// the site's CA where one was given. announce answers PathAnnounce and PathSources and checks its callers itself; nil leaves it out.
func Agents(f *fleet.Fleet, content Content, announce http.Handler, log *slog.Logger) http.Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a := newAgents(f)
	a.content, a.frames = content, make(chan struct{}, framesAtOnce)
	mux := http.NewServeMux()
	mux.Handle("POST "+job.PathHello, handle(log, a.hello))
	mux.Handle("POST "+job.PathInventory, handle(log, a.known(a.inventory)))
	mux.Handle("POST "+job.PathClaim, handle(log, a.known(a.claim)))
	mux.Handle("POST "+job.PathReport, handle(log, a.known(a.report)))
	mux.Handle("POST "+job.PathFrame, handle(log, a.known(a.frame)))
	mux.Handle("POST "+job.PathReceipt, handle(log, a.known(a.receipt)))
	mux.Handle("GET "+job.PathManifest+"{digest}", handle(log, a.reader(a.manifest)))
	mux.Handle("GET "+job.PathLayer+"{digest}", handle(log, a.reader(a.layer)))
	if announce != nil {
		mux.Handle("GET "+job.PathAnnounce, announce)
		mux.Handle("GET "+job.PathSources, announce)
	}
	return withProblems(mux, log)
}

func newAgents(f *fleet.Fleet) *agents {
	return &agents{fleet: f, saving: map[string]bool{}, asking: map[string]int{}}
}

// called is an endpoint for callers with a certificate.
type called func(c fleet.Caller, w http.ResponseWriter, r *http.Request) (any, error)

// known wraps an endpoint for callers whose certificate belongs to a boot of the agent.
func (a *agents) known(e called) endpoint {
	return authenticated(a.fleet.Authenticate, a.fewAtOnce(e))
}

// reader wraps an endpoint for callers whose certificate belongs to a boot of the agent or to a guest.
func (a *agents) reader(e called) endpoint {
	return authenticated(a.fleet.AuthenticateReader, a.fewAtOnce(e))
}

// fewAtOnce refuses the requests of a boot that has too many under way.
func (a *agents) fewAtOnce(e called) called {
	return func(c fleet.Caller, w http.ResponseWriter, r *http.Request) (any, error) {
		most := requestsAtOnce
		if c.IsGuest() {
			most = guestRequestsAtOnce
		}
		a.mu.Lock()
		full := a.asking[c.Boot()] >= most
		if !full {
			a.asking[c.Boot()]++
		}
		a.mu.Unlock()
		if full {
			return nil, &fleet.Refusal{Code: fleet.CodeTooMany, Detail: fmt.Sprintf("%d requests of this machine are under way; ask again in a moment", most)}
		}
		defer func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.asking[c.Boot()]--; a.asking[c.Boot()] == 0 {
				delete(a.asking, c.Boot())
			}
		}()
		return e(c, w, r)
	}
}

// longest returns the bound of a body by which a machine speaks of its work: little where it is not admitted, and has none.
func (a *agents) longest(c fleet.Caller, limit int64) int64 {
	if a.fleet.Admitted(c) {
		return limit
	}
	return maxHello
}

func authenticated(authenticate func(*x509.Certificate) (fleet.Caller, error), e called) endpoint {
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			return nil, &fleet.Refusal{Code: fleet.CodeUnauthorised, Detail: "this needs the certificate that hello or join returned"}
		}
		c, err := authenticate(r.TLS.VerifiedChains[0][0])
		if err != nil {
			return nil, err
		}
		remote, _ := netip.ParseAddrPort(r.RemoteAddr)
		return e(c.At(remote.Addr()), w, r)
	}
}

func (a *agents) hello(w http.ResponseWriter, r *http.Request) (any, error) {
	h, err := read[job.Hello](w, r, maxHello)
	if err != nil {
		return nil, err
	}
	remote, _ := netip.ParseAddrPort(r.RemoteAddr)
	return a.fleet.Hello(r.Context(), remote.Addr().Unmap(), h)
}

func (a *agents) inventory(c fleet.Caller, w http.ResponseWriter, r *http.Request) (any, error) {
	limit := int64(maxInventory)
	if a.fleet.Stranger(c) {
		limit = fleet.MaxStrangeInventory
	}
	inv, err := read[job.Inventory](w, r, limit)
	if err != nil {
		return nil, err
	}
	return a.fleet.Inventory(r.Context(), c, inv)
}

func (a *agents) claim(c fleet.Caller, w http.ResponseWriter, r *http.Request) (any, error) {
	request, err := read[job.Claim](w, r, maxHello)
	if err != nil {
		return nil, err
	}
	j, err := a.fleet.Claim(r.Context(), c, request)
	if j == nil || err != nil {
		return nil, err
	}
	return j, nil
}

func (a *agents) report(c fleet.Caller, w http.ResponseWriter, r *http.Request) (any, error) {
	report, err := read[job.Report](w, r, a.longest(c, maxReport))
	if err != nil {
		return nil, err
	}
	return a.fleet.Report(r.Context(), c, report)
}

// frame reads a body only of a machine at work, for there are few places.
func (a *agents) frame(c fleet.Caller, w http.ResponseWriter, r *http.Request) (any, error) {
	if err := a.fleet.AtWork(c); err != nil { // before it takes room
		return nil, err
	}
	leave, err := a.save(c.Machine())
	if err != nil {
		return nil, err
	}
	defer leave()
	select {
	case a.frames <- struct{}{}:
		defer func() { <-a.frames }()
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	raw, err := readAll(w, r, maxFrame)
	if err != nil {
		return nil, err
	}
	return nil, a.fleet.Frame(r.Context(), c, raw)
}

// save has a machine save one frame at a time; the bounds on a body's time end one that stands still.
func (a *agents) save(machine string) (leave func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.saving[machine] {
		return nil, &fleet.Refusal{Code: fleet.CodeTooMany, Detail: "another partition table of this machine is on its way; send it again in a moment"}
	}
	a.saving[machine] = true
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.saving, machine)
	}, nil
}

func (a *agents) receipt(c fleet.Caller, w http.ResponseWriter, r *http.Request) (any, error) {
	signed, err := read[job.SignedReceipt](w, r, a.longest(c, maxReceipt))
	if err != nil {
		return nil, err
	}
	return a.fleet.Receipt(r.Context(), c, signed)
}

// manifest sends an image's manifest to a machine with a job for it.
func (a *agents) manifest(c fleet.Caller, w http.ResponseWriter, r *http.Request) (any, error) {
	d, err := images.ParseDigest(r.PathValue("digest"))
	if err != nil {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: err.Error()}
	}
	for _, claimed := range a.fleet.Claimed(c) {
		if claimed != d {
			continue
		}
		manifest, signature, err := a.content.Manifest(r.Context(), d)
		if err != nil {
			return nil, err
		}
		w.Header().Set(job.SignatureHeader, base64.StdEncoding.EncodeToString(signature))
		return octets(manifest), nil
	}
	return nil, notEntitled(d)
}

// layer sends a layer of an image, or ranges of it (RFC 9110 §14.2), to a machine with a job for the image.
func (a *agents) layer(c fleet.Caller, w http.ResponseWriter, r *http.Request) (any, error) {
	d, err := images.ParseDigest(r.PathValue("digest"))
	if err != nil {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: err.Error()}
	}
	for _, claimed := range a.fleet.Claimed(c) {
		encoded, _, err := a.content.Manifest(r.Context(), claimed)
		if err != nil {
			return nil, err
		}
		m, err := images.DecodeManifest(encoded)
		if err != nil {
			return nil, err
		}
		length, ok := names(m, d)
		if !ok {
			continue
		}
		if r.Header.Get("Range") != "" {
			return ranges{io.NewSectionReader(layerReader{r.Context(), a.content, d}, 0, length)}, nil
		}
		b, err := a.content.Layer(r.Context(), d)
		if err != nil {
			return nil, err
		}
		return octets(b), nil
	}
	return nil, notEntitled(d)
}

func notEntitled(d images.Digest) error {
	return &fleet.Refusal{Code: fleet.CodeImageUnknown, Detail: "no job of this machine is about " + d.Short()}
}

// names returns the length of a layer; false says that the manifest does not name it.
func names(m *images.Manifest, d images.Digest) (length int64, ok bool) {
	for _, r := range m.Layers() {
		if r.Digest == d {
			return r.Length, true
		}
	}
	return 0, false
}

// layerReader reads a layer in parts, so that a few bytes of a long one cost little.
type layerReader struct {
	ctx     context.Context
	content Content
	layer   images.Digest
}

// ReadAt implements io.ReaderAt.
func (l layerReader) ReadAt(b []byte, offset int64) (int, error) {
	part, err := l.content.LayerRange(l.ctx, l.layer, offset, int64(len(b)))
	return copy(b, part), err
}
