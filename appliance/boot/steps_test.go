package boot

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"seedbed/appliance/bootdoctor"
	"seedbed/appliance/dhcp"
	"seedbed/appliance/tftp"
)

// steps prints the present boot of the machine as words.
func (b *bench) steps() string {
	now, _ := b.Steps(machine)
	var list []string
	for _, s := range now.Steps {
		word := strings.TrimSpace(string(s.Kind) + " " + s.Loader)
		if s.Problem != "" {
			word += " " + s.Problem
		}
		if s.Count > 1 {
			word += fmt.Sprintf(" x%d", s.Count)
		}
		list = append(list, word)
	}
	return strings.Join(list, ", ")
}

func (b *bench) agent() {
	b.AnswerDHCP(context.Background(), dhcp.Request{Type: dhcpv4.MessageTypeDiscover, Port: 67, MAC: machine, Local: appliance, Told: true, Agent: true})
}

// verdict is what the boot doctor says of the steps, so long after the last one.
func (b *bench) verdict(after time.Duration) string {
	now, last := b.Steps(machine)
	return bootdoctor.Judge(bootdoctor.Input{Now: now.Latest().Add(after), Name: "pc", Boot: now, Last: last}).Case
}

func TestTheStepsOfABootAreKept(t *testing.T) {
	b := newBench(t, Assignment{Run: RunAgent})
	file := b.discover(false)
	b.discover(false)
	b.request()
	b.load(t, file)
	b.load(t, "525400770011/grubx64.efi")
	b.get("/grub/machine.cfg?mac=52:54:00:77:00:11&secure=off")
	b.get("/525400770011/snponly.efi")
	script := b.discover(true)
	b.get(script)
	b.get("/boot/vmlinuz")
	b.get("/boot/initramfs")
	b.get("/boot/token?mac=52:54:00:77:00:11")
	b.agent()
	want := "dhcp shim x2, address, tftp shim, tftp, script shim, http snponly, dhcp script, script snponly, kernel, initramfs, token, agent-dhcp"
	if got := b.steps(); got != want {
		t.Errorf("steps\n%s\nwant\n%s", got, want)
	}
	now, last := b.Steps(machine)
	if now.Firmware != "UEFI x64" || !now.UEFI || now.Addr != machineAddr.String() || len(last.Steps) != 0 {
		t.Errorf("%+v after %+v", now, last)
	}
	for _, s := range now.Steps {
		if s.Length > 0 && !s.Whole() {
			t.Errorf("%s of %s has %d of %d bytes", s.Kind, s.File, s.Bytes, s.Length)
		}
	}
	b.now = b.now.Add(time.Minute)
	b.discover(false)
	if now, last := b.Steps(machine); len(now.Steps) != 1 || len(last.Steps) != 12 || !now.Began.Equal(b.now) {
		t.Errorf("the next boot has %d steps, the one before %d", len(now.Steps), len(last.Steps))
	}
}

// What goes wrong is kept too, and the verdict follows from it.
func TestStepsTellWhereABootStopped(t *testing.T) {
	open := func(b *bench, name string) *tftp.File {
		f, err := b.OpenTFTP(context.Background(), tftp.Request{Name: name, Client: netip.AddrPortFrom(machineAddr, 1024), Local: appliance})
		if err != nil && !errors.Is(err, tftp.ErrNotFound) {
			t.Fatal(err)
		}
		return f
	}
	for name, c := range map[string]struct {
		boot  func(b *bench)
		steps string
		want  string
	}{
		"a file of another server": {func(b *bench) { open(b, "pxelinux.0") }, "dhcp shim, address, tftp missing", "loader-missing"},
		"a loader of BIOS on UEFI": {func(b *bench) { b.load(t, "undionly.kpxe") }, "dhcp shim, address, tftp undionly", "wrong-loader"},
		"a transfer that is cut": {func(b *bench) {
			open(b, "525400770011/shimx64.efi").Ended(5, errors.New("the machine does not answer"))
		}, "dhcp shim, address, tftp shim cut", "loader-cut"},
		"the length first, then the file": {func(b *bench) {
			open(b, "525400770011/shimx64.efi").Ended(0, errors.New("error 8"))
			b.load(t, "525400770011/shimx64.efi")
		}, "dhcp shim, address, tftp shim x2", "secure-boot-or-hang"},
		"no question at all": {func(*bench) {}, "dhcp shim, address", "other-server"},
		"the firmware goes on to HTTP boot": {func(b *bench) {
			b.load(t, "525400770011/shimx64.efi")
			b.now = b.now.Add(3 * time.Second)
			b.AnswerDHCP(context.Background(), dhcp.Request{Type: dhcpv4.MessageTypeDiscover, Port: 67, MAC: machine, Arch: uint16(ArchHTTPX64), HTTP: true, Local: appliance})
		}, "dhcp shim, address, tftp shim, dhcp shim", "secure-boot-or-broken"},
		"a token too late": {func(b *bench) {
			b.get("/boot.ipxe?mac=52:54:00:77:00:11&platform=efi")
			b.get("/boot/vmlinuz")
			b.get("/boot/initramfs")
			b.now = b.now.Add(scriptTimeout + time.Minute)
			b.get("/boot/token?mac=52:54:00:77:00:11")
		}, "dhcp shim, address, script script, kernel, initramfs, token refused", "script-late"},
		"an agent that gets no answer": {func(b *bench) {
			b.get("/boot.ipxe?mac=52:54:00:77:00:11&platform=efi")
			b.get("/boot/vmlinuz")
			b.get("/boot/initramfs")
			b.get("/boot/token?mac=52:54:00:77:00:11")
			b.agent()
			if code, _ := b.get("/boot/trouble?mac=52:54:00:77:00:11&code=unreachable&text=" + url.QueryEscape("10.77.0.1:443: i/o timeout\x00")); code != 204 {
				t.Errorf("the agent's trouble is answered with %d", code)
			}
		}, "dhcp shim, address, script script, kernel, initramfs, token, agent-dhcp, trouble unreachable", "appliance-unreachable"},
		"it is sent to its own disk": {func(b *bench) {
			b.fleet.assignment.Run = RunLocal
			b.get("/boot.ipxe?mac=52:54:00:77:00:11&platform=efi")
		}, "dhcp shim, address, script script, local", "own-disk"},
	} {
		b := newBench(t, Assignment{Run: RunAgent})
		b.discover(false)
		b.request()
		c.boot(b)
		if got := b.steps(); got != c.steps {
			t.Errorf("%s: steps %q, want %q", name, got, c.steps)
		}
		if got := b.verdict(2 * time.Minute); got != c.want {
			t.Errorf("%s: verdict %s, want %s", name, got, c.want)
		}
	}
}

// Only a machine whose token was fetched is heard, from no other machine's address, and what it says is cut.
func TestNobodySpeaksForAMachine(t *testing.T) {
	b := newBench(t, Assignment{Run: RunAgent})
	trouble := "/boot/trouble?mac=52:54:00:77:00:11&code=unreachable&text=" + strings.Repeat("x", 4000)
	b.discover(false)
	b.request()
	if code, _ := b.get(trouble); code != 403 {
		t.Errorf("before the token: %d", code)
	}
	b.get("/boot/token?mac=52:54:00:77:00:11")
	other := MAC{0x52, 0x54, 0, 0x77, 0, 0x12}
	otherAddr := netip.MustParseAddr("10.77.0.115")
	b.AnswerDHCP(context.Background(), dhcp.Request{Type: dhcpv4.MessageTypeRequest, Port: 67, MAC: other, Addr: otherAddr, Local: appliance, Told: true})
	if code, _ := b.ask("GET", trouble, otherAddr); code != 403 {
		t.Errorf("from another machine's address: %d", code)
	}
	if code, _ := b.get(strings.Replace(trouble, "unreachable", "anything", 1)); code != 400 {
		t.Errorf("with a code that nobody knows: %d", code)
	}
	if code, _ := b.get(trouble); code != 204 {
		t.Errorf("after the token: %d", code)
	}
	now, _ := b.Steps(machine)
	if s := now.Steps[len(now.Steps)-1]; s.Kind != bootdoctor.Trouble || len(s.Note) > maxNote {
		t.Errorf("%+v", s)
	}
	told := len(b.fleet.sightings)
	for i := range 100 { // whoever sees the machine's packets can say it in its name
		if code, _ := b.get(strings.Replace(trouble, "unreachable", []string{"refused", "unreachable"}[i%2], 1)); code != 204 {
			t.Errorf("the trouble is answered with %d", code)
		}
	}
	if n := len(b.fleet.sightings) - told; n != 0 {
		t.Errorf("%d more events of the same half minute", n)
	}
}

// The diary is bounded: by machine, and by steps of a boot.
func TestTheDiaryIsBounded(t *testing.T) {
	b := newBench(t, Assignment{Run: RunAgent})
	b.discover(false)
	b.request()
	for i := range 3 * maxSteps {
		_, _ = b.OpenTFTP(context.Background(), tftp.Request{Name: fmt.Sprintf("%d-%0500d", i, i), Client: netip.AddrPortFrom(machineAddr, 1024), Local: appliance})
	}
	now, _ := b.Steps(machine)
	if len(now.Steps) != maxSteps || slices.ContainsFunc(now.Steps, func(s bootdoctor.Step) bool { return len(s.File) > maxNote }) {
		t.Errorf("%d steps of a boot are kept", len(now.Steps))
	}
	for i := range 2 * maxDiaries {
		b.now = b.now.Add(time.Millisecond)
		b.AnswerDHCP(context.Background(), dhcp.Request{Type: dhcpv4.MessageTypeDiscover, Port: 67, MAC: [6]byte{2, 0, 0, 0, byte(i >> 8), byte(i)}, Local: appliance})
	}
	if n := len(b.diary.pages); n > maxDiaries {
		t.Errorf("%d machines are kept", n)
	}
}
