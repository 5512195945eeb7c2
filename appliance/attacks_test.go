//go:build linux

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// envAttacks marks the process that attacks: it waits for deadlines beside other tests, with all ports of a network of its own.
const envAttacks = "SEEDBED_TEST_ATTACKS"

// attack is something that must come to nothing. rightly is the same, done by who may: without it a refusal proves nothing.
type attack struct {
	name          string
	try           func() string
	want          string
	rightly       func() string
	rightlyWanted string
}

// siege is a running appliance, those who may, and those who may not.
type siege struct {
	t    *testing.T
	data string
	p    *process
	base string // of HTTPS
	web  *http.Client

	victim, fellow   *machine // at work, on two images
	stranger         *machine // that nobody admitted
	late             *machine // whose boot token was made long ago
	viewer, operator string   // API tokens
	admin, scoped    string
	revoked, expired string
	cookie, csrf     string // of the operator's login
	stale            string // the cookie of a login long ago
	guest            *machine
	secrets          map[string]string
}

const siegePassword = "correct horse battery"

func TestAttacks(t *testing.T) {
	if os.Getenv(envAttacks) == "" {
		t.Parallel()
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAttacks$", "-test.v", "-test.timeout=4m")
		cmd.Env = append(os.Environ(), envAttacks+"=1", "GORACE=atexit_sleep_ms=0")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if n := bytes.Count(out, []byte("--- PASS: TestAttacks/")); n < 40 {
			t.Fatalf("%d attacks were tried:\n%s", n, out)
		}
		return
	}
	network(t)
	s := newSiege(t)
	slow := s.slowOnes() // they have as long as the others take
	for _, list := range []func() []attack{s.machines, s.inventories, s.claims, s.identities, s.frames, s.swarms, s.boots, s.people, s.paths, s.bodies, s.words, s.floods} {
		s.run(list())
	}
	s.run(slow())
	s.quiet()
}

func (s *siege) run(list []attack) {
	for _, a := range list {
		s.t.Run(a.name, func(t *testing.T) {
			if got := a.try(); got != a.want {
				t.Errorf("the attacker gets %q, want %q", got, a.want)
			}
			if got := a.rightly(); got != a.rightlyWanted {
				t.Errorf("who may gets %q, want %q", got, a.rightlyWanted)
			}
		})
	}
}

// newSiege starts an appliance where each kind of person and machine is known, and what is old is old.
func newSiege(t *testing.T) *siege {
	s := &siege{t: t, data: filepath.Join(t.TempDir(), "data"), base: "https://" + applianceAddr, secrets: map[string]string{}}
	boot := bootFiles(t)
	disk, content := newDisk(t)
	must(t, s.data, "image", "add", disk, "--name", "debian")
	for i := range content {
		content[i] ^= 0x55
	}
	other := filepath.Join(t.TempDir(), "other.img")
	if err := os.WriteFile(other, content, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, s.data, "image", "add", other, "--name", "other")
	s.web = from(t, "10.77.0.20", nil)

	before := serve(t, s.data, boot)
	for name, role := range map[string]string{"vera": "viewer", "olaf": "operator", "anna": "admin"} {
		if out, code := say(t, siegePassword+"\n", s.data, "user", "new", name, "--role", role); code != 0 {
			t.Fatalf("user new: %d %s", code, out)
		}
	}
	s.expired = s.key("olaf", "", "old")
	s.stale, _ = s.login("vera")
	s.late = &machine{t: t, mac: "52:54:00:77:00:77", own: "10.77.0.77"}
	s.late.bootAgent()
	for what, got := range map[string]string{"token": s.bearer(s.expired, "GET", "/machines", nil), "cookie": s.with(s.stale, "", "GET", "/machines", nil)} {
		if got != "200" {
			t.Fatalf("the %s is not good while it is new: %s", what, got)
		}
	}
	before.kill()
	backdate(t, s.data, `"name":"old"`, 400*24*time.Hour, "apikey")
	backdate(t, s.data, "", 400*24*time.Hour, "login")
	backdate(t, s.data, s.late.mac, 16*time.Minute, "session")

	s.p = serve(t, s.data, boot, "--log-level", "debug")
	s.viewer, s.operator, s.admin = s.key("vera", "", "v"), s.key("olaf", "", "o"), s.key("anna", "", "a")
	s.scoped, s.revoked = s.key("anna", fleet.RoleViewer, "narrow"), s.key("olaf", "", "gone")
	if got := s.bearer(s.revoked, "GET", "/machines", nil); got != "200" {
		t.Fatalf("a token before it is revoked: %s", got)
	}
	for _, k := range decode[[]fleet.KeyView](t, s.data, "user", "token", "ls") {
		if k.Name == "gone" {
			must(t, s.data, "user", "token", "revoke", k.ID)
		}
	}
	s.cookie, s.csrf = s.login("olaf")
	for what, secret := range map[string]string{"operator's token": s.operator, "admin's token": s.admin, "cookie": s.cookie, "word of the cookie": s.csrf, "password": siegePassword} {
		s.secrets[what] = secret[max(0, len(secret)-40):]
	}
	s.victim = s.worker("", machineAddr, "debian")
	s.fellow = s.worker("52:54:00:77:00:11", "10.77.0.11", "other")
	s.stranger = &machine{t: t, mac: "52:54:00:77:00:66", own: "10.77.0.66"}
	s.stranger.bootAgent()
	s.stranger.hello()
	s.guest = s.join("debian")
	if out, code := say(t, "mac,name,groups,admitted\n52:54:00:00:00:01,spare1,lab,true\n52:54:00:00:00:02,spare2,lab,true\n52:54:00:00:00:03,spare3,lab,true\n",
		s.data, "machine", "import", "-"); code != 0 {
		t.Fatalf("import: %s", out)
	}
	return s
}

// worker is an admitted machine that has claimed its deployment.
func (s *siege) worker(mac, addr, image string) *machine {
	m := &machine{t: s.t, mac: mac, own: addr}
	m.bootAgent()
	m.hello()
	must(s.t, s.data, "machine", "admit", m.me.Code)
	must(s.t, s.data, "deploy", image, "--machine", or(mac, testMAC))
	m.claim()
	s.secrets["boot token of "+addr] = m.boot.Token
	return m
}

// join makes a guest that may fetch one image.
func (s *siege) join(image string) *machine {
	g := &machine{t: s.t, boot: s.stranger.boot}
	ticket := must(s.t, s.data, "token", "new", "--for", "get", "--image", image)
	decoded, err := readTicket(writeSecret(s.t, ticket), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	g.key, g.boot.Token = s.newKey(), decoded.Token
	s.secrets["token of a guest"] = decoded.Token
	g.identify(nil)
	var joined job.Joined
	g.post(job.PathJoin, job.Join{Token: decoded.Token, PublicKey: s.public(g), Role: job.RoleGet, Image: image, Name: "guest"}, &joined)
	g.identify(joined.Certificate)
	g.job.Certificate = joined.Certificate
	return g
}

func (s *siege) newKey() *ecdsa.PrivateKey {
	key := selfMade(s.t).PrivateKey
	return key.(*ecdsa.PrivateKey)
}

func (s *siege) public(m *machine) []byte {
	b, err := x509.MarshalPKIXPublicKey(&m.key.PublicKey)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// key makes an API token.
func (s *siege) key(user string, role fleet.Role, name string) string {
	s.t.Helper()
	c := client.Local(filepath.Join(s.data, "seedbed.sock"))
	defer c.Close()
	k, err := c.NewKey(s.t.Context(), api.KeyOrder{KeyOrder: fleet.KeyOrder{Name: name, User: user, Role: role}})
	if err != nil {
		s.t.Fatal(err)
	}
	return k.Secret
}

// login returns the cookie of a login and the word that goes with it.
func (s *siege) login(name string) (cookie, csrf string) {
	s.t.Helper()
	answer, b, h := knocked(s.web, "POST", s.base+"/api/v1/login", encode(api.Login{Name: name, Password: siegePassword}))
	var me api.Me
	if err := json.Unmarshal(b, &me); answer != "200" || err != nil {
		s.t.Fatalf("login: %s, %v", answer, err)
	}
	cookie, _, _ = strings.Cut(strings.TrimPrefix(h.Get("Set-Cookie"), api.CookieName+"="), ";")
	return cookie, me.CSRF
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // types of this program
	}
	return b
}

func (s *siege) bearer(token, method, path string, body any) string {
	return knock(s.web, method, s.base+"/api/v1"+path, bodyOf(body), "Authorization", "Bearer "+token)
}

// with asks by a cookie, and whatever other headers.
func (s *siege) with(cookie, csrf, method, path string, body any, header ...string) string {
	header = append(header, "Cookie", api.CookieName+"="+cookie)
	if csrf != "" {
		header = append(header, api.CSRFHeader, csrf)
	}
	return knock(s.web, method, s.base+"/api/v1"+path, bodyOf(body), header...)
}

func bodyOf(v any) []byte {
	switch b := v.(type) {
	case nil:
		return nil
	case []byte:
		return b
	}
	return encode(v)
}

// by sends what an agent sends.
func (s *siege) by(m *machine, method, path string, body any, header ...string) string {
	return knock(m.client, method, s.base+path, bodyOf(body), header...)
}

var groups int

// group is a change that an operator may make, another one each time.
func group() any {
	groups++
	return fleet.GroupOrder{Name: fmt.Sprintf("group%d", groups)}
}
