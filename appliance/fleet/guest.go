package fleet

import (
	"context"
	"crypto/x509"
	"net/netip"
	"slices"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
)

// Guest is a program outside a boot that takes part in swarms: it fetches an image, or is a seed node.
type Guest struct {
	Role job.Role `json:"role"`
	Name string   `json:"name"` // of its host, for people
	// Token is the ID of the one that let it in; "" is the appliance's own host.
	Token string `json:"token,omitempty"`
	// Only is the image that the token is good for; zero is any.
	Only images.Digest `json:"only,omitzero"`
	// Images are those that it may read, the one asked for last at the end.
	Images  []images.Digest `json:"images,omitempty"`
	Expires time.Time       `json:"expires"` // of its latest certificate
}

// GuestLifetime is how long a guest's certificate is good; it asks for another after a third of that.
const GuestLifetime = 12 * time.Hour

// Bounds of guests: of images that one may read, the oldest is given up; of guests at one time; bytes of a name.
const (
	maxGuestImages = 1000
	maxGuests      = 20000
	maxGuestName   = 64
)

// need is a swarm that guests need the appliance's seeder for.
type need struct {
	image images.Digest
	until time.Time
}

// needFor is how long a swarm is served after a guest joined it or announced that it lacks something: a few announces.
const needFor = 90 * time.Second

// Join lets a guest take part in the swarm of an image. cert is the certificate of an earlier join, nil if there is none;
// local says that the request came over the local socket, and needs no token. The same key may use a token again, for an
// answer may be lost and a program interrupted: that does not count.
func (f *Fleet) Join(ctx context.Context, cert *x509.Certificate, local bool, remote netip.Addr, r job.Join) (job.Joined, error) {
	return knowing(f, func() (job.Joined, error) { return f.join(ctx, cert, local, remote, r) }, CodeTokenUnknown, CodeUnauthorised)
}

func (f *Fleet) join(ctx context.Context, cert *x509.Certificate, local bool, remote netip.Addr, r job.Join) (job.Joined, error) {
	key, now := keyID(r.PublicKey), f.now().UTC()
	switch {
	case r.Role != job.RoleGet && r.Role != job.RoleSeed:
		return job.Joined{}, refuse(CodeInvalid, "a guest joins to get or to seed, not to %q", r.Role)
	case len(r.Name) > maxGuestName:
		return job.Joined{}, refuse(CodeInvalid, "the name of a guest has at most %d bytes", maxGuestName)
	case cert != nil && keyID(cert.RawSubjectPublicKeyInfo) != key:
		return job.Joined{}, refuse(CodeInvalid, "a certificate is renewed on the key that it was given for")
	}
	var image *Image
	var joined *Session
	var refusal error
	admit := func(d *draft) error {
		joined, refusal = d.admit(ctx, r, key, cert != nil, local, remote, image, now)
		return nil // what a refusal records is written too
	}
	if r.Image != "" { // nobody who may not join learns what images there are
		if err := f.change(ctx, func(d *draft) error {
			if _, refusal = d.guest(r, key, cert != nil, local, remote, now); refusal != nil {
				return nil
			}
			d.reset() // it is admitted with its image, or not at all
			return nil
		}); err != nil || refusal != nil {
			return job.Joined{}, oneOf(err, refusal)
		}
		var err error
		if image, err = f.config.Library.Image(ctx, r.Image); err != nil {
			return job.Joined{}, err
		}
	}
	if err := f.change(ctx, admit); err != nil || refusal != nil {
		return job.Joined{}, oneOf(err, refusal)
	}
	return f.joined(ctx, joined, remote, r, image, now)
}

func oneOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// guest returns the draft's own record of who joins: a new one, or that of the same key.
func (d *draft) guest(r job.Join, key string, known, local bool, remote netip.Addr, now time.Time) (*Session, error) {
	old := d.sessionOf(key)
	switch {
	case old != nil && old.Guest == nil:
		return nil, refuse(CodeInvalid, "the public key is that of a boot of a machine; make another")
	case old != nil && old.Revoked:
		return nil, refuse(CodeRevoked, "the token by which %s joined was revoked; ask for a new one (`seedbed token new`)", old.Guest.Name)
	case old != nil && old.Guest.Role != r.Role:
		return nil, refuse(CodeInvalid, "%s joined to %s, not to %s", old.Guest.Name, old.Guest.Role, r.Role)
	case old != nil && (known || local || old.Guest.Token == tokenID(r.Token)):
		return d.editSession(old), nil
	case old != nil: // peers of a swarm see each other's keys
		return nil, refuse(CodeInvalid, "the public key is that of another guest; make another")
	case known:
		return nil, refuse(CodeUnauthorised, "no guest is known by this certificate; join again with a new token (`seedbed token new`)")
	case len(d.sessions()) >= maxGuests:
		return nil, refuse(CodeInvalid, "%d guests and boots are known, and no more are let in; try again tomorrow", maxGuests)
	}
	g := &Guest{Role: r.Role, Name: r.Name}
	if g.Name == "" {
		g.Name = "a host without a name"
	}
	if !local {
		t, err := d.usable(r.Token, r.Role, remote, now)
		if err != nil {
			return nil, err
		}
		d.editToken(t).Used++
		g.Token, g.Only = t.ID, t.Image
	}
	return &Session{ID: "guest-" + newID(), Addr: remote.String(), Minted: now, Redeemed: now, Key: key, PublicKey: r.PublicKey, Guest: g}, nil
}

// admit lets a guest in, for an image unless that is nil.
func (d *draft) admit(ctx context.Context, r job.Join, key string, known, local bool, remote netip.Addr, image *Image, now time.Time) (*Session, error) {
	s, err := d.guest(r, key, known, local, remote, now)
	if err != nil {
		return nil, err
	}
	g := *s.Guest
	s.Guest = &g
	switch {
	case image == nil && r.Role == job.RoleGet && len(g.Images) == 0:
		err = refuse(CodeInvalid, "a guest that fetches an image says which")
	case image != nil && !g.Only.IsZero() && g.Only != image.Digest:
		err = refuse(CodeImageUnknown, "the token is not good for image %s; ask for one that is (`seedbed token new --image`)", image.Name())
	case image != nil && r.Role == job.RoleGet && len(g.Images) > 0 && g.Images[0] != image.Digest:
		err = refuse(CodeInvalid, "%s joined to fetch another image than %s; ask for a new token", g.Name, image.Name())
	}
	if err != nil {
		d.reset()
		return nil, err
	}
	if image != nil && !slices.Contains(g.Images, image.Digest) {
		g.Images = append(slices.Clone(g.Images), image.Digest)
		g.Images = g.Images[max(0, len(g.Images)-maxGuestImages):]
		how := ", on the appliance's own host"
		if g.Token != "" {
			how = ", from " + remote.String() + " by token " + g.Token[:12]
		}
		if r.Unverified {
			how += "; UNVERIFIED: what it writes is not read back, as was asked"
		}
		d.event(by(ctx, Event{Kind: "guest.joined", Text: g.Name + " joined to " + string(g.Role) + " " + image.Name() + how}))
	}
	g.Expires = now.Add(GuestLifetime)
	if s.Version == 0 {
		d.add(s)
	}
	return s, nil
}

// joined makes the answer for a guest that was let in.
func (f *Fleet) joined(ctx context.Context, s *Session, remote netip.Addr, r job.Join, image *Image, now time.Time) (job.Joined, error) {
	if image == nil && len(s.Guest.Images) > 0 && r.Role == job.RoleGet {
		var err error
		if image, err = f.config.Library.Image(ctx, s.Guest.Images[0].String()); err != nil {
			return job.Joined{}, err
		}
	}
	answer := job.Joined{Guest: s.ID, Time: now, Expires: s.Guest.Expires, CA: f.config.Authority.CA().Raw,
		SiteKey: f.config.Authority.PublicKey(), Appliances: f.addresses()}
	uris := []string{job.URIGuest + s.ID}
	if image != nil {
		answer.Image, answer.ImageName, answer.InfoHash = image.Digest, image.Name(), image.InfoHash
		answer.Seeds = f.seedsFor(image.InfoHash, Caller{session: s}.At(remote)) // it may have moved since it came
		uris = append(uris, f.config.InfoHashURI(image.InfoHash))
		f.require(image.InfoHash, image.Digest)
		if r.Part {
			uris = append(uris, f.config.PartURI)
		}
		if r.Role == job.RoleSeed {
			uris = append(uris, f.config.SeedURI)
		}
	}
	var err error
	answer.Certificate, err = f.config.Authority.Guest(r.PublicKey, s.Guest.Expires, uris...)
	return answer, err
}

// require has a swarm served for a while.
func (f *Fleet) require(h images.InfoHash, image images.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, served := f.needs[h]
	f.needs[h] = need{image, f.now().Add(needFor)}
	if !served {
		f.wake()
	}
}

// Announced says that the holder of a certificate announced that it lacks something: where guests need the swarm, it is
// served on, and where one of the guest's images is not served any more, it is again.
func (f *Fleet) Announced(ctx context.Context, cert *x509.Certificate, wire [20]byte) {
	if f.stillNeeded(wire) {
		return
	}
	c, err := f.AuthenticateReader(cert)
	if err != nil || c.session.Guest == nil {
		return
	}
	for _, d := range slices.Backward(c.session.Guest.Images) {
		if image, err := f.config.Library.Image(ctx, d.String()); err == nil && image.InfoHash.Wire() == wire {
			f.require(image.InfoHash, image.Digest)
			return
		}
	}
}

// stillNeeded has a swarm that guests need served on, and reports whether there is one of that name.
func (f *Fleet) stillNeeded(wire [20]byte) (found bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for h, n := range f.needs {
		if h.Wire() == wire {
			n.until = f.now().Add(needFor)
			f.needs[h], found = n, true
		}
	}
	return found
}

// wake lets who waits for Changed look again. The caller holds mu.
func (f *Fleet) wake() {
	f.revision++
	close(f.changed)
	f.changed = make(chan struct{})
}

// tidyGuests forgets swarms that no guest needs any more, and seed nodes that are silent.
func (f *Fleet) tidyGuests(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed := f.tidyNodes(now)
	for h, n := range f.needs {
		if now.After(n.until) {
			delete(f.needs, h)
			changed = true
		}
	}
	if changed {
		f.wake()
	}
}
