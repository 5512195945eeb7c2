// Package console is the appliance's web console: pages for people who look after rooms of machines. It holds no truth of its own: pages
// show what fleet and monitor say, actions call fleet in the name of who is logged in.
//
// How to add to it:
//
//   - A page is a file page_NAME.go with a value of type page in the list of pages.go, a template templates/NAME.html that defines the
//     block "main", and, if it needs one, a script static/NAME.js, and styles static/NAME.css, which
//     its page loads by itself. The template gets a view: .Data is what
//     the page's data function returned, .Visit is who looks and how. Styles of all pages are in static/console.css; pages have no inline style or
//     script (the Content-Security-Policy forbids both): a script sets element.style instead, a bar is <progress>.
//   - An action is a route of its page with a method POST: {pattern: "POST /machines/{machine}/admit", role: fleet.RoleOperator, serve: ...}.
//     Its form is <form {{post "/machines/ID/admit"}}> ... <p {{answer}}></p></form>: htmx sends it with the CSRF token and puts the answer,
//     say(...) or the sentence of an error, into the place of the form that {{answer}} marks, and what was typed stays. goTo(path, text)
//     and again(text) load a page that shows the text on top; show(template, block, data) answers with a fragment. A route
//     with GET that answers with show is a dialog where <button {{dialog "/orders/deploy"}}> opens it (see templates/layout.html).
//   - A text is {{t "Machines"}} in a template and visit.t("Machines") in Go, in English, with %s, %d where arguments go in. Texts that are
//     not at such a place (words of another package) are marked by text("..."). chinese/NAME.json has those of a page, common.json
//     those of several; a test names the missing. Ready sentences of other packages (Progress.Why, what jobs wait for, refusals) go
//     through {{say .Why}} and visit.look.say, and sentences/chinese.json.
//   - A live part is an element with an ID whose HTML changes: the page's live function returns what all of them are now, made with
//     visit.part(ID, parent, block, data) by the same block that the page itself is made with; only what changed is sent. A part that
//     is not in the document yet is appended to the element with the ID parent, or stands there before the one with the ID part.Before; one that is no longer returned is removed. A script may get
//     plain data instead: live.data is a map by key of what becomes JSON, of which changed entries are given to the document's event
//     "live:data" (see static/rooms.js).
package console

import (
	"log/slog"
	"net/http"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/monitor"
)

// Pictures says how the machines get on: *monitor.Tracker. Safe for concurrent use.
type Pictures interface{ Picture() *monitor.Picture }

// Config of the console. Fleet and Operators are needed.
type Config struct {
	Fleet     *fleet.Fleet
	Operators *api.Operators
	Monitor   Pictures   // nil says nothing of any machine
	Images    api.Images // nil is none
	Alerts    api.Tester // sends test messages; nil sends none
	// Works is the long work that people begin on pages; nil ends with the program. Spool keeps disks that are uploaded, Examine looks
	// at the network; nil are not offered.
	Works   *Works
	Spool   Spool
	Examine Examine
	// Program is the version of the program; empty is "development".
	Program string
	Log     *slog.Logger // nil is none
}

// console answers browsers. Immutable after New but for what its parts guard themselves.
type console struct {
	Config
	pages     []*page
	looks     map[string]*look // by language
	assets    *assets
	listeners chan struct{}
	listening perUser
	works     *Works
	listed    recentImages
	mux       *http.ServeMux
	rooms     roomsCache
}

// New returns the handler of the console, for all paths that are nobody else's. Nothing is started. Safe for concurrent use.
func New(c Config) (http.Handler, error) {
	o, err := open(c)
	if err != nil {
		return nil, err
	}
	return headers(o.mux), nil
}

func open(c Config) (*console, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Program == "" {
		c.Program = "development"
	}
	o := &console{Config: c, pages: pages(), listeners: make(chan struct{}, maxListeners), mux: http.NewServeMux(), looks: map[string]*look{}, works: c.Works}
	if o.works == nil {
		o.works = NewWorks()
	}
	var err error
	if o.assets, err = openAssets(); err != nil {
		return nil, err
	}
	for _, l := range languages {
		if o.looks[l.Code], err = o.newLook(l.Code); err != nil {
			return nil, err
		}
	}
	o.routes()
	return o, nil
}

// routes tells the mux of everything there is.
func (c *console) routes() {
	c.mux.Handle("GET "+assetPath, c.assets)
	c.mux.HandleFunc("GET /login", c.login)
	c.mux.HandleFunc("POST /login", c.enter)
	c.mux.HandleFunc("POST /logout", c.leave)
	c.mux.HandleFunc("POST /look", c.setLook)
	c.mux.HandleFunc("GET /live", c.live)
	c.mux.HandleFunc("/", c.nothing)
	c.mux.HandleFunc("GET /{$}", c.home)
	for _, p := range c.pages {
		c.mux.HandleFunc("GET "+p.path, c.page(p))
		for _, r := range p.routes {
			c.mux.HandleFunc(r.pattern, c.route(r))
		}
	}
}

// headers says on each answer what browsers may do with it. Pages have neither inline scripts nor inline styles, and ask nobody else.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")                          // assets say otherwise
		if r.Method != http.MethodPut || r.URL.Path != uploadPath { // there the room of the appliance is the bound
			most := int64(maxBody)
			if r.URL.Path == "/login" || r.URL.Path == "/look" {
				most = maxStrangersBody
			}
			if r.Method != http.MethodGet && r.Method != http.MethodHead {
				_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout)) // a test's recorder has none
			}
			r.Body = http.MaxBytesReader(w, r.Body, most)
		}
		next.ServeHTTP(w, r)
	})
}

// maxBody bounds a form, in bytes: the IDs of 10,000 machines, and a table of machines that is imported.
const maxBody = 8 << 20

// maxStrangersBody bounds a form of who did not log in, bodyTimeout how long a form may take.
const (
	maxStrangersBody = 16 << 10
	bodyTimeout      = 30 * time.Second
)

// picture is how the machines get on now.
func (c *console) picture() *monitor.Picture {
	if c.Monitor != nil {
		if p := c.Monitor.Picture(); p != nil {
			return p
		}
	}
	return &monitor.Picture{At: time.Now(), Thresholds: monitor.Thresholds{}.Or()}
}
