package bootdoctor

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/job"
)

var update = flag.Bool("update", false, "write the table of the manual anew")

var began = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

// at is a moment of the boot, in seconds.
func at(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }

// boot makes a boot of UEFI firmware.
func boot(steps ...Step) Boot {
	b := Boot{MAC: "52:54:00:77:00:10", Began: steps[0].At, Firmware: "UEFI x64", UEFI: true, Addr: "10.77.0.100"}
	for _, s := range steps {
		if s.Count == 0 {
			s.Count = 1
		}
		if s.Last.IsZero() {
			s.Last = s.At
		}
		b.Steps = append(b.Steps, s)
	}
	return b
}

func ofBIOS(b Boot) Boot {
	b.Firmware, b.UEFI = "BIOS", false
	return b
}

// Steps of a boot that goes well.
func asks(s int) Step    { return Step{At: at(s), Kind: DHCP, By: ByFirmware, Loader: "shim"} }
func address(s int) Step { return Step{At: at(s), Kind: Address, By: ByFirmware, Note: "10.77.0.100"} }
func proxy(s int) Step   { return Step{At: at(s), Kind: Proxy, By: ByFirmware, Loader: "shim"} }
func loads(s int, loader, file string) Step {
	return Step{At: at(s), Kind: TFTP, By: ByFirmware, Loader: loader, File: file, Bytes: 100, Length: 100}
}
func script(s int) Step { return Step{At: at(s), Kind: Script, By: ByGRUB, Loader: "shim"} }
func kernel(s int) Step { return Step{At: at(s), Kind: Kernel, By: ByGRUB, Bytes: 100, Length: 100} }
func initramfs(s int) Step {
	return Step{At: at(s), Kind: Initramfs, By: ByGRUB, Bytes: 100, Length: 100}
}
func agent(s int) Step { return Step{At: at(s), Kind: AgentDHCP, By: ByAgent} }
func trouble(s int, code, note string) Step {
	return Step{At: at(s), Kind: Trouble, By: ByAgent, Problem: code, Note: note}
}

var (
	upToLoader = []Step{asks(0), address(1), proxy(2), loads(3, "shim", "525400770010/shimx64.efi")}
	upToKernel = append(slices.Clone(upToLoader), script(5), kernel(6), initramfs(8))
)

func and(steps []Step, more ...Step) Boot { return boot(append(slices.Clone(steps), more...)...) }

func inventory(change func(*job.Inventory)) *job.Inventory {
	inv := &job.Inventory{Firmware: "uefi", SecureBoot: "off", Disks: []job.Disk{{Name: "sda", Bus: "sata", Length: 256e9}}}
	change(inv)
	return inv
}

func paused(code, reason string) *Work {
	return &Work{ID: "j1", Kind: job.Deploy, State: job.Paused, Phase: job.PhaseCheck, Code: code, Reason: reason}
}

// examples are pieces of evidence, and which case and words they have to give. Each case has one at least.
var examples = []struct {
	name, want string
	words      string // of the sentence, or of the causes
	in         Input
}{
	{"never seen, with a job", "not-seen", "no packet of pc arrived", Input{Now: at(0), Work: &Work{ID: "j1", State: job.Waiting}}},
	{"never seen, without one", "unknown", "no boot of pc", Input{Now: at(0)}},
	{"32-bit UEFI", "no-loader-for-firmware", "no loader for UEFI 32 bit", Input{Now: at(30),
		Boot: boot(Step{At: at(0), Kind: DHCP, By: ByFirmware, Note: "no loader for UEFI 32 bit"})}},
	{"nobody gives an address", "no-address", "no DHCP server gives the machine an address; a switch drops the answers", Input{Now: at(60),
		Boot: boot(Step{At: at(0), Kind: DHCP, By: ByFirmware, Loader: "shim", Count: 4, Last: at(28)})}},
	{"another server's file is taken", "other-server", "another DHCP server named a boot file", Input{Now: at(30), Boot: boot(asks(0), address(4))}},
	{"4011 is asked in vain", "no-proxy-answer", "asked this appliance 4 times at UDP port 4011", Input{Now: at(60),
		Boot: boot(asks(0), address(4), Step{At: at(5), Kind: Proxy, Loader: "shim", Count: 4, Last: at(12)})}},
	{"port 69 is filtered", "no-tftp", "no request for it arrived at UDP port 69", Input{Now: at(30), Boot: boot(asks(0), address(1), proxy(2))}},
	{"port 80 is filtered for iPXE", "no-http", "TCP port 80 of this appliance cannot be reached", Input{Now: at(30),
		Boot: boot(Step{At: at(0), Kind: DHCP, By: ByIPXE, Loader: "script"}, address(1))}},
	{"undionly on UEFI", "wrong-loader", "UEFI x64 firmware and fetched undionly.kpxe, which is for other firmware; this appliance offered shim", Input{Now: at(30),
		Boot: boot(asks(0), address(1), loads(2, "undionly", "undionly.kpxe"))}},
	{"snponly on BIOS", "wrong-loader", "BIOS firmware and fetched snponly.efi", Input{Now: at(30), Boot: ofBIOS(boot(asks(0), address(1), loads(2, "snponly", "snponly.efi")))}},
	{"another server's name", "loader-missing", "asked this appliance for pxelinux.0", Input{Now: at(30),
		Boot: boot(asks(0), address(1), Step{At: at(2), Kind: TFTP, File: "pxelinux.0", Problem: ProblemMissing})}},
	{"answers of TFTP are filtered", "loader-cut", "0 of the 900 bytes of shimx64.efi", Input{Now: at(40),
		Boot: boot(asks(0), address(1), proxy(2), Step{At: at(3), Kind: TFTP, Loader: "shim", File: "shimx64.efi", Length: 900, Problem: ProblemCut})}},
	{"Secure Boot is on, iPXE is fetched", "secure-boot", "it is on, and this loader is not signed", Input{Now: at(30), Inventory: inventory(func(i *job.Inventory) { i.SecureBoot = "on" }),
		Boot: boot(asks(0), address(1), loads(2, "snponly", "snponly.efi"), Step{At: at(6), Kind: DHCP, By: ByFirmware, Loader: "shim"})}},
	{"Secure Boot is on without Microsoft's CA", "secure-boot", "its keys lack Microsoft's UEFI CA", Input{Now: at(80), Boot: boot(upToLoader...),
		Inventory: inventory(func(i *job.Inventory) {
			i.SecureBoot, i.SecureBootDB = "on", []string{"Microsoft Windows Production PCA 2011"}
		})}},
	{"refused, and nobody knows of Secure Boot", "secure-boot-or-broken", "Secure Boot is on and refuses the loader; the firmware cannot run the loader", Input{Now: at(30),
		Boot: and(upToLoader, Step{At: at(9), Kind: DHCP, By: ByFirmware, Loader: "shim"})}},
	{"refused by PXE and by HTTP boot", "secure-boot-or-broken", "went on to its next boot entry 4 s later", Input{Now: at(16),
		Boot: and(upToLoader, Step{At: at(7), Kind: DHCP, By: ByFirmware, Loader: "shim"}, Step{At: at(8), Kind: HTTP, By: ByFirmware, Loader: "shim", File: "525400770010/shimx64.efi", Bytes: 9, Length: 9})}},
	{"silent, and nobody knows of Secure Boot", "secure-boot-or-hang", "Secure Boot refuses the loader; the loader hangs", Input{Now: at(80), Boot: boot(upToLoader...)}},
	{"silent with Secure Boot off", "loader-hangs", "it hangs as it starts", Input{Now: at(80), Boot: boot(upToLoader...), Inventory: inventory(func(*job.Inventory) {})}},
	{"iPXE that GRUB hands over to", "loader-hangs", "the loader snponly", Input{Now: at(90),
		Boot: and(upToLoader, script(5), Step{At: at(6), Kind: HTTP, By: ByGRUB, Loader: "snponly", File: "snponly.efi", Bytes: 9, Length: 9})}},
	{"GRUB that hangs after shim", "loader-hangs", "the loader shim", Input{Now: at(90),
		Boot: and(upToLoader, Step{At: at(5), Kind: TFTP, By: ByFirmware, File: "grubx64.efi", Bytes: 9, Length: 9})}},
	{"silent on BIOS", "loader-hangs", "undionly", Input{Now: at(80), Boot: ofBIOS(boot(asks(0), address(1), loads(2, "undionly", "undionly.kpxe")))}},
	{"script and no kernel", "script-stopped", "the loader shim of pc fetched its script", Input{Now: at(50), Boot: and(upToLoader, script(5))}},
	{"initramfs cut", "download-cut", "got 10 of the 100 bytes of initramfs", Input{Now: at(60),
		Boot: and(upToLoader, script(5), kernel(6), Step{At: at(8), Kind: Initramfs, Bytes: 10, Length: 100, Problem: ProblemCut})}},
	{"token refused", "script-late", "no DHCP exchange", Input{Now: at(200),
		Boot: and(upToKernel, Step{At: at(150), Kind: Token, Problem: ProblemRefused, Note: "no DHCP exchange of it within the last 2m0s"})}},
	{"port 443 is filtered", "appliance-unreachable", "10.77.0.1:443: i/o timeout", Input{Now: at(40), Boot: and(upToKernel, agent(15), trouble(30, job.TroubleUnreachable, "10.77.0.1:443: i/o timeout"))}},
	{"another computer answers", "wrong-certificate", "the clock of this appliance is wrong", Input{Now: at(40), Boot: and(upToKernel, agent(15), trouble(30, job.TroubleCertificate, "certificate has expired"))}},
	{"its token was used", "boot-refused", "was replaced by a later one", Input{Now: at(40), Boot: and(upToKernel, agent(15), trouble(30, job.TroubleRefused, "the boot token was replaced by a later one"))}},
	{"its agent has no address", "agent-unreached", "no DHCP server gives the agent an address; this appliance cannot be reached", Input{Now: at(120),
		Boot: and(upToKernel, Step{At: at(15), Kind: AgentDHCP, Count: 30, Last: at(118)})}},
	{"a card without a driver", "agent-silent-no-driver", "no driver for the network card 14e4:1234 at 0000:02:00.0", Input{Now: at(120), Boot: boot(upToKernel...),
		Inventory: inventory(func(i *job.Inventory) { i.NoDriver = []job.PCI{{Slot: "0000:02:00.0", ID: "14e4:1234"}} })}},
	{"silent after the kernel", "agent-silent", "no driver for the network card; the switch port does not forward", Input{Now: at(120), Boot: boot(upToKernel...)}},
	{"GRUB finds no disk", "no-disk-starts", "found none that starts", Input{Now: at(10), Boot: and(upToLoader, script(5), Step{At: at(5), Kind: Local}, Step{At: at(6), Kind: NoDisk})}},
	{"its own disk by a person's word", "own-disk-by-override", "though a job waits", Input{Now: at(10), Override: "local", Work: &Work{ID: "j1", State: job.Waiting},
		Boot: and(upToLoader, script(5), Step{At: at(5), Kind: Local})}},
	{"its own disk, twice", "own-disk-loop", "came back 20 s later", Input{Now: at(40), Last: and(upToLoader, Step{At: at(5), Kind: Local}),
		Boot: boot(asks(25), Step{At: at(30), Kind: Local})}},
	{"its own disk", "own-disk", "no job for it", Input{Now: at(10), Boot: and(upToLoader, Step{At: at(5), Kind: Local})}},
	{"new", "not-admitted", "the code K7PQ-4XWM", Input{Now: at(30), Boot: boot(upToKernel...), Hello: at(20), Told: at(20), Code: "K7PQ-4XWM"}},
	{"no disk", "no-disk", "there is no disk, or its cable is loose", Input{Now: at(40), Boot: boot(upToKernel...), Hello: at(20), Told: at(20), Admitted: true,
		Work: paused("no-disk", "no fixed disk was found."), Inventory: inventory(func(i *job.Inventory) { i.Disks = nil })}},
	{"a controller in RAID mode", "raid-mode", "8086:2822 at 0000:00:17.0 of pc is in RAID (Intel RST) mode, and it hides 1 NVMe disks", Input{Now: at(40), Boot: boot(upToKernel...), Hello: at(20), Told: at(20), Admitted: true,
		Work: paused("no-disk", "no fixed disk was found."), Inventory: inventory(func(i *job.Inventory) {
			i.Disks = nil
			i.Controllers = []job.Controller{{PCI: job.PCI{Slot: "0000:00:17.0", ID: "8086:2822"}, Class: "0104", Driver: "ahci", Mode: job.ModeRAID, Hidden: 1}}
		})}},
	{"VMD without disks", "raid-mode", "is in Intel VMD mode", Input{Now: at(40), Boot: boot(upToKernel...), Hello: at(20), Told: at(20), Admitted: true,
		Inventory: inventory(func(i *job.Inventory) {
			i.Disks = nil
			i.Controllers = []job.Controller{{PCI: job.PCI{Slot: "0000:00:0e.0", ID: "8086:9a0b"}, Class: "0104", Mode: job.ModeVMD}}
		})}},
	{"a small disk", "too-small", "there is sda (sata, 8 GB)", Input{Now: at(40), Boot: boot(upToKernel...), Hello: at(20), Told: at(20), Admitted: true,
		Work: paused("too-small", "image x:1 needs a disk of 64 GB, and there is sda (sata, 8 GB).")}},
	{"two disks", "ambiguous-disk", "nobody said which", Input{Now: at(40), Boot: boot(upToKernel...), Hello: at(20), Told: at(20), Admitted: true,
		Work: &Work{ID: "j1", Kind: job.Deploy, State: job.Failed, Code: "ambiguous-disk", Reason: "2 disks would do"}}},
	{"other sectors", "sector-size", "another length", Input{Now: at(40), Boot: boot(upToKernel...), Hello: at(20), Told: at(20), Admitted: true, Work: paused("sector-size", "sectors of 4096 bytes")}},
	{"a broken disk", "job-failed", "(write-error): sda cannot be written", Input{Now: at(40), Boot: boot(upToKernel...), Hello: at(20), Told: at(20), Admitted: true,
		Work: &Work{ID: "j1", Kind: job.Deploy, State: job.Failed, Code: "write-error", Reason: "sda cannot be written"}}},
	{"port 6881 is filtered", "swarm-blocked", "no connection to 10.77.0.1:6881: i/o timeout", Input{Now: at(60), Boot: boot(upToKernel...), Hello: at(20), Told: at(20), Admitted: true,
		Work: &Work{ID: "j1", Kind: job.Deploy, State: job.Running, Phase: job.PhaseStart, Warnings: []string{job.WarnNoSwarm + "10.77.0.1:6881: i/o timeout"}, Reported: at(59)}}},
	{"a second card without a driver", "nic-without-driver", "it works by another one", Input{Now: at(40), Boot: boot(upToKernel...), Hello: at(20), Told: at(20), Admitted: true,
		Inventory: inventory(func(i *job.Inventory) { i.NoDriver = []job.PCI{{Slot: "0000:03:00.0", ID: "1d6a:07b1"}} })}},
	{"silent in the middle of its job", "agent-lost", "for 3m0s, in the middle of its job", Input{Now: at(220), Boot: boot(upToKernel...), Hello: at(20), Told: at(20), Heard: at(40), Admitted: true,
		Work: &Work{ID: "j1", Kind: job.Deploy, State: job.Running, Phase: job.PhaseContent, Peers: 1, Reported: at(40)}}},
	{"switched off since", "agent-gone", "it is off, or runs its own system", Input{Now: at(7220), Hello: at(20), Told: at(20), Admitted: true, Inventory: inventory(func(*job.Inventory) {})}},
	{"at work", "working", "at work on its job (running)", Input{Now: at(40), Boot: boot(upToKernel...), Hello: at(20), Told: at(20), Admitted: true,
		Work: &Work{ID: "j1", Kind: job.Deploy, State: job.Running, Phase: job.PhaseContent, Peers: 1, Reported: at(39)}}},
	{"idle", "in-agent", "nothing to do now", Input{Now: at(40), Boot: boot(upToKernel...), Hello: at(20), Told: at(20), Admitted: true, Inventory: inventory(func(*job.Inventory) {})}},
	{"in the middle of its loader", "on-the-way", "fetches 525400770010/shimx64.efi by TFTP", Input{Now: at(10), Boot: boot(upToLoader...)}},
	{"on its way again, and stopped before", "agent-silent", "said nothing since", Input{Now: at(205), Last: boot(upToKernel...), Boot: boot(asks(200))}},
	{"on its way after a boot that went well", "on-the-way", "asks for an address", Input{Now: at(205), Last: and(upToLoader, Step{At: at(5), Kind: Local}), Boot: boot(asks(200))}},
	{"an agent that ran before the present boot", "on-the-way", "asks for an address", Input{Now: at(205), Hello: at(20), Told: at(20), Admitted: true, Last: boot(upToKernel...), Boot: boot(asks(200))}},
}

func TestEachEvidenceGivesItsVerdict(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range examples {
		e.in.Name = "pc"
		v := Judge(e.in)
		seen[v.Case] = true
		if v.Case != e.want {
			t.Errorf("%s: the verdict is %s, want %s: %s", e.name, v.Case, e.want, v.Sentence)
			continue
		}
		if text := v.Sentence + " " + strings.Join(v.Causes, "; "); !strings.Contains(text, e.words) {
			t.Errorf("%s: no word of %q in %q", e.name, e.words, text)
		}
		if text := v.Sentence + v.Next + strings.Join(v.Causes, ""); regexp.MustCompile(`\{[a-z]+\}`).MatchString(text) {
			t.Errorf("%s: a fact is missing in %q", e.name, text)
		}
		if (v.Level != Fine) != (v.Next != "") {
			t.Errorf("%s: level %s with the next step %q", e.name, v.Level, v.Next)
		}
	}
	for _, c := range Cases {
		if !seen[c.Name] {
			t.Errorf("no example gives the case %s", c.Name)
		}
	}
}

// What an earlier boot left stands beside the verdict on the present one, with its time, for a day.
func TestWhatAnEarlierBootLeftIsToldBesideTheVerdict(t *testing.T) {
	left := job.Left{Code: job.TroubleUnreachable, Text: "10.77.0.1:443: i/o timeout.", At: at(-300)}
	in := Input{Name: "pc", Now: at(40), Boot: boot(upToKernel...), Hello: at(20), Told: at(20), Admitted: true, Left: &left, Inventory: inventory(func(*job.Inventory) {})}
	v := Judge(in)
	if v.Case != "in-agent" || v.Left == nil || !v.Left.At.Equal(left.At) ||
		v.Left.Sentence != "in a boot before this one the agent of pc got no answer of this appliance: 10.77.0.1:443: i/o timeout" || !strings.Contains(v.Left.Next, "TCP port 443") {
		t.Errorf("the verdict is %+v, with %+v", v, v.Left)
	}
	for code := range leftTexts {
		left.Code = code
		if e := Judge(in).Left; e == nil || e.Sentence == "" || e.Next == "" || strings.ContainsAny(e.Sentence+e.Next, "{}") {
			t.Errorf("%s: %+v", code, e)
		}
	}
	left.Code = "of a later version"
	if e := Judge(in).Left; e != nil {
		t.Errorf("a code that is not known says %+v", e)
	}
	left.Code, in.Now = job.LeftNoLink, at(20).Add(25*time.Hour)
	if e := Judge(in).Left; e != nil {
		t.Errorf("a day later it is still told: %+v", e)
	}
	if e := Judge(Input{Name: "pc", Now: at(40), Boot: boot(upToKernel...)}).Left; e != nil {
		t.Errorf("of nothing that was left it says %+v", e)
	}
}

func TestEachCaseSaysWhatIsLeftForTheNextBoot(t *testing.T) {
	for _, c := range Cases {
		if !strings.HasPrefix(c.Leaves, "nothing") && !strings.HasPrefix(c.Leaves, inVariable) && c.Name != "agent-lost" {
			t.Errorf("%s leaves %q", c.Name, c.Leaves)
		}
	}
}

// A boot is judged at each moment, however it goes on: there is always a verdict, and none panics.
func TestThereIsAVerdictAtEachMoment(t *testing.T) {
	for _, e := range examples {
		for n := range len(e.in.Boot.Steps) + 1 {
			for _, seconds := range []int{0, 10, 25, 61, 95, 1000} {
				in := e.in
				in.Boot.Steps, in.Now = in.Boot.Steps[:n], at(seconds)
				if v := Judge(in); v.Sentence == "" || Find(v.Case) == nil {
					t.Fatalf("%s after %d steps and %d s: %+v", e.name, n, seconds, v)
				}
			}
		}
	}
}

func TestTheManualHasTheTable(t *testing.T) {
	const file, from, to = "../README.md", "<!-- boot doctor -->\n", "<!-- /boot doctor -->\n"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), from)
	was, after, closed := strings.Cut(rest, to)
	if !ok || !closed {
		t.Fatalf("%s has no place for the table of cases: %s", file, from)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+from+Table()+to+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if was != Table() {
		t.Errorf("the table of boot failures in %s is not that of the cases; `go test ./appliance/bootdoctor -update` writes it", file)
	}
}

func TestEachStepHasAText(t *testing.T) {
	for _, k := range Road {
		s := Step{Kind: k, By: "by", Loader: "loader", File: "file", Note: "note"}
		if s.String() == "" || strings.ContainsAny(s.String(), "{}") {
			t.Errorf("%s: %q", k, s.String())
		}
	}
}

// What machines say is put into sentences as it is, whatever it looks like.
func TestFactsAreNotFilledAgain(t *testing.T) {
	for range 100 {
		if got := Fill("{file} of {name}: {note}", map[string]string{"file": "{note}", "name": "{file}{name}", "note": "{file}"}); got != "{note} of {file}{name}: {file}" {
			t.Fatal(got)
		}
	}
}
