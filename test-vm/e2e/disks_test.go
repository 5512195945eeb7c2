package e2e

import (
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/test-vm/golden"
	"seedbed/test-vm/lab"
)

func TestTheRightOneOfThreeDisksIsWrittenAndADiskThatIsTooSmallKeepsEveryByte(t *testing.T) {
	r := openRoom(t, "disks", lab.Config{})
	a := r.serve()
	detail, err := a.AddImage(t.Context(), "mini", image(t, golden.Mini))
	must(t, err)
	_, err = a.Command(t.Context(), "deploy", "mini", "--all")
	must(t, err)

	small, right, stick, only := r.used("small", smallLength), r.empty("right", diskLength), r.used("stick", diskLength), r.used("only", smallLength)
	stick.Bus = lab.USB
	sums := map[string]string{}
	for _, d := range []lab.Disk{small, stick, only} {
		sums[d.Path] = sum(t, d)
	}
	several := r.display("several", lab.BIOS, small, right, stick)
	single := r.display("single", lab.UEFI, only)
	severalBoot := start(t, several, lab.StartOptions{})
	singleBoot := start(t, single, lab.StartOptions{})

	showsProgress(t, a, several, severalBoot)
	paused := waitJob(t, a, single, 3*time.Minute, func(j *api.Job) bool { return j.State == job.Paused })
	need := least(detail.Manifest)
	if paused.Code != "too-small" || !strings.Contains(paused.Reason, digits(need)) || !strings.Contains(paused.Reason, digits(smallLength)) {
		t.Errorf("the job of the machine with a disk that is too small says %q (%s), not both figures, %d and %d", paused.Reason, paused.Code, need, smallLength)
	}
	shows(t, singleBoot, map[string]string{paused.MachineName: lab.White, "paused": lab.Yellow, "disk too small": lab.White})
	examine(t, a, single, "too-small", digits(smallLength)+" bytes", "larger disk")
	must(t, single.Cut())
	j := waitJob(t, a, several, 5*time.Minute, succeeded)
	if j.DiskSerial != right.Serial {
		t.Errorf("disk %s (%s) was written, not %s", j.Disk, j.DiskSerial, right.Serial)
	}
	must(t, severalBoot.WaitBoot(within(t, bootLimit), golden.LoginPrompt))
	must(t, several.Cut())
	for _, d := range []lab.Disk{small, stick, only} {
		if sum(t, d) != sums[d.Path] {
			t.Errorf("disk %s was changed", d.Serial)
		}
	}
}

// least is the least length of a disk that holds the image, in bytes: the partitions and the backup table's 33 sectors.
func least(m *images.Manifest) int64 { return m.EndOfPartitions() + 33*int64(m.SectorLength) }

// used makes a disk which holds something already, though nothing that boots.
func (r *room) used(name string, length int64) lab.Disk {
	r.t.Helper()
	d := r.empty(name, length)
	b := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte([]byte(strings.Repeat(name, 32))[:32])).Read(b)
	clear(b[510:512]) // no boot signature
	f, err := os.OpenFile(d.Path, os.O_WRONLY, 0)
	must(r.t, err)
	defer f.Close()
	for _, at := range []int64{0, length / 2, length - int64(len(b))} {
		_, err := f.WriteAt(b, at)
		must(r.t, err)
	}
	return d
}

func sum(t *testing.T, d lab.Disk) string {
	t.Helper()
	s, err := d.Sum()
	must(t, err)
	return s
}
