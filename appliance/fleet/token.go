package fleet

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
)

// Token lets programs outside a boot join swarms. ID is the SHA-256 of the secret in hexadecimal digits: the secret itself
// is not kept.
type Token struct {
	ID      string   `json:"id"`
	Version int64    `json:"version"`
	Role    job.Role `json:"role"`
	// Image is the only one that it is good for; zero is any.
	Image     images.Digest `json:"image,omitzero"`
	ImageName string        `json:"image_name,omitempty"`
	Uses      int           `json:"uses"` // how many programs may join by it
	Used      int           `json:"used"`
	Created   time.Time     `json:"created"`
	Expires   time.Time     `json:"expires"`
	Revoked   bool          `json:"revoked,omitempty"`
	// Refused says that an event tells of its use after its end.
	Refused bool `json:"refused,omitempty"`
}

// Short is how people and events name a token.
func (t *Token) Short() string { return t.ID[:12] }

// Bounds of a token.
const (
	MaxTokenUses     = 10000
	MaxTokenLifetime = 366 * 24 * time.Hour
	maxTokens        = 10000
	tokenHistory     = 30 * 24 * time.Hour // after its end
)

// TokenOrder asks for a token.
type TokenOrder struct {
	Role    job.Role      `json:"role"`
	Image   string        `json:"image,omitempty"` // "": any
	Uses    int           `json:"uses"`
	Expires time.Duration `json:"expires"`
}

// NewToken makes a token and returns it with what has to be given to the program that is to use it, which is told only
// now.
func (f *Fleet) NewToken(ctx context.Context, o TokenOrder) (*Token, *job.Ticket, error) {
	if err := may(ctx, RoleAdmin, "make tokens"); err != nil {
		return nil, nil, err
	}
	switch {
	case o.Role != job.RoleGet && o.Role != job.RoleSeed:
		return nil, nil, refuse(CodeInvalid, "a token is for get or for seed, not for %q", o.Role)
	case o.Uses < 1 || o.Uses > MaxTokenUses:
		return nil, nil, refuse(CodeInvalid, "a token can be used 1 to %d times, not %d", MaxTokenUses, o.Uses)
	case o.Expires <= 0 || o.Expires > MaxTokenLifetime:
		return nil, nil, refuse(CodeInvalid, "a token is good for at most %d days, not %v", MaxTokenLifetime/(24*time.Hour), o.Expires)
	}
	var secret [32]byte
	rand.Read(secret[:]) // never fails (crypto/rand)
	now := f.now().UTC()
	t := &Token{ID: tokenID(hex.EncodeToString(secret[:])), Role: o.Role, Uses: o.Uses, Created: now, Expires: now.Add(o.Expires)}
	if o.Image != "" {
		image, err := f.config.Library.Image(ctx, o.Image)
		if err != nil {
			return nil, nil, err
		}
		t.Image, t.ImageName = image.Digest, image.Name()
	}
	err := f.change(ctx, func(d *draft) error {
		if len(d.tokens()) >= maxTokens {
			return refuse(CodeInvalid, "there are %d tokens; those that have ended are forgotten after %d days", maxTokens, tokenHistory/(24*time.Hour))
		}
		d.add(t)
		of := "any image"
		if t.ImageName != "" {
			of = t.ImageName
		}
		d.event(by(ctx, Event{Kind: "token.created", Text: "token " + t.Short() + " was made, to " + string(t.Role) + " " + of}))
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return t, &job.Ticket{Appliances: f.addresses(), Fingerprint: f.config.Authority.Fingerprint(), Token: hex.EncodeToString(secret[:])}, nil
}

// Tokens returns the tokens, oldest first.
func (f *Fleet) Tokens() []Token {
	f.mu.RLock()
	defer f.mu.RUnlock()
	list := make([]Token, 0, len(f.state.tokens))
	for _, t := range f.state.tokens {
		list = append(list, *t)
	}
	slices.SortFunc(list, func(a, b Token) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

// RevokeToken ends a token, named by at least six digits of its ID. Programs that joined by it get no certificate any more;
// those that they have end by themselves, GuestLifetime after they were given at the latest.
func (f *Fleet) RevokeToken(ctx context.Context, id string) (*Token, error) {
	if err := may(ctx, RoleAdmin, "revoke tokens"); err != nil {
		return nil, err
	}
	var revoked *Token
	err := f.change(ctx, func(d *draft) error {
		var found []*Token
		for _, t := range d.tokens() {
			if len(id) >= 6 && strings.HasPrefix(t.ID, strings.ToLower(id)) {
				found = append(found, t)
			}
		}
		switch {
		case len(found) == 0:
			return refuse(CodeTokenMissing, "no token has the ID %q; `seedbed token ls` lists them", id)
		case len(found) > 1:
			return refuse(CodeAmbiguous, "%d tokens begin with %q; give more digits", len(found), id)
		case found[0].Revoked:
			revoked = found[0]
			return nil
		}
		revoked = d.editToken(found[0])
		revoked.Revoked = true
		for _, s := range d.sessions() {
			if s.Guest != nil && s.Guest.Token == revoked.ID && !s.Revoked {
				d.editSession(s).Revoked = true
			}
		}
		d.event(by(ctx, Event{Kind: "token.revoked", Text: "token " + revoked.Short() + " was revoked"}))
		return nil
	})
	if err != nil {
		return nil, err
	}
	copied := *revoked
	return &copied, nil
}

// usable returns the token of a secret if one more program may join by it, else why not.
func (d *draft) usable(secret string, role job.Role, remote netip.Addr, now time.Time) (*Token, error) {
	t := d.token(tokenID(secret))
	if t == nil {
		return nil, refuse(CodeTokenUnknown, "this token is not known here; ask for a new one (`seedbed token new`)")
	}
	var refusal error
	switch {
	case t.Revoked:
		refusal = refuse(CodeRevoked, "token %s was revoked; ask for a new one (`seedbed token new`)", t.Short())
	case now.After(t.Expires):
		refusal = refuse(CodeTokenExpired, "token %s expired at %s; ask for a new one (`seedbed token new`)", t.Short(), t.Expires.Format(time.RFC3339))
	case t.Used >= t.Uses:
		refusal = refuse(CodeTokenUsed, "token %s was used %d times, which is all that it is good for; ask for a new one "+
			"(`seedbed token new`)", t.Short(), t.Used)
	case t.Role != role:
		return nil, refuse(CodeInvalid, "token %s is for `seedbed %s`, not for `seedbed %s`", t.Short(), t.Role, role)
	}
	if refusal != nil && !t.Refused { // said once, so that nobody fills the records
		d.editToken(t).Refused = true
		d.event(Event{Kind: "token.refused", Text: remote.String() + " was refused: " + refusal.Error()})
	}
	return t, refusal
}
