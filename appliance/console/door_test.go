package console

import (
	"crypto/tls"
	"hash/maphash"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
)

// asker asks the console as a program does that keeps no cookies and follows no redirect.
type asker struct {
	t    *testing.T
	w    *world
	http *http.Client
}

func (w *world) asker(t *testing.T) *asker {
	transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}}
	t.Cleanup(transport.CloseIdleConnections)
	return &asker{t, w, &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// ask sends a request with headers, given as name and value, and returns the answer and its body.
func (a *asker) ask(method, path string, form url.Values, headers ...string) (*http.Response, string) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.w.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		a.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := a.http.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return resp, string(b)
}

func TestNobodySeesAPageWithoutALogin(t *testing.T) {
	w := newWorld(t)
	w.machine("", false)
	a := w.asker(t)
	for name, path := range shown(w) {
		resp, body := a.ask("GET", path, nil)
		if resp.StatusCode != http.StatusSeeOther || !strings.HasPrefix(resp.Header.Get("Location"), "/login?next=") || strings.Contains(body, "<main") {
			t.Errorf("%s: %d %s", name, resp.StatusCode, resp.Header.Get("Location"))
		}
		resp, _ = a.ask("GET", path, nil, "Cookie", api.CookieName+"=guessed")
		if resp.StatusCode != http.StatusSeeOther {
			t.Errorf("%s with a cookie of nobody: %d", name, resp.StatusCode)
		}
	}
	for _, p := range pages() {
		for _, r := range p.routes {
			method, path, _ := strings.Cut(r.pattern, " ")
			resp, _ := a.ask(method, path, url.Values{})
			if resp.StatusCode != http.StatusSeeOther {
				t.Errorf("%s: %d", r.pattern, resp.StatusCode)
			}
		}
	}
	if resp, _ := a.ask("GET", "/live?page=rooms&at=/rooms", nil); resp.StatusCode != http.StatusSeeOther {
		t.Errorf("live: %d", resp.StatusCode)
	}
}

func TestEveryActionNeedsTheTokenOfItsPage(t *testing.T) {
	w := newWorld(t)
	a := w.asker(t)
	admin := w.as(fleet.RoleAdmin)
	actions := 0
	for _, p := range pages() {
		for _, r := range p.routes {
			method, path, _ := strings.Cut(r.pattern, " ")
			if method == "GET" {
				continue
			}
			actions++
			for _, headers := range [][]string{
				{"Cookie", api.CookieName + "=" + admin.Cookie},
				{"Cookie", api.CookieName + "=" + admin.Cookie, api.CSRFHeader, "guessed"},
				{"Cookie", api.CookieName + "=" + admin.Cookie, api.CSRFHeader, admin.CSRF, "Sec-Fetch-Site", "cross-site"},
				{"Cookie", api.CookieName + "=" + admin.Cookie, api.CSRFHeader, admin.CSRF, "Origin", "https://elsewhere.example"},
			} {
				resp, body := a.ask(method, path, url.Values{"csrf": {"no"}}, headers...)
				if resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "load the page again") {
					t.Errorf("%s %v: %d %s", r.pattern, headers[2:], resp.StatusCode, body)
				}
			}
		}
	}
	if actions == 0 {
		t.Error("there is no action")
	}
	resp, _ := a.ask("POST", "/logout", url.Values{}, "Cookie", api.CookieName+"="+admin.Cookie)
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("a logout without a token: %d", resp.StatusCode)
	}
}

func TestAViewerMayLookAlone(t *testing.T) {
	w := newWorld(t)
	w.machine("", false)
	a, viewer := w.asker(t), w.as(fleet.RoleViewer)
	cookie := api.CookieName + "=" + viewer.Cookie
	for _, p := range pages() {
		for _, r := range p.routes {
			method, path, _ := strings.Cut(r.pattern, " ")
			if r.role == "" || r.role == fleet.RoleViewer {
				continue
			}
			resp, body := a.ask(method, path, url.Values{}, "Cookie", cookie, api.CSRFHeader, viewer.CSRF, "HX-Request", "true")
			if resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "vera has the role viewer") {
				t.Errorf("%s: %d %s", r.pattern, resp.StatusCode, body)
			}
		}
		resp, body := a.ask("GET", shown(w)[p.name], nil, "Cookie", cookie)
		if refused := resp.StatusCode == http.StatusForbidden; refused != (p.role == fleet.RoleAdmin || p.role == fleet.RoleOperator) {
			t.Errorf("page %s for a viewer: %d %s", p.name, resp.StatusCode, body)
		}
	}
	if got := w.fleet.Machines()[0]; got.Admitted {
		t.Error("a viewer admitted a machine")
	}
}

func TestLoginComesBackToThePageThatWasAsked(t *testing.T) {
	w := newWorld(t)
	w.as(fleet.RoleOperator)
	a := w.asker(t)
	for next, want := range map[string]string{
		"/queue?all=1": "/queue?all=1", "https://elsewhere.example/": "/", "//elsewhere.example/": "/", `/\elsewhere.example`: "/", "javascript:alert(1)": "/", "": "/",
	} {
		resp, _ := a.ask("POST", "/login", url.Values{"name": {"otto"}, "password": {"correct horse battery"}, "next": {next}})
		if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != want {
			t.Errorf("next %q: %d %q, want %q", next, resp.StatusCode, resp.Header.Get("Location"), want)
		}
		cookie := resp.Header.Get("Set-Cookie")
		for _, part := range []string{api.CookieName + "=", "; Secure", "; HttpOnly", "; SameSite=Strict", "; Path=/"} {
			if !strings.Contains(cookie, part) {
				t.Errorf("the cookie lacks %q: %s", part, cookie)
			}
		}
	}
	resp, body := a.ask("POST", "/login", url.Values{"name": {"otto"}, "password": {"wrong"}, "next": {"/queue"}})
	if resp.StatusCode != http.StatusUnauthorized || !strings.Contains(body, `value="otto"`) || !strings.Contains(body, `role="alert"`) {
		t.Errorf("a wrong password: %d %s", resp.StatusCode, body)
	}
	resp, _ = a.ask("POST", "/login", url.Values{"name": {"otto"}, "password": {"correct horse battery"}}, "Sec-Fetch-Site", "cross-site")
	if resp.StatusCode == http.StatusSeeOther {
		t.Error("another site's page logged somebody in")
	}
}

func TestPagesAreKeptByNobodyAndAssetsForever(t *testing.T) {
	w := newWorld(t)
	a, stay := w.asker(t), w.as(fleet.RoleViewer)
	resp, body := a.ask("GET", "/rooms", nil, "Cookie", api.CookieName+"="+stay.Cookie)
	if resp.Header.Get("Cache-Control") != "no-store" || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'self'") ||
		strings.Contains(resp.Header.Get("Content-Security-Policy"), "unsafe") {
		t.Errorf("%v", resp.Header)
	}
	_, rest, _ := strings.Cut(body, `<script src="`)
	script, _, _ := strings.Cut(rest, `"`)
	resp, _ = a.ask("GET", script, nil)
	if resp.StatusCode != 200 || !strings.Contains(resp.Header.Get("Cache-Control"), "immutable") || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/javascript") {
		t.Errorf("%s: %d %v", script, resp.StatusCode, resp.Header)
	}
	if resp, _ := a.ask("GET", "/static/live.js", nil); resp.StatusCode != 404 {
		t.Errorf("an asset without its hash: %d", resp.StatusCode)
	}
	if resp, _ := a.ask("GET", "/no/such/page", nil); resp.StatusCode != 404 {
		t.Errorf("no such page: %d", resp.StatusCode)
	}
}

func TestASessionThatEndsTakesItsPagesAlong(t *testing.T) {
	w := newWorld(t)
	w.machine("pc-1", true)
	stay := w.as(fleet.RoleOperator)
	b := w.open(t, how{Role: fleet.RoleOperator}, "/rooms")
	b.until(`document.documentElement.dataset.heard === "1"`)
	if err := w.fleet.Logout(t.Context(), stay.Cookie); err != nil {
		t.Fatal(err)
	}
	b.until(`location.pathname === "/login"`)
	b.says("h1", "Log in")
	if next := eval[string](b, `document.querySelector("main input[name=next]").value`); next != "/rooms" {
		t.Errorf("the login leads to %q", next)
	}
	// In through the form, and out.
	b.typed("input[name=name]", "otto")
	b.typed("input[name=password]", "correct horse battery")
	b.click("main button.main")
	b.until(`location.pathname === "/rooms"`)
	b.click(`form[action="/logout"] button`)
	b.until(`location.pathname === "/login"`)
}

func TestLiveSendsWhatChangedAlone(t *testing.T) {
	known := seen{maphash.MakeSeed(), map[string]uint64{}, map[string]uint64{}}
	first := &live{parts: []part{{ID: "a", HTML: "<p id=a>1</p>"}, {ID: "b", HTML: "<p id=b>1</p>"}}, data: map[string]any{"m": 1, "n": 2}}
	if parts, data := known.changes(first); len(parts) != 2 || len(data) != 2 {
		t.Errorf("the first: %v %v", parts, data)
	}
	if parts, data := known.changes(first); len(parts)+len(data) != 0 {
		t.Errorf("nothing changed: %v %v", parts, data)
	}
	parts, data := known.changes(&live{parts: []part{{ID: "b", HTML: "<p id=b>2</p>"}}, data: map[string]any{"m": 1, "n": 3}})
	if len(parts) != 2 || parts[0].ID != "b" || parts[1] != (part{ID: "a"}) || len(data) != 1 || string(data["n"]) != "3" {
		t.Errorf("changes: %v %v", parts, data)
	}
	if _, data := known.changes(&live{}); string(data["m"]) != "null" || string(data["n"]) != "null" {
		t.Errorf("what went: %v", data)
	}
}

func TestListenersAreBounded(t *testing.T) {
	w := newWorld(t)
	a, stay := w.asker(t), w.as(fleet.RoleViewer)
	c := w.inner
	for range maxListeners {
		c.listeners <- struct{}{}
	}
	resp, _ := a.ask("GET", "/live?page=rooms&at=/rooms", nil, "Cookie", api.CookieName+"="+stay.Cookie)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
}

func TestNumbersAreWrittenForPeople(t *testing.T) {
	w := newWorld(t)
	en, zh := w.inner.looks["en"], w.inner.looks["zh"]
	for _, row := range []struct{ got, want string }{
		{Bytes(0), "0 B"}, {Bytes(999), "999 B"}, {Bytes(1500), "1.5 KB"}, {Bytes(40_200_000_000), "40 GB"}, {Rate(9.94e6), "9.9 MB/s"}, {Rate(112.4e6), "112 MB/s"},
		{en.duration(-1), "–"}, {en.duration(42 * time.Second), "42 s"}, {en.duration(130 * time.Second), "2 min 10 s"}, {en.duration(50 * time.Hour), "2 days"},
		{zh.duration(130 * time.Second), "2 分 10 秒"}, {percent(0.999), "99 %"}, {percent(1), "100 %"},
	} {
		if row.got != row.want {
			t.Errorf("%q, want %q", row.got, row.want)
		}
	}
}
