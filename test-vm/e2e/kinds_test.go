package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/test-vm/golden"
	"seedbed/test-vm/lab"
)

// TestDisksAreVerifiedRepairedKeptCleanAndWiped has two machines, named by a table before anybody has seen them, do the jobs that
// belong to no deployment. What became of their disks is looked at from outside.
func TestDisksAreVerifiedRepairedKeptCleanAndWiped(t *testing.T) {
	r := openRoom(t, "kinds", lab.Config{})
	file := image(t, golden.Mini)
	a := r.serve()
	// Stored as they are, tiles weigh on the wire what they weigh on the disk.
	r.seedbed(a, "image", "add", file, "--name", "mini", "--compress", "none")
	worn := r.machine("worn", lab.BIOS, r.copied("worn", file))
	other := r.used("other", smallLength)
	other.Bus = lab.SATA
	old := r.machine("old", lab.BIOS, r.copied("system", file), other)
	r.known(a, worn, old)
	r.seedbed(a, "group", "new", "kiosks")
	r.seedbed(a, "group", "add", "kiosks", "worn")
	original := takeApart(t, file, r.Dir)

	t.Run("a damaged disk", func(t *testing.T) {
		t.Parallel()
		(&room{r.Lab, t}).mends(a, worn, original)
	})
	t.Run("a disk that is given away", func(t *testing.T) {
		t.Parallel()
		(&room{r.Lab, t}).retires(a, old)
	})
}

// mends has a machine find out what is wrong with its disk, put it right, and keep it so.
func (r *room) mends(a *lab.Appliance, m *lab.Machine, original *source) {
	t, disk := r.t, m.Config.Disks[0]
	right := sum(t, disk)
	damage := original.wound(t, disk.Path, 20)
	wrong := sum(t, disk)

	r.seedbed(a, "machine", "verify", m.Config.Name, "--image", "mini")
	verified := r.bootFor(a, m, job.VerifyDisk)
	if verified.State != job.Failed || verified.Code != job.CodeDamaged || verified.Found == nil || verified.Found.Table || !sameDamage(verified.Found.Damage, damage) {
		t.Errorf("the verify is %s (%s), and found %+v; there are %+v", verified.State, verified.Code, verified.Found, damage)
	}
	for _, d := range damage {
		if want := fmt.Sprintf("%d of", d.Tiles); !strings.Contains(verified.Reason, want) || !strings.Contains(verified.Reason, fmt.Sprintf("of partition %d differ", d.Partition)) {
			t.Errorf("the verify says %q, not how much of partition %d differs", verified.Reason, d.Partition)
		}
	}
	if sum(t, disk) != wrong {
		t.Error("the verify changed the disk")
	}

	r.seedbed(a, "machine", "repair", m.Config.Name, "--image", "mini")
	repaired := r.bootFor(a, m, job.RepairDisk)
	_, length := repaired.Found.Sum()
	fetched := repaired.FromAppliance + repaired.FromPeers
	t.Logf("%d bytes were damaged, %d fetched, %d written", length, fetched, repaired.Written)
	switch {
	case repaired.State != job.Succeeded || !sameDamage(repaired.Found.Damage, damage):
		t.Errorf("the repair is %s (%s), and mended %+v; there were %+v", repaired.State, repaired.Reason, repaired.Found, damage)
	case repaired.Written != length || float64(fetched) > 1.2*float64(length):
		t.Errorf("%d bytes were written and %d fetched to mend %d", repaired.Written, fetched, length)
	}
	if sum(t, disk) != right {
		t.Error("the disk was not mended as it was")
	}

	r.seedbed(a, "group", "edit", "kiosks", "--keep-clean")
	original.wound(t, disk.Path, 7)
	cleaned := r.bootFor(a, m, job.RepairDisk)
	if tiles, _ := cleaned.Found.Sum(); cleaned.ID == repaired.ID || cleaned.Work.Policy == "" || cleaned.State != job.Succeeded || tiles != 2*7 {
		t.Errorf("the repair of the policy is job %s (%s, %s), and mended %+v", cleaned.ID, cleaned.State, cleaned.Reason, cleaned.Found)
	}
	if sum(t, disk) != right {
		t.Error("the disk was not kept clean")
	}
	script, err := r.Output(t.Context(), "curl", "-sS", "--max-time", "10", fmt.Sprintf("http://%s/boot.ipxe?mac=%s&platform=pcbios", a.Addr, m.MAC))
	if must(t, err); !strings.Contains(string(script), "boots its own disk") {
		t.Errorf("after its repair the machine does not boot its disk at once:\n%s", script)
	}
	if j, err := a.Job(t.Context(), m); err != nil || j.ID != cleaned.ID {
		t.Errorf("after its repair the machine has job %+v, %v", j, err)
	}
}

// retires has a machine tell what it is, and then wipe one of its disks.
func (r *room) retires(a *lab.Appliance, m *lab.Machine) {
	t, name, system, other := r.t, m.Config.Name, m.Config.Disks[0], m.Config.Disks[1]
	r.seedbed(a, "machine", "inventory", name)
	r.login(m)
	if j, err := a.Job(t.Context(), m); err != nil || j.Kind != job.InventoryOf || j.State != job.Succeeded {
		t.Errorf("the inventory: %+v, %v", j, err)
	}
	known, err := a.Machine(t.Context(), name)
	must(t, err)
	if i := known.Inventory; i == nil || !strings.EqualFold(i.UUID, m.UUID) || i.Serial == "" || i.MemoryBytes < 900<<20 || i.Cores != 1 ||
		len(i.NICs) != 1 || len(i.Disks) != 2 || i.Disks[0].Serial != system.Serial && i.Disks[1].Serial != system.Serial {
		t.Errorf("the machine is %+v", i)
	}

	before := sum(t, other)
	r.refused(a, "confirm", "machine", "wipe", name, "--disk", system.Serial)
	r.refused(a, other.Serial, "machine", "wipe", name, "--confirm", "wipe")
	r.seedbed(a, "machine", "wipe", name, "--confirm", "wipe", "--disk", system.Serial)
	wiped := r.bootFor(a, m, job.WipeDisk)
	if w := wiped.Wiped; wiped.State != job.Succeeded || wiped.DiskSerial != system.Serial || w == nil || w.Done != job.WipeZero || w.Samples == 0 {
		t.Errorf("the wipe is %s (%s) of disk %s: %+v", wiped.State, wiped.Reason, wiped.DiskSerial, w)
	}
	if at := firstByte(t, system.Path); at >= 0 {
		t.Errorf("the disk that was wiped holds something at byte %d", at)
	}
	if sum(t, other) != before {
		t.Error("the disk beside it was changed")
	}
}

// bootFor switches a machine on until it would start again, and returns its job, which is of the kind and has ended.
func (r *room) bootFor(a *lab.Appliance, m *lab.Machine, kind job.Kind) *api.Job {
	r.t.Helper()
	boot := start(r.t, m, lab.StartOptions{StopAtReboot: true})
	must(r.t, boot.WaitEnd(within(r.t, 4*time.Minute)))
	j := waitJob(r.t, a, m, 10*time.Second, func(j *api.Job) bool { return j.Kind == kind && j.State.Ended() })
	r.t.Logf("%s: agent's word %.0f s after the first packet, %s %.1f s", m.Config.Name, j.HelloAt.Sub(j.BootSeen).Seconds(), kind, j.Ended.Sub(j.HelloAt).Seconds())
	return j
}

// login boots a machine to the login prompt of its own disk and switches it off.
func (r *room) login(m *lab.Machine) {
	r.t.Helper()
	boot := start(r.t, m, lab.StartOptions{})
	must(r.t, boot.WaitBoot(within(r.t, bootLimit), golden.LoginPrompt))
	must(r.t, boot.Cut())
}

// known names machines to an appliance by a table, before it has seen them.
func (r *room) known(a *lab.Appliance, machines ...*lab.Machine) {
	r.t.Helper()
	table := []byte("mac,name\n")
	for _, m := range machines {
		table = fmt.Appendf(table, "%s,%s\n", m.MAC, m.Config.Name)
	}
	file := filepath.Join(r.Dir, "machines.csv")
	must(r.t, os.WriteFile(file, table, 0o600))
	r.seedbed(a, "machine", "import", file)
}

// seedbed runs an operator's command.
func (r *room) seedbed(a *lab.Appliance, args ...string) string {
	r.t.Helper()
	out, err := a.Command(r.t.Context(), args...)
	must(r.t, err)
	return string(out)
}

// refused runs an operator's command that has to be refused with a sentence in which a word stands.
func (r *room) refused(a *lab.Appliance, word string, args ...string) {
	r.t.Helper()
	if out, err := a.Command(r.t.Context(), args...); err == nil || !strings.Contains(err.Error(), "exit status 4") || !strings.Contains(err.Error(), word) {
		r.t.Errorf("seedbed %v: %v, %s", args, err, out)
	}
}

// copied makes a disk that begins as a file, each byte of which can be looked at.
func (r *room) copied(name, file string) lab.Disk {
	r.t.Helper()
	d, err := r.CopyDisk(r.t.Context(), name, file)
	must(r.t, err)
	return d
}

// wound damages a byte in so many tiles of the EFI system partition, and as many of the root partition, of a disk that holds the
// image, each in another tile that is in use and holds data, and returns what has to be found.
func (s *source) wound(t *testing.T, disk string, n int) (damage []job.Damage) {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	zero, b := make([]byte, images.TileLength), make([]byte, images.TileLength)
	for _, index := range []int{espIndex, rootIndex} {
		longest := slices.MaxFunc(s.used[index], func(a, b extent) int { return int(a.length - b.length) })
		first, end := (longest.offset+images.TileLength-1)/images.TileLength, (longest.offset+longest.length)/images.TileLength
		left := n
		for tile := first; tile < end && left > 0; tile += 2 {
			at := s.entries[index].Start*512 + tile*images.TileLength
			_, err := f.ReadAt(b, at)
			must(t, err)
			if bytes.Equal(b, zero) {
				continue
			}
			_, err = f.WriteAt([]byte{b[100] ^ 0x55}, at+100)
			must(t, err)
			left--
		}
		if left > 0 {
			t.Fatalf("the longest file of partition %d has too few tiles", index+1)
		}
		damage = append(damage, job.Damage{Partition: index + 1, Tiles: int64(n), Bytes: int64(n) * images.TileLength})
	}
	return damage
}

// sameDamage compares what was found with what there is; how many tiles a partition has is not told by the latter.
func sameDamage(found, there []job.Damage) bool {
	return slices.EqualFunc(found, there, func(a, b job.Damage) bool {
		return a.Partition == b.Partition && a.Tiles == b.Tiles && a.Bytes == b.Bytes && a.Of > a.Tiles
	})
}

// firstByte returns where the first block of 64 KiB with a byte lies that is not zero, -1 if there is none.
func firstByte(t *testing.T, path string) int64 {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	zero, b := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); ; {
		n, err := io.ReadFull(f, b)
		if !bytes.Equal(b[:n], zero[:n]) {
			return at
		}
		if at += int64(n); err == io.EOF || err == io.ErrUnexpectedEOF {
			if at == 0 {
				t.Fatalf("%s is empty", path)
			}
			return -1
		}
		must(t, err)
	}
}
