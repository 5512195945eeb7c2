package console

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
)

// usersPage lists who may log in, with the API tokens and logins of all.
var usersPage = &page{path: "/users", name: "users", nav: text("Users"), role: fleet.RoleAdmin, data: usersData, live: usersLive, routes: []route{
	{pattern: "GET /users/new", role: fleet.RoleAdmin, serve: newUserDialog},
	{pattern: "POST /users", role: fleet.RoleAdmin, serve: newUser},
	{pattern: "GET /users/{user}/edit", role: fleet.RoleAdmin, serve: userDialog("edit")},
	{pattern: "POST /users/{user}/edit", role: fleet.RoleAdmin, serve: editUser},
	{pattern: "GET /users/{user}/password", role: fleet.RoleAdmin, serve: userDialog("password")},
	{pattern: "POST /users/{user}/password", role: fleet.RoleAdmin, serve: userPassword},
	{pattern: "GET /users/{user}/remove", role: fleet.RoleAdmin, serve: userDialog("remove")},
	{pattern: "POST /users/{user}/remove", role: fleet.RoleAdmin, serve: removeUser},
}}

type usersView struct {
	Users []userRow
	Keys  []keyRow
	Stays []fleet.StayView
}

// userRow is a user as the table shows it.
type userRow struct {
	fleet.UserView
	RoleText string
	Own      bool // who looks
	Keys     int
	Logins   int
	Last     time.Time // of the logins that last
}

// keyRow is an API token as tables show it.
type keyRow struct {
	fleet.KeyView
	RoleText      string
	Expired, Soon bool // within two weeks
}

// roles are all roles, with what they may.
var roles = []struct {
	Role fleet.Role
	Name string
	May  string
}{
	{fleet.RoleViewer, text("viewer"), text("sees everything but secrets, changes nothing")},
	{fleet.RoleOperator, text("operator"), text("deploys, captures, admits machines, edits rooms")},
	{fleet.RoleAdmin, text("administrator"), text("users, settings, removal of images, too")},
}

// roleRow is a role for a choice in a form.
type roleRow struct {
	Role      fleet.Role
	Name, May string
	Chosen    bool
}

func (v *visit) roleText(role fleet.Role) string {
	for _, r := range roles {
		if r.Role == role {
			return v.t(r.Name)
		}
	}
	return string(role)
}

// roleRows returns the roles that include no more than most.
func (v *visit) roleRows(most, chosen fleet.Role) (rows []roleRow) {
	for _, r := range roles {
		if most.Includes(r.Role) {
			rows = append(rows, roleRow{r.Role, v.t(r.Name), v.t(r.May), r.Role == chosen})
		}
	}
	return rows
}

// stayCookie is the cookie of the visit's login.
func (v *visit) stayCookie() string {
	if c, err := v.Cookie(api.CookieName); err == nil {
		return c.Value
	}
	return ""
}

func usersData(c *console, v *visit) (any, error) {
	users, err := c.Fleet.Users(v.Context())
	if err != nil {
		return nil, err
	}
	view := &usersView{Stays: c.Fleet.Stays(v.Context(), v.stayCookie())}
	if view.Keys, err = c.keyRows(v, ""); err != nil {
		return nil, err
	}
	for _, u := range users {
		row := userRow{UserView: u, RoleText: v.roleText(u.Role), Own: u.ID == fleet.GroupID(v.Actor.Name)}
		for _, k := range view.Keys {
			if k.User == u.ID {
				row.Keys++
			}
		}
		for _, s := range view.Stays {
			if s.User == u.Name {
				row.Logins++
				if s.Created.After(row.Last) {
					row.Last = s.Created
				}
			}
		}
		view.Users = append(view.Users, row)
	}
	return view, nil
}

func usersLive(c *console, v *visit) (*live, error) {
	data, err := usersData(c, v)
	if err != nil {
		return nil, err
	}
	return &live{parts: []part{v.part("users", "users", "", "users", data), v.part("users", "stays", "", "stays", data), v.part("users", "keys", "", "keys", data)}}, nil
}

// keyRows returns the API tokens that who looks may see, of one user or, with "", all, the latest first.
func (c *console) keyRows(v *visit, user string) (rows []keyRow, err error) {
	keys, err := c.Fleet.Keys(v.Context())
	if err != nil {
		return nil, err
	}
	for _, k := range slices.Backward(keys) {
		if user == "" || k.User == fleet.GroupID(user) {
			left := time.Until(k.Expires)
			rows = append(rows, keyRow{k, v.roleText(k.Role), left <= 0, left > 0 && left < 14*24*time.Hour})
		}
	}
	return rows, nil
}

func newUserDialog(_ *console, v *visit) (*answer, error) {
	return show("users", "new", v.roleRows(fleet.RoleAdmin, fleet.RoleOperator)), nil
}

// twice returns a new password that was typed twice.
func twice(v *visit) (string, error) {
	if v.FormValue("password") != v.FormValue("again") {
		return "", &fleet.Refusal{Code: fleet.CodeInvalid, Detail: text("the two passwords are not the same; type the new one twice")}
	}
	return v.FormValue("password"), nil
}

func newUser(c *console, v *visit) (*answer, error) {
	password, err := twice(v)
	if err != nil {
		return nil, err
	}
	role := fleet.Role(v.FormValue("role"))
	u, err := c.Fleet.NewUser(v.Context(), fleet.UserOrder{Name: strings.TrimSpace(v.FormValue("name")), Role: &role, Password: &password})
	if err != nil {
		return nil, err
	}
	return goTo("/users", v.t("User %s is made. Tell that person the password; it can be changed after the login.", u.Name)), nil
}

// userNamed returns the user that a request is about.
func (c *console) userNamed(v *visit) (*fleet.UserView, error) {
	users, err := c.Fleet.Users(v.Context())
	if err != nil {
		return nil, err
	}
	for _, u := range users {
		if u.ID == fleet.GroupID(v.PathValue("user")) {
			return &u, nil
		}
	}
	return nil, &fleet.Refusal{Code: fleet.CodeUserUnknown, Detail: v.t("there is no user %s any more; load the page again", v.PathValue("user"))}
}

// userDialog returns the route of a dialog about a user.
func userDialog(block string) func(*console, *visit) (*answer, error) {
	return func(c *console, v *visit) (*answer, error) {
		u, err := c.userNamed(v)
		if err != nil {
			return nil, err
		}
		return show("users", block, map[string]any{"User": u, "Roles": v.roleRows(fleet.RoleAdmin, u.Role)}), nil
	}
}

// version is that of the record that a form was made by.
func (v *visit) version() int64 {
	n, err := strconv.ParseInt(v.FormValue("version"), 10, 64)
	if err != nil || n <= 0 {
		return fleet.Unmade // the form was tampered with: nothing has this version
	}
	return n
}

func editUser(c *console, v *visit) (*answer, error) {
	role, disabled := fleet.Role(v.FormValue("role")), v.FormValue("disabled") != ""
	u, err := c.Fleet.EditUser(v.Context(), v.PathValue("user"), v.version(), fleet.UserOrder{Role: &role, Disabled: &disabled})
	if err != nil {
		return nil, err
	}
	return goTo("/users", v.t("User %s is changed.", u.Name)), nil
}

func userPassword(c *console, v *visit) (*answer, error) {
	password, err := twice(v)
	if err != nil {
		return nil, err
	}
	u, err := c.Fleet.EditUser(v.Context(), v.PathValue("user"), v.version(), fleet.UserOrder{Password: &password})
	if err != nil {
		return nil, err
	}
	return goTo("/users", v.t("User %s has another password, and has to log in again.", u.Name)), nil
}

func removeUser(c *console, v *visit) (*answer, error) {
	name := v.PathValue("user")
	if err := c.Fleet.RemoveUser(fleet.Expecting(v.Context(), v.version()), name); err != nil {
		return nil, err
	}
	return goTo("/users", v.t("User %s is removed.", name)), nil
}

// accountPage is what everybody has: the own password, API tokens and logins.
var accountPage = &page{path: "/account", name: "account", title: func(v *visit, _ any) string { return v.t("Your account") }, data: accountData, routes: []route{
	{pattern: "POST /account/password", serve: ownPassword},
	{pattern: "GET /account/tokens/new", serve: newKeyDialog},
	{pattern: "POST /account/tokens", serve: newKey},
	{pattern: "GET /account/tokens/{key}/revoke", serve: revokeDialog},
	{pattern: "POST /account/tokens/{key}/revoke", serve: revokeKey},
	{pattern: "POST /account/logins/{stay}/end", serve: endStay},
}}

type accountView struct {
	Name, RoleText, RoleMay string
	Keys                    []keyRow
	Stays                   []fleet.StayView
}

func accountData(c *console, v *visit) (_ any, err error) {
	view := &accountView{Name: v.Actor.Name}
	for _, r := range v.roleRows(v.Actor.Role, v.Actor.Role) {
		view.RoleText, view.RoleMay = r.Name, r.May
	}
	for _, s := range c.Fleet.Stays(v.Context(), v.stayCookie()) {
		if fleet.GroupID(s.User) == fleet.GroupID(v.Actor.Name) {
			view.Stays = append(view.Stays, s)
		}
	}
	view.Keys, err = c.keyRows(v, v.Actor.Name)
	return view, err
}

// ownPassword gives who asks another password. All logins end; this one is made again.
func ownPassword(c *console, v *visit) (*answer, error) {
	password, err := twice(v)
	if err != nil {
		return nil, err
	}
	cookie, err := c.Operators.ChoosePassword(v.Context(), v.Request, v.Actor.Name, v.FormValue("old"), password)
	if err != nil {
		return nil, err
	}
	http.SetCookie(v.w, cookie)
	return goTo("/account", v.t("Your password is changed. Your other logins have ended.")), nil
}

// lifetimes are how long an API token can be good, in days.
var lifetimes = []int{1, 7, 30, 90, 365, 730}

func newKeyDialog(_ *console, v *visit) (*answer, error) {
	return show("account", "new", map[string]any{"Roles": v.roleRows(v.Actor.Role, fleet.RoleViewer), "Days": lifetimes}), nil
}

// newKey makes an API token, which is shown this once.
func newKey(c *console, v *visit) (*answer, error) {
	days := number(v.FormValue("days"))
	k, secret, err := c.Fleet.NewKey(v.Context(), fleet.KeyOrder{Name: strings.TrimSpace(v.FormValue("name")), Role: fleet.Role(v.FormValue("role")), Expires: time.Duration(days) * 24 * time.Hour})
	if err != nil {
		return nil, err
	}
	return show("account", "made", map[string]any{"Key": k, "Secret": secret}), nil
}

func revokeDialog(c *console, v *visit) (*answer, error) {
	keys, err := c.Fleet.Keys(v.Context())
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(keys, func(k fleet.KeyView) bool { return k.ID == v.PathValue("key") })
	if at < 0 {
		return nil, v.invalid(text("This API token is gone: load the page again."))
	}
	return show("account", "revoke", keys[at]), nil
}

func revokeKey(c *console, v *visit) (*answer, error) {
	return againWith(v.t("The API token is revoked."), c.Fleet.RevokeKey(v.Context(), v.PathValue("key")))
}

func endStay(c *console, v *visit) (*answer, error) {
	return againWith(v.t("The login is ended."), c.Fleet.EndStay(context.WithoutCancel(v.Context()), v.PathValue("stay")))
}

// againWith is again where there was no error.
func againWith(text string, err error) (*answer, error) {
	if err != nil {
		return nil, err
	}
	return again(text), nil
}
