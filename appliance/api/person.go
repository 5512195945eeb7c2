package api

import (
	"context"
	"crypto/subtle"
	"net/http"
	"time"

	"seedbed/appliance/fleet"
)

// Person returns who asks by the cookie of a login, and the word against forged requests that goes with what that person changes. It
// is for the console's pages; like Remote it refuses who asks too often without a name.
func (o *Operators) Person(r *http.Request) (a fleet.Actor, csrf string, err error) {
	from := fromOf(r)
	cookie, err := r.Cookie(CookieName)
	if err == nil {
		if a, csrf, err = o.fleet.Stayed(cookie.Value, from); err == nil {
			if !a.Role.Includes(fleet.RoleViewer) {
				return a, csrf, &fleet.Refusal{Code: fleet.CodeForbidden, Detail: a.Name + " has no role at this site: ask an administrator"}
			}
			return a, csrf, nil
		}
	} else {
		err = &fleet.Refusal{Code: fleet.CodeUnauthorised, Detail: "log in"}
	}
	if o.Strange(r) {
		err = &fleet.Refusal{Code: fleet.CodeTooMany, Detail: "too many requests from this address without a login; try again in a moment"}
	}
	return fleet.Actor{}, "", err
}

// Strange counts a request without a name and reports whether its address asks too often.
func (o *Operators) Strange(r *http.Request) bool {
	return o.strangers.Wait(remoteOf(r), time.Now()) > 0
}

// FromOurPage returns a Refusal of a request that changes something and that no page of this appliance made: token is what came with
// it, csrf what Person said.
func FromOurPage(r *http.Request, token, csrf string) error {
	if csrf != "" && subtle.ConstantTimeCompare([]byte(token), []byte(csrf)) == 1 && new(http.CrossOriginProtection).Check(r) == nil {
		return nil
	}
	return &fleet.Refusal{Code: fleet.CodeForbidden, Detail: "the request does not come from a page of this appliance, or that page is old; load the page again"}
}

// Enter lets a person in and returns the cookie of the stay.
func (o *Operators) Enter(ctx context.Context, r *http.Request, name, password string) (*http.Cookie, error) {
	if new(http.CrossOriginProtection).Check(r) != nil {
		return nil, &fleet.Refusal{Code: fleet.CodeForbidden, Detail: "the login does not come from a page of this appliance; load the page again"}
	}
	from := fromOf(r)
	leave, err := o.knocks.enter(from, time.Now())
	if err != nil {
		return nil, err
	}
	defer leave()
	stay, err := o.fleet.Login(ctx, name, password, from)
	if err != nil {
		return nil, err
	}
	return stayed(stay.Cookie, int(time.Until(stay.Expires).Seconds())), nil
}

// Leave ends the stay of a request and returns the cookie that says so.
func (o *Operators) Leave(ctx context.Context, r *http.Request) (*http.Cookie, error) {
	gone := stayed("", -1)
	cookie, err := r.Cookie(CookieName)
	if err != nil {
		return gone, nil
	}
	return gone, o.fleet.Logout(ctx, cookie.Value)
}

// StatusOf is the status of HTTP by which an error is answered.
func StatusOf(err error) int { return problemOf(err).Status }

// ChoosePassword gives a person, who knows the old one, another password. All stays end; it returns the cookie of a new one.
func (o *Operators) ChoosePassword(ctx context.Context, r *http.Request, name, old, password string) (*http.Cookie, error) {
	leave, err := o.knocks.enter(fromOf(r), time.Now())
	if err != nil {
		return nil, err
	}
	err = o.fleet.SetPassword(ctx, name, old, password)
	leave()
	if err != nil {
		return nil, err
	}
	return o.Enter(ctx, r, name, password)
}
