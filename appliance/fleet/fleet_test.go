package fleet_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/site"
	"seedbed/appliance/store"
	"seedbed/images"
)

// library is one image.
type library struct{ image *fleet.Image }

func (l library) Image(_ context.Context, ref string) (*fleet.Image, error) {
	if ref == l.image.Manifest.Name || ref == l.image.Digest.String() {
		return l.image, nil
	}
	return nil, &fleet.Refusal{Code: fleet.CodeImageUnknown, Detail: "no image is named " + ref}
}

func newLibrary() library {
	return library{&fleet.Image{Digest: images.Sum([]byte("image")), InfoHash: images.InfoHash(images.Sum([]byte("info"))),
		Manifest: &images.Manifest{Name: "debian", Version: "1", Partitions: []images.Partition{
			{Number: 1, Type: "21686148-6449-6E6F-744E-656564454649", Root: images.Sum([]byte("p1"))},
			{Number: 2, Type: "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", FSUUID: "ABCD-1234",
				GUID: "5F3F2A1C-0000-4000-8000-000000000002", Root: images.Sum([]byte("p2"))},
		}}}}
}

// clock is a clock that a test sets.
type clock struct {
	mu     sync.Mutex
	t      time.Time
	looked atomic.Pointer[func()] // called where somebody looks at the clock
}

func (c *clock) now() time.Time {
	if looked := c.looked.Load(); looked != nil {
		(*looked)()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}
func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// room is a fleet on real records and a real site, whose appliance can be killed and started again.
type room struct {
	*fleet.Fleet
	t   testing.TB
	dir string
	id  string // of the appliance
	// location of the records; empty is a file in dir.
	location string
	admit    fleet.Admit
	site     *site.Site
	store    *store.Store
	clock    *clock
	lib      library
	wake     func(net.HardwareAddr, []netip.Addr) error
	poll     time.Duration // of a claim; 0 is 20 ms
	// left and machineClock, where set, are what later hellos tell.
	left         *job.Left
	machineClock time.Time
	// mayReach, where set before a start, is fleet.Config.MayReach.
	mayReach func(names []string, at netip.Addr, seeder netip.AddrPort) bool
	// needed and weigh, where set before a start, are those of fleet.Config.
	needed func(context.Context, *fleet.Image) (int64, error)
	weigh  func(ctx context.Context, from, to images.Digest) ([]fleet.Weight, error)
}

func newRoom(t testing.TB, admit fleet.Admit) *room {
	t.Helper()
	r := &room{t: t, dir: t.TempDir(), admit: admit, lib: newLibrary(), clock: &clock{t: time.Date(2026, 5, 4, 8, 0, 0, 0, time.UTC)}}
	var err error
	if r.site, err = site.Open(filepath.Join(r.dir, "site")); err != nil {
		t.Fatal(err)
	}
	r.start()
	t.Cleanup(func() { r.store.Close() })
	return r
}

func (r *room) start() {
	r.t.Helper()
	var err error
	poll := r.poll
	if poll == 0 {
		poll = 20 * time.Millisecond
	}
	location := r.location
	if location == "" {
		location = filepath.Join(r.dir, "records.db")
	}
	if r.store, err = store.Open(r.t.Context(), location); err != nil {
		r.t.Fatal(err)
	}
	r.Fleet, err = fleet.New(r.t.Context(), fleet.Config{
		ID: r.id, Records: r.store, Authority: r.site, Library: r.lib, Admit: r.admit, Now: r.clock.now, ClaimPoll: poll,
		Appliances: []string{"https://10.77.0.1:443"}, Seeds: []netip.AddrPort{netip.MustParseAddrPort("10.77.0.1:6881")},
		InfoHashURI: func(h images.InfoHash) string { return "urn:seedbed:infohash:" + h.String() },
		MayReach:    r.mayReach, Wake: r.wake, Needed: r.needed, Weigh: r.weigh,
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// kill ends the appliance without a word to the fleet, and starts it on the records that are there.
func (r *room) kill() {
	r.t.Helper()
	r.store.Close()
	r.start()
}

// agent is one boot of one machine.
type agent struct {
	r      *room
	mac    string
	key    *ecdsa.PrivateKey
	token  string
	caller fleet.Caller
	me     job.Admission
	job    *job.Job
	waits  string // what the last claim was told that its job waits for
}

// powerOn boots a machine from the network as far as its boot script.
func (r *room) powerOn(mac string) fleet.Assignment {
	r.t.Helper()
	if err := r.Sighted(r.t.Context(), fleet.Sighting{MAC: mac, Stage: "dhcp", Firmware: "uefi"}); err != nil {
		r.t.Fatal(err)
	}
	return r.NextBoot(r.t.Context(), mac, "")
}

// boot boots a machine from the network as far as the agent's inventory.
func (r *room) boot(mac string, inv job.Inventory) *agent {
	r.t.Helper()
	r.powerOn(mac)
	a := &agent{r: r, mac: mac}
	b, err := r.BootToken(r.t.Context(), mac, netip.MustParseAddr("10.77.0.100"))
	if err != nil {
		r.t.Fatal(err)
	}
	a.token = b.Token
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		r.t.Fatal(err)
	}
	if err := a.hello(); err != nil {
		r.t.Fatal(err)
	}
	if a.me, err = r.Inventory(r.t.Context(), a.caller, inv); err != nil {
		r.t.Fatal(err)
	}
	a.authenticate()
	return a
}

func (a *agent) hello() error {
	w, err := a.r.Hello(a.r.t.Context(), netip.MustParseAddr("10.77.0.100"), job.Hello{Token: a.token, MAC: a.mac, PublicKey: a.public(), Left: a.r.left, Clock: a.r.machineClock})
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(w.Certificate)
	if err != nil {
		return err
	}
	a.caller, err = a.r.Authenticate(cert)
	return err
}

func (a *agent) authenticate() {
	a.r.t.Helper()
	var err error
	if a.caller, err = a.r.Authenticate(&x509.Certificate{RawSubjectPublicKeyInfo: a.public()}); err != nil {
		a.r.t.Fatal(err)
	}
}

func (a *agent) public() []byte {
	der, err := x509.MarshalPKIXPublicKey(&a.key.PublicKey)
	if err != nil {
		a.r.t.Fatal(err)
	}
	return der
}

func (a *agent) claim() *job.Job {
	a.r.t.Helper()
	var err error
	if a.job, err = a.r.Claim(a.r.t.Context(), a.caller, job.Claim{Machine: a.me.Machine}); err != nil {
		a.r.t.Fatal(err)
	}
	if a.waits = ""; a.job != nil && a.job.Waits != "" {
		a.job, a.waits = nil, a.job.Waits
	}
	return a.job
}

func (a *agent) report(phase job.Phase, held int64) (job.Directive, error) {
	return a.r.Report(a.r.t.Context(), a.caller, job.Report{
		Job: a.job.ID, Epoch: a.job.Epoch, Phase: phase, State: job.Running, Total: 1000, Held: held, FromPeers: held, Disk: "vda"})
}

func (a *agent) mustReport(phase job.Phase, held int64) job.Directive {
	a.r.t.Helper()
	d, err := a.report(phase, held)
	if err != nil {
		a.r.t.Fatal(err)
	}
	return d
}

func (a *agent) receipt(change func(*job.Receipt)) job.SignedReceipt {
	a.r.t.Helper()
	m := a.r.lib.image.Manifest
	r := job.Receipt{Job: a.job.ID, Machine: a.me.Machine, Image: a.job.Image, DiskSerial: "D1", DiskLength: 1 << 30, At: a.r.clock.now()}
	for i := range m.Partitions {
		r.Roots = append(r.Roots, job.PartitionRoot{Number: m.Partitions[i].Number, Root: m.Partitions[i].Root})
	}
	if change != nil {
		change(&r)
	}
	b, err := json.Marshal(r)
	if err != nil {
		a.r.t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	sig, err := ecdsa.SignASN1(rand.Reader, a.key, sum[:])
	if err != nil {
		a.r.t.Fatal(err)
	}
	return job.SignedReceipt{Receipt: b, Signature: sig, Final: job.Report{Phase: job.PhaseTable, Total: 1000, Held: 1000, Verified: 1000,
		Disk: "vda", BIOSDrive: 0x80}}
}

func (a *agent) finish() {
	a.r.t.Helper()
	signed := a.receipt(nil)
	c, err := a.r.Receipt(a.r.t.Context(), a.caller, signed)
	if err != nil {
		a.r.t.Fatal(err)
	}
	if !site.VerifyReceipt(a.r.site.PublicKey(), signed.Receipt, c.Signature) {
		a.r.t.Fatal("the countersignature is not the site's")
	}
}

func (r *room) deployAll() {
	r.t.Helper()
	if _, err := r.Deploy(r.t.Context(), fleet.Order{Image: "debian", All: true}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *room) jobOf(mac string) fleet.JobView {
	r.t.Helper()
	for _, j := range r.Jobs() {
		if j.MAC == mac && !strings.HasPrefix(string(j.State), "cancel") {
			return j
		}
	}
	r.t.Fatalf("no job of %s", mac)
	return fleet.JobView{}
}

// events returns the kinds of all events.
func (r *room) events() (kinds []string) {
	list, err := r.Events(r.t.Context(), fleet.EventQuery{})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range list {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

// code returns the code of a refusal, "" for nil.
func code(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var r *fleet.Refusal
	if !errors.As(err, &r) {
		t.Fatalf("not a refusal: %v", err)
	}
	return r.Code
}

const (
	macA = "52:54:00:77:00:10"
	macB = "52:54:00:77:00:11"
)

var (
	invA = job.Inventory{UUID: "00000001-1111-2222-3333-444455556610", Serial: "SN1", Firmware: "uefi", SecureBoot: "on",
		NICs: []job.NIC{{Name: "eth0", MAC: macA}}}
	invB = job.Inventory{UUID: "00000002-1111-2222-3333-444455556611", Serial: "SN2", Firmware: "bios",
		NICs: []job.NIC{{Name: "eth0", MAC: macB}}}
)
