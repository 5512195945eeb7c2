package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"seedbed/appliance/fleet"
)

// loggedIn is the answer to a login, loggedOut that to its end.
type loggedIn struct {
	SetCookie string `header:"Set-Cookie"`
	Body      Me
}

type loggedOut struct {
	SetCookie string `header:"Set-Cookie"`
}

// stayCookie is the cookie of a stay: for this host over TLS alone, out of reach of scripts and of other sites' pages.
func stayCookie(value string, age int) string { return stayed(value, age).String() }

func stayed(value string, age int) *http.Cookie {
	return &http.Cookie{Name: CookieName, Value: value, Path: "/", MaxAge: age, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode}
}

// Origin has where a request comes from, and the cookie of its stay.
type Origin struct{ from, cookie string }

// Resolve implements huma.Resolver.
func (i *Origin) Resolve(c huma.Context) []error {
	if a, ok := fleet.ActorOf(c.Context()); ok {
		i.from = a.From
	} else {
		r := http.Request{RemoteAddr: c.RemoteAddr()}
		i.from = fromOf(&r)
	}
	header := http.Request{Header: http.Header{"Cookie": {c.Header("Cookie")}}}
	if cookie, err := header.Cookie(CookieName); err == nil {
		i.cookie = cookie.Value
	}
	return nil
}

// user returns the user of a name.
func (o *Operators) user(ctx context.Context, name string) (*fleet.UserView, error) {
	list, err := o.fleet.Users(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(u fleet.UserView) bool { return u.ID == fleet.GroupID(name) })
	if i < 0 {
		return nil, &fleet.Refusal{Code: fleet.CodeUserUnknown, Detail: "there is no user " + name + "; `seedbed user ls` lists them"}
	}
	return &list[i], nil
}

// userVersion returns what looks up the version of a user.
func (o *Operators) userVersion(ctx context.Context, name string) func() (int64, error) {
	return func() (int64, error) {
		u, err := o.user(ctx, name)
		if err != nil {
			return 0, err
		}
		return u.Version, nil
	}
}

func (o *Operators) addUsers() {
	o.addStays()
	f := o.fleet
	add(o, "GET", "/users", "listUsers", "List the users", func(ctx context.Context, in *Cut) (*paged[fleet.UserView], error) {
		list, err := f.Users(ctx)
		if err != nil {
			return nil, err
		}
		return page(list, *in, func(u fleet.UserView) string { return u.ID })
	})
	user := func(u *fleet.UserView, err error) (*versioned[*fleet.UserView], error) {
		if err != nil {
			return nil, err
		}
		return &versioned[*fleet.UserView]{etag(u.Version), u}, nil
	}
	add(o, "POST", "/users", "newUser", "Make a user", func(ctx context.Context, in *struct{ Body fleet.UserOrder }) (*versioned[*fleet.UserView], error) {
		return user(f.NewUser(ctx, in.Body))
	}, made)
	add(o, "GET", "/users/{name}", "getUser", "Show a user", func(ctx context.Context, in *Named) (*versioned[*fleet.UserView], error) {
		return user(o.user(ctx, in.Name))
	})
	add(o, "PATCH", "/users/{name}", "editUser", "Change a user", func(ctx context.Context, in *struct {
		MatchedName
		Body UserPatch
	}) (*versioned[*fleet.UserView], error) {
		version, err := in.wanted(o.userVersion(ctx, in.Name))
		if err != nil {
			return nil, err
		}
		if err := unrenamed(in.Name, in.Body.Name, "user"); err != nil {
			return nil, err
		}
		return user(f.EditUser(ctx, in.Name, version, in.Body.UserOrder))
	}, matched)
	add(o, "DELETE", "/users/{name}", "removeUser", "Remove a user with all API tokens", func(ctx context.Context, in *MatchedName) (*nothing, error) {
		ctx, err := in.expecting(ctx, o.userVersion(ctx, in.Name))
		if err != nil {
			return nil, err
		}
		return done(f.RemoveUser(ctx, in.Name))
	}, matched)
	add(o, "GET", "/keys", "listKeys", "List one's API tokens, or, for an administrator, all", func(ctx context.Context, in *Cut) (*paged[fleet.KeyView], error) {
		list, err := f.Keys(ctx)
		if err != nil {
			return nil, err
		}
		return page(list, *in, func(k fleet.KeyView) string { return datedKey(k.Created, k.ID) })
	})
	add(o, "POST", "/keys", "newKey", "Make an API token of one's own", func(ctx context.Context, in *struct{ Body KeyOrder }) (*answer[NewKey], error) {
		order := in.Body.KeyOrder
		if order.Expires = time.Duration(in.Body.Expires); order.Expires == 0 {
			order.Expires = defaultKeyLifetime
		}
		k, secret, err := f.NewKey(ctx, order)
		if err != nil {
			return nil, err
		}
		return body(NewKey{*k, secret}, nil)
	}, made)
	add(o, "DELETE", "/keys/{id}", "revokeKey", "End an API token", func(ctx context.Context, in *struct {
		ID string `path:"id" maxLength:"64"`
	}) (*nothing, error) {
		return done(f.RevokeKey(ctx, in.ID))
	})
}

// defaultKeyLifetime is that of an API token for which none is asked.
const defaultKeyLifetime = 90 * 24 * time.Hour

func (o *Operators) addStays() {
	f := o.fleet
	add(o, "POST", "/login", "login", "Log in; the answer's cookie says who asks from then on", func(ctx context.Context, in *struct {
		Origin
		Body Login
	}) (*loggedIn, error) {
		leave, err := o.knocks.enter(in.from, time.Now())
		if err != nil {
			return nil, err
		}
		defer leave()
		stay, err := f.Login(ctx, in.Body.Name, in.Body.Password, in.from)
		if err != nil {
			return nil, err
		}
		age := int(time.Until(stay.Expires).Seconds())
		return &loggedIn{stayCookie(stay.Cookie, age), Me{Name: stay.User.Name, Role: stay.User.Role, CSRF: stay.CSRF, Expires: stay.Expires}}, nil
	}, func(op *huma.Operation) {
		op.Security = []map[string][]string{}
		op.MaxBodyBytes = 4 << 10
		op.Errors = append(op.Errors, http.StatusTooManyRequests)
	})
	add(o, "POST", "/logout", "logout", "Log out", func(ctx context.Context, in *Origin) (*loggedOut, error) {
		out := &loggedOut{stayCookie("", -1)}
		if in.cookie == "" {
			return out, nil
		}
		return out, f.Logout(ctx, in.cookie)
	})
	add(o, "GET", "/me", "whoAmI", "Say who asks", func(ctx context.Context, in *Origin) (*answer[Me], error) {
		a, _ := fleet.ActorOf(ctx)
		me := Me{Name: a.Name, Role: a.Role, Token: a.Token}
		if in.cookie != "" && a.Token == "" {
			if _, csrf, err := f.Stayed(in.cookie, in.from); err == nil {
				me.CSRF = csrf
			}
		}
		return body(me, nil)
	})
	add(o, "POST", "/me/password", "setPassword", "Choose another password for oneself; all stays end", func(ctx context.Context, in *struct {
		Origin
		Body Password
	}) (*nothing, error) {
		a, _ := fleet.ActorOf(ctx)
		if a.Token != "" {
			return nil, &fleet.Refusal{Code: fleet.CodeForbidden, Detail: "a password is not changed by an API token; log in"}
		}
		leave, err := o.knocks.enter(in.from, time.Now())
		if err != nil {
			return nil, err
		}
		defer leave()
		return done(f.SetPassword(ctx, a.Name, in.Body.Old, in.Body.New))
	})
}
