package agent

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/announce"
	"seedbed/images/swarm"
	"seedbed/images/tile"
	"seedbed/images/torrent"
	"seedbed/images/trust/trusttest"
	"seedbed/initramfs/board"
	"seedbed/initramfs/disk/disktest"
)

// appliance is a site with one deployment of one image, made for the agent's tests: certificates, endpoints and a
// seeder are real, the records are a few fields.
type appliance struct {
	t    *testing.T
	img  *disktest.Image
	info *torrent.Info

	authority *trusttest.Authority
	ca        *x509.Certificate // the authority's
	siteKey   ed25519.PrivateKey

	server *httptest.Server
	seeder *swarm.Swarm
	seed   *seedStorage
	fresh  bool // the seeder began with the deployment
	// sources answers who has what describes the image; nil knows of nobody. layers counts what the endpoint gave of that
	// itself, in bytes. name is the machine's.
	sources http.Handler
	layers  *atomic.Int64
	name    string

	mu      sync.Mutex // guards everything below
	token   string     // "" once it was redeemed
	machine []byte     // public key (PKIX) of the boot
	claimed bool
	// unadmitted is how many inventories are answered before a person admits the machine.
	unadmitted int
	pin        string         // DiskSerial of the job
	order      func(*job.Job) // changes the job before it is given; may be nil
	waits      int            // so many claims are told that the job waits
	told       int            // inventories
	uris       []string       // more of them in the job's certificate
	seeds      []netip.AddrPort
	reports    []job.Report
	claims     []job.Claim
	hello      job.Hello // the last one
	frames     []job.OldFrame
	receipts   []job.Receipt
	announced  []announce.Event
	lacked     int64 // by the first announce
	final      job.Report
	say        func(job.Report) job.Directive
	on         func(path string) // called before an endpoint answers
	away       bool              // every request fails
	ended      bool              // the job was cancelled
	lifetime   time.Duration     // of certificates; zero means an hour
	seen       chan struct{}     // closed and replaced at each report
}

func newAppliance(t *testing.T) *appliance { return newApplianceOf(t, disktest.New(t)) }

// newApplianceOf deploys another image.
func newApplianceOf(t *testing.T, img *disktest.Image) *appliance {
	t.Helper()
	a := &appliance{t: t, img: img, authority: trusttest.New(t), token: strings.Repeat("ab", 32), seen: make(chan struct{}), layers: new(atomic.Int64), name: "m1",
		say: func(r job.Report) job.Directive { return job.Directive{State: r.State, Release: true} }, on: func(string) {}}
	a.ca = a.authority.Certificate
	var err error
	if a.info, err = torrent.FromManifest(a.img.Manifest); err != nil {
		t.Fatal(err)
	}
	if _, a.siteKey, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	a.serve(a.keyPair())
	a.startSeeder()
	a.seeds = []netip.AddrPort{a.seeder.Addr()}
	return a
}

// lasts makes a certificate valid for those whose clock is not set too, and for as long as the test has it.
func (a *appliance) lasts(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = trusttest.Long, time.Now().Add(cmp.Or(a.lifetime, time.Hour))
}

// issue returns a certificate (DER) of the site.
func (a *appliance) issue(key *ecdsa.PublicKey, uris ...string) []byte {
	a.t.Helper()
	return a.authority.Sign(a.t, key, a.lasts, uris...).Raw
}

func (a *appliance) keyPair(uris ...string) tls.Certificate {
	a.t.Helper()
	cert := a.authority.Issue(a.t, a.lasts, uris...)
	cert.Certificate = append(cert.Certificate, a.ca.Raw)
	return cert
}

// serve starts the endpoints with a certificate.
func (a *appliance) serve(cert tls.Certificate) {
	pool := x509.NewCertPool()
	pool.AddCert(a.ca)
	a.server = httptest.NewUnstartedServer(a.handler())
	a.server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
	a.server.Config.ErrorLog = log.New(a.t.Output(), "", 0)
	a.server.StartTLS()
	a.t.Cleanup(a.server.Close)
}

// boot is the boot file that the boot script would give.
func (a *appliance) boot() job.Boot {
	return job.Boot{Appliances: []string{a.server.URL}, Fingerprint: images.Sum(a.ca.Raw), Token: strings.Repeat("ab", 32), MAC: "52:54:00:00:00:01"}
}

func (a *appliance) startSeeder() {
	a.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	a.seed = &seedStorage{img: a.img}
	cert := a.keyPair(swarm.InfoHashURI(a.info.InfoHash), swarm.URIRoleAppliance)
	a.seeder, err = swarm.New(swarm.Config{InfoHash: a.info.InfoHash, Pieces: a.img.Layout, Storage: a.seed,
		TLS: swarm.TLSConfig(cert, a.ca, a.info.InfoHash), Listener: l, HandOut: true, Fresh: a.fresh})
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	seeder := a.seeder
	go func() { ended <- seeder.Run(ctx) }()
	a.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			a.t.Error("seeder:", err)
		}
	})
}

func (a *appliance) handler() http.Handler {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	deny := func(w http.ResponseWriter, status int, code, detail string) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(job.Problem{Status: status, Code: code, Detail: detail})
	}
	mux.HandleFunc("POST "+job.PathHello, func(w http.ResponseWriter, r *http.Request) {
		var h job.Hello
		_ = json.NewDecoder(r.Body).Decode(&h)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.hello = h
		if h.Token != a.token && string(h.PublicKey) != string(a.machine) {
			deny(w, http.StatusForbidden, "token-used", "the boot token was used before; start the machine again")
			return
		}
		a.token, a.machine = "", h.PublicKey
		key, err := x509.ParsePKIXPublicKey(h.PublicKey)
		if err != nil {
			deny(w, http.StatusBadRequest, "invalid", err.Error())
			return
		}
		answer(w, job.Welcome{Time: time.Now(), Appliances: []string{a.server.URL}, CA: a.ca.Raw, SiteKey: a.siteKey.Public().(ed25519.PublicKey),
			Certificate: a.issue(key.(*ecdsa.PublicKey), job.URIMachine+h.MAC)})
	})
	mux.HandleFunc("POST "+job.PathInventory, func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.told++
		if a.unadmitted > 0 {
			a.unadmitted--
			answer(w, job.Admission{Machine: "m1", Name: "lab-1", Code: "AB12"})
			return
		}
		answer(w, job.Admission{Machine: "m1", Name: "lab-1", Admitted: true})
	})
	mux.HandleFunc("POST "+job.PathClaim, func(w http.ResponseWriter, r *http.Request) { a.claim(w, r, answer) })
	mux.HandleFunc("POST "+job.PathReport, func(w http.ResponseWriter, r *http.Request) {
		var report job.Report
		_ = json.NewDecoder(r.Body).Decode(&report)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.reports = append(a.reports, report)
		close(a.seen)
		a.seen = make(chan struct{})
		answer(w, a.say(report))
	})
	mux.HandleFunc("POST "+job.PathFrame, func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		var f job.OldFrame
		if err := cbor.Unmarshal(raw, &f); err != nil {
			deny(w, http.StatusBadRequest, "invalid", err.Error())
			return
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.ended {
			deny(w, http.StatusConflict, "job-ended", "job j1 has already cancelled")
			return
		}
		a.frames = append(a.frames, f)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST "+job.PathReceipt, func(w http.ResponseWriter, r *http.Request) { a.receive(w, r, answer, deny) })
	mux.HandleFunc("GET "+job.PathManifest+"{digest}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(job.SignatureHeader, base64.StdEncoding.EncodeToString(images.Sign(a.siteKey, a.img.Raw)))
		_, _ = w.Write(a.img.Raw)
	})
	mux.HandleFunc("GET "+job.PathLayer+"{digest}", func(w http.ResponseWriter, r *http.Request) {
		d, err := images.ParseDigest(r.PathValue("digest"))
		if err != nil || a.img.Layers[d] == nil {
			deny(w, http.StatusNotFound, "layer-unknown", "no such layer")
			return
		}
		if r.Header.Get("Range") == "" {
			a.layers.Add(int64(len(a.img.Layers[d])))
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.img.Layers[d]))
	})
	mux.HandleFunc("GET "+job.PathSources, func(w http.ResponseWriter, r *http.Request) {
		if a.sources == nil {
			deny(w, http.StatusNotFound, "unknown", "this appliance is of an earlier version")
			return
		}
		a.sources.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET "+job.PathAnnounce, func(w http.ResponseWriter, r *http.Request) {
		req, err := announce.ParseRequest(r.URL.RawQuery)
		if err != nil || req.InfoHash != a.info.InfoHash.Wire() || req.Port == 0 {
			a.t.Errorf("announced %+v: %v", req, err)
		}
		a.mu.Lock()
		if req.Event == announce.Started {
			a.lacked = req.Left
		}
		a.announced = append(a.announced, req.Event)
		a.mu.Unlock()
		_, _ = w.Write(announce.Response{Interval: time.Minute, Peers: []netip.AddrPort{a.seeder.Addr()}}.Encode())
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		away, on := a.away, a.on
		a.mu.Unlock()
		if away {
			panic(http.ErrAbortHandler) // the connection breaks
		}
		on(r.URL.Path)
		mux.ServeHTTP(w, r)
	})
}

func (a *appliance) claim(w http.ResponseWriter, r *http.Request, answer func(http.ResponseWriter, any)) {
	var asked job.Claim
	_ = json.NewDecoder(r.Body).Decode(&asked)
	a.mu.Lock()
	a.claims = append(a.claims, asked)
	if a.claimed || len(r.TLS.VerifiedChains) == 0 {
		a.mu.Unlock()
		select { // a long poll
		case <-r.Context().Done():
		case <-time.After(2 * time.Second):
		}
		w.WriteHeader(http.StatusNoContent)
		return
	}
	defer a.mu.Unlock()
	if a.waits > 0 {
		a.waits--
		answer(w, job.Job{ID: "j1", Waits: "waits for a place: 5 of 5 machines of the site are at work"})
		return
	}
	a.claimed = true
	key := r.TLS.VerifiedChains[0][0].PublicKey.(*ecdsa.PublicKey)
	uris := append([]string{job.URIMachine + a.name, job.URIJob + "j1", swarm.InfoHashURI(a.info.InfoHash)}, a.uris...)
	j := job.Job{ID: "j1", Kind: job.Deploy, Machine: "m1", Deployment: "d1", Epoch: 1, Image: a.img.Digest, ImageName: "test:1",
		InfoHash: a.info.InfoHash, Certificate: a.issue(key, uris...),
		Seeds: a.seeds, DiskSerial: a.pin, After: Reboot, ReportEvery: 50 * time.Millisecond}
	if a.order != nil {
		a.order(&j)
	}
	answer(w, j)
}

func (a *appliance) receive(w http.ResponseWriter, r *http.Request, answer func(http.ResponseWriter, any), deny func(http.ResponseWriter, int, string, string)) {
	var signed job.SignedReceipt
	_ = json.NewDecoder(r.Body).Decode(&signed)
	sum := images.Sum(signed.Receipt)
	if !ecdsa.VerifyASN1(r.TLS.VerifiedChains[0][0].PublicKey.(*ecdsa.PublicKey), sum[:], signed.Signature) {
		deny(w, http.StatusForbidden, "receipt-wrong", "the receipt is not signed by the key of this boot")
		return
	}
	var receipt job.Receipt
	_ = json.Unmarshal(signed.Receipt, &receipt)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.receipts, a.final = append(a.receipts, receipt), signed.Final
	answer(w, job.Countersigned{Signature: ed25519.Sign(a.siteKey, append([]byte(job.ReceiptContext), signed.Receipt...))})
}

// awaitBoard waits until the board is so.
func (a *appliance) awaitBoard(ctx context.Context, screen *Screen, ok func(board.Board) bool) {
	a.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		screen.mu.Lock()
		b := screen.board
		screen.mu.Unlock()
		switch {
		case ok(b):
			return
		case time.Now().After(end):
			a.t.Fatalf("the board stays %+v", b)
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			a.t.Fatal(err)
		}
	}
}

// awaitClaim waits for a claim that tells so of the screen.
func (a *appliance) awaitClaim(ctx context.Context, ok func(*job.Screen) bool) {
	a.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		a.mu.Lock()
		claims := slices.Clone(a.claims)
		a.mu.Unlock()
		if slices.ContainsFunc(claims, func(c job.Claim) bool { return ok(c.Screen) }) {
			return
		}
		if time.Now().After(end) {
			a.t.Fatalf("no such claim came: %+v", claims)
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			a.t.Fatal(err)
		}
	}
}

// await returns the first report for which ok is true.
func (a *appliance) await(ok func(job.Report) bool) job.Report {
	a.t.Helper()
	deadline := time.After(20 * time.Second)
	for from := 0; ; {
		a.mu.Lock()
		list, seen := a.reports[from:], a.seen
		a.mu.Unlock()
		for _, r := range list {
			if ok(r) {
				return r
			}
			from++
		}
		select {
		case <-seen:
		case <-deadline:
			a.t.Fatalf("no such report came; the last one is %+v", a.reports[len(a.reports)-1])
		}
	}
}

// seedStorage is the image's content in memory. It counts the tiles that it gave out, and can be made to wait.
type seedStorage struct {
	img  *disktest.Image
	look func() // called while a tile is asked for, may be nil

	mu    sync.Mutex // guards everything below
	given int64      // decoded bytes
	gate  chan struct{}
	after int64 // decoded bytes given before the gate closes
}

func (s *seedStorage) Held(piece int) images.TileSet { return s.img.Layout.Data(piece) }

func (s *seedStorage) TileHashes(piece int) (hashes []images.Digest) {
	for t := range s.img.Layout.Data(piece).All() {
		hashes = append(hashes, images.TileHash(s.img.Tile(piece, t)))
	}
	return hashes
}

func (s *seedStorage) Learn(int, []images.Digest) {}

func (s *seedStorage) Read(ctx context.Context, piece int, tiles images.TileSet, _ []byte) (out []tile.Encoded, err error) {
	for t := range tiles.All() {
		raw := s.img.Tile(piece, t)
		if s.look != nil {
			s.look()
		}
		s.mu.Lock()
		gate := s.gate
		if s.given < s.after {
			gate = nil
		}
		s.given += int64(len(raw))
		s.mu.Unlock()
		if gate != nil {
			select {
			case <-gate:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		e, err := tile.Encode(tile.Zstd, 1, raw)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

func (s *seedStorage) Write(int, int, [][]byte) error { return nil }
func (s *seedStorage) Sync() error                    { return nil }

// hold makes the seeder wait when it has given out so many bytes; the returned function lets it go on.
func (s *seedStorage) hold(after int64) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate, s.after = make(chan struct{}), after
	gate := s.gate
	return sync.OnceFunc(func() { close(gate) })
}

func (s *seedStorage) total() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.given
}
