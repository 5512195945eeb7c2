package console

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"seedbed/appliance/api"
)

// answer is what a route gives the browser; see say, goTo, again and show.
type answer struct {
	text           string // a message for people
	path           string // to be loaded, with the text on top
	same           bool   // path is the page that asked
	template, name string // a block of a template
	data           any
}

// say answers with a message at the place of the action.
func say(text string) *answer { return &answer{text: text} }

// goTo has the browser load a page, which shows the text on top; "" is none.
func goTo(path, text string) *answer { return &answer{path: path, text: text} }

// again has the browser load the page that asked again, which shows the text on top; "" is none.
func again(text string) *answer { return &answer{same: true, text: text} }

// show answers with a block of a page's template, for a part of that page or for the dialog.
func show(template, block string, data any) *answer {
	return &answer{template: template, name: block, data: data}
}

// route returns the handler of a route.
func (c *console) route(r route) http.HandlerFunc {
	return func(w http.ResponseWriter, request *http.Request) {
		v := c.visit(w, request, r.role, "do this")
		if v == nil {
			return
		}
		if request.Method != http.MethodGet && request.Method != http.MethodHead {
			if err := fromOurPage(v); err != nil {
				c.refuse(v, err)
				return
			}
		}
		a, err := r.serve(c, v)
		if err != nil {
			c.refuse(v, err)
			return
		}
		if a != nil { // nil is a route that has answered itself
			c.answer(v, a)
		}
	}
}

func (c *console) answer(v *visit, a *answer) {
	if a.template != "" {
		c.fragment(v, http.StatusOK, a.template, a.name, a.data)
		return
	}
	path := a.path
	if a.same || path == "" && !v.htmx() {
		path = "/"
		if at, err := url.Parse(v.Header.Get("HX-Current-URL")); err == nil && v.htmx() {
			path = ownPath(at.RequestURI())
		} else if at, err := url.Parse(v.Referer()); err == nil && at.Host == v.Host {
			path = ownPath(at.RequestURI())
		}
	}
	if path == "" {
		c.message(v, http.StatusOK, "done", a.text)
		return
	}
	if a.text != "" {
		http.SetCookie(v.w, cookie(messageCookie, url.QueryEscape(a.text), 60))
	}
	if v.htmx() {
		v.w.Header().Set("HX-Redirect", path)
		return
	}
	http.Redirect(v.w, v.Request, path, http.StatusSeeOther)
}

// refuse tells a person why something was not done: at the place of the action, or as a page of its own.
func (c *console) refuse(v *visit, err error) {
	status := api.StatusOf(err)
	if status == http.StatusInternalServerError {
		c.Log.Error("console cannot answer", "path", v.URL.Path, "err", err)
	}
	if v.htmx() {
		if v.Method == http.MethodGet && strings.HasSuffix(v.Header.Get("HX-Target"), "#dialog") { // a dialog that does not open says why, and can be closed
			c.fragment(v, status, "layout", "refusal", v.sentence(err))
			return
		}
		c.message(v, status, "refused", v.sentence(err))
		return
	}
	c.render(v, status, "refused", v.sentence(err))
}

// message answers with a line for the place of the action; kind is "done" or "refused".
func (c *console) message(v *visit, status int, kind, text string) {
	c.fragment(v, status, "layout", "message", map[string]string{"Kind": kind, "Text": text})
}

// sentence is what a person reads of an error.
func (v *visit) sentence(err error) string { return v.look.say(err.Error()) }

// nothing answers requests for which there is no page.
func (c *console) nothing(w http.ResponseWriter, r *http.Request) {
	v := c.stranger(w, r)
	var err error
	if v.Actor, v.CSRF, err = c.Operators.Person(r); err != nil && api.StatusOf(err) == http.StatusTooManyRequests {
		c.refuse(v, err)
		return
	}
	c.render(v, http.StatusNotFound, "refused", v.t("There is no page %s.", r.URL.Path))
}

// page returns the handler of a page.
func (c *console) page(p *page) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := c.visit(w, r, p.role, "see this page")
		if v == nil {
			return
		}
		var data any
		if p.data != nil {
			var err error
			if data, err = p.data(c, v); err != nil {
				c.refuse(v, err)
				return
			}
		}
		c.renderPage(v, http.StatusOK, p, p.name, data)
	}
}

// fragment answers with a block.
func (c *console) fragment(v *visit, status int, template, block string, data any) {
	var b bytes.Buffer
	if err := v.look.execute(&b, template, block, view{Visit: v, Data: data}); err != nil {
		c.Log.Error("console cannot make a fragment", "path", v.URL.Path, "err", err)
		http.Error(v.w, fmt.Sprintf("the console cannot show this: %v", err), http.StatusInternalServerError)
		return
	}
	send(v.w, status, b.Bytes())
}

func send(w http.ResponseWriter, status int, b []byte) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b) // who asked may be gone
}
