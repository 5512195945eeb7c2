package e2e

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"seedbed/test-vm/golden"
	"seedbed/test-vm/lab"
)

// bootLimit is how long a machine without a job may take to its login prompt.
const bootLimit = 5 * time.Minute

func TestThreeMachinesGetTheImageThroughTheSwarmBesideAForeignDHCPServer(t *testing.T) {
	r := openRoom(t, "swarm", lab.Config{})
	file := image(t, golden.Debian)
	a := r.serve()
	detail, err := a.AddImage(t.Context(), "golden", file)
	must(t, err)
	_, err = a.Command(t.Context(), "deploy", "golden", "--all")
	must(t, err)
	machines := []*lab.Machine{
		r.machine("bios", lab.BIOS, r.empty("bios", diskLength)),
		r.machine("uefi", lab.UEFI, r.empty("uefi", diskLength)),
		r.machine("secure", lab.SecureBoot, r.empty("secure", diskLength)),
	}
	before, err := r.Traffic(t.Context())
	must(t, err)
	counting, received := countFromJob(t, a, machines), map[string]int64{} // by MAC
	var boots []*lab.Boot
	for _, m := range machines {
		boots = append(boots, start(t, m, lab.StartOptions{StopAtReboot: true}))
	}
	want := takeApart(t, file, r.Dir) // while the machines boot
	for i, m := range machines {
		must(t, boots[i].WaitEnd(within(t, 6*time.Minute)))
		received[m.MAC.String()] = counting.received(m)
		j := waitJob(t, a, m, 10*time.Second, succeeded)
		if j.Verified < j.Total || j.Total == 0 {
			t.Errorf("machine %s: %d of %d bytes verified", m.Config.Name, j.Verified, j.Total)
		}
		secure := map[lab.Firmware]string{lab.SecureBoot: "on", lab.UEFI: "off"}[m.Config.Firmware]
		if j.SecureBoot != secure {
			t.Errorf("machine %s: Secure Boot is %q, reported as %q", m.Config.Name, secure, j.SecureBoot)
		}
		t.Logf("%s: from appliance %.1f MB, from peers %.1f MB, agent's word %.0f s after the first packet, done after %.0f s", m.Config.Name,
			float64(j.FromAppliance)/1e6, float64(j.FromPeers)/1e6, j.HelloAt.Sub(j.BootSeen).Seconds(), j.Ended.Sub(j.BootSeen).Seconds())
	}
	after, err := r.Traffic(t.Context())
	must(t, err)
	sent := float64(after.Sent-before.Sent-bootFiles(t, machines)) / float64(detail.EncodedLength)
	t.Logf("the appliance sent %.2f images of traffic for three machines", sent)
	if sent >= 2 {
		t.Errorf("the appliance sent %.2f images of traffic, not less than 2.0", sent)
	}
	journalAddsUp(t, a, detail, received)
	// The copies are judged while the machines boot what they got; with the appliance there they have no job any more.
	var judged sync.WaitGroup
	for i, m := range machines {
		copied := filepath.Join(r.Dir, "judge-"+m.Config.Name)
		must(t, m.Config.Disks[0].Copy(t.Context(), copied))
		boots[i] = start(t, m, lab.StartOptions{})
		judged.Go(func() { want.judge(t, copied, r.Dir) })
	}
	loginAll(t, boots, bootLimit)
	judged.Wait()
}

// bootFiles returns the bytes of kernel and initramfs, which every machine gets once; what else travels counts as traffic.
func bootFiles(t *testing.T, machines []*lab.Machine) (n int64) {
	for _, name := range []string{"vmlinuz", "initramfs.cpio.zst"} {
		info, err := os.Stat(filepath.Join(bootDir, name))
		must(t, err)
		n += info.Size() * int64(len(machines))
	}
	return n
}

// loginAll waits until every machine shows the login prompt, each within limit of now, and switches it off then.
func loginAll(t *testing.T, boots []*lab.Boot, limit time.Duration) {
	t.Helper()
	ctx := within(t, limit)
	began := time.Now()
	var waiting sync.WaitGroup
	for _, b := range boots {
		waiting.Go(func() {
			if err := b.WaitBoot(ctx, golden.LoginPrompt); err != nil {
				t.Error(err)
				return
			}
			t.Logf("%s: login prompt after %.0f s", b.Name, time.Since(began).Seconds())
			if err := b.Cut(); err != nil {
				t.Error(err)
			}
		})
	}
	waiting.Wait()
}

func TestMachinesBootTheirDisksWithoutTheAppliance(t *testing.T) {
	r := openRoom(t, "alone", lab.Config{})
	loginAll(t, r.deployedMachines(golden.Mini, lab.BIOS, lab.SecureBoot), bootLimit)
}

func TestMachinesBootTheirDisksWithoutAnyDHCPServer(t *testing.T) {
	r := openRoom(t, "silence", lab.Config{WithoutDHCP: true})
	loginAll(t, r.deployedMachines(golden.Mini, lab.BIOS, lab.UEFI), bootLimit)
}

// deployedMachines switches on machines whose disks hold a golden image.
func (r *room) deployedMachines(kind golden.Kind, firmwares ...lab.Firmware) (boots []*lab.Boot) {
	r.t.Helper()
	file := image(r.t, kind)
	names := map[lab.Firmware]string{lab.BIOS: "bios", lab.UEFI: "uefi", lab.SecureBoot: "secure"}
	for _, f := range firmwares {
		m := r.machine(names[f], f, r.deployed(names[f], file))
		boots = append(boots, start(r.t, m, lab.StartOptions{}))
	}
	return boots
}
