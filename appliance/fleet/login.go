package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Stay is what a person who logged in holds: Cookie is told only now.
type Stay struct {
	Cookie  string
	CSRF    string
	User    UserView
	Expires time.Time
}

// Login lets a person in.
func (f *Fleet) Login(ctx context.Context, name, password, from string) (*Stay, error) {
	u, err := f.checkLogin(ctx, name, password, from)
	if err != nil {
		return nil, err
	}
	now := f.now().UTC()
	stay := &Stay{Cookie: randomHex(32), CSRF: randomHex(32), User: u.view(), Expires: now.Add(loginLifetime)}
	err = f.change(ctx, func(d *draft) error {
		have := lookup[*User](d, KindUser, u.ID)
		if have == nil || have.Disabled || have.Password != u.Password {
			return refuse(CodeLogin, wrongLogin)
		}
		var own []*Login
		for _, l := range othersOf[*Login](d, KindLogin) {
			switch {
			case now.After(l.Expires):
				d.remove(l.Ref())
			case l.User == u.ID:
				own = append(own, l)
			}
		}
		slices.SortFunc(own, func(a, b *Login) int { return a.Created.Compare(b.Created) })
		for _, l := range own[:max(0, len(own)-maxStays+1)] {
			d.remove(l.Ref())
		}
		d.add(&Login{ID: secretHash(stay.Cookie), User: u.ID, CSRF: stay.CSRF, From: from, Created: now, Expires: stay.Expires})
		d.event(Event{Kind: "user.login", Actor: u.Name, From: from, Text: u.Name + " logged in"})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return stay, nil
}

// wrongLogin tells no more than that: neither which names there are nor who is shut out.
const wrongLogin = "name or password are wrong"

// maxStays is how many stays one user has at most; the oldest end.
const maxStays = 100

// checkLogin returns the user of that name and password, as far as the caller has not guessed too often.
func (f *Fleet) checkLogin(ctx context.Context, name, password, from string) (*User, error) {
	id := GroupID(name)
	keys := f.guesses.keys(f.now(), id, from, f.stays(id, from))
	if err := f.tooMany(keys); err != nil {
		return nil, err
	}
	// Those that come at once are looked at one after the other, so that each knows what the others guessed wrong.
	if !f.guesses.enter(keys) {
		return nil, refuse(CodeTooMany, "too many people log in at once; try again in a moment")
	}
	defer f.guesses.leave(keys)
	if err := f.tooMany(keys); err != nil {
		return nil, err
	}
	u := f.userNamed(id)
	right := u.has(password)
	if !right { // another appliance may have made the user, or changed the password, a moment ago
		f.lookForStranger()
		if now := f.userNamed(id); now != u {
			u, right = now, now.has(password)
		}
	}
	if right {
		f.guesses.right(f.now(), keys, id, from)
		return u, nil
	}
	if f.guesses.wrong(f.now(), keys...) { // told once for each series, so that nobody fills the records
		err := f.Note(ctx, "user.refused", "wrong passwords for the name "+quoteName(name)+" from "+orEmpty(from, "this host")+
			": the name is shut for a while; if nobody mistyped, somebody guesses")
		if err != nil {
			return nil, err
		}
	}
	return nil, refuse(CodeLogin, wrongLogin)
}

// has reports whether a user, or nil, is let in by a password. It takes as long for nobody as for somebody.
func (u *User) has(password string) bool {
	hash := nobody
	if u != nil && u.Password != "" {
		hash = u.Password
	}
	return passwordIs(hash, password[:min(len(password), maxPassword)]) && u != nil && !u.Disabled
}

// stays reports whether a user is logged in from the network of an address.
func (f *Fleet) stays(id, from string) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, r := range f.state.others {
		if l, ok := r.(*Login); ok && l.User == id && l.From != "" && network(l.From) == network(from) {
			return true
		}
	}
	return false
}

// tooMany returns a Refusal while one of the keys is shut.
func (f *Fleet) tooMany(keys []string) error {
	wait := f.guesses.wait(f.now(), keys...)
	if wait <= 0 {
		return nil
	}
	return refuse(CodeTooMany, "too many wrong passwords for this name or from this address; try again in %v", max(wait.Round(time.Second), time.Second))
}

// quoteName writes a name that a stranger gave.
func quoteName(name string) string {
	if len(name) > 64 || !userName.MatchString(name) {
		return "of a stranger"
	}
	return name
}

func orEmpty(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// lookEvery is how far apart looks at what other appliances wrote are, for strangers' sake.
const lookEvery = 50 * time.Millisecond

// lookForStranger takes over what other appliances wrote before somebody is refused whom this one does not know: the login may
// have been at another one a moment ago. Strangers who come at once share one look, and it is late rather than left out.
func (f *Fleet) lookForStranger() {
	if !f.config.Records.Shared() {
		return
	}
	came := time.Now()
	f.looking.Lock()
	defer f.looking.Unlock()
	if f.looked.After(came) {
		return
	}
	time.Sleep(lookEvery - time.Since(f.looked))
	f.looked = time.Now()
	f.refresh()
}

func (f *Fleet) userNamed(id string) *User {
	f.mu.RLock()
	defer f.mu.RUnlock()
	u, _ := f.state.others[Key{KindUser, id}].(*User)
	return u
}

// Stayed returns who a cookie belongs to, and the word that goes with each of that person's requests that change something.
func (f *Fleet) Stayed(cookie, from string) (a Actor, csrf string, err error) {
	if a, csrf, err = f.stayed(cookie, from); err != nil {
		f.lookForStranger()
		a, csrf, err = f.stayed(cookie, from)
	}
	return a, csrf, err
}

func (f *Fleet) stayed(cookie, from string) (a Actor, csrf string, err error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	l, _ := f.state.others[Key{KindLogin, secretHash(cookie)}].(*Login)
	if l == nil || f.now().After(l.Expires) {
		return a, "", refuse(CodeUnauthorised, "the session has ended; log in again")
	}
	u, _ := f.state.others[Key{KindUser, l.User}].(*User)
	if u == nil || u.Disabled {
		return a, "", refuse(CodeUnauthorised, "the session has ended; log in again")
	}
	return Actor{Name: u.Name, Role: u.Role, From: from}, l.CSRF, nil
}

// Logout ends a stay.
func (f *Fleet) Logout(ctx context.Context, cookie string) error {
	return f.change(ctx, func(d *draft) error {
		l := lookup[*Login](d, KindLogin, secretHash(cookie))
		if l == nil {
			return nil
		}
		d.remove(l.Ref())
		name := l.User
		if u := lookup[*User](d, KindUser, l.User); u != nil {
			name = u.Name
		}
		d.event(by(ctx, Event{Kind: "user.logout", Text: name + " logged out"}))
		return nil
	})
}

// keyPrefix begins every API token, so that one that got into the open is recognised.
const keyPrefix = "seedbed_"

// KeyOrder asks for an API token.
type KeyOrder struct {
	Name string `json:"name"`
	// User is whose it is; empty is who asks. Only an administrator makes those of others.
	User string `json:"user,omitempty"`
	// Role bounds what it may; empty is the role of its user.
	Role    Role          `json:"role,omitempty"`
	Expires time.Duration `json:"expires"`
}

// KeyView is an API token as people see it.
type KeyView struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	User    string    `json:"user"`
	Role    Role      `json:"role"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

func (k *APIKey) view() KeyView {
	return KeyView{k.ID, k.Name, k.User, k.Role, k.Created, k.Expires}
}

// NewKey makes an API token in the name of who asks; the secret is told only now.
func (f *Fleet) NewKey(ctx context.Context, o KeyOrder) (view *KeyView, secret string, err error) {
	a, known := ActorOf(ctx)
	if !known {
		return nil, "", refuse(CodeForbidden, "an API token is a user's")
	}
	owner, most := a.Name, a.Role
	if o.User != "" && GroupID(o.User) != GroupID(a.Name) {
		if err := may(ctx, RoleAdmin, "make API tokens of others"); err != nil {
			return nil, "", err
		}
		f.mu.RLock()
		u, _ := f.state.others[Key{KindUser, GroupID(o.User)}].(*User)
		f.mu.RUnlock()
		if u == nil {
			return nil, "", refuse(CodeUserUnknown, "there is no user %q; `seedbed user ls` lists them", o.User)
		}
		owner, most = u.Name, u.Role
	}
	if o.Role == RoleNone {
		o.Role = most
	}
	switch {
	case a.Token != "":
		return nil, "", refuse(CodeForbidden, "an API token makes no other ones; log in with a password")
	case !o.Role.Valid() || !most.Includes(o.Role):
		return nil, "", refuse(CodeForbidden, "%s has the role %s, and so has every token of that user at most", owner, most)
	case o.Expires <= 0 || o.Expires > MaxKeyLifetime:
		return nil, "", refuse(CodeInvalid, "an API token is good for at most %d days, not %v", MaxKeyLifetime/(24*time.Hour), o.Expires)
	case strings.TrimSpace(o.Name) == "" || len(o.Name) > 64:
		return nil, "", refuse(CodeInvalid, "say what the API token is for, in 1 to 64 bytes: it is how people know it again")
	}
	random := randomHex(32)
	k := &APIKey{ID: newID(), Name: o.Name, User: GroupID(owner), Role: o.Role, Hash: secretHash(random)}
	err = f.change(ctx, func(d *draft) error {
		if lookup[*User](d, KindUser, k.User) == nil {
			return refuse(CodeUserUnknown, "%s is no user of this site; make one first (`seedbed user new`)", owner)
		}
		if len(othersOf[*APIKey](d, KindAPIKey)) >= maxAPIKeys {
			return refuse(CodeInvalid, "there are %d API tokens, and no more are made", maxAPIKeys)
		}
		k.Created = d.f.now().UTC()
		k.Expires = k.Created.Add(o.Expires)
		d.add(k)
		d.event(by(ctx, Event{Kind: "key.created", Text: "API token " + k.ID + " (" + k.Name + ") of " + owner + " was made, as " + string(k.Role)}))
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	v := k.view()
	return &v, keyPrefix + k.ID + "_" + random, nil
}

// KeyActor returns who an API token belongs to.
func (f *Fleet) KeyActor(token, from string) (a Actor, err error) {
	if a, err = f.keyActor(token, from); err != nil {
		f.lookForStranger()
		a, err = f.keyActor(token, from)
	}
	return a, err
}

func (f *Fleet) keyActor(token, from string) (a Actor, err error) {
	id, secret, ok := strings.Cut(strings.TrimPrefix(token, keyPrefix), "_")
	f.mu.RLock()
	defer f.mu.RUnlock()
	k, _ := f.state.others[Key{KindAPIKey, id}].(*APIKey)
	if !ok || k == nil || subtle.ConstantTimeCompare([]byte(secretHash(secret)), []byte(k.Hash)) != 1 {
		return a, refuse(CodeUnauthorised, "the API token is not known here; make another (`seedbed user token new`)")
	}
	u, _ := f.state.others[Key{KindUser, k.User}].(*User)
	switch {
	case f.now().After(k.Expires):
		return a, refuse(CodeUnauthorised, "API token %s (%s) expired at %s; make another", k.ID, k.Name, k.Expires.Format(time.RFC3339))
	case u == nil || u.Disabled:
		return a, refuse(CodeUnauthorised, "the user of API token %s (%s) is shut out", k.ID, k.Name)
	}
	a = Actor{Name: u.Name, Role: u.Role, From: from, Token: k.ID}
	if !k.Role.Includes(u.Role) {
		a.Role = k.Role
	}
	return a, nil
}

// Keys returns the API tokens of who asks, or all for an administrator.
func (f *Fleet) Keys(ctx context.Context) ([]KeyView, error) {
	a, known := ActorOf(ctx)
	f.mu.RLock()
	defer f.mu.RUnlock()
	list := []KeyView{}
	for _, k := range ofKind[*APIKey](&f.state, KindAPIKey) {
		if !known || a.Role.Includes(RoleAdmin) || k.User == GroupID(a.Name) {
			list = append(list, k.view())
		}
	}
	slices.SortFunc(list, func(a, b KeyView) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return cmp.Compare(a.ID, b.ID)
	})
	return list, nil
}

// RevokeKey ends an API token, of who asks or, for an administrator, of anybody.
func (f *Fleet) RevokeKey(ctx context.Context, id string) error {
	a, known := ActorOf(ctx)
	return f.change(ctx, func(d *draft) error {
		k := lookup[*APIKey](d, KindAPIKey, id)
		if k == nil || known && !a.Role.Includes(RoleAdmin) && k.User != GroupID(a.Name) {
			return refuse(CodeTokenMissing, "there is no API token %q; `seedbed user token ls` lists them", id)
		}
		if a.Token != "" && !a.Role.Includes(k.Role) {
			return refuse(CodeForbidden, "API token %s has the role %s, and the one that asks %s; ask with one that may as much", k.ID, k.Role, a.Role)
		}
		d.remove(k.Ref())
		d.event(by(ctx, Event{Kind: "key.revoked", Text: "API token " + k.ID + " (" + k.Name + ") was revoked"}))
		return nil
	})
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

// guesses counts wrong passwords. Safe for concurrent use.
type guesses struct {
	mu      sync.Mutex
	seq     map[string]guess
	known   map[string]time.Time     // when a name was let in last, by name and address
	waiting map[string]int           // logins that are looked at, or wait for that, by address
	looking map[string]chan struct{} // holds one while a login of that first key is looked at
}

// A name is shut for addresses that it was never let in from: a stranger who guesses cannot shut out a person at the own desk.
// knownFor is how long an address is remembered, maxWaiting how many logins from one address, and of one name, are looked at at
// once or wait for that.
const (
	knownFor   = 30 * 24 * time.Hour
	maxWaiting = 8
)

// keys returns what the guesses of a caller are counted by. from is an address, "" for the appliance's own host; stays says that
// the name is logged in from there.
func (g *guesses) keys(now time.Time, id, from string, stays bool) []string {
	id = id[:min(len(id), maxPassword)] // names are no longer than that
	if from == "" {
		return []string{"name " + id + " here"}
	}
	from = network(from)
	g.mu.Lock()
	defer g.mu.Unlock()
	if last, known := g.known[id+" "+from]; stays || known && now.Sub(last) < knownFor {
		return []string{"name " + id + " from " + from, "from " + from}
	}
	return []string{"name " + id, "from " + from}
}

// network is what one stranger has of addresses: one of IPv4, 2^64 of IPv6.
func network(from string) string {
	a, err := netip.ParseAddr(from)
	if err != nil || a.Unmap().Is4() {
		return from
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return from
	}
	return p.String()
}

// enter waits until the login of these keys is the one of its name that is looked at; leave ends that. false says that too many
// wait.
func (g *guesses) enter(keys []string) bool {
	g.mu.Lock()
	if g.waiting == nil {
		g.waiting, g.looking = map[string]int{}, map[string]chan struct{}{}
	}
	for _, k := range keys {
		if g.waiting[k] >= maxWaiting {
			g.mu.Unlock()
			return false
		}
	}
	for _, k := range keys {
		if g.waiting[k]++; g.looking[k] == nil {
			g.looking[k] = make(chan struct{}, 1)
		}
	}
	turns := make([]chan struct{}, len(keys))
	for i, k := range keys { // the name's first, everywhere
		turns[i] = g.looking[k]
	}
	g.mu.Unlock()
	for _, turn := range turns {
		turn <- struct{}{}
	}
	return true
}

func (g *guesses) leave(keys []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range keys {
		<-g.looking[k]
		if g.waiting[k]--; g.waiting[k] == 0 {
			delete(g.waiting, k)
			delete(g.looking, k)
		}
	}
}

// guess is a series of wrong passwords for one name or from one address.
type guess struct {
	wrong int
	last  time.Time
}

// So many wrong passwords are free; each further one doubles the wait, which is at most maxGuessWait. A series is forgotten
// after guessMemory. maxGuesses bounds the memory.
const (
	freeGuesses  = 5
	maxGuessWait = 15 * time.Minute
	guessMemory  = time.Hour
	maxGuesses   = 10000
)

func (g guess) until() time.Time {
	if g.wrong < freeGuesses {
		return time.Time{}
	}
	return g.last.Add(min(maxGuessWait, time.Second<<min(g.wrong-freeGuesses, 20)))
}

// wait returns how long a caller with these keys waits before the next password is looked at.
func (g *guesses) wait(now time.Time, keys ...string) (longest time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range keys {
		longest = max(longest, g.seq[k].until().Sub(now))
	}
	return longest
}

// wrong counts a wrong password and reports whether it is the one that begins a wait.
func (g *guesses) wrong(now time.Time, keys ...string) (begins bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.seq == nil {
		g.seq = map[string]guess{}
	}
	if len(g.seq) >= maxGuesses {
		for k := range g.seq { // some tenth, so that this is rare
			if delete(g.seq, k); len(g.seq) < maxGuesses*9/10 {
				break
			}
		}
	}
	for _, k := range keys {
		s := g.seq[k]
		if now.Sub(s.last) > guessMemory {
			s = guess{}
		}
		s.wrong++
		s.last = now
		g.seq[k] = s
		begins = begins || s.wrong == freeGuesses
	}
	return begins
}

// right ends the series of a name, and remembers where it was let in.
func (g *guesses) right(now time.Time, keys []string, id, from string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.seq, keys[0]) // an address from which one person logs in may still guess at another's name
	if from == "" {
		return
	}
	if g.known == nil {
		g.known = map[string]time.Time{}
	}
	for k, last := range g.known {
		if now.Sub(last) > knownFor || len(g.known) >= maxGuesses {
			delete(g.known, k)
		}
	}
	g.known[id+" "+network(from)] = now
}
