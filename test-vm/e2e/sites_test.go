package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/job"
	"seedbed/images/repository/s3/s3test"
	"seedbed/test-vm/golden"
	"seedbed/test-vm/lab"
	"seedbed/test-vm/postgres"
)

// site are appliances that share records in PostgreSQL and images in an object store.
type site struct {
	*room
	appliances []*lab.Appliance
}

// openSite starts the appliances of a site, the first of which brings its identity to the others.
func (r *room) openSite(n int) *site {
	t := r.t
	t.Helper()
	flags := []string{"--store", postgres.Start(t).Database(),
		"--repository", "s3://images/site?endpoint=" + s3test.StartIn(t, r.Servers(), fmt.Sprintf("%s:9000", lab.DHCPAddr), "images")}
	first, err := r.Appliance(program, bootDir)
	must(t, err)
	s := &site{r, []*lab.Appliance{first}}
	for len(s.appliances) < n {
		a, err := r.AnotherAppliance(t.Context(), program, bootDir)
		must(t, err)
		s.appliances = append(s.appliances, a)
	}
	pass, identity := filepath.Join(r.Dir, "passphrase"), filepath.Join(r.Dir, "site.pem")
	must(t, os.WriteFile(pass, []byte("correct horse battery\n"), 0o600))
	for i, a := range s.appliances {
		if a.Flags = flags; i > 0 {
			r.seedbed(a, "site", "import", identity, "--passphrase-file", pass)
		}
		must(t, a.Start(t.Context()))
		if i == 0 {
			r.seedbed(a, "site", "export", identity, "--passphrase-file", pass)
		}
	}
	return s
}

// await waits until all appliances name all others in the script by which machines start.
func (s *site) await() {
	t := s.t
	t.Helper()
	for _, a := range s.appliances {
		poll(t, 30*time.Second, "the appliances name each other in scripts", func() bool {
			script, err := s.Output(t.Context(), "curl", "-sS", "--max-time", "5", "http://"+a.Addr.String()+"/boot.ipxe")
			return err == nil && !slices.ContainsFunc(s.appliances, func(o *lab.Appliance) bool { return !strings.Contains(string(script), "http://"+o.Addr.String()+"/") })
		})
	}
}

// poll asks until something is so.
func poll(t *testing.T, most time.Duration, what string, is func() bool) {
	t.Helper()
	ctx := within(t, most)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("after %v still not: %s", most, what)
		}
	}
}

// kill ends an appliance without a warning.
func (s *site) kill(a *lab.Appliance) {
	s.t.Helper()
	must(s.t, a.Kill())
	s.appliances = slices.DeleteFunc(s.appliances, func(o *lab.Appliance) bool { return o == a })
}

// named is the appliance whose address is the first group of a pattern in what the machine last wrote to its serial line.
func (s *site) named(boot *lab.Boot, pattern *regexp.Regexp) *lab.Appliance {
	s.t.Helper()
	all := pattern.FindAllStringSubmatch(boot.Serial.String(), -1)
	if len(all) == 0 {
		s.t.Fatalf("%s is not on the serial line, which ends:\n%s", pattern, boot.Serial.Tail(15))
	}
	for _, a := range s.appliances {
		if a.Addr.String() == all[len(all)-1][1] {
			return a
		}
	}
	s.t.Fatalf("no appliance that runs is %s", all[len(all)-1][1])
	return nil
}

// What a machine writes of the appliance from which its loader fetches the agent, and of the one that its agent speaks with.
var (
	loads  = regexp.MustCompile(`http://([0-9.]+)/boot/(?:vmlinuz|initramfs)`)
	speaks = regexp.MustCompile(`the appliance at https://([0-9.]+)(?::[0-9]+)? answered`)
)

// TestAMachineIsImagedThoughTwoOfThreeAppliancesAreKilledUnderIt loses the one that gives it the agent, and the one that gave it its
// job; the third one brings it to its login prompt.
func TestAMachineIsImagedThoughTwoOfThreeAppliancesAreKilledUnderIt(t *testing.T) {
	if os.Getenv("SEEDBED_FULL") == "" {
		t.Skip("a minute: package appliance has it with simulated loaders; `make test-full` runs it")
	}
	r := openRoom(t, "sites", lab.Config{})
	file := image(t, golden.Mini)
	s := r.openSite(3)
	r.seedbed(s.appliances[0], "image", "add", file, "--name", "mini", "--compress", "none")
	r.seedbed(s.appliances[0], "deploy", "mini", "--all")
	s.await()

	m := r.machine("lone", lab.BIOS, r.empty("lone", golden.DiskLength))
	began := time.Now()
	boot := start(t, m, lab.StartOptions{StopAtReboot: true})
	want := takeApart(t, file, r.Dir)
	_, err := boot.WaitFor(within(t, time.Minute), "/boot/vmlinuz")
	must(t, err)
	s.kill(s.named(boot, loads))
	_, err = boot.WaitFor(within(t, 2*time.Minute), " answered\n")
	must(t, err)
	if !boot.Serial.Contains("Seedbed: download broken off") {
		t.Error("the appliance was killed too late: the machine had its agent already")
	}
	t.Logf("the agent spoke %.0f s after power on", time.Since(began).Seconds())
	second := s.named(boot, speaks)
	last := s.appliances[1-slices.Index(s.appliances, second)]
	middle := waitJob(t, last, m, 2*time.Minute, heldShare(20))
	if middle.State == job.Succeeded {
		t.Fatal("the machine was done before its second appliance was killed")
	}
	s.kill(second)
	killed := time.Now()
	must(t, boot.WaitEnd(within(t, 4*time.Minute)))
	j := waitJob(t, last, m, 10*time.Second, succeeded)
	t.Logf("killed at %d of %d bytes; done %.0f s later", middle.Held, middle.Total, time.Since(killed).Seconds())
	if j.Epoch != 1 || j.Verified < j.Total {
		t.Errorf("the job was claimed %d times, %d of %d bytes were verified", j.Epoch, j.Verified, j.Total)
	}
	checkEvents(t, last, m)

	copied := filepath.Join(r.Dir, "judge-lone")
	must(t, m.Config.Disks[0].Copy(t.Context(), copied))
	again := start(t, m, lab.StartOptions{})
	want.judge(t, copied, r.Dir)
	must(t, again.WaitBoot(within(t, bootLimit), golden.LoginPrompt))
	must(t, again.Cut())
}

// TestEveryFirmwareTurnsToAnotherApplianceWhenItsOwnIsKilledOnTheWay has the appliance killed that rendered the machine's first script.
func TestEveryFirmwareTurnsToAnotherApplianceWhenItsOwnIsKilledOnTheWay(t *testing.T) {
	if os.Getenv("SEEDBED_FULL") == "" {
		t.Skip("minutes: loaders try long before they turn to another appliance; `make test-full` runs it")
	}
	for name, firmware := range map[string]lab.Firmware{"bios": lab.BIOS, "uefi": lab.UEFI, "secure": lab.SecureBoot} {
		t.Run(name, func(t *testing.T) {
			r := openRoom(t, "sites-"+name, lab.Config{})
			file := image(t, golden.Mini)
			s := r.openSite(2)
			r.seedbed(s.appliances[0], "image", "add", file, "--name", "mini")
			r.seedbed(s.appliances[0], "deploy", "mini", "--all")
			s.await()
			m := r.machine(name, firmware, r.empty(name, diskLength))
			boot := start(t, m, lab.StartOptions{})
			var own *lab.Appliance
			poll(t, 2*time.Minute, "an appliance renders the machine's script", func() bool {
				for _, a := range s.appliances {
					if list, err := a.Machines(t.Context()); err == nil && slices.ContainsFunc(list, func(v api.Machine) bool { return v.Stage == "script" || v.Stage == "kernel" }) {
						own = a
						return true
					}
				}
				return false
			})
			s.kill(own)
			killed := time.Now()
			// GRUB waits for minutes in the middle of a file. Its machine may have to start again: what the dead appliance heard of it
			// just before nobody else knows.
			_, err := boot.WaitFor(within(t, 10*time.Minute), " answered\n")
			must(t, err)
			t.Logf("the agent spoke %.0f s after the kill", time.Since(killed).Seconds())
			if other := s.named(boot, speaks); other == own {
				t.Error("the agent spoke with the one that was killed")
			}
			waitJob(t, s.appliances[0], m, 4*time.Minute, succeeded)
			must(t, boot.WaitBoot(within(t, bootLimit), golden.LoginPrompt))
			must(t, boot.Cut())
		})
	}
}
