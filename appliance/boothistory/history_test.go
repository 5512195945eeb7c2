package boothistory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"seedbed/appliance/boot"
	"seedbed/appliance/bootdoctor"
	"seedbed/appliance/dhcp"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/site"
	"seedbed/appliance/store"
	"seedbed/appliance/tftp"
	"seedbed/test-vm/postgres"
)

// own is the appliance's address, of the machine with card its own.
var own, of = netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.101")

const card = "52:54:00:77:00:11"

// host is an appliance that boots machines, on real records: its fleet, its boot server and its history.
type host struct {
	*testing.T
	dir, id, location string
	now               *time.Time
	store             *store.Store
	fleet             *fleet.Fleet
	boot              *boot.Server
	history           *History
}

// sights is a fleet as the boot server asks it.
type sights struct{ *host }

func (s sights) Sighted(ctx context.Context, b boot.Sighting) {
	if err := s.fleet.Sighted(ctx, fleet.Sighting{MAC: b.MAC.String(), Stage: string(b.Stage)}); err != nil {
		s.Error(err)
	}
}
func (s sights) NextBoot(context.Context, boot.MAC, string) (boot.Assignment, error) {
	return boot.Assignment{Run: boot.RunAgent}, nil
}
func (s sights) BootToken(context.Context, boot.MAC, netip.Addr) (job.Boot, error) {
	return job.Boot{}, errors.New("no agent boots here")
}

func newHost(t *testing.T, id, location string, now *time.Time, dir string) *host {
	h := &host{T: t, dir: dir, id: id, location: location, now: now}
	for _, name := range []string{"shimx64.efi", "grubx64.efi", "snponly.efi", "ipxe.efi", "undionly.kpxe", "vmlinuz", "initramfs.cpio.zst"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat(name, 100)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.start()
	t.Cleanup(func() { h.store.Close() })
	return h
}

func (h *host) start() {
	h.Helper()
	at, err := site.Open(filepath.Join(h.dir, "site"))
	if err != nil {
		h.Fatal(err)
	}
	if h.store, err = store.Open(h.Context(), h.location); err != nil {
		h.Fatal(err)
	}
	clock := func() time.Time { return *h.now }
	if h.fleet, err = fleet.New(h.Context(), fleet.Config{ID: h.id, Records: h.store, Authority: at, Now: clock}); err != nil {
		h.Fatal(err)
	}
	files, err := boot.OpenFiles(h.dir)
	if err != nil {
		h.Fatal(err)
	}
	if h.boot, err = boot.New(boot.Config{Files: files, Fleet: sights{h}, Addr: own, Now: clock}); err != nil {
		h.Fatal(err)
	}
	h.history = New(Config{Records: h.fleet, Self: h.id, Diary: h.boot, Now: clock})
	h.history.Restore(h.Context())
}

// kill ends the appliance without a word, and starts it on the records that are there.
func (h *host) kill() {
	h.Helper()
	h.store.Close()
	h.start()
}

func (h *host) keep() {
	h.Helper()
	if err := h.history.Keep(h.Context()); err != nil {
		h.Fatal(err)
	}
}

// after lets time go by.
func (h *host) after(d time.Duration) *host { *h.now = h.now.Add(d); return h }

func (h *host) discover(mac string) string {
	h.Helper()
	m, err := boot.ParseMAC(mac)
	if err != nil {
		h.Fatal(err)
	}
	return h.boot.AnswerDHCP(h.Context(), dhcp.Request{Type: dhcpv4.MessageTypeDiscover, Port: 67, MAC: m, Arch: uint16(boot.ArchEFIX64), Addr: of, Local: own}).File
}

// load fetches a file by TFTP as far as so many bytes.
func (h *host) load(name string, most int64) {
	h.Helper()
	f, err := h.boot.OpenTFTP(h.Context(), tftp.Request{Name: name, Client: netip.AddrPortFrom(of, 1024), Local: own})
	if err != nil {
		h.Fatal(err)
	}
	if f.Ended != nil {
		f.Ended(most, nil)
	}
}

func (h *host) steps() string { return said(h.history.Of([]string{"52:54:00:00:00:99", card})) }

func said(boots []bootdoctor.Boot) string {
	var list []string
	for _, b := range boots {
		var steps []string
		for _, s := range b.Steps {
			word := string(s.Kind)
			if s.Count > 1 {
				word += fmt.Sprintf(" x%d", s.Count)
			}
			steps = append(steps, strings.TrimSpace(word+" "+s.Problem))
		}
		list = append(list, strings.Join(steps, ", "))
	}
	return strings.Join(list, " | ")
}

func sqlite(t *testing.T) *host {
	dir, now := t.TempDir(), time.Date(2026, 5, 4, 8, 0, 0, 0, time.UTC)
	return newHost(t, "one", filepath.Join(dir, "records.db"), &now, dir)
}

func TestABootGoesOnAfterItsApplianceWasKilled(t *testing.T) {
	h := sqlite(t)
	h.discover(card)
	h.keep()
	h.after(time.Hour / 2)
	file := h.discover(card)
	h.keep()
	h.after(3 * time.Second).discover(card)
	h.keep()
	h.kill()
	if got := h.steps(); got != "dhcp x2 | dhcp" {
		t.Fatalf("after the kill: %s", got)
	}
	if b := h.history.Of([]string{card})[0]; b.Firmware != "UEFI x64" || !b.UEFI || b.MAC != card {
		t.Errorf("%+v", b)
	}
	h.after(time.Second).load(file, 10)
	if got := h.steps(); got != "dhcp x2, tftp cut | dhcp" {
		t.Errorf("it goes on as %s", got)
	}
	h.keep()
	h.kill() // what nobody wrote is lost, and nothing else
	h.after(time.Minute).discover(card)
	h.kill()
	if got := h.steps(); got != "dhcp x2, tftp cut | dhcp" {
		t.Errorf("after the next kill: %s", got)
	}
	for range 2 * fleet.KeptBoots {
		h.after(10 * time.Minute).discover(card)
		h.keep()
	}
	h.kill()
	if got := h.steps(); got != strings.TrimSuffix(strings.Repeat("dhcp | ", fleet.KeptBoots), " | ") {
		t.Errorf("of many boots there are %s", got)
	}
}

// What cannot be written waits, and nothing is written where nothing changed.
func TestStepsWaitForTheRecords(t *testing.T) {
	h := sqlite(t)
	h.discover(card)
	h.store.Close()
	if err := h.history.Keep(t.Context()); err == nil {
		t.Fatal("closed records take boots")
	}
	if got := h.steps(); got != "dhcp" {
		t.Errorf("without records there is %q", got)
	}
	var err error
	if h.store, err = store.Open(t.Context(), h.location); err != nil {
		t.Fatal(err)
	}
	if h.fleet, err = fleet.New(t.Context(), fleet.Config{ID: h.id, Records: h.store, Authority: siteOf(t, h.dir)}); err != nil {
		t.Fatal(err)
	}
	h.history.config.Records = h.fleet
	h.keep()
	rows, err := h.fleet.SeenBoots(t.Context(), []string{card})
	if err != nil || len(rows) != 1 {
		t.Fatalf("%+v, %v", rows, err)
	}
	if list := h.boot.ChangedBoots(); len(list) != 0 {
		t.Errorf("%d boots changed by nothing", len(list))
	}
}

// A clock that was ahead, until it was set, does not have the doctor look at what it saw then.
func TestBootsOfTimesToComeAreLeftOut(t *testing.T) {
	h := sqlite(t)
	for range 2 * fleet.KeptBoots { // they fill the place
		h.after(10 * time.Minute).discover(card)
		h.keep()
	}
	h.after(-365 * 24 * time.Hour)
	if got := h.steps(); got != "" {
		t.Errorf("after the clock was set there is %s", got)
	}
	h.discover(card)
	if got := h.steps(); got != "dhcp" {
		t.Errorf("the present boot is %s", got)
	}
	h.kill()
	if got := h.steps(); got != "" {
		t.Errorf("after a start there is %s", got)
	}
	if n, err := h.store.ForgetBoots(t.Context(), time.Time{}, h.now.Add(24*time.Hour), nil); n != fleet.KeptBoots || err != nil {
		t.Errorf("%d boots of times to come are deleted, %v", n, err)
	}
	h.after(10 * time.Minute).discover(card)
	h.keep()
	h.kill()
	if got := h.steps(); got != "dhcp" {
		t.Errorf("after the next start there is %q", got)
	}
}

// A row that is damaged hides no outage, and each outage is told of once.
func TestEachOutageOfTheRecordsIsInTheLog(t *testing.T) {
	h := sqlite(t)
	var log strings.Builder
	h.history.config.Log = slog.New(slog.NewTextHandler(&log, nil))
	h.history.decode(&fleet.SeenBoot{MAC: card, Began: *h.now, Doc: []byte("{")})
	told := func(want int) {
		t.Helper()
		h.steps()
		h.steps()
		if n := strings.Count(log.String(), "cannot be read\""); n != want {
			t.Errorf("%d outages are told of, want %d: %s", n, want, log.String())
		}
	}
	for n := range 2 {
		h.store.Close()
		told(n + 1)
		same := h.history
		h.start() // the records can be read again
		same.config.Records, h.history = h.fleet, same
		told(n + 1)
	}
}

func siteOf(t *testing.T, dir string) *site.Site {
	s, err := site.Open(filepath.Join(dir, "site"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDamagedAndOlderRowsAreLeftOut(t *testing.T) {
	h := sqlite(t)
	h.discover(card)
	h.keep()
	at := *h.now
	for i, doc := range []string{"", "{", "null", "[]", `{"steps":7}`, `{"steps":[{"kind":"dhcp"}]}`, `{"mac":"another's","steps":[{"kind":"kernel","at":"2026-05-04T07:00:00Z","unheard":[1]},{}]}`} {
		row := fleet.SeenBoot{MAC: card, Appliance: fmt.Sprint("gone-", i), Began: at.Add(-time.Hour), Latest: at.Add(-time.Hour), Doc: []byte(doc)}
		if err := h.store.KeepBoots(t.Context(), []fleet.SeenBoot{row}); err != nil {
			t.Fatal(err)
		}
		row.Appliance, row.Began = "one", at.Add(-time.Duration(i+1)*time.Minute)
		if row.Latest = row.Began; i > 3 {
			continue
		}
		if err := h.store.KeepBoots(t.Context(), []fleet.SeenBoot{row}); err != nil {
			t.Fatal(err)
		}
	}
	h.kill()
	if got := h.steps(); got != "dhcp | kernel" {
		t.Errorf("what can be read is %s", got)
	}
	if b := h.history.Of([]string{card}); b[1].MAC != card || b[1].Steps[0].Appliance != "gone-6" || b[1].Steps[0].Count != 1 {
		t.Errorf("%+v", b[1])
	}
}

// Two appliances of a site on one PostgreSQL see a part of a boot each, and show all of it.
func TestEachApplianceShowsWhatBothSaw(t *testing.T) {
	location, dir, now := postgres.Start(t).Database(), t.TempDir(), time.Date(2026, 5, 4, 8, 0, 0, 0, time.UTC)
	one, two := newHost(t, "one", location, &now, dir), newHost(t, "two", location, &now, dir)
	one.discover(card)
	if err := two.fleet.Sighted(t.Context(), fleet.Sighting{MAC: card, Stage: "dhcp"}); err != nil { // it knows of the machine
		t.Fatal(err)
	}
	file := two.discover(card)
	one.after(4 * time.Second).discover(card)
	two.discover(card)
	two.after(time.Second).load(file, 1100)
	one.keep()
	two.keep()
	for _, h := range []*host{one, two} {
		if got := h.steps(); got != "dhcp x2, tftp" {
			t.Errorf("%s shows %s", h.id, got)
		}
	}
	b := one.history.Of([]string{card})
	if s := b[0].Steps; s[0].Appliance != "" || s[1].Appliance != "two" || s[1].File == "" {
		t.Errorf("%+v", s)
	}
	one.kill()
	if got := one.steps(); got != "dhcp x2, tftp" {
		t.Errorf("after a kill it shows %s", got)
	}
	three := New(Config{Records: two.fleet, Self: "three"}) // one that boots no machine
	three.Restore(t.Context())
	if got := said(three.Of([]string{card})); got != "dhcp x2, tftp" {
		t.Errorf("one that boots no machine shows %s", got)
	}
}

// Packets of made-up cards, and machines that were removed, leave nothing.
func TestOnlyBootsOfMachinesAreKept(t *testing.T) {
	h := sqlite(t)
	h.discover(card)
	boots := h.boot.ChangedBoots()
	stranger := boots[0]
	stranger.MAC = "52:54:00:00:00:77"
	h.boot.RestoreBoots([]bootdoctor.Boot{stranger})
	h.boot.UnkeptBoots(append(boots, stranger))
	h.keep()
	macs, err := h.store.BootMACs(t.Context())
	if err != nil || len(macs) != 1 || macs[0] != card {
		t.Errorf("kept are boots of %v, %v", macs, err)
	}
}

// BenchmarkStorm is what it costs to keep the boots of 1,000 machines that all went on by a step since the last time.
func BenchmarkStorm(b *testing.B) {
	for _, kind := range []string{"SQLite", "PostgreSQL"} {
		b.Run(kind, func(b *testing.B) { benchmarkStorm(b, kind) })
	}
}

func benchmarkStorm(b *testing.B, kind string) {
	location := filepath.Join(b.TempDir(), "records.db")
	if kind == "PostgreSQL" {
		location = postgres.Start(b).Database()
	}
	s, err := store.Open(b.Context(), location)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	began, bytes := time.Now(), 0
	rows := make([]fleet.SeenBoot, 1000)
	full := bootdoctor.Boot{MAC: card, Began: began, Firmware: "UEFI x64", Addr: of.String()}
	for i, kind := range bootdoctor.Road {
		at := began.Add(time.Duration(i) * time.Second)
		full.Steps = append(full.Steps, bootdoctor.Step{Kind: kind, By: bootdoctor.ByFirmware, At: at, Last: at, Count: 1, File: "525400770011/shimx64.efi", Bytes: 950000, Length: 950000})
	}
	for b.Loop() {
		bytes = 0
		for i := range rows {
			doc, err := json.Marshal(&full)
			if err != nil {
				b.Fatal(err)
			}
			bytes += len(doc)
			rows[i] = fleet.SeenBoot{MAC: fmt.Sprintf("52:54:00:00:%02x:%02x", i/256, i%256), Appliance: "one", Began: began, Latest: full.Latest(), Doc: doc}
		}
		if err := s.KeepBoots(b.Context(), rows); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(bytes)/1000, "bytes/boot")
}
