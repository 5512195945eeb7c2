//go:build full

package e2e

import (
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/job"
	"seedbed/test-vm/golden"
	"seedbed/test-vm/lab"
)

// The long counts of `make test-full`.

// powerCuts is how often one machine loses its power before it may finish; every other time the appliance is killed too.
const powerCuts = 8

func TestAMachineFinishesAfterManyPowerCutsAndKilledAppliances(t *testing.T) {
	r := openRoom(t, "cuts", lab.Config{})
	a := r.serve()
	file := image(t, golden.Mini)
	_, err := a.Command(t.Context(), "image", "add", file, "--name", "mini", "--compress", "none")
	must(t, err)
	_, err = a.Command(t.Context(), "deploy", "mini", "--all")
	must(t, err)
	m := r.machine("cut", lab.BIOS, r.empty("cut", diskLength))
	var fetched, total int64
	for i := range powerCuts {
		share := int64(5 + rand.IntN(90))
		start(t, m, lab.StartOptions{StopAtReboot: true})
		began := time.Now()
		j := waitJob(t, a, m, 4*time.Minute, func(j *api.Job) bool {
			return j.BootSeen.After(began) && heldShare(share)(j)
		})
		if j.State == job.Succeeded {
			t.Fatalf("the machine was done before cut %d of %d", i+1, powerCuts)
		}
		must(t, m.Cut())
		fetched, total = fetched+j.FromAppliance+j.FromPeers, j.Total
		t.Logf("cut %d at %d %%: %d bytes held, %d of them before this boot", i+1, share, j.Held, j.Resumed)
		if i%2 == 1 {
			must(t, a.Kill())
			must(t, a.Start(t.Context()))
		}
		alone := start(t, m, lab.StartOptions{Unplugged: true})
		_, err = alone.WaitFor(within(t, time.Minute), "No bootable device")
		must(t, err)
		must(t, alone.Cut())
	}
	last := start(t, m, lab.StartOptions{StopAtReboot: true})
	must(t, last.WaitEnd(within(t, 5*time.Minute)))
	j := waitJob(t, a, m, 10*time.Second, succeeded)
	fetched += j.FromAppliance + j.FromPeers
	t.Logf("%d bytes fetched in %d boots, the image has %d: %.2f", fetched, powerCuts+1, total, float64(fetched)/float64(total))
	if float64(fetched) >= 1.1*float64(total) {
		t.Errorf("%d bytes were fetched for an image of %d", fetched, total)
	}
	copied := filepath.Join(r.Dir, "judge-cut")
	must(t, m.Config.Disks[0].Copy(t.Context(), copied))
	takeApart(t, file, r.Dir).judge(t, copied, r.Dir)
}

func TestEveryFirmwareBootsItsDebianDiskWithoutTheApplianceAndWithoutDHCP(t *testing.T) {
	for name, firmware := range map[string]lab.Firmware{"bios": lab.BIOS, "uefi": lab.UEFI, "secure": lab.SecureBoot} {
		t.Run(name+" without the appliance", func(t *testing.T) {
			loginAll(t, openRoom(t, "alone-"+name, lab.Config{}).deployedMachines(golden.Debian, firmware), bootLimit)
		})
		t.Run(name+" without DHCP", func(t *testing.T) {
			loginAll(t, openRoom(t, "silence-"+name, lab.Config{WithoutDHCP: true}).deployedMachines(golden.Debian, firmware), bootLimit)
		})
	}
}
