package api_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
)

const password = "correct horse battery"

// visitor asks over TLS, as a browser or a program elsewhere does.
type visitor struct {
	a      *appliance
	http   *http.Client
	header http.Header
}

func (a *appliance) visit() *visitor {
	t := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}}
	v := &visitor{a, &http.Client{Transport: t}, http.Header{}}
	a.t.Cleanup(v.http.CloseIdleConnections)
	return v
}

// with returns a visitor with one more header.
func (v *visitor) with(name, value string) *visitor {
	w := &visitor{v.a, v.http, v.header.Clone()}
	w.header.Set(name, value)
	return w
}

// do sends a request and returns the answer's status, body and header.
func (v *visitor) do(method, path string, body any) (int, []byte, http.Header) {
	v.a.t.Helper()
	var content io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		content = bytes.NewReader(b)
	default:
		raw, err := json.Marshal(body)
		if err != nil {
			v.a.t.Fatal(err)
		}
		content = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(v.a.t.Context(), method, v.a.remote+path, content)
	if err != nil {
		v.a.t.Fatal(err)
	}
	if content != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, values := range v.header {
		req.Header[name] = values
	}
	resp, err := v.http.Do(req)
	if err != nil {
		v.a.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		v.a.t.Fatal(err)
	}
	return resp.StatusCode, b, resp.Header
}

// refused checks that a request is refused with a problem of this code.
func (v *visitor) refused(status int, code, method, path string, body any) {
	v.a.t.Helper()
	got, b, header := v.do(method, path, body)
	var p job.Problem
	if err := json.Unmarshal(b, &p); err != nil || got != status || p.Code != code || p.Status != status || p.Detail == "" ||
		header.Get("Content-Type") != "application/problem+json" {
		v.a.t.Errorf("%s %s: %d %s %s, want %d %s (%v)", method, path, got, header.Get("Content-Type"), b, status, code, err)
	}
}

// user makes a user with this role and an API token, which is returned.
func (a *appliance) user(name string, role fleet.Role) string {
	a.t.Helper()
	secret := password
	if _, err := a.operator.NewUser(a.t.Context(), fleet.UserOrder{Name: name, Role: &role, Password: &secret}); err != nil {
		a.t.Fatal(err)
	}
	k, err := a.operator.NewKey(a.t.Context(), api.KeyOrder{KeyOrder: fleet.KeyOrder{Name: "test", User: name}})
	if err != nil {
		a.t.Fatal(err)
	}
	if k.Role != role || !strings.HasPrefix(k.Secret, "seedbed_") {
		a.t.Fatalf("%+v", k)
	}
	return k.Secret
}

// login logs a user in and returns who has the cookie, and the word against forged requests.
func (v *visitor) login(name, password string) (in *visitor, csrf string, header http.Header) {
	v.a.t.Helper()
	status, b, header := v.do("POST", "/api/v1/login", api.Login{Name: name, Password: password})
	var me api.Me
	if err := json.Unmarshal(b, &me); err != nil || status != 200 || me.CSRF == "" {
		v.a.t.Fatalf("login: %d %s, %v", status, b, err)
	}
	cookie, _, _ := strings.Cut(header.Get("Set-Cookie"), ";")
	return v.with("Cookie", cookie), me.CSRF, header
}

func TestNobodyIsLetInWithoutAName(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	v := a.visit()
	for path, methods := range paths(t, a) {
		for method := range methods {
			if path == "/api/v1/login" {
				continue
			}
			v.refused(401, fleet.CodeUnauthorised, strings.ToUpper(method), strings.NewReplacer("{", "", "}", "").Replace(path), nil)
		}
	}
	v.refused(401, fleet.CodeUnauthorised, "GET", "/api/v1/no/such/path", nil)
	v.with("Authorization", "Bearer seedbed_1234_5678").refused(401, fleet.CodeUnauthorised, "GET", "/api/v1/machines", nil)
	v.with("Authorization", "Basic YTpi").refused(401, fleet.CodeUnauthorised, "GET", "/api/v1/machines", nil)
	v.with("Cookie", api.CookieName+"=none").refused(401, fleet.CodeUnauthorised, "GET", "/api/v1/machines", nil)
	if status, b, _ := v.do("GET", "/api/v1/openapi.yaml", nil); status != 200 || !bytes.Contains(b, []byte("openapi: 3.1.0")) {
		t.Errorf("the description as YAML: %d %.100s", status, b)
	}
	status, b, header := v.do("GET", "/api/v1/openapi.json", nil)
	if status != 200 || !bytes.Contains(b, []byte(`"3.1.0"`)) {
		t.Errorf("the description: %d %.100s", status, b)
	}
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"} {
		if header.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, header.Get(name), want)
		}
	}
}

func TestRolesBoundWhatATokenMay(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	bearer := func(secret string) *visitor { return a.visit().with("Authorization", "Bearer "+secret) }
	viewer, operator := bearer(a.user("vera", fleet.RoleViewer)), bearer(a.user("olaf", fleet.RoleOperator))
	admin := bearer(a.user("anna", fleet.RoleAdmin))
	for _, c := range []struct {
		who          *visitor
		method, path string
		body         any
	}{
		{viewer, "POST", "/api/v1/deployments", api.Order{All: true, Order: fleet.Order{Image: "debian"}}},
		{viewer, "POST", "/api/v1/deployments/plan", api.Order{All: true, Order: fleet.Order{Image: "debian"}}},
		{viewer, "POST", "/api/v1/machines/x/admit", nil},
		{viewer, "POST", "/api/v1/groups", fleet.GroupOrder{Name: "x"}},
		{viewer, "POST", "/api/v1/images", api.ImageOrder{Path: "/etc/shadow", Name: "x"}},
		{viewer, "GET", "/api/v1/images/debian/disk", nil},
		{viewer, "POST", "/api/v1/verify", api.VerifyOrder{}},
		{operator, "POST", "/api/v1/prune", api.PruneRequest{}},
		{operator, "DELETE", "/api/v1/images/debian:1", nil},
		{operator, "POST", "/api/v1/images/debian/open", nil},
		{operator, "GET", "/api/v1/users", nil},
		{operator, "PATCH", "/api/v1/settings", fleet.SettingsOrder{}},
		{operator, "POST", "/api/v1/messages/test", nil},
		{operator, "POST", "/api/v1/tokens", api.TokenOrder{TokenOrder: fleet.TokenOrder{Role: job.RoleGet}}},
		// Files of the appliance's host are for who is there.
		{admin, "POST", "/api/v1/images", api.ImageOrder{Path: "/etc/shadow", Name: "x"}},
		{admin, "POST", "/api/v1/images/debian/check-disk", api.DiskOrder{Path: "/dev/sda", Repair: true}},
		{admin, "POST", "/api/v1/verify", api.VerifyOrder{Heal: true, HealFrom: "/dev/sda"}},
		{admin, "POST", "/api/v1/guests/join", job.Join{Role: job.RoleGet, PublicKey: []byte{1}, Image: "debian"}},
		// A token makes no others and changes no password, whoever's it is.
		{admin, "POST", "/api/v1/keys", api.KeyOrder{KeyOrder: fleet.KeyOrder{Name: "more"}}},
		{admin, "POST", "/api/v1/me/password", api.Password{Old: password, New: "another password"}},
	} {
		c.who.refused(403, fleet.CodeForbidden, c.method, c.path, c.body)
	}
	if status, b, _ := viewer.do("GET", "/api/v1/machines", nil); status != 200 || !bytes.Contains(b, []byte(`"items":[]`)) {
		t.Errorf("a viewer's list: %d %s", status, b)
	}
	if status, b, _ := operator.do("POST", "/api/v1/deployments", api.Order{All: true, Order: fleet.Order{Image: "debian"}}); status != 201 {
		t.Errorf("an operator's deployment: %d %s", status, b)
	}
	events, err := a.operator.Events(t.Context(), api.EventQuery{Actor: "olaf", Limit: 10})
	if err != nil || len(events) != 1 || events[0].Kind != "deployment.created" || events[0].From != "127.0.0.1" {
		t.Errorf("who did it: %+v, %v", events, err)
	}
	hook := "https://hooks.example/sesame"
	if s, err := a.operator.EditSettings(t.Context(), 0, fleet.SettingsOrder{Webhook: &hook}); err != nil || s.Webhook != hook {
		t.Errorf("%+v, %v", s, err)
	}
	for who, shows := range map[*visitor]bool{viewer: false, operator: false, admin: true} { // the path is a secret of many services
		if status, b, _ := who.do("GET", "/api/v1/settings", nil); status != 200 || bytes.Contains(b, []byte("sesame")) != shows {
			t.Errorf("the webhook is to be shown: %v; %d %s", shows, status, b)
		}
	}
	keys, err := a.operator.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(keys, func(k fleet.KeyView) bool { return k.User == "olaf" })
	if err := a.operator.RevokeKey(t.Context(), keys[i].ID); err != nil {
		t.Fatal(err)
	}
	operator.refused(401, fleet.CodeUnauthorised, "GET", "/api/v1/machines", nil)
}

func TestALoginIsForOurPagesAlone(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	a.user("olaf", fleet.RoleOperator)
	in, csrf, header := a.visit().login("olaf", password)
	cookie := header.Get("Set-Cookie")
	for _, want := range []string{"HttpOnly", "Secure", "SameSite=Strict", "Path=/", api.CookieName + "="} {
		if !strings.Contains(cookie, want) {
			t.Errorf("cookie %s without %s", cookie, want)
		}
	}
	a.visit().with("Sec-Fetch-Site", "cross-site").refused(403, fleet.CodeForbidden, "POST", "/api/v1/login", api.Login{Name: "olaf", Password: password})
	order := api.Order{All: true, Order: fleet.Order{Image: "debian"}}
	in.refused(403, fleet.CodeForbidden, "POST", "/api/v1/deployments", order)
	in.with(api.CSRFHeader, "wrong").refused(403, fleet.CodeForbidden, "POST", "/api/v1/deployments", order)
	ours := in.with(api.CSRFHeader, csrf)
	ours.with("Sec-Fetch-Site", "cross-site").refused(403, fleet.CodeForbidden, "POST", "/api/v1/deployments", order)
	ours.with("Origin", "https://evil.example").refused(403, fleet.CodeForbidden, "POST", "/api/v1/deployments", order)
	if status, b, _ := ours.do("POST", "/api/v1/deployments", order); status != 201 {
		t.Errorf("from our page: %d %s", status, b)
	}
	ours.refused(403, fleet.CodeForbidden, "POST", "/api/v1/keys", api.KeyOrder{KeyOrder: fleet.KeyOrder{Name: "of another", User: "admin"}})
	ours.refused(403, fleet.CodeForbidden, "POST", "/api/v1/keys", api.KeyOrder{KeyOrder: fleet.KeyOrder{Name: "of more", Role: fleet.RoleAdmin}})
	status, b, _ := in.do("GET", "/api/v1/me", nil)
	var me api.Me
	if err := json.Unmarshal(b, &me); err != nil || status != 200 || me.Name != "olaf" || me.CSRF != csrf {
		t.Errorf("me: %d %s, %v", status, b, err)
	}
	if status, b, _ := ours.do("POST", "/api/v1/me/password", api.Password{Old: password, New: "a wholly new one"}); status != 204 {
		t.Errorf("another password: %d %s", status, b)
	}
	in.refused(401, fleet.CodeUnauthorised, "GET", "/api/v1/me", nil)
	in, csrf, _ = a.visit().login("olaf", "a wholly new one")
	if status, _, _ := in.with(api.CSRFHeader, csrf).do("POST", "/api/v1/logout", nil); status != 204 {
		t.Errorf("logout: %d", status)
	}
	events, err := a.operator.Events(t.Context(), api.EventQuery{Actor: "olaf", Kind: "user.logout", Limit: 10})
	if err != nil || len(events) != 1 || events[0].From != "127.0.0.1" {
		t.Errorf("who logged out: %+v, %v", events, err)
	}
	in.refused(401, fleet.CodeUnauthorised, "GET", "/api/v1/me", nil)
}

// TestWhoHasNoNameAsksInBounds, and keeps nobody out who has one, from the same address either.
func TestWhoHasNoNameAsksInBounds(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	known := a.visit().with("Authorization", "Bearer "+a.user("vera", fleet.RoleViewer))
	stranger := a.visit()
	limited := 0
	for i := range 600 {
		v, path := stranger, "/api/v1/machines"
		switch i % 4 {
		case 0:
			v = v.with("Authorization", fmt.Sprintf("Bearer seedbed_%d_0", i))
		case 1:
			v = v.with("Cookie", fmt.Sprintf("%s=%d", api.CookieName, i))
		case 2:
			path = "/api/v1/openapi.json"
		}
		switch status, b, _ := v.do("GET", path, nil); status {
		case 200, 401:
		case 429:
			limited++
		default:
			t.Fatalf("request %d: %d %s", i, status, b)
		}
	}
	if limited < 50 {
		t.Errorf("%d of 600 requests were refused unseen", limited)
	}
	stranger.refused(429, fleet.CodeTooMany, "GET", "/api/v1/openapi.json", nil)
	for range 50 {
		if status, b, _ := known.do("GET", "/api/v1/machines", nil); status != 200 {
			t.Fatalf("who has a token: %d %s", status, b)
		}
	}
}

func TestLoginsAreBounded(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	v := a.visit()
	limited := 0
	for i := range 40 { // other names each time: the bound is of the address
		status, b, _ := v.do("POST", "/api/v1/login", api.Login{Name: fmt.Sprintf("nobody%d", i), Password: "a password"})
		switch status {
		case 401:
		case 429:
			limited++
		default:
			t.Fatalf("login %d: %d %s", i, status, b)
		}
	}
	if limited < 15 {
		t.Errorf("%d of 40 logins were refused unseen", limited)
	}
	v.refused(413, "too-large", "POST", "/api/v1/login", []byte(`{"name":"`+strings.Repeat("a", 8<<10)+`"}`))
}

func TestRequestsOfPeopleThatCannotBeReadAreRefused(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	v := a.visit().with("Authorization", "Bearer "+a.user("anna", fleet.RoleAdmin))
	for _, c := range []struct {
		status       int
		code         string
		method, path string
		body         any
	}{
		{422, fleet.CodeInvalid, "POST", "/api/v1/deployments", []byte(`{"image":"debian","al":true}`)},
		{422, fleet.CodeInvalid, "POST", "/api/v1/deployments", []byte(`{"all":true}`)},
		{422, fleet.CodeInvalid, "POST", "/api/v1/deployments", []byte(`{"image":7,"all":true}`)},
		{400, fleet.CodeInvalid, "POST", "/api/v1/deployments", []byte(`{"image":"debian",`)},
		{400, fleet.CodeInvalid, "POST", "/api/v1/deployments", []byte(`{"image":"debian"}`)},
		{422, fleet.CodeInvalid, "GET", "/api/v1/jobs?limit=0", nil},
		{422, fleet.CodeInvalid, "GET", "/api/v1/jobs?limit=100000", nil},
		{400, fleet.CodeInvalid, "GET", "/api/v1/jobs?cursor=%25", nil},
		{404, "no-such-path", "GET", "/api/v1/nothing", nil},
		{405, "wrong-method", "DELETE", "/api/v1/machines", nil},
		{405, "wrong-method", "PUT", "/api/v1/groups/lab", []byte(`{}`)},
		{405, "wrong-method", "POST", "/api/v1/openapi.json", nil},
		{404, fleet.CodeMachineUnknown, "GET", "/api/v1/machines/nobody", nil},
		{404, fleet.CodeJobUnknown, "POST", "/api/v1/jobs/none/cancel", nil},
		{404, fleet.CodeDeploymentUnknown, "GET", "/api/v1/deployments/none", nil},
		{404, fleet.CodeImageUnknown, "GET", "/api/v1/images/none", nil},
		{413, "too-large", "POST", "/api/v1/deployments", bytes.Repeat([]byte(" "), 10<<20)},
	} {
		v.refused(c.status, c.code, c.method, c.path, c.body)
	}
	if _, _, header := v.do("DELETE", "/api/v1/machines", nil); header.Get("Allow") != "GET, HEAD" {
		t.Errorf("Allow: %q", header.Get("Allow"))
	}
	for kind, status := range map[string]int{"text/plain": 415, "application/x-www-form-urlencoded": 415, "text/json": 415, "application/json; charset=utf-8": 201, "": 201} {
		order := []byte(fmt.Sprintf(`{"name":"as %s"}`, strings.NewReplacer("/", " ", ";", "").Replace(kind)))
		if as := v.with("Content-Type", kind); status == 415 {
			as.refused(status, "wrong-content-type", "POST", "/api/v1/groups", order)
		} else if got, b, _ := as.do("POST", "/api/v1/groups", order); got != status {
			t.Errorf("a group as %q: %d %s", kind, got, b)
		}
	}
	for kind, status := range map[string]int{"application/json": 415, "multipart/form-data": 415, "text/csv": 200, "text/csv; charset=utf-8": 200} {
		if as := v.with("Content-Type", kind); status == 415 {
			as.refused(status, "wrong-content-type", "POST", "/api/v1/machines.csv?dry=true", []byte(table))
		} else if got, b, _ := as.do("POST", "/api/v1/machines.csv?dry=true", []byte(table)); got != status {
			t.Errorf("a table as %q: %d %s", kind, got, b)
		}
	}
}

func TestAJobIsSteeredByTheVersionThatSomebodySaw(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	if _, err := a.operator.ImportMachines(t.Context(), strings.NewReader(table), false); err != nil {
		t.Fatal(err)
	}
	if _, err := a.operator.Admit(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	d, err := a.operator.Deploy(t.Context(), api.Order{Order: fleet.Order{Image: "debian", Machines: []string{"one"}}})
	if err != nil {
		t.Fatal(err)
	}
	v := a.visit().with("Authorization", "Bearer "+a.user("otto", fleet.RoleOperator))
	path := "/api/v1/jobs/" + a.jobOf(d.ID)
	tag := func() string {
		t.Helper()
		status, _, header := v.do("GET", path, nil)
		if status != 200 || header.Get("ETag") == "" {
			t.Fatalf("%d, ETag %q", status, header.Get("ETag"))
		}
		return header.Get("ETag")
	}
	seen := tag()
	for _, c := range []struct{ path, body string }{{"/priority", `{"priority":7}`}, {"/pause", ""}, {"/resume", ""}, {"/cancel", ""}} {
		var body []byte
		if c.body != "" {
			body = []byte(c.body)
		}
		status, answer, header := v.with("If-Match", seen).do("POST", path+c.path, body)
		if status != 200 || versionOf(header.Get("ETag")) == versionOf(seen) {
			t.Fatalf("%s: %d, ETag %q: %s", c.path, status, header.Get("ETag"), answer)
		}
		if header.Get("ETag") == versionOf(seen) {
			t.Errorf("%s told no sum", c.path)
		}
		if c.path != "/cancel" {
			for _, other := range []string{"/priority", "/pause", "/resume", "/cancel"} {
				v.with("If-Match", seen).refused(412, fleet.CodeChanged, "POST", path+other, []byte(map[bool]string{true: `{"priority":1}`}[other == "/priority"]))
			}
		}
		if seen = header.Get("ETag"); c.path != "/cancel" && versionOf(seen) != versionOf(tag()) {
			t.Errorf("%s told another version than the one that is there", c.path)
		}
	}
}

func TestAChangeIsRefusedWhereSomebodyElseWasFaster(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	v := a.visit().with("Authorization", "Bearer "+a.user("anna", fleet.RoleAdmin))
	status, _, header := v.do("POST", "/api/v1/groups", fleet.GroupOrder{Name: "lab"})
	tag := header.Get("ETag")
	if status != 201 || tag == "" {
		t.Fatalf("%d, ETag %q", status, tag)
	}
	patch := func(notes string) []byte { return []byte(`{"notes":"` + notes + `"}`) }
	status, _, header = v.with("If-Match", tag).do("PATCH", "/api/v1/groups/lab", patch("one"))
	if status != 200 || header.Get("ETag") == tag {
		t.Errorf("the first change: %d, ETag %q", status, header.Get("ETag"))
	}
	v.with("If-Match", tag).refused(412, fleet.CodeChanged, "PATCH", "/api/v1/groups/lab", patch("two"))
	v.with("If-Match", `"x"`).refused(412, fleet.CodeChanged, "PATCH", "/api/v1/groups/lab", patch("two"))
	if _, err := a.operator.EditGroup(t.Context(), "lab", 1, fleet.GroupOrder{Name: "lab"}); err == nil {
		t.Error("the client's change to an old version was taken")
	}
	v.refused(400, fleet.CodeInvalid, "PATCH", "/api/v1/groups/lab", []byte(`{"name":"another"}`))
}

const table = "mac,name,groups\r\n52:54:00:00:00:01,one,lab\r\n52:54:00:00:00:02,two,lab\r\n52:54:00:00:00:03,three,\r\n"

// TestSettingsThatNobodyMadeAreDecidedByToo: their ETag is one as any other.
func TestSettingsThatNobodyMadeAreDecidedByToo(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	v := a.visit().with("Authorization", "Bearer "+a.user("adam", fleet.RoleAdmin))
	status, body, header := v.do("GET", "/api/v1/settings", nil)
	if status != 200 || header.Get("ETag") == "" {
		t.Fatalf("%d %s", status, body)
	}
	same := v.with("If-Match", header.Get("ETag"))
	if status, body, _ := same.do("PATCH", "/api/v1/settings", map[string]int{"limit": 7}); status != 200 {
		t.Fatalf("the first change: %d %s", status, body)
	}
	same.refused(412, fleet.CodeChanged, "PATCH", "/api/v1/settings", map[string]int{"limit": 8})
	if a.fleet.Settings().Limit != 7 {
		t.Errorf("the limit is %d", a.fleet.Settings().Limit)
	}
}

func TestListsComeInPages(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	if done, err := a.operator.ImportMachines(t.Context(), strings.NewReader(table), false); err != nil || done.Added != 3 {
		t.Fatalf("%+v, %v", done, err)
	}
	v := a.visit().with("Authorization", "Bearer "+a.user("vera", fleet.RoleViewer))
	var names []string
	for path, n := "/api/v1/machines?limit=2", 0; path != ""; n++ {
		status, b, _ := v.do("GET", path, nil)
		var p api.Page[api.Machine]
		if err := json.Unmarshal(b, &p); err != nil || status != 200 || len(p.Items) > 2 || n > 1 {
			t.Fatalf("%s: %d %s, %v", path, status, b, err)
		}
		for _, m := range p.Items {
			names = append(names, m.Name)
		}
		if path = ""; p.Next != "" {
			path = "/api/v1/machines?limit=2&cursor=" + p.Next
		}
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "one three two" {
		t.Errorf("machines %s", got)
	}
	// What comes and goes between two pages repeats nothing and hides nothing that stays.
	seen := map[string]int{}
	for path, n := "/api/v1/groups?limit=2", 0; path != ""; n++ {
		if n == 0 {
			for i := range 6 {
				if _, err := a.operator.NewGroup(t.Context(), fleet.GroupOrder{Name: fmt.Sprintf("g%d", i)}); err != nil {
					t.Fatal(err)
				}
			}
		}
		status, b, _ := v.do("GET", path, nil)
		var p api.Page[fleet.GroupView]
		if err := json.Unmarshal(b, &p); err != nil || status != 200 || n > 10 {
			t.Fatalf("%s: %d %s, %v", path, status, b, err)
		}
		for _, g := range p.Items {
			seen[g.Name]++
		}
		if n == 0 { // the last one that was seen goes, one comes before all, one behind
			last := p.Items[len(p.Items)-1].Name
			if err := a.operator.RemoveGroup(t.Context(), last); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"a", "z"} {
				if _, err := a.operator.NewGroup(t.Context(), fleet.GroupOrder{Name: name}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if path = ""; p.Next != "" {
			path = "/api/v1/groups?limit=2&cursor=" + p.Next
		}
	}
	for _, name := range []string{"g0", "g1", "g2", "g3", "g4", "g5", "lab", "z"} {
		if seen[name] != 1 {
			t.Errorf("group %s was listed %d times: %v", name, seen[name], seen)
		}
	}
	for q, want := range map[api.MachineQuery]int{{Group: "Lab"}: 2, {Text: "TWO"}: 1, {State: "none"}: 3, {State: "running"}: 0, {Admitted: "false"}: 0, {Admitted: "true"}: 3, {Text: "00:03"}: 1} {
		if list, err := a.operator.Machines(t.Context(), q); err != nil || len(list) != want {
			t.Errorf("%+v: %d machines, want %d, %v", q, len(list), want, err)
		}
	}
	var b bytes.Buffer
	if err := a.operator.ExportMachines(t.Context(), &b); err != nil || !strings.Contains(b.String(), "52:54:00:00:00:02,two,lab") {
		t.Errorf("the table: %s, %v", &b, err)
	}
}

func TestTheClientPinsTheSite(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	token := a.user("vera", fleet.RoleViewer)
	for _, c := range []struct {
		name   string
		config client.Config
		ok     bool
	}{
		{"pinned", client.Config{URL: a.remote, Token: token, Fingerprint: a.site.Fingerprint()}, true},
		{"another site", client.Config{URL: a.remote, Token: token, Fingerprint: images.Sum([]byte("another"))}, false},
		{"this host's authorities", client.Config{URL: a.remote, Token: token}, false},
		{"no token", client.Config{URL: a.remote, Fingerprint: a.site.Fingerprint()}, false},
	} {
		conn, err := client.New(c.config)
		if err != nil {
			t.Fatal(err)
		}
		me, err := conn.Me(t.Context())
		if (err == nil) != c.ok || c.ok && me.Name != "vera" {
			t.Errorf("%s: %+v, %v", c.name, me, err)
		}
		conn.Close()
	}
	for _, wrong := range []string{"http://10.77.0.1", "10.77.0.1", "https://10.77.0.1/other", "https://user@10.77.0.1"} {
		if _, err := client.New(client.Config{URL: wrong}); err == nil {
			t.Errorf("%s was taken for an appliance", wrong)
		}
	}
	in, err := client.Login(t.Context(), client.Config{URL: a.remote, Fingerprint: a.site.Fingerprint()}, "vera", password)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if k, err := in.NewKey(t.Context(), api.KeyOrder{KeyOrder: fleet.KeyOrder{Name: "mine"}, Expires: api.Duration(time.Hour)}); err != nil || k.User != "vera" {
		t.Errorf("an API token after a login: %+v, %v", k, err)
	}
	if err := in.Logout(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWhoListensHearsWhatChanges(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	last, begun := 0, false
	errHeard := errors.New("heard")
	err := a.operator.Live(ctx, 0, func(c client.Change) error {
		last = max(last, c.ID)
		switch {
		case c.Restart != nil && !begun:
			begun = true
			_, err := a.operator.ImportMachines(ctx, strings.NewReader(table), false)
			return err
		case c.Machines != nil && len(c.Machines.Items) == 3:
			return errHeard
		}
		return nil
	})
	if !errors.Is(err, errHeard) {
		t.Fatal(err)
	}
	if err := a.operator.RemoveMachine(ctx, "two"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.operator.Deploy(ctx, api.Order{All: true, Order: fleet.Order{Image: "debian"}}); err != nil {
		t.Fatal(err)
	}
	removed, deployed := 0, 0
	err = a.operator.Live(ctx, last, func(c client.Change) error {
		if c.Restart != nil {
			t.Error("a stream that goes on begins anew")
		}
		if c.Machines != nil {
			removed += len(c.Machines.Removed)
		}
		if c.Deployments != nil {
			deployed += len(c.Deployments.Items)
		}
		if removed == 1 && deployed == 1 {
			return errHeard
		}
		return nil
	})
	if !errors.Is(err, errHeard) {
		t.Fatal(err)
	}
	err = a.operator.Live(ctx, 1, func(c client.Change) error {
		if c.Restart == nil {
			t.Errorf("what is too long ago: %+v", c)
		}
		return errHeard
	})
	if !errors.Is(err, errHeard) {
		t.Fatal(err)
	}
}

// TestWhoGoesOnAtAnotherApplianceReadsTheListsAgain, and so does who goes on where the appliance was started again.
func TestWhoGoesOnAtAnotherApplianceReadsTheListsAgain(t *testing.T) {
	one, other := start(t, fleet.AdmitAuto), start(t, fleet.AdmitAuto)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	errHeard := errors.New("heard")
	begin := func(a *appliance, after int) (id int, restart bool) {
		err := a.operator.Live(ctx, after, func(c client.Change) error {
			id, restart = c.ID, c.Restart != nil
			return errHeard
		})
		if !errors.Is(err, errHeard) {
			t.Fatal(err)
		}
		return id, restart
	}
	first, _ := begin(one, 0)
	second, _ := begin(other, 0)
	if apart := max(first-second, second-first); apart < 1_000_000 { // a change every half second for a week
		t.Errorf("the streams of two appliances begin at %d and %d: %d changes later one is taken for the other", first, second, apart)
	}
	for range 3 { // the other one has a stream of its own to go on with
		if err := other.fleet.Sighted(ctx, fleet.Sighting{MAC: mac, Stage: "dhcp"}); err != nil {
			t.Fatal(err)
		}
		if _, restart := begin(other, first); !restart {
			t.Fatal("who goes on at another appliance is not told to read the lists again")
		}
	}
}

// TestWhoListensHearsThatAFailedJobIsTriedAgain: a job that has ended is not done with.
func TestWhoListensHearsThatAFailedJobIsTriedAgain(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := a.fleet.Sighted(ctx, fleet.Sighting{MAC: mac, Stage: "dhcp"}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.operator.Deploy(ctx, api.Order{Order: fleet.Order{Image: "debian", Machines: []string{mac}}}); err != nil {
		t.Fatal(err)
	}
	id, errHeard := a.fleet.Jobs()[0].ID, errors.New("heard")
	err := a.operator.Live(ctx, 0, func(c client.Change) error {
		if c.Restart != nil {
			_, err := a.operator.Operate(ctx, id, "cancel")
			return err
		}
		if c.Jobs == nil {
			return nil
		}
		for _, j := range c.Jobs.Items {
			switch {
			case j.ID == id && j.RetriedBy != "":
				return errHeard
			case j.ID == id && j.State == job.Cancelled:
				if _, err := a.operator.Operate(ctx, id, "retry"); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if !errors.Is(err, errHeard) {
		t.Fatal(err)
	}
}

// TestWhoListensOverHTTP2HearsThroughSilence: with that, the bound of a write ends a stream though nothing is written.
func TestWhoListensOverHTTP2HearsThroughSilence(t *testing.T) {
	t.Parallel()
	a := start(t, fleet.AdmitAuto)
	c, err := client.New(client.Config{URL: a.remote, Token: a.user("vera", fleet.RoleViewer), Fingerprint: a.site.Fingerprint()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second) // huma would bound a write to 5 s
	defer cancel()
	if err := c.Live(ctx, 0, func(c client.Change) error { return nil }); ctx.Err() == nil {
		t.Errorf("the stream ended in silence: %v", err)
	}
}

func TestWhoIsShutOutHearsNoMore(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := client.New(client.Config{URL: a.remote, Token: a.user("vera", fleet.RoleViewer), Fingerprint: a.site.Fingerprint()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	heard := 0
	err = c.Live(ctx, 0, func(client.Change) error {
		heard++
		return a.operator.RemoveUser(ctx, "vera")
	})
	if err == nil || ctx.Err() != nil || heard != 1 {
		t.Errorf("heard %d changes, then %v", heard, err)
	}
}

// paths returns the operations of the description by path and method.
func paths(t *testing.T, a *appliance) map[string]map[string]map[string]any {
	t.Helper()
	b, err := a.operators.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Paths map[string]map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	return d.Paths
}

func TestTheDescriptionHoldsTogether(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	b, err := a.operators.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var d map[string]any
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	schemas := d["components"].(map[string]any)["schemas"].(map[string]any)
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				if name, ok := strings.CutPrefix(ref, "#/components/schemas/"); !ok || schemas[name] == nil {
					t.Errorf("%s names %s, which is not there", at, ref)
				}
			}
			for key, sub := range v {
				walk(at+"/"+key, sub)
			}
		case []any:
			for i, sub := range v {
				walk(fmt.Sprintf("%s/%d", at, i), sub)
			}
		}
	}
	walk("", d)
	ids := map[string]bool{}
	for path, methods := range paths(t, a) {
		for method, op := range methods {
			id, _ := op["operationId"].(string)
			if id == "" || ids[id] || op["summary"] == "" || op["responses"] == nil {
				t.Errorf("%s %s: operation %q", method, path, id)
			}
			ids[id] = true
			var named []string
			list, _ := op["parameters"].([]any)
			for _, p := range list {
				if p := p.(map[string]any); p["in"] == "path" {
					named = append(named, "{"+p["name"].(string)+"}")
				}
			}
			if strings.Count(path, "{") != len(named) || slices.ContainsFunc(named, func(n string) bool { return !strings.Contains(path, n) }) {
				t.Errorf("%s %s: its parameters are %v", method, path, named)
			}
		}
	}
}

// local asks over the socket's handler.
func (a *appliance) local(method, path string, body []byte) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, path, bytes.NewReader(body))
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
		if strings.HasSuffix(path, ".csv") {
			r.Header.Set("Content-Type", "text/csv")
		}
	}
	ctx, cancel := context.WithTimeout(a.t.Context(), 300*time.Millisecond) // of /live, which has no end
	defer cancel()
	a.operators.Local().ServeHTTP(w, r.WithContext(ctx))
	return w
}

func (s *shelf) Usage(context.Context, string) (*api.ImageUsage, error) {
	return &api.ImageUsage{}, nil
}
func (s *shelf) Diff(context.Context, string, string) (*api.ImageDiff, error) {
	return &api.ImageDiff{}, nil
}
func (s *shelf) Remove(context.Context, string) error { return nil }
func (s *shelf) Prune(context.Context, api.PruneOrder, func(api.Progress)) (*api.PruneReport, error) {
	return &api.PruneReport{}, nil
}
func (s *shelf) CheckDisk(context.Context, string, api.DiskOrder, func(api.Progress)) (*api.DiskReport, error) {
	return &api.DiskReport{}, nil
}
func (s *shelf) Export(_ context.Context, _ string, _ int64, out api.DiskOutput) error {
	return out.Begin(512, 0)
}
func (s *shelf) OpenSwarm(context.Context, string, func(api.Progress)) (*api.OpenSwarm, error) {
	return &api.OpenSwarm{Image: "debian:1"}, nil
}
func (s *shelf) CloseSwarm(context.Context, string) error { return nil }
func (s *shelf) Torrent(context.Context, string, api.TorrentOrder) ([]byte, error) {
	return []byte("d4:infod"), nil
}

// TestEveryOperationOfTheDescriptionAnswers, and of each one that changes something an event says who did it.
func TestEveryOperationOfTheDescriptionAnswers(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	if _, err := a.operator.ImportMachines(t.Context(), strings.NewReader(table), false); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two", "three"} {
		if _, err := a.operator.Admit(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	a.user("vera", fleet.RoleViewer)
	d, err := a.operator.Deploy(t.Context(), api.Order{Order: fleet.Order{Image: "debian", Machines: []string{"one"}}})
	if err != nil {
		t.Fatal(err)
	}
	j := a.jobOf(d.ID)
	token, err := a.operator.NewToken(t.Context(), api.TokenOrder{TokenOrder: fleet.TokenOrder{Role: job.RoleGet}})
	if err != nil || token.Token.Uses != 1 {
		t.Fatalf("%+v, %v", token, err)
	}
	keys, err := a.operator.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string]bool{}
	last := int64(0)
	happened := func() []fleet.Event { // since it was asked last
		t.Helper()
		list, err := a.fleet.Events(t.Context(), fleet.EventQuery{After: last})
		if err != nil {
			t.Fatal(err)
		}
		if len(list) > 0 {
			last = list[len(list)-1].ID
		}
		return list
	}
	// What changes nothing here: it is so already, or nothing was wrong or had failed, or nobody is logged in by a cookie.
	silent := map[string]bool{"POST /machines/{name}/admit": true, "POST /verify": true, "POST /logout": true, "POST /deployments/{id}/retry-failed": true,
		"POST /deployments/plan": true, "POST /work/plan": true}
	actor := map[string]string{"POST /login": "anna"}
	for _, c := range []struct {
		status       int
		method, path string // as in the description
		with, body   string // in place of what is in braces; JSON
	}{
		{200, "GET", "/machines", "", ""}, {200, "GET", "/machines/{name}", "one", ""}, {200, "GET", "/machines/{name}/boot", "one", ""}, {200, "PATCH", "/machines/{name}", "one", `{"notes":"by the door","seat":{"row":1,"column":2}}`},
		{200, "POST", "/machines/{name}/admit", "one", ""}, {200, "POST", "/machines/{name}/merge", "three", `{"into":"two"}`}, {400, "POST", "/wake", "", `{"machines":["one"]}`},
		{200, "GET", "/machines.csv", "", ""}, {200, "POST", "/machines.csv", "", "mac,name\n52:54:00:00:00:09,nine\n"},
		{409, "POST", "/work", "", `{"kind":"inventory","machines":["one"]}`}, {400, "POST", "/work", "", `{"kind":"wipe","machines":["one"]}`},
		{200, "POST", "/work/plan", "", `{"kind":"wipe","machines":["one"]}`},
		{201, "POST", "/work", "", `{"kind":"inventory","machines":["52:54:00:00:00:09"]}`},
		{201, "POST", "/groups", "", `{"name":"room","kind":"room","rows":3,"columns":4}`}, {200, "GET", "/groups", "", ""}, {200, "GET", "/groups/{name}", "room", ""},
		{200, "PATCH", "/groups/{name}", "room", `{"limit":3}`}, {200, "POST", "/groups/{name}/add", "room", `{"machines":["one"]}`}, {200, "POST", "/groups/{name}/remove", "room", `{"machines":["one"]}`},
		{204, "DELETE", "/groups/{name}", "room", ""},
		{200, "GET", "/jobs", "", ""}, {200, "GET", "/jobs/{id}", j, ""}, {200, "POST", "/jobs/{id}/priority", j, `{"priority":5}`}, {200, "POST", "/jobs/{id}/pause", j, ""},
		{200, "POST", "/jobs/{id}/resume", j, ""}, {200, "GET", "/deployments", "", ""}, {200, "GET", "/deployments/{id}", d.ID, ""}, {200, "POST", "/deployments/{id}/pause", d.ID, ""},
		{200, "POST", "/deployments/{id}/resume", d.ID, ""}, {200, "POST", "/jobs/{id}/cancel", j, ""}, {201, "POST", "/jobs/{id}/retry", j, ""}, {200, "POST", "/deployments/{id}/cancel", d.ID, ""},
		{200, "POST", "/deployments/{id}/retry-failed", d.ID, ""}, {400, "POST", "/deployments/{id}/rollback", d.ID, ""}, {200, "POST", "/deployments/{id}/close", d.ID, ""},
		{200, "POST", "/deployments/plan", "", `{"image":"debian","all":true,"seed_for":"90s"}`},
		{201, "POST", "/deployments", "", `{"image":"debian","all":true,"seed_for":"90s"}`}, {200, "GET", "/history", "", ""}, {204, "DELETE", "/machines/{name}", "two", ""},
		{200, "GET", "/deployments/{id}/journal", d.ID, ""}, {200, "GET", "/machines/{name}/journal", "one", ""},
		{409, "POST", "/captures", "", `{"name":"new","version":"1","machine":"one"}`},
		{200, "GET", "/images", "", ""}, {200, "POST", "/images", "", `{"path":"/disk","name":"debian"}`}, {200, "GET", "/images/{ref}", "debian", ""}, {204, "DELETE", "/images/{ref}", "debian:1", ""},
		{200, "GET", "/images/{ref}/usage", "debian", ""}, {200, "GET", "/images/{ref}/diff/{to}", "debian", ""}, {200, "POST", "/images/{ref}/check-disk", "debian", `{"path":"/disk","repair":true}`},
		{200, "POST", "/verify", "", `{"image":"debian"}`}, {200, "POST", "/prune", "", `{"grace":"24h"}`}, {200, "POST", "/images/{ref}/open", "debian", ""},
		{204, "POST", "/images/{ref}/close", "debian", ""}, {200, "GET", "/images/{ref}/torrent", "debian", ""}, {200, "GET", "/images/{ref}/disk", "debian", ""},
		{200, "GET", "/tokens", "", ""}, {201, "POST", "/tokens", "", `{"role":"seed","expires":"1h"}`}, {200, "POST", "/tokens/{id}/revoke", token.Token.ID, ""},
		{400, "POST", "/guests/join", "", `{"role":"get","public_key":"AA==","image":""}`}, {200, "GET", "/nodes", "", ""}, {200, "POST", "/nodes/warm", "", `{"image":"debian","share":0.5}`},
		{409, "POST", "/nodes/drop", "", `{"image":"debian"}`},
		{200, "GET", "/users", "", ""}, {201, "POST", "/users", "", `{"name":"anna","role":"admin","password":"` + password + `"}`}, {200, "GET", "/users/{name}", "vera", ""}, {200, "PATCH", "/users/{name}", "vera", `{"role":"operator"}`},
		{200, "GET", "/keys", "", ""}, {201, "POST", "/keys", "", `{"name":"more","user":"anna","expires":"1h"}`}, {204, "DELETE", "/keys/{id}", keys[0].ID, ""}, {204, "DELETE", "/users/{name}", "vera", ""},
		{200, "POST", "/login", "", `{"name":"anna","password":"` + password + `"}`}, {204, "POST", "/logout", "", ""}, {200, "GET", "/me", "", ""},
		{401, "POST", "/me/password", "", `{"old":"` + password + `","new":"` + password + `"}`},
		{200, "GET", "/events", "", ""}, {200, "GET", "/settings", "", ""}, {200, "PATCH", "/settings", "", `{"limit":30,"webhook":"http://127.0.0.1:1/hook"}`}, {200, "GET", "/appliances", "", ""}, {200, "GET", "/live", "", ""},
		{200, "GET", "/alerts", "", ""}, {200, "GET", "/messages", "", ""}, {200, "POST", "/messages/test", "", ""},
	} {
		path := strings.NewReplacer("{name}", c.with, "{id}", c.with, "{ref}", c.with, "{to}", c.with).Replace("/api/v1" + c.path)
		asked[c.method+" /api/v1"+c.path] = true
		var body []byte
		if c.body != "" {
			body = []byte(c.body)
		}
		happened()
		if w := a.local(c.method, path, body); w.Code != c.status {
			t.Errorf("%s %s: %d, want %d: %.300s", c.method, path, w.Code, c.status, w.Body)
		}
		if c.method == "GET" || c.status >= 300 || silent[c.method+" "+c.path] {
			continue
		}
		by := cmp.Or(actor[c.method+" "+c.path], "root")
		if list := happened(); !slices.ContainsFunc(list, func(e fleet.Event) bool { return e.Actor == by }) {
			t.Errorf("%s %s: no event says that %s did it: %+v", c.method, path, by, list)
		}
	}
	for path, methods := range paths(t, a) {
		for method := range methods {
			if !asked[strings.ToUpper(method)+" "+path] {
				t.Errorf("no test asks for %s %s", strings.ToUpper(method), path)
			}
		}
	}
}
