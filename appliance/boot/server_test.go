package boot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"seedbed/appliance/dhcp"
	"seedbed/appliance/job"
	"seedbed/appliance/tftp"
)

// fakeFleet answers with what a test sets and keeps what it is told.
type fakeFleet struct {
	mu         sync.Mutex
	assignment Assignment
	err        error
	sightings  []Sighting
	tokens     int
	mint       func() // called for each token, may block; nil does nothing
}

func (f *fakeFleet) Sighted(_ context.Context, s Sighting) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sightings = append(f.sightings, s)
}

func (f *fakeFleet) NextBoot(context.Context, MAC, string) (Assignment, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.assignment, f.err
}

func (f *fakeFleet) BootToken(_ context.Context, mac MAC, _ netip.Addr) (job.Boot, error) {
	if f.mint != nil {
		f.mint()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tokens++
	return job.Boot{Appliances: []string{"https://10.77.0.1"}, Token: strings.Repeat("ab", 32), MAC: mac.String()}, nil
}

// stages returns the stages and loaders seen, in order.
func (f *fakeFleet) stages() (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sightings {
		all = append(all, strings.TrimSpace(string(s.Stage)+" "+string(s.Loader)))
	}
	return all
}

// bench is a Server with a fake fleet and a clock that a test moves.
type bench struct {
	*Server
	fleet *fakeFleet
	now   time.Time
}

var (
	machine     = MAC{0x52, 0x54, 0, 0x77, 0, 0x11}
	machineAddr = netip.MustParseAddr("10.77.0.114")
	appliance   = netip.MustParseAddr("10.77.0.1")
)

// bootDir makes a boot directory of small files that name themselves.
func bootDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range append(slices.Clone(loaderFiles), fileKernel, fileInitramfs) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat("content of "+name+"\n", 100)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func newBench(t testing.TB, a Assignment) *bench {
	t.Helper()
	files, err := OpenFiles(bootDir(t))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{fleet: &fakeFleet{assignment: a}, now: time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)}
	b.Server, err = New(Config{Files: files, Fleet: b.fleet, Addr: appliance, Now: func() time.Time { return b.now }})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// discover is a UEFI firmware's or iPXE's DISCOVER; request its REQUEST to the DHCP server.
func (b *bench) discover(ipxe bool) string {
	return b.AnswerDHCP(context.Background(), dhcp.Request{
		Type: dhcpv4.MessageTypeDiscover, Port: 67, MAC: machine, Arch: uint16(ArchEFIX64), IPXE: ipxe, Local: appliance,
	}).File
}

func (b *bench) request() string {
	return b.AnswerDHCP(context.Background(), dhcp.Request{
		Type: dhcpv4.MessageTypeRequest, Port: 67, MAC: machine, Arch: uint16(ArchEFIX64), Addr: machineAddr, Local: appliance, Told: true,
	}).File
}

// load fetches a file over TFTP to its end.
func (b *bench) load(t testing.TB, name string) string {
	t.Helper()
	f, err := b.OpenTFTP(context.Background(), tftp.Request{Name: name, Client: netip.AddrPortFrom(machineAddr, 1024), Local: appliance})
	if err != nil {
		t.Fatalf("TFTP %s: %v", name, err)
	}
	content, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if f.Sent != nil {
		f.Sent()
	}
	if f.Ended != nil {
		f.Ended(int64(len(content)), nil)
	}
	return string(content)
}

// get asks over HTTP as the machine does.
func (b *bench) get(url string) (int, string) { return b.ask(http.MethodGet, url, machineAddr) }

func (b *bench) ask(method, url string, from netip.Addr) (int, string) {
	r := httptest.NewRequest(method, url, nil)
	r.RemoteAddr = netip.AddrPortFrom(from, 40000).String()
	w := httptest.NewRecorder()
	b.Handler().ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// An unknown UEFI machine with Secure Boot off: shim, GRUB, snponly.efi, script, kernel, token.
func TestUnknownMachineReachesTheAgent(t *testing.T) {
	b := newBench(t, Assignment{Run: RunAgent})
	file := b.discover(false)
	if file != "525400770011/shimx64.efi" {
		t.Fatalf("firmware gets %q", file)
	}
	if got := b.request(); got != "" {
		t.Errorf("the talk with the DHCP server is answered: %q", got)
	}
	b.load(t, file)
	if got := b.load(t, "525400770011/grubx64.efi"); !strings.Contains(got, fileGRUB) {
		t.Errorf("GRUB is %q", got)
	}
	if got := b.load(t, "grub/grub.cfg"); !strings.Contains(got, "(http,10.77.0.1)/grub/machine.cfg?mac=$net_default_mac") {
		t.Errorf("grub.cfg does not fetch the machine's script:\n%s", got)
	}
	_, grub := b.get("/grub/machine.cfg?mac=52:54:00:77:00:11&secure=off")
	if !strings.Contains(grub, "chainloader \"(http,10.77.0.1)/525400770011/snponly.efi\"") {
		t.Errorf("without Secure Boot GRUB does not hand over to iPXE:\n%s", grub)
	}
	if code, _ := b.get("/525400770011/snponly.efi"); code != 200 {
		t.Errorf("snponly.efi over HTTP: %d", code)
	}
	script := b.discover(true)
	if script != "http://10.77.0.1/boot.ipxe?mac=52:54:00:77:00:11&platform=efi" {
		t.Fatalf("iPXE gets %q", script)
	}
	b.request()
	_, text := b.get(script)
	for _, want := range []string{"/boot/vmlinuz initrd=initramfs initrd=token", "/boot/initramfs", "/boot/token?mac=52:54:00:77:00:11"} {
		if !strings.Contains(text, want) {
			t.Errorf("script lacks %q:\n%s", want, text)
		}
	}
	b.get("/boot/vmlinuz")
	if code, archive := b.get("/boot/token?mac=52:54:00:77:00:11"); code != 200 || !strings.Contains(archive, `"token":"abab`) {
		t.Errorf("token: %d %q", code, archive)
	}
	want := []string{"dhcp shim", "dhcp", "loader shim", "script shim", "loader snponly", "dhcp script", "dhcp", "script snponly", "kernel"}
	if got := b.fleet.stages(); !slices.Equal(got, want) {
		t.Errorf("the fleet saw %q, want %q", got, want)
	}
}

// Secure Boot on: GRUB boots the signed kernel itself.
func TestSecureBootStaysWithGRUB(t *testing.T) {
	b := newBench(t, Assignment{Run: RunAgent})
	_, grub := b.get("/grub/machine.cfg?mac=52:54:00:77:00:11&secure=on")
	if strings.Contains(grub, "snponly") || !strings.Contains(grub, `initrd "(http,10.77.0.1)/boot/initramfs" "(http,10.77.0.1)/boot/token?mac=52:54:00:77:00:11"`) {
		t.Errorf("GRUB's script:\n%s", grub)
	}
}

// A loader that asks for nothing within a minute is followed by the next; what works is remembered.
func TestLoaderThatHangsIsFollowedByTheNext(t *testing.T) {
	b := newBench(t, Assignment{Run: RunAgent, Known: true, SecureBoot: SecureBootOff})
	file := b.discover(false)
	b.load(t, file)
	if file != "525400770011/snponly.efi" {
		t.Fatalf("first %q", file)
	}
	// The firmware is switched off and on at once: too early to judge.
	b.now = b.now.Add(30 * time.Second)
	if got := b.discover(false); got != file {
		t.Errorf("after 30 s %q", got)
	}
	b.load(t, file)
	// The second download does not set the clock back.
	b.now = b.now.Add(31 * time.Second)
	next := b.discover(false)
	if next != "525400770011/ipxe.efi" {
		t.Fatalf("after 61 s %q", next)
	}
	if got := b.fleet.stages(); !slices.Contains(got, "stuck snponly") {
		t.Errorf("the fleet was not told: %q", got)
	}
	b.load(t, next)
	b.get("/boot.ipxe?mac=52:54:00:77:00:11&platform=efi")
	b.now = b.now.Add(time.Hour)
	if got := b.discover(false); got != next {
		t.Errorf("what worked is forgotten: %q", got)
	}
}

// iPXE that hangs after GRUB loaded it: the next time GRUB boots the kernel itself.
func TestGRUBStopsHandingOverToIPXEThatHangs(t *testing.T) {
	b := newBench(t, Assignment{Run: RunAgent})
	b.load(t, b.discover(false))
	b.get("/grub/machine.cfg?mac=52:54:00:77:00:11&secure=off")
	b.get("/525400770011/snponly.efi")
	b.now = b.now.Add(2 * time.Minute)
	b.load(t, b.discover(false))
	if _, grub := b.get("/grub/machine.cfg?mac=52:54:00:77:00:11&secure=off"); strings.Contains(grub, "snponly") {
		t.Errorf("GRUB hands over again:\n%s", grub)
	}
}

// GRUB that sees no disk says so; the machine's firmware then goes on by its own order, until there is work again.
func TestMachineWhoseDiskGRUBDoesNotSee(t *testing.T) {
	b := newBench(t, Assignment{Run: RunLocal, Known: true, SecureBoot: SecureBootOn})
	b.load(t, b.discover(false))
	b.get("/grub/nodisk.cfg?mac=52:54:00:77:00:11")
	if got := b.discover(false); got != "" {
		t.Errorf("firmware gets %q", got)
	}
	b.fleet.assignment.Run = RunAgent
	if got := b.discover(false); got != "525400770011/shimx64.efi" {
		t.Errorf("with work, firmware gets %q", got)
	}
}

func TestFleetWithoutAnswerMeansOwnDisk(t *testing.T) {
	b := newBench(t, Assignment{})
	b.fleet.err = errors.New("records are locked")
	if got := b.discover(false); got != "" {
		t.Errorf("firmware gets %q", got)
	}
	if _, text := b.get("/boot.ipxe?mac=52:54:00:77:00:11&platform=pcbios"); !strings.Contains(text, "sanboot --no-describe --drive 0x80") {
		t.Errorf("script does not boot the disk:\n%s", text)
	}
}

func TestScriptsNameTheDiskThatWasWritten(t *testing.T) {
	b := newBench(t, Assignment{Run: RunLocal, BIOSDrive: 0x81, ESPVolumeID: "abcd-1234", ESPPartition: "11111111-2222-3333-4444-55555555555F"})
	for url, want := range map[string]string{
		"/boot.ipxe?mac=52:54:00:77:00:11&platform=pcbios":      "sanboot --no-describe --drive 0x81 ||",
		"/boot.ipxe?mac=52:54:00:77:00:11&platform=efi":         "sanboot --no-describe --drive 0 --uuid 11111111-2222-3333-4444-55555555555f ||",
		"/grub/machine.cfg?mac=52:54:00:77:00:11&secure=on":     "search --no-floppy --fs-uuid --set=root ABCD-1234;",
		"//grub//machine.cfg?mac=52-54-00-77-00-11&secure=off":  "search --no-floppy --fs-uuid --set=root ABCD-1234;",
		"/boot.ipxe?mac=52-54-00-77-00-11&platform=efi&extra=1": "--uuid 11111111-2222-3333-4444-55555555555f",
	} {
		if _, text := b.get(url); !strings.Contains(text, want) {
			t.Errorf("%s lacks %q:\n%s", url, want, text)
		}
	}
}

func TestTokenIsBoundToTheExchange(t *testing.T) {
	const url = "/boot/token?mac=52:54:00:77:00:11"
	const script = "/boot.ipxe?mac=52:54:00:77:00:11&platform=efi"
	other := netip.MustParseAddr("10.77.0.200")
	b := newBench(t, Assignment{Run: RunAgent})
	if code, text := b.get(url); code != http.StatusForbidden || !strings.Contains(text, "start the machine again") {
		t.Errorf("without an exchange: %d %s", code, text)
	}
	b.discover(true)
	b.request()
	if code, _ := b.ask(http.MethodGet, url, other); code != http.StatusForbidden {
		t.Errorf("another address: %d", code)
	}
	b.ask(http.MethodGet, script, other)
	if code, _ := b.ask(http.MethodGet, url, other); code != http.StatusForbidden {
		t.Errorf("another address that fetched the script: %d", code)
	}
	b.now = b.now.Add(ExchangeTimeout + time.Second)
	b.get(script)
	if code, _ := b.get(url); code != http.StatusForbidden {
		t.Errorf("script after %s: %d", ExchangeTimeout, code)
	}
	b.discover(true)
	b.request()
	b.get(script)
	b.now = b.now.Add(scriptTimeout) // a long download of kernel and initramfs
	code, first := b.get(url)
	if code != http.StatusOK || b.fleet.tokens != 1 {
		t.Fatalf("the machine itself: %d, %d tokens made", code, b.fleet.tokens)
	}
	if _, again := b.get(url); again != first || b.fleet.tokens != 1 {
		t.Errorf("a repeated download made another token")
	}
	// The script's retry asks DHCP again, and so does a machine that was switched off and on: a used token is no good.
	b.discover(true)
	if code, _ := b.get(url); code != http.StatusOK || b.fleet.tokens != 2 {
		t.Errorf("after another exchange: %d, %d tokens made", code, b.fleet.tokens)
	}
}

// A wrong idea of the disk costs the idea, not the boot.
// A loader that holds the agent's script goes on to the disk where it gets no token.
func TestMachineWhoseJobEndedOnItsWayGetsNoToken(t *testing.T) {
	b := newBench(t, Assignment{Run: RunAgent})
	b.discover(false)
	b.request()
	b.get("/boot.ipxe?mac=" + machine.String() + "&platform=efi")
	b.fleet.assignment.Run = RunLocal
	if status, _ := b.get("/boot/token?mac=" + machine.String()); status != http.StatusForbidden || b.fleet.tokens != 0 {
		t.Errorf("status %d, %d tokens", status, b.fleet.tokens)
	}
}

func TestTokenAskedForTwiceAtOnceIsOne(t *testing.T) {
	b := newBench(t, Assignment{Run: RunAgent})
	b.discover(false)
	b.request()
	begun := make(chan struct{}, 2)
	finish := make(chan struct{})
	b.fleet.mint = func() { begun <- struct{}{}; <-finish }
	var asked sync.WaitGroup
	for range 2 {
		asked.Go(func() { b.get("/boot/token?mac=" + machine.String()) })
	}
	<-begun
	select {
	case <-begun:
		t.Error("a second token is made, which takes the place of the first")
	case <-time.After(100 * time.Millisecond):
	}
	close(finish)
	asked.Wait()
	if b.fleet.tokens != 1 {
		t.Errorf("%d tokens", b.fleet.tokens)
	}
}

// download is a connection of machineAddr.
type download struct {
	net.Conn
	closed bool
}

func (d *download) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(machineAddr, 40000))
}
func (d *download) Close() error { d.closed = true; return nil }

func TestMachineThatWantsItsOldAddressBackEndsNoDownloadOfAnother(t *testing.T) {
	b := newBench(t, Assignment{Run: RunAgent})
	packet := func(typ dhcpv4.MessageType) {
		b.AnswerDHCP(t.Context(), dhcp.Request{
			Type: typ, Port: 67, MAC: MAC{0x52, 0x54, 0, 0x77, 0, 0x12}, Addr: machineAddr, Local: appliance, Told: typ != dhcpv4.MessageTypeDiscover,
		})
	}
	packet(dhcpv4.MessageTypeRequest) // its address of yesterday
	b.discover(false)
	b.request()
	d := new(download)
	b.conns.note(d, http.StateNew)
	packet(dhcpv4.MessageTypeDiscover)
	packet(dhcpv4.MessageTypeDiscover) // firmware asks more than once
	if d.closed {
		t.Error("the download of the machine that has the address now was ended")
	}
	b.discover(false)
	if !d.closed {
		t.Error("the download of the machine that started anew goes on")
	}
}

func TestMalformedDiskIsLeftOut(t *testing.T) {
	b := newBench(t, Assignment{Run: RunLocal, ESPVolumeID: "not a volume", ESPPartition: "11111111-2222-3333-4444-555555555555"})
	code, text := b.get("/boot.ipxe?mac=52:54:00:77:00:11&platform=efi")
	if code != http.StatusOK || !strings.Contains(text, "sanboot --no-describe --drive 0 ||") || strings.Contains(text, "--uuid") {
		t.Errorf("%d:\n%s", code, text)
	}
}

// GRUB and shim write double slashes; a redirect would be the end of the boot.
func TestPathsAreServedWithoutRedirect(t *testing.T) {
	b := newBench(t, Assignment{Run: RunAgent})
	for _, p := range []string{"/shimx64.efi", "//grubx64.efi", "/sb//grubx64.efi", "/525400770011/snponly.efi", "/a/b/autoexec.ipxe",
		"//grub//grub.cfg", "/boot.ipxe", "//boot//vmlinuz", "/boot/initramfs"} {
		if code, _ := b.get(p); code != http.StatusOK {
			t.Errorf("%s: %d", p, code)
		}
	}
	for _, p := range []string{"/", "/grub/x86_64-efi/command.lst", "/boot/", "/../etc/passwd", "/manifest.json", "/revocations_sku.efi"} {
		if code, _ := b.get(p); code != http.StatusNotFound {
			t.Errorf("%s: %d", p, code)
		}
	}
	if code, _ := b.ask(http.MethodPost, "/boot.ipxe", machineAddr); code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", code)
	}
}

func TestTFTPServesNamedFilesOnly(t *testing.T) {
	b := newBench(t, Assignment{})
	for _, name := range []string{"vmlinuz", "initramfs.cpio.zst", "manifest.json", "grub/x86_64-efi/fs.lst", "etc/passwd", "525400770011"} {
		_, err := b.OpenTFTP(context.Background(), tftp.Request{Name: name, Client: netip.AddrPortFrom(machineAddr, 1), Local: appliance})
		if !errors.Is(err, tftp.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"autoexec.ipxe", "525400770011/autoexec.ipxe", "x/y/autoexec.ipxe"} {
		if got := b.load(t, name); !strings.HasPrefix(got, "#!ipxe\n") {
			t.Errorf("%s is %q", name, got)
		}
	}
}

func TestBootFilesAreChecked(t *testing.T) {
	dir := bootDir(t)
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(fileManifest, `{"files":[{"name":"vmlinuz","sha256":"`+strings.Repeat("0", 64)+`"}]}`)
	write(fileSNPOnly, "")
	if err := os.Remove(filepath.Join(dir, fileShim)); err != nil {
		t.Fatal(err)
	}
	_, err := OpenFiles(dir)
	if !errors.Is(err, ErrFiles) {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{"shimx64.efi is missing", "snponly.efi is empty", "vmlinuz is damaged", "make assets"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

// An initramfs of any length ends at a multiple of 4, from whatever byte it is asked.
func TestInitramfsIsPadded(t *testing.T) {
	for length := range 9 {
		content := bytes.Repeat([]byte{7}, length)
		want := append(bytes.Clone(content), make([]byte, (4-length%4)%4)...)
		for start := range len(want) + 1 {
			p, err := newPadded(bytes.NewReader(content))
			if err != nil {
				t.Fatal(err)
			}
			if end, err := p.Seek(0, io.SeekEnd); err != nil || end != int64(len(want)) {
				t.Fatalf("length %d: ends at %d, %v", length, end, err)
			}
			if _, err := p.Seek(int64(start), io.SeekStart); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(p)
			if err != nil || !bytes.Equal(got, want[start:]) {
				t.Errorf("length %d from %d: %v, %v", length, start, got, err)
			}
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	tracks := newTracks()
	now := time.Now()
	for i := range 3 * maxMachines {
		mac := MAC{0, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		tracks.packet(mac, "", ArchBIOS, addr, false, now.Add(time.Duration(i)))
	}
	if n, m := len(tracks.byMAC), len(tracks.byAddr); n > maxMachines || m > n {
		t.Errorf("%d machines and %d addresses are remembered", n, m)
	}
}
