//go:build full

package e2e

import (
	"testing"
	"time"

	"seedbed/test-vm/golden"
	"seedbed/test-vm/lab"
)

func TestTheBootDoctorSaysThatTFTPIsBlocked(t *testing.T) {
	stage(t, fault{"tftp", lab.UEFI, lab.Config{}, []lab.Service{lab.TFTP}, "no-tftp", []string{"UDP port 69"}})
}

// What goes wrong once the agent runs; each machine boots a kernel.
func TestTheBootDoctorSaysWhatStopsTheAgent(t *testing.T) {
	for _, c := range []struct {
		name  string
		block []lab.Service
		disk  int64 // bytes; 0 is none
		want  string
		words []string
	}{
		{"nodisk", nil, 0, "no-disk", []string{"no disk that can be written", "its cable is loose", "switched off in the firmware"}},
		{"small", nil, smallLength, "too-small", []string{"134217728 bytes", "larger disk"}},
		{"agents", []lab.Service{lab.Agents}, diskLength, "appliance-unreachable", []string{"10.77.0.1:443", "TCP port 443"}},
		{"swarm", []lab.Service{lab.Swarm}, diskLength, "swarm-blocked", []string{"no connection to 10.77.0.1:6881", "TCP port 6881"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := openRoom(t, "doctor-"+c.name, lab.Config{})
			a := r.serve()
			_, err := a.AddImage(t.Context(), "mini", image(t, golden.Mini))
			must(t, err)
			_, err = a.Command(t.Context(), "deploy", "mini", "--all")
			must(t, err)
			for _, s := range c.block {
				must(t, r.Block(t.Context(), s))
			}
			var disks []lab.Disk
			if c.disk > 0 {
				disks = append(disks, r.empty(c.name, c.disk))
			}
			began := time.Now()
			m := r.machine(c.name, lab.BIOS, disks...)
			start(t, m, lab.StartOptions{})
			examine(t, a, m, c.want, c.words...)
			t.Logf("%s after %v", c.want, time.Since(began).Round(time.Second))
		})
	}
}
