package fleet

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"seedbed/appliance/job"
)

// tokenLifetime is from the boot script to the hello: kernel and initramfs travel, the kernel starts, a switch port
// takes up to 90 s to forward.
const tokenLifetime = 15 * time.Minute

// sessionLifetime is how long a boot's certificates can be good, and a little more.
const sessionLifetime = 80 * time.Hour

// Hello redeems a boot token for a certificate on the agent's key. The same key may say hello again, for an answer may be
// lost; a second key with one token means that somebody took part in a boot that was not his, so both are shut out and
// an event says so.
func (f *Fleet) Hello(ctx context.Context, remote netip.Addr, h job.Hello) (job.Welcome, error) {
	h.MAC = strings.ToLower(h.MAC)
	key := keyID(h.PublicKey)
	now := f.now().UTC()
	cert, err := f.config.Authority.Machine(h.PublicKey, now, job.URIMachine+h.MAC)
	if err != nil {
		return job.Welcome{}, refuse(CodeInvalid, "%v", err)
	}
	_, err = knowing(f, func() (_ struct{}, err error) {
		var refusal error
		err = f.change(ctx, func(d *draft) error {
			refusal = d.redeem(h, key, remote, now)
			return nil // what a refusal records is written too
		})
		return struct{}{}, oneOf(err, refusal)
	}, CodeTokenUnknown)
	if err != nil {
		return job.Welcome{}, err
	}
	f.mu.Lock()
	if t, ok := f.sights[h.MAC]; ok {
		t.over, t.stage = true, "agent"
		f.sights[h.MAC] = t
	}
	f.mu.Unlock()
	return job.Welcome{
		Time: now, Appliances: f.addresses(), Certificate: cert, CA: f.config.Authority.CA().Raw,
		SiteKey: f.config.Authority.PublicKey(),
	}, nil
}

// redeem marks the token's session as redeemed by key, or says why not.
func (d *draft) redeem(h job.Hello, key string, remote netip.Addr, now time.Time) error {
	s := d.session(tokenID(h.Token))
	switch {
	case s == nil:
		return refuse(CodeTokenUnknown, "the boot token of %s is not known here; start the machine again", h.MAC)
	case s.Revoked && s.Redeemed.IsZero():
		d.editSession(s).Redeemed = now // said once
		d.event(Event{Kind: "machine.impersonation", Text: "a boot token of " + s.MAC + " that a later boot script replaced was used from " +
			remote.String() + "; if the machine was not started twice, look for a strange device on the boot network"})
		return refuse(CodeRevoked, "the boot token of %s was replaced by a later one; start the machine again", h.MAC)
	case s.Revoked:
		return refuse(CodeRevoked, "the boot token of %s was revoked; start the machine again", h.MAC)
	case s.MAC != h.MAC:
		return refuse(CodeTokenUnknown, "the boot token was given to another machine than %s; start the machine again", h.MAC)
	case s.Redeemed.IsZero() && now.Sub(s.Minted) > tokenLifetime:
		return refuse(CodeTokenUnknown, "the boot token of %s is older than %v; start the machine again", h.MAC, tokenLifetime)
	case !s.Redeemed.IsZero() && s.Key == key:
		return nil
	case !s.Redeemed.IsZero():
		d.editSession(s).Revoked = true
		d.event(Event{Kind: "machine.impersonation", Machine: s.Machine, Text: "the boot token of " + s.MAC +
			" was used twice, the second time from " + remote.String() + ": both are shut out; look for a strange device on the boot network"})
		return refuse(CodeTokenUsed, "the boot token of %s was used before; both boots are shut out, start the machine again", h.MAC)
	case d.sessionOf(key) != nil:
		// Machines of a swarm see each other's keys: with one of these a stranger would take over the other's connections.
		return refuse(CodeInvalid, "the public key that %s sent is another boot's; start the machine again", h.MAC)
	}
	m, err := d.sighted(identity{macs: []string{s.MAC}}, "", maxGreeted)
	if err != nil {
		return err
	}
	own := d.editSession(s)
	own.Redeemed, own.Key, own.PublicKey, own.Left = now, key, h.PublicKey, leftAt(h, now)
	text := m.Name + " booted the agent"
	if given, err := netip.ParseAddr(s.Addr); err == nil && remote.IsValid() && given != remote {
		text += fmt.Sprintf(", at %s; its boot script was given to %s", remote, given)
	}
	if l := own.Left; l != nil {
		text += "; in a boot before this one"
		if !l.At.IsZero() {
			text += ", at " + l.At.Format(time.DateTime) + " UTC"
		}
		text += ", it did not reach the appliance: " + l.Text
	}
	d.event(Event{Kind: "machine.hello", Machine: m.ID, Text: text})
	return nil
}

// maxLeftAge is how old what an earlier boot left may be by the machine's clock: what is older, or of times to come, has no time.
const maxLeftAge = 10 * 365 * 24 * time.Hour

// leftAt returns what a hello tells of an earlier boot, bounded, its time by this appliance's clock; nil is nothing.
func leftAt(h job.Hello, now time.Time) *job.Left {
	if h.Left == nil || h.Left.Code == "" {
		return nil
	}
	l := *h.Left
	cut(&l.Code, maxWord)
	cut(&l.Text, maxLeft)
	if ago := h.Clock.Sub(l.At); l.At.IsZero() || ago < 0 || ago > maxLeftAge {
		l.At = time.Time{}
	} else {
		l.At = now.Add(-ago).UTC().Truncate(time.Second)
	}
	return &l
}

// maxLeft bounds the sentence about an earlier boot, in bytes.
const maxLeft = 500

// Caller is who sends a request: one boot of one machine's agent.
type Caller struct {
	session *Session
	address netip.Addr
}

// At returns the caller with the address that its request came from.
func (c Caller) At(a netip.Addr) Caller {
	c.address = a.Unmap().WithZone("")
	return c
}

// Boot is the ID of the caller's boot, or of the guest's stay.
func (c Caller) Boot() string { return c.session.ID }

// IsGuest reports whether the caller is no boot of a machine, but a program that joined swarms.
func (c Caller) IsGuest() bool { return c.session.Guest != nil }

// Machine is the caller's machine ID, "" before its inventory.
func (c Caller) Machine() string { return c.session.Machine }

// Authenticate returns the boot that a client certificate, verified under the site's CA, belongs to.
func (f *Fleet) Authenticate(cert *x509.Certificate) (Caller, error) {
	c, err := f.AuthenticateReader(cert)
	if err == nil && c.session.Guest != nil {
		return Caller{}, refuse(CodeUnauthorised, "the certificate is that of a guest, which fetches images and does no jobs")
	}
	return c, err
}

// AuthenticateReader returns who may read images: the boot or the guest that a client certificate, verified under the
// site's CA, belongs to.
func (f *Fleet) AuthenticateReader(cert *x509.Certificate) (Caller, error) {
	key := keyID(cert.RawSubjectPublicKeyInfo)
	f.mu.Lock()
	s := f.state.sessions[f.keys[key]]
	if (s == nil || s.Machine == "" && s.Guest == nil) && f.config.Records.Shared() { // it may have spoken with another appliance just now
		f.mu.Unlock()
		err := f.refresh()
		f.mu.Lock()
		if err != nil { // who it is cannot be looked up, so that nobody is refused
			f.mu.Unlock()
			return Caller{}, err
		}
		s = f.state.sessions[f.keys[key]]
	}
	defer f.mu.Unlock()
	if s == nil {
		return Caller{}, refuse(CodeUnauthorised, "no boot of a machine is known by this certificate; start the machine again")
	}
	if err := s.shutOut(); err != nil {
		return Caller{}, err
	}
	if s.Machine != "" {
		f.seen[s.Machine] = f.now()
	}
	return Caller{session: s}, nil
}

// Revoked returns a Refusal where the boot or the guest of a client certificate, verified under the site's CA, was shut out.
func (f *Fleet) Revoked(cert *x509.Certificate) error {
	f.mu.RLock()
	s := f.state.sessions[f.keys[keyID(cert.RawSubjectPublicKeyInfo)]]
	f.mu.RUnlock()
	return s.shutOut()
}

// shutOut returns a Refusal where the session, which may be nil, was revoked.
func (s *Session) shutOut() error {
	switch {
	case s == nil || !s.Revoked:
		return nil
	case s.Guest != nil:
		return refuse(CodeRevoked, "the token by which %s joined was revoked; ask for a new one", s.Guest.Name)
	}
	return refuse(CodeRevoked, "the certificate of %s was revoked; start the machine again", s.MAC)
}

// keyID names a public key (PKIX DER).
func keyID(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// tidy expires claims and forgets boots whose certificates are no good any more.
func (f *Fleet) tidy(ctx context.Context) error {
	now := f.now()
	var silent []*Job
	var old, spent []string
	f.mu.RLock()
	for _, j := range f.open {
		if f.lost(j, now) {
			silent = append(silent, j)
		}
	}
	for _, s := range f.state.sessions {
		if s.expired(now) {
			old = append(old, s.ID)
		}
	}
	for _, t := range f.state.tokens {
		if now.Sub(t.Expires) > tokenHistory {
			spent = append(spent, t.ID)
		}
	}
	f.mu.RUnlock()
	f.tidyGuests(now)
	if !f.InOffice() {
		return nil
	}
	if err := f.tidyPreloads(ctx, now); err != nil {
		return err
	}
	if err := f.tidyStanding(ctx); err != nil {
		return err
	}
	if err := f.tidyCalls(ctx, now); err != nil {
		return err
	}
	if len(silent)+len(old)+len(spent) == 0 {
		return nil
	}
	return f.schedule(ctx, func(d *draft) error {
		for _, id := range old {
			d.remove(Key{KindSession, id})
		}
		for _, id := range spent {
			d.remove(Key{KindToken, id})
		}
		for _, j := range silent {
			if j = d.job(j.ID); j == nil {
				continue
			}
			f.mu.RLock()
			lost := f.lost(j, now)
			f.mu.RUnlock()
			if !lost {
				continue // a report came in between
			}
			own := d.editJob(j)
			own.State, own.Code = job.Waiting, "silent"
			own.Reason = "nothing was heard from the machine for " + f.config.ClaimExpires.String() +
				"; it goes on when it boots from the network again"
			d.jobEvent(own)
		}
		return nil
	})
}

// expired reports whether none of the session's certificates is good any more.
func (s *Session) expired(now time.Time) bool {
	if s.Guest != nil {
		return now.After(s.Guest.Expires)
	}
	return s.Redeemed.IsZero() && now.Sub(s.Minted) > tokenLifetime || now.Sub(s.Minted) > sessionLifetime
}

// lost reports whether a claim expired. The caller holds mu.
func (f *Fleet) lost(j *Job, now time.Time) bool {
	return (j.State == job.Claimed || j.State == job.Running) && now.Sub(f.live[j.ID].at) > f.config.ClaimExpires
}
