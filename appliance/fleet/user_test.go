package fleet_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seedbed/appliance/fleet"
)

func as(t testing.TB, name string, role fleet.Role) context.Context {
	return fleet.As(t.Context(), fleet.Actor{Name: name, Role: role, From: "10.0.0.9"})
}

func ptr[T any](v T) *T { return &v }

func TestFirstAdministratorIsMadeOnce(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	password, err := r.FirstAdmin(t.Context())
	if err != nil || len(password) < 20 {
		t.Fatalf("%q, %v", password, err)
	}
	if again, err := r.FirstAdmin(t.Context()); again != "" || err != nil {
		t.Fatalf("%q, %v", again, err)
	}
	r.kill()
	if again, err := r.FirstAdmin(t.Context()); again != "" || err != nil {
		t.Fatalf("after a restart: %q, %v", again, err)
	}
	stay, err := r.Login(t.Context(), "Admin", password, "10.0.0.9")
	if err != nil || stay.User.Role != fleet.RoleAdmin {
		t.Fatalf("%+v, %v", stay, err)
	}
	r.kill() // stays outlive the appliance
	a, csrf, err := r.Stayed(stay.Cookie, "10.0.0.10")
	if err != nil || a.Name != "admin" || a.From != "10.0.0.10" || csrf != stay.CSRF {
		t.Fatalf("%+v, %v", a, err)
	}
	r.clock.add(13 * time.Hour)
	if _, _, err := r.Stayed(stay.Cookie, ""); err == nil {
		t.Fatal("a stay never ends")
	}
}

func TestUsers(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	if _, err := r.FirstAdmin(t.Context()); err != nil {
		t.Fatal(err)
	}
	admin := as(t, "admin", fleet.RoleAdmin)
	for what, o := range map[string]fleet.UserOrder{
		"no name": {Role: ptr(fleet.RoleViewer), Password: ptr("long enough 1")}, "a control character": {Name: "a\nb", Role: ptr(fleet.RoleViewer), Password: ptr("long enough 1")},
		"no role": {Name: "otto", Password: ptr("long enough 1")}, "a strange role": {Name: "otto", Role: ptr(fleet.Role("god")), Password: ptr("long enough 1")},
		"a short password": {Name: "otto", Role: ptr(fleet.RoleViewer), Password: ptr("short")}, "no password": {Name: "otto", Role: ptr(fleet.RoleViewer)},
	} {
		if _, err := r.NewUser(admin, o); err == nil {
			t.Errorf("made a user with %s", what)
		}
	}
	otto := fleet.UserOrder{Name: "Otto", Role: ptr(fleet.RoleOperator), Password: ptr("correct horse")}
	for _, role := range []fleet.Role{fleet.RoleNone, fleet.RoleViewer, fleet.RoleOperator} {
		if _, err := r.NewUser(as(t, "eve", role), otto); err == nil {
			t.Errorf("%q makes users", role)
		}
		if _, err := r.Users(as(t, "eve", role)); err == nil {
			t.Errorf("%q sees users", role)
		}
	}
	made, err := r.NewUser(admin, otto)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.NewUser(admin, fleet.UserOrder{Name: "OTTO", Role: ptr(fleet.RoleViewer), Password: ptr("correct horse")}); err == nil {
		t.Error("two users of one name")
	}
	stay, err := r.Login(t.Context(), "otto", "correct horse", "10.0.0.7")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.EditUser(admin, "otto", made.Version+1, fleet.UserOrder{Role: ptr(fleet.RoleViewer)}); err == nil {
		t.Error("changed by an old version")
	}
	if _, err := r.EditUser(admin, "otto", made.Version, fleet.UserOrder{Role: ptr(fleet.RoleViewer)}); err != nil {
		t.Fatal(err)
	}
	if a, _, err := r.Stayed(stay.Cookie, ""); err != nil || a.Role != fleet.RoleViewer {
		t.Fatalf("a change of role does not reach a stay: %+v, %v", a, err)
	}
	if err := r.SetPassword(as(t, "otto", fleet.RoleViewer), "otto", "wrong horse!", "another horse"); err == nil {
		t.Error("another password without the old one")
	}
	if err := r.SetPassword(as(t, "eve", fleet.RoleOperator), "otto", "correct horse", "another horse"); err == nil {
		t.Error("another person's password")
	}
	if err := r.SetPassword(as(t, "otto", fleet.RoleViewer), "otto", "correct horse", "another horse"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Stayed(stay.Cookie, ""); err == nil {
		t.Error("a stay outlives its password")
	}
	if _, err := r.EditUser(admin, "admin", 0, fleet.UserOrder{Disabled: ptr(true)}); err == nil || !strings.Contains(err.Error(), "nobody would be left") {
		t.Errorf("the last administrator is shut out: %v", err)
	}
	if err := r.RemoveUser(admin, "admin"); err == nil {
		t.Error("the last administrator is removed")
	}
	if stay, err = r.Login(t.Context(), "otto", "another horse", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := r.EditUser(admin, "otto", 0, fleet.UserOrder{Disabled: ptr(true)}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Login(t.Context(), "otto", "another horse", ""); err == nil {
		t.Error("one who is shut out logs in")
	}
	if _, _, err := r.Stayed(stay.Cookie, ""); err == nil {
		t.Error("one who is shut out stays")
	}
	list, err := r.Events(t.Context(), fleet.EventQuery{Kind: "user.", Actor: "admin"})
	if err != nil || len(list) != 3 {
		t.Errorf("%d events of what the administrator did, %v", len(list), err)
	}
}

func TestGuessingPasswordsIsSlow(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	password, err := r.FirstAdmin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	for range 20 {
		_, err := r.Login(t.Context(), "admin", "guess guess", "10.0.0.66")
		if !strings.Contains(err.Error(), "too many") {
			looked++
		}
	}
	if looked != 5 {
		t.Errorf("%d guesses were looked at in one second", looked)
	}
	if _, err := r.Login(t.Context(), "admin", password, "10.0.0.7"); err == nil {
		t.Error("the right password counts while the name is shut")
	}
	r.clock.add(16 * time.Minute)
	if _, err := r.Login(t.Context(), "admin", password, "10.0.0.7"); err != nil {
		t.Error(err)
	}
	list, err := r.Events(t.Context(), fleet.EventQuery{Kind: "user.refused"})
	if err != nil || len(list) != 1 || !strings.Contains(list[0].Text, "10.0.0.66") {
		t.Errorf("%+v, %v", list, err)
	}
	for i := range 30000 { // addresses and names without end take no memory without end
		fleet.Guess(r.Fleet, r.clock.now(), "name", string(rune(i)))
	}
	if n := fleet.Guesses(r.Fleet); n > 10000 {
		t.Errorf("%d series are kept", n)
	}
}

func TestAPITokens(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	if _, err := r.FirstAdmin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.NewUser(as(t, "admin", fleet.RoleAdmin), fleet.UserOrder{Name: "otto", Role: ptr(fleet.RoleOperator), Password: ptr("correct horse")}); err != nil {
		t.Fatal(err)
	}
	otto := as(t, "otto", fleet.RoleOperator)
	if _, _, err := r.NewKey(otto, fleet.KeyOrder{Name: "ci", Role: fleet.RoleAdmin, Expires: time.Hour}); err == nil {
		t.Error("a token that may more than its user")
	}
	if _, _, err := r.NewKey(fleet.As(t.Context(), fleet.Actor{Name: "otto", Role: fleet.RoleOperator, Token: "k"}), fleet.KeyOrder{Name: "ci", Expires: time.Hour}); err == nil {
		t.Error("a token makes tokens")
	}
	key, secret, err := r.NewKey(otto, fleet.KeyOrder{Name: "ci", Role: fleet.RoleViewer, Expires: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	r.kill()
	if a, err := r.KeyActor(secret, "10.0.0.8"); err != nil || a.Name != "otto" || a.Role != fleet.RoleViewer || a.Token != key.ID {
		t.Fatalf("%+v, %v", a, err)
	}
	for what, wrong := range map[string]string{"nothing": "", "half": secret[:30], "another secret": secret[:len(secret)-1] + "x", "no prefix": "x" + secret} {
		if _, err := r.KeyActor(wrong, ""); err == nil {
			t.Errorf("%s is a token", what)
		}
	}
	if err := r.RevokeKey(as(t, "eve", fleet.RoleOperator), key.ID); err == nil {
		t.Error("another's token is revoked")
	}
	lesser := fleet.As(t.Context(), fleet.Actor{Name: "otto", Role: fleet.RoleNone, Token: "another"})
	if err := r.RevokeKey(lesser, key.ID); err == nil {
		t.Error("a token that may less revokes one that may more")
	}
	if list, err := r.Keys(as(t, "eve", fleet.RoleOperator)); err != nil || len(list) != 0 {
		t.Errorf("another's tokens are seen: %v, %v", list, err)
	}
	r.clock.add(2 * time.Hour)
	if _, err := r.KeyActor(secret, ""); err == nil {
		t.Error("a token never ends")
	}
	r.clock.add(-2 * time.Hour)
	if err := r.RevokeKey(otto, key.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := r.KeyActor(secret, ""); err == nil {
		t.Error("a token that was revoked")
	}
}

func TestManyGuessesAtOnceAreAsSlow(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	if _, err := r.FirstAdmin(t.Context()); err != nil {
		t.Fatal(err)
	}
	var looked atomic.Int32
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			_, err := r.Login(t.Context(), "admin", "guess guess", fmt.Sprintf("10.0.1.%d", i))
			if codeOf(err) == fleet.CodeLogin {
				looked.Add(1)
			}
		})
	}
	all.Wait()
	if n := looked.Load(); n != 5 {
		t.Errorf("%d guesses were looked at in one second", n)
	}
}

func TestAStrangerWhoGuessesShutsNobodyOutAtTheOwnDesk(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	password, err := r.FirstAdmin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Login(t.Context(), "admin", password, "10.0.0.7"); err != nil {
		t.Fatal(err)
	}
	for i, from := range []string{"10.0.0.66", "fd00::1", "fd00::2"} {
		for range 10 {
			r.Login(t.Context(), "admin", "guess guess", from)
		}
		if i == 0 { // also after a restart
			r.kill()
		}
		if _, err := r.Login(t.Context(), "admin", password, "10.0.0.7"); err != nil {
			t.Errorf("%s guesses: %v", from, err)
		}
	}
	if _, err := r.Login(t.Context(), "admin", password, "fd00::3"); codeOf(err) != fleet.CodeTooMany {
		t.Errorf("another address of the stranger's network: %v", err)
	}
	if _, err := r.Login(t.Context(), "admin", password, ""); err != nil {
		t.Errorf("on the appliance's own host: %v", err)
	}
}

func TestAUserHasSoManyStays(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	password, err := r.FirstAdmin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first, err := r.Login(t.Context(), "admin", password, "10.0.0.7")
	if err != nil {
		t.Fatal(err)
	}
	now := r.clock.now()
	for i := range fleet.MaxStays - 1 {
		l := &fleet.Login{ID: fmt.Sprint("stay", i), User: "admin", Created: now.Add(time.Second), Expires: now.Add(time.Hour)}
		if err := fleet.Put(r.Fleet, t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := r.Stayed(first.Cookie, ""); err != nil {
		t.Fatal(err)
	}
	last, err := r.Login(t.Context(), "admin", password, "10.0.0.7")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Stayed(first.Cookie, ""); err == nil {
		t.Error("the oldest stay goes on")
	}
	if _, _, err := r.Stayed(last.Cookie, ""); err != nil {
		t.Error(err)
	}
}
