package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"seedbed/appliance/boot"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/limit"
	"seedbed/appliance/metrics"
	"seedbed/images/repository"
)

// watched is what those who watch an appliance ask it, and what keeps strangers from asking too much.
type watched struct {
	metrics   *metrics.Metrics
	stored    atomic.Int64   // bytes of the repository
	strangers *limit.Limiter // requests over HTTPS without a certificate
	loaders   *limit.Limiter // scripts and tokens over HTTP
	files     *limit.Limiter // all else over HTTP: boot files, torrents and tracker of open images
	told      atomic.Int64   // Unix seconds when a refused stranger was logged last
	health    health
	roomAsked question[roomOf]
	reloads   []func() // at SIGHUP
	own       *ownCertificate
}

// What one address may ask without a certificate: a room of 80 machines behind one relay, or a simulated thousand on one host, start
// at once, and each says hello up to three times; a boot fetches four scripts and a token, and at most six files.
var (
	strangersMay = limit.Config{PerSecond: 100, Burst: 3000}
	loadersMay   = limit.Config{PerSecond: 400, Burst: 4000}
	filesMay     = limit.Config{PerSecond: 1000, Burst: 10000}
)

// openWatch makes what is needed before anything listens.
func (a *appliance) openWatch() error {
	a.metrics = metrics.New(a.log)
	if a.strangers == nil { // a test may have set it
		a.strangers = limit.New(strangersMay)
	}
	a.loaders, a.files = limit.New(loadersMay), limit.New(filesMay)
	own, err := openOwnCertificate(a.config.TLSCert, a.config.TLSKey, a.log)
	if err != nil {
		return err
	}
	if a.own = own; own != nil {
		a.reloads = append(a.reloads, own.reload)
	}
	a.openHangUp()
	return nil
}

// watch lets scrapes tell of all that was opened.
func (a *appliance) watch() {
	a.metrics.Watch(metrics.Config{
		Fleet: a.fleet.Measures, Picture: a.monitor.Picture, Seeders: a.seeders.Stats, Tracked: a.tracker.Totals, Room: a.room, Stored: a.stored.Load,
		Refused: map[string]func() int64{"https": a.strangers.Refusals, "boot": func() int64 { return a.loaders.Refusals() + a.files.Refusals() }}, Version: programVersion(), Log: a.log,
	})
	a.parts = append(a.parts, a.countStored)
}

// errUntold says that the storage does not tell how much room it has.
var errUntold = errors.New("object storage does not tell")

// room is that of the file system of the images.
func (a *appliance) room() (free, total int64, err error) {
	folder := a.folder()
	if folder == "" {
		return 0, 0, errUntold
	}
	r, err := a.roomAsked.ask(healthTimeout, func() (r roomOf, err error) {
		r.free, r.total, err = repository.RoomIn(folder)
		return r, err
	})
	return r.free, r.total, err
}

// roomOf is that of a file system, in bytes.
type roomOf struct{ free, total int64 }

// countEvery is how often the objects of the repository are added up: it lists them all.
const countEvery = 10 * time.Minute

// countStored adds up the objects of the repository until ctx is done.
func (a *appliance) countStored(ctx context.Context) error {
	for {
		var sum int64
		var err error
		for o, listErr := range a.lib.bucket.List(ctx, "") {
			if err = listErr; err != nil {
				break
			}
			sum += o.Length
		}
		if err == nil {
			a.stored.Store(sum)
		} else if ctx.Err() == nil {
			a.log.Debug("the repository was not added up", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(countEvery):
		}
	}
}

// Paths for those who watch.
const (
	pathMetrics = "/metrics"
	pathAlive   = "/healthz"
	pathReady   = "/readyz"
)

// front answers those who watch, keeps strangers who ask too much away, and gives all else to next.
func (a *appliance) front(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathMetrics, a.serveMetrics)
	mux.HandleFunc("GET "+pathAlive, func(w http.ResponseWriter, _ *http.Request) { plainText(w, http.StatusOK, "alive") })
	mux.HandleFunc("GET "+pathReady, a.serveReady)
	mux.Handle("/", next)
	return a.metrics.Requests(a.guard(mux))
}

// guard bounds how often one address asks without a certificate of the site. People's pages and the API have bounds of their own.
func (a *appliance) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		known := r.TLS != nil && len(r.TLS.VerifiedChains) > 0
		if agents := strings.HasPrefix(r.URL.Path, "/agent/") || strings.HasPrefix(r.URL.Path, job.PathAnnounce) || isWatching(r.URL.Path); known || !agents {
			next.ServeHTTP(w, r)
			return
		}
		if wait := a.strangers.Wait(remoteAddr(r), time.Now()); wait > 0 {
			a.tellStranger(r.RemoteAddr, r.URL.Path)
			w.Header().Set("Retry-After", fmt.Sprint(int(wait/time.Second)+1))
			problem(w, http.StatusTooManyRequests, fleet.CodeTooMany, "too many requests from this address; try again in a moment")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isWatching(path string) bool {
	return path == pathMetrics || path == pathAlive || path == pathReady
}

// tellStrangerEvery bounds the lines in the log about strangers who ask too much.
const tellStrangerEvery = 60

// seldom reports whether tellStrangerEvery has gone by since it did last; told has when that was.
func seldom(told *atomic.Int64) bool {
	now, before := time.Now().Unix(), told.Load()
	return now-before >= tellStrangerEvery && told.CompareAndSwap(before, now)
}

func (a *appliance) tellStranger(from, what string) {
	if seldom(&a.told) {
		a.log.Warn("requests without a certificate are refused: too many from one address; others are told of once a minute", "peer", from, "path", what)
	}
}

// bootAsked counts a boot file that was asked for, and bounds how often one address asks, less often for what has to be made for it.
func (a *appliance) bootAsked(client netip.Addr, what string) time.Duration {
	a.metrics.BootFile(what)
	bound := a.files
	if what == boot.AskedScript || what == boot.AskedToken {
		bound = a.loaders
	}
	wait := bound.Wait(client, time.Now())
	if wait > 0 {
		a.tellStranger(client.String(), "a boot file")
	}
	return wait
}

func remoteAddr(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap().WithZone("")
}

// serveMetrics answers scrapes from the networks that may, and from anywhere with an API token.
func (a *appliance) serveMetrics(w http.ResponseWriter, r *http.Request) {
	from := remoteAddr(r)
	if !a.config.MetricsFrom.contain(from) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			w.Header().Set("WWW-Authenticate", `Bearer realm="seedbed"`)
			problem(w, http.StatusUnauthorized, fleet.CodeUnauthorised, "metrics are told to the networks of metrics_from, and to who has an API token")
			return
		}
		actor, err := a.fleet.KeyActor(token, from.String())
		if err != nil || !actor.Role.Includes(fleet.RoleViewer) {
			problem(w, http.StatusUnauthorized, fleet.CodeUnauthorised, "the API token is not known here, has expired, or its user is shut out")
			return
		}
	}
	a.metrics.Handler().ServeHTTP(w, r)
}

// withReady tells who asks over the local socket whether the appliance is ready; all else is for next.
func (a *appliance) withReady(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathReady, a.serveReady)
	mux.Handle("/", next)
	return mux
}

// serveReady says whether the appliance can do its work now, and if not, why.
func (a *appliance) serveReady(w http.ResponseWriter, _ *http.Request) {
	if wrong := a.health.look(a.organs(), a.log); wrong != "" {
		plainText(w, http.StatusServiceUnavailable, "not ready: "+wrong)
		return
	}
	plainText(w, http.StatusOK, "ready")
}

// health remembers for a moment what was found, so that those who ask cost nothing. Safe for concurrent use.
type health struct {
	mu    sync.Mutex // guards what follows; not held while it is looked
	at    time.Time
	wrong string
	parts map[string]*question[struct{}] // by name
}

const (
	healthFresh   = 2 * time.Second
	healthTimeout = 3 * time.Second
)

// organ is something that the appliance cannot work without. Its sentences are for anybody; the log hears why.
type organ struct {
	name   string
	failed string // that it says so
	silent string // that it says nothing
	ask    func(ctx context.Context) error
}

// look returns what is wrong, "" where nothing is, after healthTimeout at most. The log is told when that changes.
func (h *health) look(organs []organ, log *slog.Logger) string {
	h.mu.Lock()
	if time.Since(h.at) <= healthFresh {
		defer h.mu.Unlock()
		return h.wrong
	}
	if h.parts == nil {
		h.parts = map[string]*question[struct{}]{}
	}
	questions := make([]*question[struct{}], len(organs))
	for i, o := range organs {
		if h.parts[o.name] == nil {
			h.parts[o.name] = new(question[struct{}])
		}
		questions[i] = h.parts[o.name]
	}
	h.mu.Unlock()
	errs := make([]error, len(organs))
	var asking sync.WaitGroup
	for i, o := range organs {
		asking.Go(func() { errs[i] = o.look(questions[i]) })
	}
	asking.Wait()
	return h.found(organs, errs, log)
}

// look asks, and waits for healthTimeout at most.
func (o organ) look(q *question[struct{}]) error {
	_, err := q.ask(healthTimeout, func() (struct{}, error) {
		ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
		defer cancel()
		return struct{}{}, o.ask(ctx)
	})
	return err
}

// found remembers what was found, and returns it in words.
func (h *health) found(organs []organ, errs []error, log *slog.Logger) string {
	var sentences []string
	for i, o := range organs {
		switch {
		case errs[i] == nil:
		case errors.Is(errs[i], errNoAnswer) || errors.Is(errs[i], context.DeadlineExceeded):
			sentences = append(sentences, o.silent)
		default:
			sentences = append(sentences, o.failed)
		}
	}
	h.mu.Lock()
	before := h.wrong
	h.wrong, h.at = strings.Join(sentences, "; "), time.Now()
	now := h.wrong
	h.mu.Unlock()
	switch {
	case now == before:
	case now == "":
		log.Info("appliance is ready again")
	default:
		log.Warn("appliance is not ready", "why", now, "err", errors.Join(errs...))
	}
	return now
}

// organs are what the appliance cannot work without.
func (a *appliance) organs() []organ {
	list := []organ{
		{"records", "the records cannot be read", "the records do not answer", func(ctx context.Context) error {
			_, err := a.store.Office(ctx)
			return err
		}},
		{"repository", "the repository of images cannot be read", "the repository of images does not answer", a.probeImages},
	}
	if a.http != nil {
		list = append(list, organ{"boot", "the port of the boot files does not answer", "the port of the boot files does not answer",
			func(ctx context.Context) error { return dialSelf(ctx, a.http) }})
	}
	return list
}

// probeImages looks whether the storage of images answers.
func (a *appliance) probeImages(ctx context.Context) error {
	if folder := a.folder(); folder != "" {
		if err := readable(folder); err != nil { // a folder that is gone looks to a bucket like one without objects
			return err
		}
	}
	return probe(ctx, a.lib.bucket)
}

// readable reads the beginning of a folder.
func readable(folder string) error {
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer d.Close()
	if _, err := d.Readdirnames(1); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// folder is that of the images, "" where they are in object storage.
func (a *appliance) folder() string {
	if strings.HasPrefix(a.config.Repository, "s3://") {
		return ""
	}
	return or(a.config.Repository, filepath.Join(a.config.Data, "repository"))
}

// probe asks storage for something that is not there: an answer is all that is wanted.
func probe(ctx context.Context, b repository.Bucket) error {
	_, err := b.Stat(ctx, "images/ready/ready")
	if errors.Is(err, repository.ErrNotExist) {
		return nil
	}
	return err
}

func dialSelf(ctx context.Context, l net.Listener) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return err
	}
	return conn.Close()
}

func plainText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}

// problem answers with an error (RFC 9457).
func problem(w http.ResponseWriter, status int, code, sentence string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(job.Problem{Title: http.StatusText(status), Status: status, Detail: sentence, Code: code})
}
