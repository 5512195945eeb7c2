package client

import (
	"context"
	"errors"
	"net/http"

	"seedbed/appliance/api"
)

// stay is what a login gave.
type stay struct{ cookie, csrf string }

// Login returns a client that asks in the name of a user, by a password, until Logout.
func Login(ctx context.Context, config Config, name, password string) (*Client, error) {
	if config.URL == "" {
		return nil, errors.New("a login is for an appliance elsewhere; over the local socket nobody logs in")
	}
	config.Token = ""
	c, err := New(config)
	if err != nil {
		return nil, err
	}
	resp, err := c.send(ctx, "POST", "/login", nil, api.Login{Name: name, Password: password})
	if err != nil {
		c.Close()
		return nil, err
	}
	defer resp.Body.Close()
	var me api.Me
	if err := c.decode(ctx, resp, &me); err != nil {
		c.Close()
		return nil, err
	}
	for _, cookie := range resp.Cookies() {
		if cookie.Name == api.CookieName {
			c.stay = &stay{cookie.Value, me.CSRF}
			return c, nil
		}
	}
	c.Close()
	return nil, errors.New("the appliance answered the login without a cookie; is it another version than this program?")
}

// Logout ends the stay.
func (c *Client) Logout(ctx context.Context) error { return c.do(ctx, "POST", "/logout", nil, nil) }

func (s *stay) sign(r *http.Request) {
	r.AddCookie(&http.Cookie{Name: api.CookieName, Value: s.cookie})
	r.Header.Set(api.CSRFHeader, s.csrf)
}
