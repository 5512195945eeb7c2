package console

import (
	"log/slog"
	"net/http"
	"strings"

	"seedbed/appliance/fleet"
)

// page is one page of the console.
type page struct {
	// path is a pattern of http.ServeMux without the method: "/machines/{machine}".
	path string
	// name is that of its template and of its script, if it has one: "machine".
	name string
	// nav is its entry in the navigation, in English; "" is none. Of a page without one, under names the page whose entry is lit.
	nav, under string
	// title returns its title in the visit's language; nil is nav.
	title func(v *visit, data any) string
	// role is the least that sees it; empty is fleet.RoleViewer.
	role fleet.Role
	// wide says that it takes the whole width of a screen.
	wide bool
	// chart says that it draws charts: it loads uPlot.
	chart bool
	// scripts are those in static/ that it needs beside its own: "upload.js".
	scripts []string
	// data returns what its template shows; nil is nothing.
	data func(c *console, v *visit) (any, error)
	// live returns its live parts as they are now, at most twice a second for each who looks; nil is none.
	live func(c *console, v *visit) (*live, error)
	// routes are its actions, dialogs and fragments.
	routes []route
}

// route answers one kind of request of a page.
type route struct {
	pattern string     // of http.ServeMux with the method: "POST /machines/{machine}/admit"
	role    fleet.Role // the least that may; empty is fleet.RoleViewer. What it does to the fleet the fleet checks itself
	serve   func(c *console, v *visit) (*answer, error)
}

// pages returns the list of all pages, in the order of the navigation.
func pages() []*page {
	return []*page{
		roomsPage, groupPage, machinePage, deploymentsPage, deploymentPage, queuePage, imagesPage, imagePage, eventsPage, alertsPage, usersPage, settingsPage, startPage, accountPage,
	}
}

// visit is one request of a person. Owned by the goroutine of its request.
type visit struct {
	*http.Request
	w    http.ResponseWriter
	look *look
	log  *slog.Logger    // what a part of a page cannot show; nil is none
	told map[string]bool // templates' blocks of which that was logged
	kept *kept           // of a page that is followed, see fromRecords; else nil
	// Actor is who asks; CSRF goes with what is changed.
	Actor fleet.Actor
	CSRF  string
	Theme string // "light", "dark", "" is the system's
}

// t returns a text in the visit's language.
func (v *visit) t(english string, args ...any) string { return v.look.t(english, args...) }

// Language is the code of the visit's language: "en", "zh".
func (v *visit) Language() string { return v.look.language }

// May reports whether the person has at least this role: "viewer", "operator", "admin". Templates leave out what would be refused.
func (v *visit) May(role fleet.Role) bool { return v.Actor.Role.Includes(role) }

// htmx reports whether a script sent the request, which puts the answer into the page.
func (v *visit) htmx() bool { return v.Header.Get("HX-Request") == "true" }

// splitPath returns the parts of a path between its slashes.
func splitPath(path string) []string { return strings.Split(strings.Trim(path, "/"), "/") }
