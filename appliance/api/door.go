package api

import (
	"context"
	"crypto/subtle"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/limit"
)

// CookieName is that of a stay; the prefix has browsers take it over TLS and for this host alone (RFC 6265bis §4.1.3).
const CookieName = "__Host-seedbed"

// CSRFHeader carries Me.CSRF.
const CSRFHeader = "X-CSRF-Token"

// localName is who uses the local socket: whoever can open it is root on the appliance's host.
const localName = "root"

type localKey struct{}

type againKey struct{}

// stillMay reports whether who asks would still be let in: an answer that lasts is longer than some tokens.
func (o *Operators) stillMay(ctx context.Context) bool {
	again, ok := ctx.Value(againKey{}).(func() bool)
	return !ok || again()
}

// isLocal reports whether a request came over the local socket.
func isLocal(ctx context.Context) bool { return ctx.Value(localKey{}) != nil }

// mayHere returns a Refusal unless a request came over the local socket: it names files of the appliance's own host.
func mayHere(ctx context.Context, what string) error {
	if isLocal(ctx) {
		return nil
	}
	return &fleet.Refusal{Code: fleet.CodeForbidden, Detail: what + " names a path on the appliance's own host: that is done there, by who may open its local socket"}
}

// open are the paths that need nobody's name.
var open = map[string]bool{
	base + "/login": true, base + "/openapi.json": true, base + "/openapi.yaml": true,
}

// Local returns the handler of the local socket. Whoever can open the socket may do everything.
func (o *Operators) Local() http.Handler {
	return o.door(func(r *http.Request) (context.Context, error) {
		ctx := context.WithValue(r.Context(), localKey{}, true)
		return fleet.As(ctx, fleet.Actor{Name: localName, Role: fleet.RoleAdmin}), nil
	})
}

// strangersMay is how often one address may ask without a name: for the description, for a login, or with a token or cookie that is
// not known. Who has a name may ask as often as he likes.
var strangersMay = limit.Config{PerSecond: 20, Burst: 400}

// Remote returns the handler for requests over TLS: by an API token, or by the cookie of a login.
func (o *Operators) Remote() http.Handler {
	return o.door(func(r *http.Request) (context.Context, error) {
		a, err := o.who(r)
		if a.Name == "" && o.strangers.Wait(remoteOf(r), time.Now()) > 0 {
			return nil, &fleet.Refusal{Code: fleet.CodeTooMany, Detail: "too many requests from this address without a login or an API token that is known here; try again in a moment"}
		}
		if err != nil {
			return nil, err
		}
		if a.Name == "" {
			return r.Context(), nil
		}
		again := func() bool { _, err := o.who(r); return err == nil }
		return context.WithValue(fleet.As(r.Context(), a), againKey{}, again), nil
	})
}

// who returns the actor of a request from outside; one without a name may do what open says.
func (o *Operators) who(r *http.Request) (a fleet.Actor, err error) {
	from := fromOf(r)
	if r.URL.Path == base+"/login" && new(http.CrossOriginProtection).Check(r) != nil {
		return a, &fleet.Refusal{Code: fleet.CodeForbidden, Detail: "the login does not come from a page of this appliance; load the page again"}
	}
	if text := r.Header.Get("Authorization"); text != "" {
		scheme, token, _ := strings.Cut(text, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return a, &fleet.Refusal{Code: fleet.CodeUnauthorised, Detail: "the header Authorization is \"Bearer\" and an API token (`seedbed user token new`)"}
		}
		if a, err = o.fleet.KeyActor(strings.TrimSpace(token), from); err != nil {
			return a, err
		}
	} else if cookie, cookieErr := r.Cookie(CookieName); cookieErr == nil && r.URL.Path != base+"/login" {
		var csrf string
		if a, csrf, err = o.fleet.Stayed(cookie.Value, from); err != nil {
			return a, err
		}
		if err := fromOurPage(r, csrf); err != nil {
			return a, err
		}
	}
	switch {
	case a.Name == "" && !open[r.URL.Path]:
		return a, &fleet.Refusal{Code: fleet.CodeUnauthorised, Detail: "log in, or give an API token (`seedbed user token new`) in the header Authorization"}
	case a.Name != "" && !a.Role.Includes(fleet.RoleViewer):
		return a, &fleet.Refusal{Code: fleet.CodeForbidden, Detail: a.Name + " has no role at this site: ask an administrator"}
	}
	return a, nil
}

// fromOurPage refuses a request with a cookie that another site's page made (cross-site request forgery).
func fromOurPage(r *http.Request, csrf string) error {
	if r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions {
		return nil
	}
	if subtle.ConstantTimeCompare([]byte(r.Header.Get(CSRFHeader)), []byte(csrf)) == 1 && new(http.CrossOriginProtection).Check(r) == nil {
		return nil
	}
	return &fleet.Refusal{Code: fleet.CodeForbidden, Detail: "the request does not come from a page of this appliance: the header " + CSRFHeader + " is missing or wrong; load the page again"}
}

// fromOf is the address of who asks.
func fromOf(r *http.Request) string {
	if a := remoteOf(r); a.IsValid() {
		return a.String()
	}
	return ""
}

// door lets a request in as who says.
func (o *Operators) door(who func(*http.Request) (context.Context, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store") // answers have secrets, and what was true a moment ago
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Frame-Options", "DENY")
		ctx, err := who(r)
		if err != nil {
			o.refuse(w, r, err)
			return
		}
		r = r.WithContext(ctx)
		r.Body = &timedBody{r.Body, http.NewResponseController(w), false}
		if err := unknown(o.mux, w, r, base+"/openapi.json says what there is"); err != nil {
			o.refuse(w, r, err)
			return
		}
		answer := hold(w, r)
		o.mux.ServeHTTP(answer, r)
		answer.end()
	})
}

// methods are all that some path is asked by.
var methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// unknown returns a Refusal of a request that nothing in a mux is for, and says in the header of its answer by which methods its path
// is asked; hint goes on with its sentence.
func unknown(mux *http.ServeMux, w http.ResponseWriter, r *http.Request, hint string) error {
	if _, pattern := mux.Handler(r); pattern != "" {
		return nil
	}
	var allowed []string
	for _, method := range methods {
		other := r.WithContext(r.Context())
		other.Method = method
		if _, pattern := mux.Handler(other); pattern != "" {
			allowed = append(allowed, method)
		}
	}
	if allowed == nil {
		return &fleet.Refusal{Code: codeNoSuchPath, Detail: "there is no " + r.Method + " " + r.URL.Path + "; " + hint}
	}
	w.Header().Set("Allow", strings.Join(allowed, ", ")) // RFC 9110 §15.5.6
	return &fleet.Refusal{Code: codeWrongMethod, Detail: r.URL.Path + " is not asked by " + r.Method + ", but by " + strings.Join(allowed, ", ") + "; " + hint}
}

// refuse answers with a problem.
func (o *Operators) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	o.log.Log(r.Context(), levelOf(p), "request refused", "path", r.URL.Path, "peer", r.RemoteAddr, "code", p.Code, "err", err)
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="seedbed"`)
	}
	reply(w, p.Status, "application/problem+json", p)
}

func levelOf(p job.Problem) slog.Level {
	switch {
	case p.Code == codeInternal:
		return slog.LevelError
	case p.Status == http.StatusUnauthorized, p.Status == http.StatusTooManyRequests: // strangers do not fill the log
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// timedBody bounds how long the body of a request may take to come. The bound goes with its last byte: an answer may take longer.
type timedBody struct {
	io.ReadCloser
	until *http.ResponseController
	begun bool
}

// bodyTime is for the largest body, a table of machines, over a slow line.
const bodyTime = 30 * time.Second

func (b *timedBody) Read(p []byte) (n int, err error) {
	if !b.begun {
		b.begun = true
		_ = b.until.SetReadDeadline(time.Now().Add(bodyTime)) // a test's recorder has none
	}
	if n, err = b.ReadCloser.Read(p); err == io.EOF {
		_ = b.until.SetReadDeadline(time.Time{})
	} // else the bound stays: the server throws away what has not come
	return n, err
}

// knocks bounds how often an address may try to log in, before any password is hashed. Safe for concurrent use.
type knocks struct {
	mu   sync.Mutex
	from map[netip.Prefix]*rate.Limiter
	// waiting bounds the logins under way, whose passwords are hashed one after the other.
	waiting chan struct{}
}

// So many logins at once, and then one each knockEvery, for one address; of IPv6 a network, which one person has. maxKnockers bounds the memory.
const (
	knockBurst  = 20
	knockEvery  = 3 * time.Second
	maxKnockers = 10000
	maxLogins   = 32
)

func newKnocks() *knocks {
	return &knocks{from: map[netip.Prefix]*rate.Limiter{}, waiting: make(chan struct{}, maxLogins)}
}

// enter returns a Refusal where an address tries too often; leave is called when the login is decided.
func (k *knocks) enter(from string, now time.Time) (leave func(), err error) {
	if from != "" && !k.limiter(from).AllowN(now, 1) {
		return nil, &fleet.Refusal{Code: fleet.CodeTooMany, Detail: "too many logins from this address; try again in a minute"}
	}
	select {
	case k.waiting <- struct{}{}:
		return func() { <-k.waiting }, nil
	default:
		return nil, &fleet.Refusal{Code: fleet.CodeTooMany, Detail: "too many people log in at this moment; try again in a few seconds"}
	}
}

func (k *knocks) limiter(from string) *rate.Limiter {
	k.mu.Lock()
	defer k.mu.Unlock()
	who := networkOf(from)
	l := k.from[who]
	if l == nil {
		if len(k.from) >= maxKnockers {
			for other := range k.from { // some tenth, so that this is rare
				if delete(k.from, other); len(k.from) < maxKnockers*9/10 {
					break
				}
			}
		}
		l = rate.NewLimiter(rate.Every(knockEvery), knockBurst)
		k.from[who] = l
	}
	return l
}

// networkOf returns what one person has of addresses: one of IPv4, 64 bits of IPv6 (RFC 6177).
func networkOf(from string) netip.Prefix {
	a, err := netip.ParseAddr(from)
	if err != nil {
		return netip.Prefix{}
	}
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}
