package script

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestScriptsAgainstGoldenText(t *testing.T) {
	deployed := Params{
		Server: netip.MustParseAddrPort("10.77.0.1:80"), MAC: "52:54:00:77:00:11", UEFI: true,
		ESPVolumeID: "abcd-1234", ESPPartition: "11111111-2222-3333-4444-55555555555F",
	}
	bios := Params{Server: netip.MustParseAddrPort("10.77.0.1:8080"), MAC: "52:54:00:77:00:10", BIOSDrive: 0x81}
	fresh := Params{Server: netip.MustParseAddrPort("10.77.0.1:80"), MAC: "52:54:00:77:00:11", UEFI: true}
	two := fresh
	two.Others = []netip.AddrPort{two.Server, netip.MustParseAddrPort("10.77.0.2:80"), netip.MustParseAddrPort("10.77.0.3:8080"), netip.MustParseAddrPort("10.77.0.4:80")}
	for file, c := range map[string]struct {
		name   Name
		params Params
	}{
		"start.ipxe":      {IPXEStart, Params{Server: bios.Server}},
		"agent-bios.ipxe": {IPXEAgent, bios},
		"agent-uefi.ipxe": {IPXEAgent, fresh},
		"local-bios.ipxe": {IPXELocal, bios},
		"local-uefi.ipxe": {IPXELocal, deployed},
		"start.cfg":       {GRUBStart, Params{Server: bios.Server}},
		"agent.cfg":       {GRUBAgent, fresh},
		"chain.cfg":       {GRUBChain, fresh},
		"local.cfg":       {GRUBLocal, deployed},
		"start-two.ipxe":  {IPXEStart, Params{Server: two.Server, Others: two.Others}},
		"agent-two.ipxe":  {IPXEAgent, two},
		"start-two.cfg":   {GRUBStart, Params{Server: two.Server, Others: two.Others}},
		"agent-two.cfg":   {GRUBAgent, two},
	} {
		t.Run(file, func(t *testing.T) {
			got, err := Render(c.name, c.params)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", file)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs from %s (rewrite with -update):\n%s", golden, got)
			}
		})
	}
}

// What comes from images and machines never becomes a command of a loader's shell.
func TestMalformedParamsAreRefused(t *testing.T) {
	good := Params{Server: netip.MustParseAddrPort("10.77.0.1:80"), MAC: "52:54:00:77:00:11"}
	for name, spoil := range map[string]func(*Params){
		"no server":           func(p *Params) { p.Server = netip.AddrPort{} },
		"IPv6 among others":   func(p *Params) { p.Others = []netip.AddrPort{netip.MustParseAddrPort("[fd77::1]:80")} },
		"IPv6 server":         func(p *Params) { p.Server = netip.MustParseAddrPort("[fd77::1]:80") },
		"MAC with a command":  func(p *Params) { p.MAC = "52:54:00:77:00:11\nshell" },
		"volume with command": func(p *Params) { p.ESPVolumeID = "ABCD-1234; reboot" },
		"GUID with command":   func(p *Params) { p.ESPPartition = "11111111-2222-3333-4444-555555555555 || shell" },
		"drive of a floppy":   func(p *Params) { p.BIOSDrive = 1 },
		"argument with $":     func(p *Params) { p.KernelArgs = "a=$b" },
		"argument with line":  func(p *Params) { p.KernelArgs = "quiet\nshell" },
		"argument with &&":    func(p *Params) { p.KernelArgs = "quiet && shell" },
	} {
		p := good
		spoil(&p)
		for _, n := range Names {
			if text, err := Render(n, p); err == nil {
				t.Errorf("%s: script %s is rendered:\n%s", name, n, text)
			}
		}
	}
}

// Every script ends at the machine's own disk, without a way to stand still.
func TestEveryScriptEndsAtTheDisk(t *testing.T) {
	p := Params{Server: netip.MustParseAddrPort("10.77.0.1:80"), MAC: "52:54:00:77:00:11", UEFI: true}
	for _, n := range Names {
		text, err := Render(n, p)
		if err != nil {
			t.Fatal(err)
		}
		end, disk := "exit 1", "sanboot"
		if strings.HasSuffix(string(n), ".cfg") {
			end, disk = "reboot", "chainloader $loader"
		}
		if !strings.HasSuffix(strings.TrimSpace(text), end) || !strings.Contains(text, disk) {
			t.Errorf("script %s does not end at the disk:\n%s", n, text)
		}
		for _, stands := range []string{"shell", "prompt", "\nexit\n", "\nexit 0\n"} {
			if strings.Contains(text, stands) {
				t.Errorf("script %s can stand still: %q", n, stands)
			}
		}
	}
}
