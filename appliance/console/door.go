package console

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
)

// Names of cookies; the prefix has browsers take them over TLS and for this host alone.
const (
	languageCookie = "__Host-seedbed-language"
	themeCookie    = "__Host-seedbed-theme"
	messageCookie  = "__Host-seedbed-message"
)

// cookie makes a cookie like that of the login; age is in seconds, 0 until the browser is closed.
func cookie(name, value string, age int) *http.Cookie {
	return &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: age, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode}
}

// stranger makes a visit of somebody who did not log in yet.
func (c *console) stranger(w http.ResponseWriter, r *http.Request) *visit {
	v := &visit{Request: r, w: w, look: c.looks[languageOf(r)], log: c.Log}
	if theme, err := r.Cookie(themeCookie); err == nil && (theme.Value == "light" || theme.Value == "dark") {
		v.Theme = theme.Value
	}
	return v
}

// visit makes the visit of who is logged in and has a role. Where nobody is, it sends the browser to the login and returns nil.
func (c *console) visit(w http.ResponseWriter, r *http.Request, role fleet.Role, what string) *visit {
	v := c.stranger(w, r)
	actor, csrf, err := c.Operators.Person(r)
	if refusal, ok := errors.AsType[*fleet.Refusal](err); ok && refusal.Code == fleet.CodeUnauthorised {
		c.toLogin(v)
		return nil
	}
	if err != nil {
		c.refuse(v, err)
		return nil
	}
	v.Actor, v.CSRF = actor, csrf
	v.Request = r.WithContext(fleet.As(r.Context(), actor))
	if role == fleet.RoleNone {
		role = fleet.RoleViewer
	}
	if err := fleet.May(v.Context(), role, what); err != nil {
		c.refuse(v, err)
		return nil
	}
	return v
}

// toLogin sends a browser to the login, from where it comes back to its page.
func (c *console) toLogin(v *visit) {
	next := v.URL.RequestURI()
	if v.Method != http.MethodGet {
		next = "/"
	}
	if v.htmx() {
		if at, err := url.Parse(v.Header.Get("HX-Current-URL")); err == nil {
			next = at.RequestURI()
		}
		v.w.Header().Set("HX-Redirect", "/login?next="+url.QueryEscape(next))
		v.w.WriteHeader(http.StatusOK) // htmx goes there; nothing was done
		return
	}
	http.Redirect(v.w, v.Request, "/login?next="+url.QueryEscape(next), http.StatusSeeOther)
}

// fromOurPage refuses a request that changes something and does not come from a page of this console.
func fromOurPage(v *visit) error {
	token := v.Header.Get(api.CSRFHeader)
	if token == "" {
		token = v.FormValue("csrf")
	}
	return api.FromOurPage(v.Request, token, v.CSRF)
}

// ownPath returns a path of this console that a request named, else "/": no address of another host.
func ownPath(path string) string {
	u, err := url.Parse(path)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.Contains(path, `\`) {
		return "/"
	}
	return path
}

// loginForm is what the page of the login shows.
type loginForm struct{ Name, Next, Refused string }

func (c *console) login(w http.ResponseWriter, r *http.Request) {
	if c.Operators.Strange(r) {
		http.Error(w, "too many requests from this address; try again in a moment", http.StatusTooManyRequests)
		return
	}
	c.render(c.stranger(w, r), http.StatusOK, "login", loginForm{Next: ownPath(r.FormValue("next"))})
}

// enter logs a person in.
func (c *console) enter(w http.ResponseWriter, r *http.Request) {
	v := c.stranger(w, r)
	form := loginForm{Name: r.PostFormValue("name"), Next: ownPath(r.FormValue("next"))}
	stay, err := c.Operators.Enter(r.Context(), r, form.Name, r.PostFormValue("password"))
	if err != nil {
		form.Refused = v.sentence(err)
		c.render(v, api.StatusOf(err), "login", form)
		return
	}
	http.SetCookie(w, stay)
	http.Redirect(w, r, form.Next, http.StatusSeeOther)
}

// leave logs a person out.
func (c *console) leave(w http.ResponseWriter, r *http.Request) {
	v := c.visit(w, r, fleet.RoleViewer, "log out")
	if v == nil {
		return
	}
	if err := fromOurPage(v); err != nil {
		c.refuse(v, err)
		return
	}
	gone, err := c.Operators.Leave(v.Context(), r)
	if err != nil {
		c.refuse(v, err)
		return
	}
	http.SetCookie(w, gone)
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// setLook keeps the language and the theme that a person chose. It asks for no token: the login has the switches, too.
func (c *console) setLook(w http.ResponseWriter, r *http.Request) {
	const year = 365 * 24 * 3600
	if new(http.CrossOriginProtection).Check(r) != nil {
		http.Error(w, "the request does not come from a page of this appliance", http.StatusForbidden)
		return
	}
	if code := r.PostFormValue("language"); c.looks[code] != nil {
		http.SetCookie(w, cookie(languageCookie, code, year))
	}
	switch theme := r.PostFormValue("theme"); theme {
	case "light", "dark":
		http.SetCookie(w, cookie(themeCookie, theme, year))
	case "system":
		http.SetCookie(w, cookie(themeCookie, "", -1))
	}
	http.Redirect(w, r, ownPath(r.PostFormValue("next")), http.StatusSeeOther)
}
