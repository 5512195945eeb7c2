package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"
)

// User is a person who may ask the fleet for something. ID is the name in lower case.
type User struct {
	ID      string `json:"id"`
	Version int64  `json:"version"`
	Name    string `json:"name"`
	Role    Role   `json:"role"`
	// Password is the argon2id hash in the PHC string format; "" lets nobody in by a password.
	Password string    `json:"password,omitempty"`
	Disabled bool      `json:"disabled,omitempty"`
	Created  time.Time `json:"created"`
	Changed  time.Time `json:"changed"` // its password
}

// APIKey lets a program ask in a user's name. ID is the part of it that is no secret.
type APIKey struct {
	ID      string    `json:"id"`
	Version int64     `json:"version"`
	Name    string    `json:"name"` // what it is for
	User    string    `json:"user"` // ID
	Role    Role      `json:"role"` // at most; the user's own bounds it too
	Hash    string    `json:"hash"` // SHA-256 of the secret in hexadecimal digits: 256 random bits need no slow hash
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// Login is a person's stay in the console. ID is the SHA-256 of the cookie in hexadecimal digits.
type Login struct {
	ID      string    `json:"id"`
	Version int64     `json:"version"`
	User    string    `json:"user"`
	CSRF    string    `json:"csrf"` // goes with each request that changes something
	From    string    `json:"from"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

func (u *User) Ref() Key     { return Key{KindUser, u.ID} }
func (u *User) Row() *int64  { return &u.Version }
func (u *User) Shelf() Shelf { return Shelf{} }
func (u *User) copy() Record { own := *u; return &own }

func (k *APIKey) Ref() Key     { return Key{KindAPIKey, k.ID} }
func (k *APIKey) Row() *int64  { return &k.Version }
func (k *APIKey) Shelf() Shelf { return Shelf{Owner: k.User} }
func (k *APIKey) copy() Record { own := *k; return &own }

func (l *Login) Ref() Key     { return Key{KindLogin, l.ID} }
func (l *Login) Row() *int64  { return &l.Version }
func (l *Login) Shelf() Shelf { return Shelf{Owner: l.User} }
func (l *Login) copy() Record { own := *l; return &own }

// Bounds of users.
const (
	minPassword   = 10 // characters
	maxPassword   = 256
	maxUsers      = 10000
	maxAPIKeys    = 10000
	loginLifetime = 12 * time.Hour
	// MaxKeyLifetime bounds how long an API token is good.
	MaxKeyLifetime = 5 * 366 * 24 * time.Hour
)

// userName is what names of users look like.
var userName = regexp.MustCompile(`^[\pL\pN][\pL\pN._@-]{0,63}$`)

// FirstAdmin makes the user admin with a random password, which is told only now, where there is no user yet; else "".
func (f *Fleet) FirstAdmin(ctx context.Context) (password string, err error) {
	f.mu.RLock()
	some := len(ofKind[*User](&f.state, KindUser)) > 0
	f.mu.RUnlock()
	if some {
		return "", nil
	}
	secret := randomWords()
	hash := hashPassword(secret)
	err = f.change(ctx, func(d *draft) error {
		password = ""
		if len(othersOf[*User](d, KindUser)) > 0 {
			return nil // another appliance of the site made one
		}
		now := d.f.now().UTC()
		d.add(&User{ID: "admin", Name: "admin", Role: RoleAdmin, Password: hash, Created: now, Changed: now})
		d.event(Event{Kind: "user.created", Text: "the user admin was made at the first start"})
		password = secret
		return nil
	})
	return password, err
}

// randomWords returns a password of 100 random bits, without letters and digits that look alike: "K7PQ4-XWM2D-...".
func randomWords() string {
	const alphabet = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ" // 32, so that a byte has no bias
	var b [20]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	var text strings.Builder
	for i, c := range b {
		if i > 0 && i%5 == 0 {
			text.WriteByte('-')
		}
		text.WriteByte(alphabet[c%32])
	}
	return text.String()
}

// UserOrder asks for a user, or for changes to one: nil fields stay.
type UserOrder struct {
	Name     string  `json:"name"`
	Role     *Role   `json:"role,omitempty"`
	Password *string `json:"password,omitempty"`
	Disabled *bool   `json:"disabled,omitempty"`
}

// UserView is a user as others see it.
type UserView struct {
	ID       string    `json:"id"`
	Version  int64     `json:"version"`
	Name     string    `json:"name"`
	Role     Role      `json:"role"`
	Disabled bool      `json:"disabled"`
	Created  time.Time `json:"created"`
	Changed  time.Time `json:"changed"`
}

func (u *User) view() UserView {
	return UserView{u.ID, u.Version, u.Name, u.Role, u.Disabled, u.Created, u.Changed}
}

// NewUser makes a user.
func (f *Fleet) NewUser(ctx context.Context, o UserOrder) (*UserView, error) {
	if err := may(ctx, RoleAdmin, "make users"); err != nil {
		return nil, err
	}
	switch {
	case !userName.MatchString(o.Name):
		return nil, refuse(CodeInvalid, "a user's name has 1 to 64 letters, digits, dots, hyphens, underscores and @, and begins with a letter or digit; %q has not", o.Name)
	case o.Role == nil || !o.Role.Valid():
		return nil, refuse(CodeInvalid, "a user is viewer, operator or admin")
	case o.Password == nil:
		return nil, refuse(CodeInvalid, "a new user needs a password")
	}
	if err := checkPassword(*o.Password); err != nil {
		return nil, err
	}
	hash := hashPassword(*o.Password)
	var view UserView
	err := f.change(ctx, func(d *draft) error {
		id, now := strings.ToLower(o.Name), d.f.now().UTC()
		switch {
		case lookup[*User](d, KindUser, id) != nil:
			return refuse(CodeUserExists, "there is a user %q already", o.Name)
		case len(othersOf[*User](d, KindUser)) >= maxUsers:
			return refuse(CodeInvalid, "there are %d users, and no more are made", maxUsers)
		}
		u := &User{ID: id, Name: o.Name, Role: *o.Role, Password: hash, Disabled: o.Disabled != nil && *o.Disabled, Created: now, Changed: now}
		d.add(u)
		d.event(by(ctx, Event{Kind: "user.created", Text: fmt.Sprintf("user %s was made, as %s", u.Name, u.Role)}))
		view = u.view()
		view.Version++
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &view, nil
}

// EditUser changes a user; version is that of the record it was decided by, 0 is any. An administrator changes all, a person
// the own password by SetPassword. The last administrator stays one.
func (f *Fleet) EditUser(ctx context.Context, name string, version int64, o UserOrder) (*UserView, error) {
	if err := may(ctx, RoleAdmin, "change users"); err != nil {
		return nil, err
	}
	if o.Role != nil && !o.Role.Valid() {
		return nil, refuse(CodeInvalid, "a user is viewer, operator or admin, not %q", *o.Role)
	}
	hash := ""
	if o.Password != nil {
		if err := checkPassword(*o.Password); err != nil {
			return nil, err
		}
		hash = hashPassword(*o.Password)
	}
	var view UserView
	err := f.change(ctx, func(d *draft) error {
		u, err := d.user(name)
		if err != nil {
			return err
		}
		if d.changed(u, version) {
			return refuse(CodeChanged, "user %s was changed by somebody else meanwhile; look again", u.Name)
		}
		own := edit(d, u)
		var what []string
		if o.Role != nil && own.Role != *o.Role {
			own.Role = *o.Role
			what = append(what, "is "+string(own.Role)+" now")
		}
		if o.Disabled != nil && own.Disabled != *o.Disabled {
			own.Disabled = *o.Disabled
			what = append(what, map[bool]string{true: "was shut out", false: "is let in again"}[own.Disabled])
		}
		if hash != "" {
			own.Password, own.Changed = hash, d.f.now().UTC()
			what = append(what, "got another password")
		}
		if err := d.keepsAdmin(); err != nil {
			return err
		}
		if hash != "" || own.Disabled {
			d.logOut(own.ID)
		}
		if len(what) > 0 {
			d.event(by(ctx, Event{Kind: "user.changed", Text: "user " + own.Name + " " + strings.Join(what, ", ")}))
		}
		view = own.view()
		view.Version++
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &view, nil
}

// SetPassword gives a person, who knows the old one, another password; the other stays in the console end.
func (f *Fleet) SetPassword(ctx context.Context, name, old, password string) error {
	a, known := ActorOf(ctx)
	if known && GroupID(a.Name) != GroupID(name) {
		return refuse(CodeForbidden, "the password of %s is changed by that person, or by an administrator", name)
	}
	if err := checkPassword(password); err != nil {
		return err
	}
	was, err := f.checkLogin(ctx, name, old, a.From)
	if err != nil {
		return err
	}
	hash := hashPassword(password)
	return f.change(ctx, func(d *draft) error {
		u, err := d.user(name)
		if err != nil {
			return err
		}
		if u.Password != was.Password || u.Disabled { // by an administrator, in between
			return refuse(CodeLogin, wrongLogin)
		}
		own := edit(d, u)
		own.Password, own.Changed = hash, d.f.now().UTC()
		d.logOut(own.ID)
		d.event(by(ctx, Event{Kind: "user.changed", Text: "user " + own.Name + " chose another password"}))
		return nil
	})
}

// RemoveUser removes a user with all stays and API tokens.
func (f *Fleet) RemoveUser(ctx context.Context, name string) error {
	if err := may(ctx, RoleAdmin, "remove users"); err != nil {
		return err
	}
	return f.change(ctx, func(d *draft) error {
		u, err := d.user(name)
		if err == nil {
			err = d.expected(ctx, u, "user "+u.Name)
		}
		if err != nil {
			return err
		}
		d.remove(u.Ref())
		if err := d.keepsAdmin(); err != nil {
			return err
		}
		d.logOut(u.ID)
		for _, k := range othersOf[*APIKey](d, KindAPIKey) {
			if k.User == u.ID {
				d.remove(k.Ref())
			}
		}
		d.event(by(ctx, Event{Kind: "user.removed", Text: "user " + u.Name + " was removed"}))
		return nil
	})
}

// Users returns the users by name.
func (f *Fleet) Users(ctx context.Context) ([]UserView, error) {
	if err := may(ctx, RoleAdmin, "see the users"); err != nil {
		return nil, err
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	list := []UserView{}
	for _, u := range ofKind[*User](&f.state, KindUser) {
		list = append(list, u.view())
	}
	slices.SortFunc(list, func(a, b UserView) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// user returns the user of a name.
func (d *draft) user(name string) (*User, error) {
	u := lookup[*User](d, KindUser, GroupID(name))
	if u == nil {
		return nil, refuse(CodeUserUnknown, "there is no user %q; `seedbed user ls` lists them", name)
	}
	return u, nil
}

// keepsAdmin refuses a change after which nobody could administer the site.
func (d *draft) keepsAdmin() error {
	for _, u := range othersOf[*User](d, KindUser) {
		if u.Role == RoleAdmin && !u.Disabled {
			return nil
		}
	}
	return refuse(CodeInvalid, "nobody would be left who administers the site; make another administrator first")
}

// logOut ends all stays of a user.
func (d *draft) logOut(user string) {
	for _, l := range othersOf[*Login](d, KindLogin) {
		if l.User == user {
			d.remove(l.Ref())
		}
	}
}

func checkPassword(p string) error {
	switch n := len([]rune(p)); {
	case n < minPassword:
		return refuse(CodeInvalid, "a password has at least %d characters; this one has %d", minPassword, n)
	case len(p) > maxPassword:
		return refuse(CodeInvalid, "a password has at most %d bytes", maxPassword)
	}
	return nil
}

// Cost of argon2id (RFC 9106 §4, with the memory that OWASP recommends at least): 19 MiB and some 30 ms.
const (
	argonTime    = 2
	argonMemory  = 19 << 10 // KiB
	argonThreads = 1
	argonKey     = 32
)

// hashing bounds how many passwords are hashed at once, and so the memory that strangers can have taken.
var hashing = make(chan struct{}, 2)

// hashPassword returns a password's hash in the PHC string format.
func hashPassword(password string) string {
	var salt [16]byte
	rand.Read(salt[:]) // never fails (crypto/rand)
	enc := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		enc.EncodeToString(salt[:]), enc.EncodeToString(argon(password, salt[:], argonTime, argonMemory, argonThreads, argonKey)))
}

func argon(password string, salt []byte, t, memory uint32, threads uint8, length uint32) []byte {
	hashing <- struct{}{}
	defer func() { <-hashing }()
	return argon2.IDKey([]byte(password), salt, t, memory, threads, length)
}

// passwordIs reports whether a password has this hash.
func passwordIs(hash, password string) bool {
	var version int
	var memory, t uint32
	var threads uint8
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false
	}
	if _, err := fmt.Sscanf(parts[2]+" "+parts[3], "v=%d m=%d,t=%d,p=%d", &version, &memory, &t, &threads); err != nil || version != argon2.Version {
		return false
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		return false
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil || len(want) == 0 || t == 0 || threads == 0 || memory > 1<<20 {
		return false
	}
	return subtle.ConstantTimeCompare(argon(password, salt, t, memory, threads, uint32(len(want))), want) == 1
}

// nobody is the hash of no password, which takes as long to check as that of somebody.
var nobody = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// secretHash is the SHA-256 of a secret of full length in hexadecimal digits.
func secretHash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
