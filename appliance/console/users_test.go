package console

import (
	"net/url"
	"strconv"
	"strings"
	"testing"

	"seedbed/appliance/fleet"
)

// user returns what is known of a user.
func (w *world) user(name string) *fleet.UserView {
	w.t.Helper()
	users, err := w.fleet.Users(w.ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, u := range users {
		if u.Name == name {
			return &u
		}
	}
	return nil
}

func TestUsersAreRefusedWithASentence(t *testing.T) {
	w := newWorld(t)
	w.as(fleet.RoleViewer)
	w.as(fleet.RoleAdmin)
	version := func(name string) string { return strconv.FormatInt(w.user(name).Version, 10) }
	long := "a long enough password"
	for name, c := range map[string]struct {
		role   fleet.Role
		path   string
		form   url.Values
		status int
		says   string
	}{
		"an operator who looks":            {fleet.RoleOperator, "/users", nil, 403, "admin"},
		"an operator who makes users":      {fleet.RoleOperator, "/users", url.Values{"name": {"eve"}, "role": {"admin"}, "password": {long}, "again": {long}}, 403, "admin"},
		"passwords that differ":            {fleet.RoleAdmin, "/users", url.Values{"name": {"eve"}, "role": {"viewer"}, "password": {long}, "again": {long + "!"}}, 400, "not the same"},
		"a password too short":             {fleet.RoleAdmin, "/users", url.Values{"name": {"eve"}, "role": {"viewer"}, "password": {"short"}, "again": {"short"}}, 400, "at least 10"},
		"a role that is none":              {fleet.RoleAdmin, "/users", url.Values{"name": {"eve"}, "role": {"king"}, "password": {long}, "again": {long}}, 400, "viewer, operator or admin"},
		"a name that is taken":             {fleet.RoleAdmin, "/users", url.Values{"name": {"Vera"}, "role": {"viewer"}, "password": {long}, "again": {long}}, 409, "already"},
		"an edit by an old page":           {fleet.RoleAdmin, "/users/vera/edit", url.Values{"version": {"999"}, "role": {"admin"}}, 412, "somebody else"},
		"an edit without a version":        {fleet.RoleAdmin, "/users/vera/edit", url.Values{"role": {"admin"}}, 412, "somebody else"},
		"a removal by an old page":         {fleet.RoleAdmin, "/users/vera/remove", url.Values{"version": {"999"}}, 412, "somebody else"},
		"the last administrator's end":     {fleet.RoleAdmin, "/users/ada/remove", url.Values{"version": {version("ada")}}, 400, "administers the site"},
		"a dialog about nobody":            {fleet.RoleAdmin, "/users/nobody/edit", nil, 404, "nobody"},
		"a wrong password for another one": {fleet.RoleViewer, "/account/password", url.Values{"old": {"wrong"}, "password": {long}, "again": {long}}, 401, "wrong"},
		"a token that may more":            {fleet.RoleViewer, "/account/tokens", url.Values{"name": {"backup"}, "role": {"admin"}, "days": {"30"}}, 403, "viewer"},
		"a token for nothing":              {fleet.RoleViewer, "/account/tokens", url.Values{"name": {" "}, "role": {"viewer"}, "days": {"30"}}, 400, "what the API token is for"},
		"a token for ever":                 {fleet.RoleViewer, "/account/tokens", url.Values{"name": {"backup"}, "role": {"viewer"}, "days": {"99999"}}, 400, "days"},
	} {
		status, body, _ := w.ask(c.role, c.path, c.form)
		if status != c.status || !strings.Contains(body, c.says) || !strings.Contains(body, "message refused") {
			t.Errorf("%s: %d %s, want %d %q", name, status, body, c.status, c.says)
		}
	}
	if w.user("eve") != nil || w.user("vera").Role != fleet.RoleViewer || w.user("ada") == nil {
		t.Error("what was refused was done")
	}
}

func TestOneSeesAndEndsTheOwnTokensAndLoginsAlone(t *testing.T) {
	w := newWorld(t)
	w.as(fleet.RoleOperator)
	stays := w.fleet.Stays(w.ctx, "") // otto's
	if len(stays) != 1 {
		t.Fatalf("logins %+v", stays)
	}
	if _, body, _ := w.ask(fleet.RoleViewer, "/account", nil); strings.Contains(body, "otto") || !strings.Contains(body, "this one") {
		t.Error("a viewer's page tells of others, or not of the own login")
	}
	if status, body, _ := w.ask(fleet.RoleViewer, "/account/logins/"+stays[0].ID+"/end", url.Values{}); status != 403 || !strings.Contains(body, "end the logins of others") {
		t.Errorf("a viewer ends the login of an operator: %d %s", status, body)
	}
	if status, body, _ := w.ask(fleet.RoleAdmin, "/account/logins/"+stays[0].ID+"/end", url.Values{}); status != 200 {
		t.Errorf("an administrator does not end it: %d %s", status, body)
	}
	for _, s := range w.fleet.Stays(w.ctx, "") {
		if s.User == "otto" {
			t.Error("it has not ended")
		}
	}
}

func TestUsersAreMadeChangedAndRemovedOnTheirPage(t *testing.T) {
	w := newWorld(t)
	b := w.open(t, how{Role: fleet.RoleAdmin}, "/users")
	b.click(`button[hx-get="/users/new"]`)
	b.typed(`dialog input[name="name"]`, "tom")
	b.typed(`dialog input[name="password"]`, "one two three four")
	b.typed(`dialog input[name="again"]`, "one two three five")
	b.axe()
	b.picture("dialog-new-user-1280")
	b.expect("status of 400")
	b.click("dialog button.main")
	b.says("dialog .answer", "not the same")
	b.typed(`dialog input[name="again"]`, "one two three four")
	b.click("dialog button.main")
	b.says("main > .message", "User tom is made")
	b.says("#users", "operator")

	b.click(`button[hx-get="/users/tom/edit"]`)
	b.visible(`dialog input[name="disabled"]`)
	b.click(`dialog input[value="viewer"]`)
	b.click(`dialog input[name="disabled"]`)
	b.axe()
	b.click("dialog button.main")
	b.says("main > .message", "User tom is changed")
	b.says("#users", "shut out")
	if u := w.user("tom"); u.Role != fleet.RoleViewer || !u.Disabled {
		t.Errorf("tom is %+v", u)
	}

	b.click(`button[hx-get="/users/tom/password"]`)
	b.typed(`dialog input[name="password"]`, "quite another one")
	b.typed(`dialog input[name="again"]`, "quite another one")
	b.click("dialog button.main")
	b.says("main > .message", "another password")

	b.click(`button[hx-get="/users/tom/remove"]`)
	b.visible("dialog button.danger")
	b.axe()
	b.click("dialog button.danger")
	b.says("main > .message", "User tom is removed")
	if w.user("tom") != nil {
		t.Error("tom is still there")
	}
}

func TestOneChangesTheOwnPasswordAndMakesTokens(t *testing.T) {
	w := newWorld(t)
	b := w.open(t, how{Role: fleet.RoleViewer}, "/account")
	b.typed(`input[name="old"]`, "correct horse battery")
	b.typed(`input[name="password"]`, "staple correct horse")
	b.typed(`input[name="again"]`, "staple correct horse")
	b.click(`form[action="/account/password"] button.main`)
	b.says("main > .message", "Your password is changed")
	if _, err := w.fleet.Login(w.ctx, "vera", "staple correct horse", "127.0.0.1"); err != nil {
		t.Error(err)
	}

	b.click(`button[hx-get="/account/tokens/new"]`)
	b.typed(`dialog input[name="name"]`, "Prometheus")
	b.axe()
	b.click("dialog button.main")
	b.visible("#secret")
	b.axe()
	b.picture("dialog-new-token-1280")
	secret := eval[string](b, `document.getElementById("secret").textContent`)
	if a, err := w.fleet.KeyActor(secret, "127.0.0.1"); err != nil || a.Name != "vera" || a.Role != fleet.RoleViewer {
		t.Errorf("the token lets in %+v, %v", a, err)
	}
	b.click("[data-copy]")
	b.until(`["Copied", "Copy it by hand"].includes(document.querySelector("[data-copy]").textContent)`)
	b.click("dialog a.main")
	b.says("main", "Prometheus")
	b.until(`!document.getElementById("secret")`)
	if strings.Contains(eval[string](b, "document.documentElement.outerHTML"), secret) {
		t.Error("the secret is shown again")
	}
	b.click(`button[hx-get*="/revoke"]`)
	b.says("dialog h2", "Revoke the API token Prometheus")
	b.click(`dialog button.danger`)
	b.says("main > .message", "revoked")
	if _, err := w.fleet.KeyActor(secret, "127.0.0.1"); err == nil {
		t.Error("a token that was revoked lets in")
	}
}
