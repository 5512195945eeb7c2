package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/swarm"
	"seedbed/images/trust"
)

// pass is what a guest has to show and to check: kept in a file, so that a program that was interrupted goes on by the token
// that it used.
type pass struct {
	Appliances  []string      `json:"appliances"`
	Fingerprint images.Digest `json:"fingerprint"`
	Key         []byte        `json:"key"`         // PKCS #8
	Certificate []byte        `json:"certificate"` // the last one, DER
	Expires     time.Time     `json:"expires"`
}

// guest is a program outside a boot, towards the appliances of a site. Safe for concurrent use.
type guest struct {
	role job.Role
	name string
	// unverified says that what is fetched will not be read back.
	unverified bool
	token      string         // "" on the appliance's own host
	local      *client.Client // nil elsewhere
	file       string         // of the pass; "" keeps none
	http       *http.Client
	log        *slog.Logger
	// limits are those of the program's swarms; nil is none.
	limits *swarm.Limits
	dialer *net.Dialer // to machines, before a swarm is joined; nil is the zero one

	mu     sync.Mutex // guards what follows
	key    *ecdsa.PrivateKey
	public []byte // PKIX DER
	pass   pass
	filed  []byte // the public key of which the file has the other half
	loaded bool   // the file says what an appliance knows
}

// noToken says how to join.
const noToken = "no appliance runs on this host (%s), and no token was given: make one at the appliance with " +
	"`seedbed token new --for %s`, and give it with --token-file or in " + tokenVariable

// newGuest returns a guest by a ticket, else by the appliance of this host, else by the pass of an earlier run in file. The
// caller closes.
func (o *options) newGuest(ctx context.Context, role job.Role, ticket *job.Ticket, file string, log *slog.Logger) (*guest, error) {
	g := &guest{role: role, file: file, log: log}
	if host, err := os.Hostname(); err == nil {
		g.name = host[:min(len(host), 64)]
	}
	if err := g.load(); err != nil {
		return nil, err
	}
	known := g.key != nil && time.Now().Before(g.pass.Expires)
	switch local := client.Local(o.socket()); {
	case ticket != nil && (!known || g.pass.Fingerprint == ticket.Fingerprint):
		g.token, g.pass.Appliances, g.pass.Fingerprint = ticket.Token, ticket.Appliances, ticket.Fingerprint
		local.Close()
	case ticket != nil:
		local.Close()
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid,
			Detail: fmt.Sprintf("the token is another site's than what was begun by %s; remove that file, or take another place", g.file)}
	case local.Running(ctx):
		g.local = local
	case known:
		local.Close()
	default:
		local.Close()
		return nil, fmt.Errorf("%w: "+noToken, client.ErrNotRunning, o.socket(), role)
	}
	if g.key == nil {
		var err error
		if g.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
	}
	var err error
	if g.public, err = x509.MarshalPKIXPublicKey(&g.key.PublicKey); err != nil {
		return nil, err
	}
	if g.loaded {
		g.filed = g.public
	}
	g.http = &http.Client{Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: dialTimeout, KeepAliveConfig: guestKeepAlive}).DialContext, TLSHandshakeTimeout: 20 * time.Second,
		ResponseHeaderTimeout: time.Minute, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 4,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, VerifyConnection: g.verify, // in place of host names
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return g.certificate(), nil },
		},
	}}
	return g, nil
}

// use makes the guest reach appliances over the first interface, if some are named: it is reached back at the address that
// it comes from. It asks machines as the transport says, too.
func (g *guest) use(t swarm.Transport) {
	if len(t.Interfaces) == 0 {
		g.dialer = t.Dialer("")
		return
	}
	g.dialer = t.Dialer(t.Interfaces[0])
	g.dialer.Timeout, g.dialer.KeepAliveConfig = dialTimeout, guestKeepAlive
	g.http.Transport.(*http.Transport).DialContext = g.dialer.DialContext
}

// dialTimeout is how long a connection to an appliance may take.
const dialTimeout = 3 * time.Second

// guestKeepAlive finds out within seconds that an appliance is gone without a word.
var guestKeepAlive = net.KeepAliveConfig{Enable: true, Idle: 3 * time.Second, Interval: 2 * time.Second, Count: 2}

func (g *guest) close() {
	g.http.CloseIdleConnections()
	if g.local != nil {
		g.local.Close()
	}
}

// verify accepts an appliance of the site.
func (g *guest) verify(cs tls.ConnectionState) error {
	g.mu.Lock()
	pin := g.pass.Fingerprint
	g.mu.Unlock()
	return trust.Appliance(cs, pin, time.Now(), job.URIMachine, job.URIJob, job.URIGuest)
}

// certificate returns the last certificate; an empty one before the first.
func (g *guest) certificate() *tls.Certificate {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pass.Certificate == nil || time.Now().After(g.pass.Expires) {
		return &tls.Certificate{}
	}
	return &tls.Certificate{Certificate: [][]byte{g.pass.Certificate}, PrivateKey: g.key}
}

// fresh reports whether the certificate need not be renewed yet.
func (g *guest) fresh() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Until(g.pass.Expires) > fleet.GuestLifetime*2/3
}

// load reads the pass, where there is one.
func (g *guest) load() error {
	if g.file == "" {
		return nil
	}
	b, err := os.ReadFile(g.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, &g.pass)
	}
	var key any
	if err == nil {
		key, err = x509.ParsePKCS8PrivateKey(g.pass.Key)
	}
	var ok bool
	g.loaded = true
	if g.key, ok = key.(*ecdsa.PrivateKey); err != nil || !ok {
		return fmt.Errorf("read %s, by which an interrupted program joins again (remove it and take a new token): %w", g.file,
			errors.Join(err, errors.New("it is not whole")))
	}
	return nil
}

// save keeps the pass: of what a get left, it also says that a get left it.
func (g *guest) save() error {
	if g.file == "" {
		return nil
	}
	g.mu.Lock()
	kept, key, public := g.pass, g.key, g.public
	g.mu.Unlock()
	var err error
	if kept.Key, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return err
	}
	b, err := json.Marshal(kept)
	if err == nil {
		err = replaceFile(g.file, b)
	}
	if err == nil {
		g.mu.Lock()
		g.filed = public
		g.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("keep what is needed to go on after an interruption: %w", err)
	}
	return nil
}

// replaceFile puts a file that only its owner may read there, whole or not at all.
func replaceFile(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	if err = keepPrivate(f.Name()); err == nil {
		_, err = f.Write(b)
	}
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// forget removes the pass: nothing is to be gone on with.
func (g *guest) forget() {
	if g.file != "" {
		os.Remove(g.file)
	}
}

// giveUp removes the pass if there is nothing to be gone on with: the token was not used, or none is needed.
func (g *guest) giveUp() {
	g.mu.Lock()
	needed := g.loaded && g.local == nil
	g.mu.Unlock()
	if !needed {
		g.forget()
	}
}

// join gets a certificate for the swarm of an image, or, with "", one that names none.
func (g *guest) join(ctx context.Context, image string, part bool) (*job.Joined, error) {
	g.mu.Lock()
	public := g.public
	g.mu.Unlock()
	request := job.Join{PublicKey: public, Role: g.role, Name: g.name, Image: image, Part: part, Unverified: g.unverified}
	if g.local == nil && len(g.certificate().Certificate) == 0 {
		request.Token = g.token
	}
	answer, err := g.enter(ctx, request)
	if g.mayRenew(request, err) {
		answer, err = g.anew(ctx, request)
	}
	if err != nil {
		return nil, err
	}
	ca, err := x509.ParseCertificate(answer.CA)
	if err != nil {
		return nil, fmt.Errorf("the appliance's authority: %w", err)
	}
	g.mu.Lock()
	if g.local != nil {
		g.pass.Fingerprint = images.Sum(ca.Raw)
	}
	pinned := g.pass.Fingerprint == images.Sum(ca.Raw)
	g.pass.Certificate, g.pass.Expires = answer.Certificate, answer.Expires
	if len(answer.Appliances) > 0 {
		g.pass.Appliances = answer.Appliances
	}
	g.mu.Unlock()
	if !pinned {
		return nil, trust.ErrPin
	}
	g.http.CloseIdleConnections()
	return answer, g.save()
}

// enter asks an appliance to be let in. The key is kept before a token is shown: if the answer is lost, the same key may use
// the token again.
func (g *guest) enter(ctx context.Context, r job.Join) (*job.Joined, error) {
	if g.local != nil {
		return g.local.Join(ctx, r)
	}
	if r.Token != "" {
		if err := g.keepKey(); err != nil {
			return nil, err
		}
	}
	var sent atomic.Bool
	trace := &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { sent.Store(true) }}
	answer := new(job.Joined)
	err := g.post(httptrace.WithClientTrace(ctx, trace), job.PathJoin, r, answer)
	_, refused := errors.AsType[*fleet.Refusal](err)
	g.mu.Lock()
	g.loaded = g.loaded || err == nil || sent.Load() && !refused
	useless := !g.loaded
	g.mu.Unlock()
	if useless {
		g.forget()
	}
	return answer, err
}

// keepKey saves the pass unless the file has its key already.
func (g *guest) keepKey() error {
	g.mu.Lock()
	kept := bytes.Equal(g.filed, g.public)
	g.mu.Unlock()
	if kept {
		return nil
	}
	return g.save()
}

// mayRenew reports whether it is of use to join as if for the first time after a refusal: the appliance does not know the
// guest any more, has revoked what let it in, or knows its key by another purpose.
func (g *guest) mayRenew(r job.Join, err error) bool {
	g.mu.Lock()
	loaded := g.loaded
	g.mu.Unlock()
	refusal, refused := errors.AsType[*fleet.Refusal](err)
	switch {
	case !refused || !loaded || g.token == "" && g.local == nil:
		return false
	case refusal.Code == fleet.CodeUnauthorised, refusal.Code == fleet.CodeRevoked:
		return g.role == job.RoleGet || r.Token == "" // else it is the token
	case refusal.Code == fleet.CodeInvalid:
		return g.role == job.RoleGet || r.Token != ""
	}
	return false
}

// anew joins with a new key. What a get had before counts on if it is refused.
func (g *guest) anew(ctx context.Context, r job.Join) (*job.Joined, error) {
	g.mu.Lock()
	key, public, before := g.key, g.public, g.pass
	g.mu.Unlock()
	var err error
	if r.PublicKey, err = g.renew(); err != nil {
		return nil, err
	}
	r.Token = g.token
	answer, err := g.enter(ctx, r)
	if _, refused := errors.AsType[*fleet.Refusal](err); refused && g.role == job.RoleGet {
		g.mu.Lock()
		g.key, g.public, g.pass = key, public, before
		g.mu.Unlock()
		err = errors.Join(err, g.keepKey())
	}
	return answer, err
}

// renew makes a new key, for a guest that joins as if for the first time, and returns its public half.
func (g *guest) renew() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.key, g.public, g.pass.Certificate = key, public, nil
	g.http.CloseIdleConnections()
	return public, nil
}

// refusalOf makes an error of an answer that says no.
func refusalOf(status int, body []byte) error {
	var p job.Problem
	if json.Unmarshal(body, &p) != nil || p.Code == "" {
		return fmt.Errorf("the appliance answered %d %s", status, http.StatusText(status))
	}
	return &fleet.Refusal{Code: p.Code, Detail: p.Detail}
}

// maxGuestAnswer bounds answers in bytes, but for layers, whose length is known.
const maxGuestAnswer = 1 << 20

func (g *guest) post(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	_, b, err := g.do(ctx, http.MethodPost, path, body, maxGuestAnswer)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, out)
}

// do asks the appliances, one after the other until one answers, the one that answered last first. An error is a *fleet.Refusal, or
// wraps client.ErrNotRunning.
func (g *guest) do(ctx context.Context, method, path string, body []byte, limit int64) (http.Header, []byte, error) {
	g.mu.Lock()
	list := slices.Clone(g.pass.Appliances)
	g.mu.Unlock()
	var errs []error
	for i, base := range list {
		most := time.Hour // a layer travels for as long as it takes
		if i < len(list)-1 && limit <= maxGuestAnswer {
			most = othersAfter
		}
		attempt, cancel := context.WithTimeout(ctx, most)
		header, b, err := g.ask(attempt, method, base+path, body, limit)
		cancel()
		if refusal, refused := errors.AsType[*fleet.Refusal](err); err == nil || refused && refusal.Code != codeInternal || ctx.Err() != nil {
			return header, b, err
		}
		g.last(base)
		errs = append(errs, err)
	}
	if refusal, ok := errors.AsType[*fleet.Refusal](errors.Join(errs...)); ok { // one answered at least
		return nil, nil, refusal
	}
	if err := errors.Join(errs...); errors.Is(err, trust.ErrPin) { // it runs, and is another's
		return nil, nil, fmt.Errorf("%s: %w; take a token that this site made (`seedbed token new`)", strings.Join(list, ", "), err)
	}
	return nil, nil, fmt.Errorf("%w, or is not reached at %s: %w", client.ErrNotRunning, strings.Join(list, ", "), errors.Join(errs...))
}

// othersAfter is how long an appliance may take to answer before another one is asked: longer than a question that it holds open.
const othersAfter = 10 * time.Second

// codeInternal is an appliance's word for a failure of its own, which may be that of its way to the records.
const codeInternal = "internal"

// last has an appliance asked after all others, since it did not answer.
func (g *guest) last(base string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if at := slices.Index(g.pass.Appliances, base); at >= 0 && len(g.pass.Appliances) > 1 {
		g.pass.Appliances = append(slices.Delete(slices.Clone(g.pass.Appliances), at, at+1), base)
		g.http.CloseIdleConnections()
	}
}

func (g *guest) ask(ctx context.Context, method, url string, body []byte, limit int64) (http.Header, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := g.http.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	switch {
	case err != nil:
		return nil, nil, err
	case answer.StatusCode/100 != 2:
		return nil, nil, refusalOf(answer.StatusCode, b)
	case int64(len(b)) > limit:
		return nil, nil, fmt.Errorf("the answer of %s is longer than %d bytes", url, limit)
	}
	return answer.Header, b, nil
}

// retry calls f again while nobody answers, until patience is over: an appliance may be started again.
func retry(ctx context.Context, patience time.Duration, f func() error) error {
	wait := 200 * time.Millisecond
	for end := time.Now().Add(patience); ; wait = min(2*wait, 3*time.Second) {
		err := f()
		if _, refused := errors.AsType[*fleet.Refusal](err); err == nil || refused || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}
