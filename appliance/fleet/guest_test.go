package fleet_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
)

var visitorAddr = netip.MustParseAddr("10.77.0.7")

// visitor is a program outside a boot.
type visitor struct {
	r    *room
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	last job.Joined
}

func newVisitor(r *room) *visitor {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return &visitor{r: r, key: key}
}

func (v *visitor) public() []byte {
	der, err := x509.MarshalPKIXPublicKey(&v.key.PublicKey)
	if err != nil {
		v.r.t.Fatal(err)
	}
	return der
}

// join joins by a token, or with "" by the certificate of the last join.
func (v *visitor) join(token string, role job.Role, image string) error {
	cert := v.cert
	if token != "" {
		cert = nil
	}
	answer, err := v.r.Join(v.r.t.Context(), cert, false, visitorAddr, job.Join{Token: token, PublicKey: v.public(), Role: role, Name: "pc", Image: image})
	if err != nil {
		return err
	}
	v.last = answer
	v.cert, err = x509.ParseCertificate(answer.Certificate)
	return err
}

func newToken(r *room, role job.Role, image string, uses int) string {
	r.t.Helper()
	_, ticket, err := r.NewToken(r.t.Context(), fleet.TokenOrder{Role: role, Image: image, Uses: uses, Expires: time.Hour})
	if err != nil {
		r.t.Fatal(err)
	}
	return ticket.Token
}

// tokenOf returns the token that is good for so many uses.
func (r *room) tokenOf(uses int) fleet.Token {
	r.t.Helper()
	for _, k := range r.Tokens() {
		if k.Uses == uses {
			return k
		}
	}
	r.t.Fatalf("no token is good for %d uses", uses)
	return fleet.Token{}
}

func codeOf(err error) string {
	if refusal, ok := errors.AsType[*fleet.Refusal](err); ok {
		return refusal.Code
	}
	return ""
}

func TestAGuestReadsWhatItJoinedForAndDoesNoJobs(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	v := newVisitor(r)
	if err := v.join(newToken(r, job.RoleGet, "", 1), job.RoleGet, "debian"); err != nil {
		t.Fatal(err)
	}
	names := ""
	for _, u := range v.cert.URIs {
		names += u.String() + " "
	}
	if !strings.Contains(names, v.last.InfoHash.String()) || !strings.Contains(names, job.URIGuest) {
		t.Errorf("the certificate names %s", names)
	}
	if life := v.cert.NotAfter.Sub(r.clock.now()); life <= 0 || life > fleet.GuestLifetime {
		t.Errorf("the certificate is good for %v", life)
	}
	pool := x509.NewCertPool()
	pool.AddCert(r.site.CA())
	if _, err := v.cert.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: r.clock.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("a guest could stand for an appliance")
	}
	if _, err := r.Authenticate(v.cert); codeOf(err) != fleet.CodeUnauthorised {
		t.Errorf("a guest passes for a boot: %v", err)
	}
	r.kill() // the records know it
	c, err := r.AuthenticateReader(v.cert)
	if err != nil {
		t.Fatal(err)
	}
	if list := r.Claimed(c); len(list) != 1 || list[0] != v.last.Image {
		t.Errorf("it may read %v", list)
	}
	if _, err := r.NodeReport(t.Context(), c, visitorAddr, job.NodeReport{}); codeOf(err) != fleet.CodeUnauthorised {
		t.Errorf("it passes for a seed node: %v", err)
	}
	if err := v.join("", job.RoleGet, ""); err != nil || v.last.ImageName != "debian:1" {
		t.Errorf("renewal: %v, %+v", err, v.last)
	}
	served := func() bool {
		for _, s := range r.Swarms() {
			if s.InfoHash == v.last.InfoHash {
				return true
			}
		}
		return false
	}
	if !served() {
		t.Error("the appliance does not serve what the guest needs")
	}
	r.kill()
	if served() {
		t.Error("a need outlived the appliance without a word of the guest")
	}
	other := v.last.InfoHash.Wire()
	other[0] ^= 1
	for _, announced := range []struct {
		wire [20]byte
		want bool
	}{{other, false}, {v.last.InfoHash.Wire(), true}} {
		if r.Announced(t.Context(), v.cert, announced.wire); served() != announced.want {
			t.Errorf("served %v after the guest said what it lacks", served())
		}
	}
}

func TestATokenIsCountedInATransaction(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	token := newToken(r, job.RoleGet, "", 3)
	var group sync.WaitGroup
	var mu sync.Mutex
	in := 0
	for range 12 {
		v := newVisitor(r)
		group.Go(func() {
			switch err := v.join(token, job.RoleGet, "debian"); {
			case err == nil:
				if err := v.join(token, job.RoleGet, "debian"); err != nil { // an answer was lost
					t.Errorf("the same key again: %v", err)
				}
				mu.Lock()
				in++
				mu.Unlock()
			case codeOf(err) != fleet.CodeTokenUsed:
				t.Error(err)
			}
		})
	}
	group.Wait()
	r.kill()
	if list := r.Tokens(); in != 3 || len(list) != 1 || list[0].Used != 3 {
		t.Errorf("%d joined, %+v", in, list)
	}
}

func TestRefusalsToGuests(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	known := newVisitor(r)
	token := newToken(r, job.RoleGet, "", 1)
	if err := known.join(token, job.RoleGet, "debian"); err != nil {
		t.Fatal(err)
	}
	thief := newVisitor(r)
	thief.key = known.key // of whom only the public half is used: peers see it
	other := newToken(r, job.RoleGet, "", 9)
	if err := thief.join(other, job.RoleGet, "debian"); codeOf(err) != fleet.CodeInvalid {
		t.Errorf("another guest's key: %v", err)
	}
	machine := r.boot("52:54:00:77:00:10", job.Inventory{Serial: "1"})
	thief.key = machine.key
	if err := thief.join(other, job.RoleGet, "debian"); codeOf(err) != fleet.CodeInvalid {
		t.Errorf("a machine's key: %v", err)
	}
	stranger := newVisitor(r)
	stranger.cert = known.cert
	if err := stranger.join("", job.RoleGet, ""); codeOf(err) != fleet.CodeInvalid {
		t.Errorf("a certificate on another key: %v", err)
	}
	if err := newVisitor(r).join(other, job.RoleGet, "nothing"); err == nil {
		t.Error("an image that is not there")
	}
	if err := newVisitor(r).join(strings.Repeat("0", 64), job.RoleGet, "nothing"); codeOf(err) != fleet.CodeTokenUnknown {
		t.Errorf("who may not join learns what images there are: %v", err)
	}
	if k := r.tokenOf(9); k.Used != 0 {
		t.Errorf("a refused join was counted: %+v", k)
	}
	r.clock.add(2 * time.Hour)
	if err := newVisitor(r).join(other, job.RoleGet, "debian"); codeOf(err) != fleet.CodeTokenExpired {
		t.Errorf("an old token: %v", err)
	}
	if err := known.join("", job.RoleGet, ""); err != nil {
		t.Errorf("who joined in time: %v", err)
	}
	if _, err := r.RevokeToken(t.Context(), r.tokenOf(1).ID); err != nil {
		t.Fatal(err)
	}
	if err := known.join("", job.RoleGet, ""); codeOf(err) != fleet.CodeRevoked {
		t.Errorf("after its token was revoked: %v", err)
	}
	if _, err := r.AuthenticateReader(known.cert); codeOf(err) != fleet.CodeRevoked {
		t.Errorf("after its token was revoked: %v", err)
	}
}

// seedNode has a seed node join by a token.
func (r *room) seedNode(token string) fleet.Caller {
	r.t.Helper()
	v := newVisitor(r)
	if err := v.join(token, job.RoleSeed, ""); err != nil {
		r.t.Fatal(err)
	}
	c, err := r.AuthenticateReader(v.cert)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func TestSeedNodesGetStripesWhenTheyHaveSettled(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	token := newToken(r, job.RoleSeed, "", 2)
	var callers []fleet.Caller
	for range 2 {
		callers = append(callers, r.seedNode(token))
	}
	report := func(i int, last int64) job.NodeOrder {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		order, err := r.NodeReport(ctx, callers[i], visitorAddr, job.NodeReport{Name: "node", Port: 6881, Order: last, All: true})
		if err != nil {
			t.Fatal(err)
		}
		return order
	}
	for i := range callers {
		if order := report(i, 0); order.Count != 0 {
			t.Errorf("an order before others could come: %+v", order)
		}
	}
	r.clock.add(3 * time.Second)
	a, b := report(0, 0), report(1, 0)
	if a.Count != 2 || b.Count != 2 || a.Rank+b.Rank != 1 || len(a.Serve) != 0 {
		t.Errorf("%+v and %+v", a, b)
	}
	if again := report(0, a.Number); again.Number != a.Number {
		t.Errorf("the order changed by itself: %+v", again)
	}
	if n, err := r.Warm(t.Context(), "debian", 0.5); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	if next := report(0, a.Number); len(next.Serve) != 1 || next.Serve[0].Preload != 0.5 || next.Number == a.Number {
		t.Errorf("%+v", next)
	}
	if _, err := r.Warm(t.Context(), "debian", 1.5); codeOf(err) != fleet.CodeInvalid {
		t.Errorf("more than all: %v", err)
	}
	if list := r.Nodes(); len(list) != 2 || list[0].Addr.Port() != 6881 || list[1].Rank != 1 {
		t.Errorf("%+v", list)
	}
}

func TestTokenOrders(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	for _, o := range []fleet.TokenOrder{
		{Role: "both", Uses: 1, Expires: time.Hour}, {Role: job.RoleGet, Uses: 0, Expires: time.Hour}, {Role: job.RoleGet, Uses: 1},
		{Role: job.RoleGet, Uses: 1, Expires: -1}, {Role: job.RoleGet, Uses: 1 << 30, Expires: time.Hour}, {Role: job.RoleGet, Uses: 1, Expires: 1 << 62},
	} {
		if _, _, err := r.NewToken(t.Context(), o); codeOf(err) != fleet.CodeInvalid {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, _, err := r.NewToken(t.Context(), fleet.TokenOrder{Role: job.RoleGet, Image: "nothing", Uses: 1, Expires: time.Hour}); err == nil {
		t.Error("a token for an image that is not there")
	}
	if list := r.Tokens(); len(list) != 0 {
		t.Errorf("%+v", list)
	}
	var none images.Digest
	newToken(r, job.RoleSeed, "", 1)
	if list := r.Tokens(); len(list) != 1 || list[0].Image != none {
		t.Errorf("%+v", list)
	}
}

// The repository says what an image's name means; what only seed nodes have is named by what they say, if they say one thing.
func TestWhatIsDroppedIsWhatTheRepositoryNames(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	token := newToken(r, job.RoleSeed, "", 2)
	older, gone, alsoGone := images.Sum([]byte("older")), images.Sum([]byte("gone")), images.Sum([]byte("also gone"))
	report := func(c fleet.Caller, kept ...job.NodeKept) (job.NodeOrder, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		return r.NodeReport(ctx, c, visitorAddr, job.NodeReport{Name: "node", Port: 6881, All: true, Kept: kept})
	}
	var callers []fleet.Caller
	for _, d := range []images.Digest{gone, alsoGone} {
		c := r.seedNode(token)
		callers = append(callers, c)
		if _, err := report(c, job.NodeKept{Image: older, ImageName: "debian"}, job.NodeKept{Image: d, ImageName: "gone:1"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := report(callers[0], job.NodeKept{Image: gone, ImageName: strings.Repeat("x", 1000)}); codeOf(err) != fleet.CodeInvalid {
		t.Errorf("a name of 1000 bytes: %v", err)
	}
	if _, err := r.DropImage(t.Context(), "gone:1"); codeOf(err) != fleet.CodeAmbiguous || !strings.Contains(err.Error(), gone.Short()) {
		t.Errorf("one of two: %v", err)
	}
	for _, ref := range []string{"debian", gone.String()[:12]} {
		if _, err := r.DropImage(t.Context(), ref); err != nil {
			t.Error(err)
		}
	}
	r.clock.add(3 * time.Second)
	image, err := r.lib.Image(t.Context(), "debian")
	if err != nil {
		t.Fatal(err)
	}
	order, err := report(callers[0])
	if err != nil || !slices.Equal(order.Drop, []images.Digest{image.Digest, gone}) {
		t.Errorf("%v, %v", order.Drop, err)
	}
}
