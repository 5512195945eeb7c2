package agent

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/parttable"
	"seedbed/images/swarm"
	"seedbed/initramfs/disk"
	"seedbed/initramfs/disk/disktest"
)

// put puts a disk with a content into the machine.
func (c *computer) put(name, serial string, content []byte) (file string) {
	c.t.Helper()
	file = filepath.Join(c.dir, name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.disks = append(c.disks, disk.Disk{Disk: job.Disk{Name: name, Serial: serial, Bus: "virtio", Length: int64(len(content)), SectorLength: 512}})
	return file
}

// again makes the appliance ready for the next boot of the machine.
func (a *appliance) again(order func(*job.Job)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.token, a.claimed, a.reports, a.receipts, a.frames, a.order = strings.Repeat("ab", 32), false, nil, nil, nil, order
}

// kindOf is an order for a kind of job.
func kindOf(k job.Kind) func(*job.Job) {
	return func(j *job.Job) { j.Kind, j.Deployment = k, "" }
}

// spoil damages a disk that holds the image: a byte in two data tiles of the last partition, and a zero tile of it.
func spoil(t *testing.T, img *disktest.Image, content []byte) []byte {
	t.Helper()
	content = bytes.Clone(content)
	l := img.Layout
	last := l.Partitions() - 1
	first, end := l.Pieces(last)
	data, zero := 2, 1
	for piece := end - 1; piece >= first; piece-- {
		for n := range l.Tiles(piece) {
			e := l.WriteExtents(nil, piece, n, 1)
			if len(e) == 0 || l.Data(piece).Has(n) && data == 0 || l.Zero(piece).Has(n) && zero == 0 {
				continue
			}
			if content[l.DiskOffset(last)+e[0].Offset] ^= 0x55; l.Data(piece).Has(n) {
				data--
			} else {
				zero--
			}
		}
	}
	if data+zero > 0 {
		t.Fatal("the image has too few tiles")
	}
	return content
}

func TestVerifySaysThatADiskIsRightOrHowMuchIsNotAndWritesNothing(t *testing.T) {
	img := disktest.New(t)
	table := bytes.Clone(img.Disk)
	table[513] ^= 1 // in the header of the GPT
	unreadable := bytes.Clone(img.Disk)
	for i := range unreadable[2<<20:] {
		unreadable[2<<20+i] = 0xee
	}
	for _, c := range []struct {
		name    string
		content []byte
		want    func(f *job.Finding) bool // nil: right
	}{
		{"right", img.Disk, nil},
		{"damaged", spoil(t, img, img.Disk), func(f *job.Finding) bool {
			return !f.Table && len(f.Damage) == 1 && f.Damage[0].Partition == 2 && f.Damage[0].Tiles == 3 && f.Damage[0].Bytes == 3*images.TileLength
		}},
		{"other table", table, func(f *job.Finding) bool { return f.Table && len(f.Damage) == 0 }},
		{"another system", unreadable, func(f *job.Finding) bool {
			tiles, _ := f.Sum()
			return f.Table && len(f.Damage) == 2 && f.Damage[1].Tiles == f.Damage[1].Of && tiles > 100
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, m := newAppliance(t), newComputer(t)
			file := m.put("vda", "SN1", c.content)
			a.order = func(j *job.Job) { kindOf(job.VerifyDisk)(j); j.After = PowerOff }
			out, _ := m.boot(t.Context(), a)
			if r := wait(t, out); r.err != nil || r.after != PowerOff {
				t.Fatalf("%v, then %q", r.err, r.after)
			}
			if !bytes.Equal(bytesOf(t, file), c.content) || len(a.frames) != 0 {
				t.Error("the disk was written")
			}
			last := a.reports[len(a.reports)-1]
			if c.want == nil {
				if len(a.receipts) != 1 || a.receipts[0].Kind != job.VerifyDisk || a.receipts[0].Result != "right" || len(a.receipts[0].Roots) != 2 ||
					a.final.Verified != img.Layout.DataLength() {
					t.Errorf("receipts %+v, final %+v", a.receipts, a.final)
				}
				return
			}
			if len(a.receipts) != 0 || last.State != job.Failed || last.Code != job.CodeDamaged || last.Found == nil || !c.want(last.Found) {
				t.Errorf("receipts %v, last report %+v, found %+v", a.receipts, last, last.Found)
			}
		})
	}
}

func TestRepairWritesOnlyWhatDiffers(t *testing.T) {
	img := disktest.New(t)
	a, c := newAppliance(t), newComputer(t)
	broken := spoil(t, img, img.Disk)
	file := c.put("vda", "SN1", broken)
	record := &tape{before: broken}
	a.order = kindOf(job.RepairDisk)
	out, _ := bootMachine(t, t.Context(), a, &plug{c, record}, 0)
	if r := wait(t, out); r.err != nil || r.after != Reboot {
		t.Fatalf("%v, then %q", r.err, r.after)
	}
	if got := bytesOf(t, file); !bytes.Equal(got, img.Disk) {
		t.Error("the disk is not the image's")
	}
	written := int64(0)
	for _, ch := range record.changes {
		if ch.offset < 2048*512 {
			t.Errorf("%d bytes were written at %d, and the table was right", len(ch.bytes), ch.offset)
		}
		written += int64(len(ch.bytes))
	}
	if written == 0 || written > 3*images.TileLength || len(a.frames) != 0 {
		t.Errorf("%d bytes were written for 3 tiles, %d old tables were sent", written, len(a.frames))
	}
	if given := a.seed.total(); given == 0 || given > 2*images.TileLength {
		t.Errorf("%d bytes of content were fetched for 2 tiles", given)
	}
	r := a.receipts[0]
	if tiles, _ := r.Found.Sum(); r.Kind != job.RepairDisk || r.Result != "repaired" || tiles != 3 || r.Found.Table || len(r.Roots) != 2 {
		t.Errorf("receipt %+v, found %+v", r, r.Found)
	}

	a.again(kindOf(job.RepairDisk))
	given := a.seed.total()
	out, _ = c.boot(t.Context(), a)
	if r := wait(t, out); r.err != nil {
		t.Fatal(r.err)
	}
	if r := a.receipts[0]; r.Result != "right" || r.Found != nil || a.seed.total() != given || a.final.Written != 0 {
		t.Errorf("a disk that is right: receipt %+v, %d bytes fetched, %d written", r, a.seed.total()-given, a.final.Written)
	}
}

// TestRepairOfADiskWithAnotherTableOrNothingWritesAllOfIt in the order of a deployment.
func TestRepairOfADiskWithAnotherTableOrNothingWritesAllOfIt(t *testing.T) {
	img := disktest.New(t)
	noise := make([]byte, disktest.DiskLength)
	rand.NewChaCha8([32]byte{3}).Read(noise)
	table := bytes.Clone(img.Disk)
	table[512+16] ^= 1 // the checksum of the GPT's header
	for name, content := range map[string][]byte{"noise": noise, "other table": table} {
		t.Run(name, func(t *testing.T) {
			a, c := newAppliance(t), newComputer(t)
			file := c.put("vda", "SN1", content)
			a.order = kindOf(job.RepairDisk)
			out, _ := c.boot(t.Context(), a)
			if r := wait(t, out); r.err != nil {
				t.Fatal(r.err)
			}
			a.img.Check(t, bytesOf(t, file), content)
			if len(a.frames) != 1 || len(a.receipts) != 1 || a.receipts[0].Result != "repaired" || !a.receipts[0].Found.Table {
				t.Errorf("%d old tables, receipts %+v", len(a.frames), a.receipts)
			}
		})
	}
}

func TestWipeLeavesNothingAndSaysHow(t *testing.T) {
	for _, c := range []struct{ asked, done job.WipeMethod }{
		{job.WipeZero, job.WipeZero}, {"", job.WipeZero}, {job.WipeDiscard, job.WipeDiscard},
		{job.WipeSecure, job.WipeZero}, // a file erases nothing by itself
	} {
		t.Run("by "+string(c.asked), func(t *testing.T) {
			a, m := newAppliance(t), newComputer(t)
			file, before := m.insert("vda", "SN1", 9<<20+512)
			usb, was := m.insert("sdb", "SN1", 1<<20)
			m.disks[1].Bus = "usb"
			a.order = func(j *job.Job) { kindOf(job.WipeDisk)(j); j.Image, j.Method, j.After = images.Digest{}, c.asked, Stay }
			out, _ := m.boot(t.Context(), a)
			if r := wait(t, out); r.err != nil || r.after != Stay {
				t.Fatalf("%v, then %q", r.err, r.after)
			}
			if got := bytesOf(t, file); !zeros(got) || len(got) != len(before) {
				t.Error("the disk is not wiped")
			}
			if !bytes.Equal(bytesOf(t, usb), was) {
				t.Error("the USB disk was touched")
			}
			r := a.receipts[0]
			if r.Kind != job.WipeDisk || r.Wiped == nil || r.Wiped.Done != c.done || r.Wiped.Samples < 1000 || (r.Wiped.Why == "") != (c.asked == c.done || c.asked == "") ||
				r.DiskSerial != "SN1" || r.DiskLength != int64(len(before)) || len(r.Roots) != 0 {
				t.Errorf("receipt %+v, wiped %+v", r, r.Wiped)
			}
			if len(a.frames) != 1 || a.final.Total != int64(len(before)) || a.final.Done != a.final.Total {
				t.Errorf("%d old tables, final %+v", len(a.frames), a.final)
			}
		})
	}
}

func TestWipeOfOneOfTwoDisksNamesIt(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	one, was := c.insert("vda", "A", 4<<20)
	two, wasTwo := c.insert("vdb", "B", 4<<20)
	a.order = kindOf(job.WipeDisk)
	ctx, cancel := context.WithCancel(t.Context())
	out, _ := c.boot(ctx, a)
	r := a.await(func(r job.Report) bool { return r.State != job.Running })
	if r.State != job.Failed || r.Code != disk.CodeAmbiguous || !strings.Contains(r.Reason, "serial A") || !strings.Contains(r.Reason, "serial B") {
		t.Errorf("%s with %s: %s", r.State, r.Code, r.Reason)
	}
	cancel()
	wait(t, out)
	if !bytes.Equal(bytesOf(t, one), was) || !bytes.Equal(bytesOf(t, two), wasTwo) || len(a.frames) != 0 {
		t.Fatal("a disk was touched")
	}
	a.again(func(j *job.Job) { kindOf(job.WipeDisk)(j); j.DiskSerial = "B" })
	out, _ = c.boot(t.Context(), a)
	if r := wait(t, out); r.err != nil {
		t.Fatal(r.err)
	}
	if !bytes.Equal(bytesOf(t, one), was) || !zeros(bytesOf(t, two)) {
		t.Error("another disk than the one that was named was wiped")
	}
}

// TestADiskThatDropsOutChoosesNoOtherOne: a job that could be about two disks has failed for good when one of them is gone.
func TestADiskThatDropsOutChoosesNoOtherOne(t *testing.T) {
	for _, kind := range []job.Kind{job.VerifyDisk, job.RepairDisk, job.WipeDisk} {
		t.Run(string(kind), func(t *testing.T) {
			a, c := newAppliance(t), newComputer(t)
			file, was := c.insert("vda", "A", disktest.DiskLength)
			c.insert("vdb", "B", disktest.DiskLength)
			a.order = kindOf(kind)
			ctx, cancel := context.WithCancel(t.Context())
			out, _ := c.boot(ctx, a)
			if r := a.await(func(r job.Report) bool { return r.State != job.Running }); r.State != job.Failed || r.Code != disk.CodeAmbiguous {
				t.Errorf("%s with %s: %s", r.State, r.Code, r.Reason)
			}
			c.remove("vdb")
			a.mu.Lock()
			until := len(a.reports) + 3
			a.mu.Unlock()
			told := 0
			a.await(func(r job.Report) bool { told++; return told > until || r.Disk != "" }) // it had the time to look again
			cancel()
			wait(t, out)
			if !bytes.Equal(bytesOf(t, file), was) || len(a.receipts) != 0 {
				t.Error("the other disk was taken")
			}
		})
	}
}

func TestWipeByAMethodThatIsNotKnownTouchesNothing(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	file, was := c.insert("vda", "A", 4<<20)
	a.order = func(j *job.Job) { kindOf(job.WipeDisk)(j); j.Method = "burn" }
	ctx, cancel := context.WithCancel(t.Context())
	out, _ := c.boot(ctx, a)
	if r := a.await(func(r job.Report) bool { return r.State == job.Failed }); r.Code != "job-wrong" {
		t.Errorf("failed with %s: %s", r.Code, r.Reason)
	}
	cancel()
	wait(t, out)
	if !bytes.Equal(bytesOf(t, file), was) {
		t.Error("the disk was touched")
	}
}

func TestInventoryIsToldAnewAndTheMachineGoesOn(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	file, was := c.insert("vda", "A", 4<<20)
	a.order = func(j *job.Job) { kindOf(job.InventoryOf)(j); j.Image, j.After = images.Digest{}, PowerOff }
	out, _ := c.boot(t.Context(), a)
	if r := wait(t, out); r.err != nil || r.after != PowerOff {
		t.Fatalf("%v, then %q", r.err, r.after)
	}
	if a.told != 2 || len(a.receipts) != 1 || a.receipts[0].Kind != job.InventoryOf || !bytes.Equal(bytesOf(t, file), was) {
		t.Errorf("%d inventories, receipts %+v", a.told, a.receipts)
	}
}

func TestJobThatIsTriedAgainIsClaimedAgain(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	file, before := c.insert("vda", "A", disktest.DiskLength)
	c.insert("vdb", "B", disktest.DiskLength)
	a.say = func(r job.Report) job.Directive {
		if r.State != job.Failed {
			return job.Directive{State: r.State, Release: true}
		}
		c.remove("vdb")
		a.claimed = false // the caller holds mu
		return job.Directive{State: job.Waiting, Again: true}
	}
	out, screen := c.boot(t.Context(), a)
	if r := wait(t, out); r.err != nil || r.after != Reboot {
		t.Fatalf("%v, then %q", r.err, r.after)
	}
	a.img.Check(t, bytesOf(t, file), before)
	if s := screen.Tail(); !strings.Contains(s, "tried again") {
		t.Errorf("the screen shows %q", s)
	}
}

func TestMachineWhoseJobWaitsIsToldForWhatAndDoesNotGoAway(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	c.idle = time.Millisecond // it would boot its own disk if there were no job
	file, before := c.insert("vda", "A", disktest.DiskLength)
	a.waits = 2
	out, screen := c.boot(t.Context(), a)
	var shown bool
	a.mu.Lock()
	a.say = func(r job.Report) job.Directive {
		shown = shown || strings.Contains(screen.Tail(), "5 of 5 machines of the site are at work")
		return job.Directive{State: r.State, Release: true}
	}
	a.mu.Unlock()
	if r := wait(t, out); r.err != nil || r.after != Reboot {
		t.Fatalf("%v, then %q", r.err, r.after)
	}
	a.img.Check(t, bytesOf(t, file), before)
	if !shown {
		t.Errorf("the screen does not say what the job waits for")
	}
}

func TestLessIsReadBackWhereTheDeploymentSaysSo(t *testing.T) {
	img := disktest.NewLong(t)
	for _, level := range []job.Verify{job.VerifyNone, job.VerifySample, job.VerifyFull} {
		t.Run(string(level), func(t *testing.T) {
			a, c := newApplianceOf(t, img), newComputer(t)
			file, before := c.insert("vda", "A", int64(len(img.Disk)))
			a.order = func(j *job.Job) { j.Options.Verify = level }
			out, screen := c.boot(t.Context(), a)
			if r := wait(t, out); r.err != nil {
				t.Fatal(r.err)
			}
			img.Check(t, bytesOf(t, file), before)
			r, total := a.receipts[0], img.Layout.DataLength()
			if r.Level != level {
				t.Errorf("receipt of level %q", r.Level)
			}
			said := strings.Contains(screen.Tail(), "UNVERIFIED")
			switch level {
			case job.VerifyFull:
				if said || len(r.Roots) != 1 || len(r.Unproven) != 0 || a.final.Verified != total {
					t.Errorf("receipt %+v", r)
				}
			case job.VerifyNone:
				if !said || len(r.Roots) != 0 || !slices.Equal(r.Unproven, []job.Unproven{{Number: 0, Total: total}}) || a.final.Verified != 0 {
					t.Errorf("receipt %+v, %d bytes verified", r, a.final.Verified)
				}
			case job.VerifySample:
				if !said || len(r.Roots) != 0 || len(r.Unproven) != 1 || r.Unproven[0].Proven != a.final.Verified || a.final.Verified == 0 || a.final.Verified > total/2 {
					t.Errorf("receipt %+v, %d of %d bytes verified", r, a.final.Verified, total)
				}
			}
		})
	}
}

func TestFreeSpaceIsZeroedOrGivenBack(t *testing.T) {
	for _, free := range []job.Free{job.FreeZero, job.FreeDiscard} {
		t.Run(string(free), func(t *testing.T) {
			a, c := newAppliance(t), newComputer(t)
			file, _ := c.insert("vda", "A", disktest.DiskLength+3<<20)
			a.order = func(j *job.Job) { j.Options.Free = free }
			atReceipt := 0 // bytes of free space that are not zero
			a.on = func(path string) {
				if path == job.PathReceipt {
					atReceipt = len(bytes.Trim(bytesOf(t, file)[disktest.DiskLength:disktest.DiskLength+2<<20], "\x00"))
				}
			}
			out, _ := c.boot(t.Context(), a)
			if r := wait(t, out); r.err != nil {
				t.Fatal(r.err)
			}
			got := bytesOf(t, file)
			want := make([]byte, len(got))
			for i, p := range a.img.Manifest.Partitions {
				for _, e := range a.img.Layout.Map(i).Extents {
					copy(want[p.Offset+e.Offset:p.Offset+e.End()], a.img.Disk[p.Offset+e.Offset:])
				}
			}
			copy(want[:2048*512], got)                           // the table
			copy(want[len(want)-33*512:], got[len(got)-33*512:]) // its second copy
			if at := firstDifference(got, want); at >= 0 {
				t.Errorf("byte %d is %#x, not %#x", at, got[at], want[at])
			}
			if (free == job.FreeZero) != (atReceipt == 0) {
				t.Errorf("at the receipt %d bytes of free space are not zero", atReceipt)
			}
			if r := a.receipts[0]; (free == job.FreeDiscard) != (len(r.Changes) == 1) {
				t.Errorf("the receipt names the changes %q", r.Changes)
			}
		})
	}
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// TestPartitionThatIsKeptSurvivesPowerCutsAnywhere: it and a table that has it are there at every moment, whatever a power cut does
// to what was not flushed; also where the new table differs from the old one in its other partitions.
func TestPartitionThatIsKeptSurvivesPowerCutsAnywhere(t *testing.T) {
	versions := newParts(t)
	for _, k := range []struct {
		name   string
		golden []byte
		old    []byte
	}{
		{"GPT", kinds[0].make(t, versions[1]), partitioned(t, 13*mib, "label: gpt\nstart=2048, size=4096, type=U\nstart=8192, size=8192, type=L\n",
			map[int][]byte{2048: versions[0].fat})},
		{"MBR", kinds[1].make(t, versions[1]), partitioned(t, 12*mib, "label: dos\nstart=2048, size=12288, type=83, bootable\nstart=16384, size=4096, type=83\n",
			map[int][]byte{2048: versions[0].ext})},
	} {
		t.Run(k.name, func(t *testing.T) {
			p := newProof(t, k.golden)
			p.uris = []string{swarm.URIRolePart}
			p.order = func(j *job.Job) { j.Options.Keep = []int{1} }
			record, after, _ := p.deploy(t, k.old, 0)
			kept := p.img.Manifest.Partitions[0]
			whole := images.Extent{Offset: kept.Offset, Length: kept.Length}
			intact := func(state []byte) string {
				if !bytes.Equal(state[whole.Offset:whole.End()], k.old[whole.Offset:whole.End()]) {
					return "the partition that is kept has changed"
				}
				table, err := parttable.Read(bytes.NewReader(state), int64(len(state)), 512)
				if err != nil {
					return err.Error()
				}
				if !slices.ContainsFunc(table.Partitions, func(e parttable.Entry) bool { return e.Offset == whole.Offset && e.Length == whole.Length }) {
					return "the table has lost the partition that is kept"
				}
				return ""
			}
			random := rand.New(rand.NewPCG(5, 5))
			r := record.play()
			for m := range record.clock {
				for loss := range losses {
					if wrong := intact(r.at(m, loss, random)); wrong != "" {
						t.Fatalf("power cut after moment %d of %d, loss %d: %s", m, record.clock, loss, wrong)
					}
				}
			}
			for i, part := range p.img.Manifest.Partitions[1:] {
				for _, e := range p.used[i+1] {
					if !bytes.Equal(after[e.Offset:e.End()], p.img.Disk[e.Offset:e.End()]) {
						t.Errorf("partition %d is not the image's in %v", part.Number, e)
					}
				}
			}
			if wrong := intact(after); wrong != "" {
				t.Error(wrong)
			}
			rec := p.receipts[0]
			if !slices.Equal(rec.Kept, []int{1}) || len(rec.Roots) != len(p.img.Manifest.Partitions)-1 || rec.Roots[0].Number == 1 {
				t.Errorf("receipt %+v", rec)
			}
			if p.final.Total >= p.img.Layout.DataLength() || p.final.Held != p.final.Total {
				t.Errorf("final report %+v", p.final)
			}
		})
	}
}

func TestPartitionsThatCannotBeKeptAreRefusedBeforeAnythingIsTouched(t *testing.T) {
	img := disktest.New(t)
	damaged := bytes.Clone(img.Disk)
	copy(damaged[512:1024], make([]byte, 512))
	noise := make([]byte, disktest.DiskLength)
	rand.NewChaCha8([32]byte{4}).Read(noise)
	other := bytes.Clone(disktest.NewUnaligned(t).Disk)
	other = append(other, make([]byte, disktest.DiskLength-len(other))...)
	for name, content := range map[string][]byte{"no table": noise, "another table": other, "damaged first copy": damaged} {
		t.Run(name, func(t *testing.T) {
			a, c := newAppliance(t), newComputer(t)
			file := c.put("vda", "A", content)
			a.uris = []string{swarm.URIRolePart}
			a.order = func(j *job.Job) { j.Options.Keep = []int{2} }
			ctx, cancel := context.WithCancel(t.Context())
			out, _ := c.boot(ctx, a)
			r := a.await(func(r job.Report) bool { return r.State == job.Failed })
			if r.Code != disk.CodeKeep || !strings.Contains(r.Reason, "Nothing was written") {
				t.Errorf("failed with %s: %s", r.Code, r.Reason)
			}
			cancel()
			if r := wait(t, out); !errors.Is(r.err, context.Canceled) {
				t.Error(r.err)
			}
			if !bytes.Equal(bytesOf(t, file), content) || len(a.frames) != 0 {
				t.Error("the disk was touched")
			}
		})
	}
}

// TestVerifyAndRepairLeaveOutWhatTheDeploymentKept: a partition with people's data is no damage.
func TestVerifyAndRepairLeaveOutWhatTheDeploymentKept(t *testing.T) {
	img := disktest.New(t)
	first := img.Manifest.Partitions[0]
	own := bytes.Clone(img.Disk)
	rand.NewChaCha8([32]byte{6}).Read(own[first.Offset : first.Offset+first.Length])
	a, c := newAppliance(t), newComputer(t)
	file := c.put("vda", "SN1", own)
	a.uris = []string{swarm.URIRolePart}
	keep := func(k job.Kind) func(*job.Job) {
		return func(j *job.Job) { kindOf(k)(j); j.Options.Keep = []int{first.Number} }
	}
	for _, k := range []job.Kind{job.VerifyDisk, job.RepairDisk} {
		a.again(keep(k))
		out, _ := c.boot(t.Context(), a)
		if r := wait(t, out); r.err != nil {
			t.Fatal(r.err)
		}
		if len(a.receipts) != 1 || a.receipts[0].Result != "right" || !slices.Equal(a.receipts[0].Kept, []int{first.Number}) || len(a.receipts[0].Roots) != 1 {
			t.Errorf("%s: receipts %+v", k, a.receipts)
		}
	}
	if !bytes.Equal(bytesOf(t, file), own) {
		t.Error("the disk was written")
	}
	if err := os.WriteFile(file, spoil(t, img, own), 0o600); err != nil {
		t.Fatal(err)
	}
	a.again(keep(job.RepairDisk))
	out, _ := c.boot(t.Context(), a)
	if r := wait(t, out); r.err != nil {
		t.Fatal(r.err)
	}
	if !bytes.Equal(bytesOf(t, file), own) || a.receipts[0].Result != "repaired" {
		t.Errorf("the disk is not repaired, or more than that: receipt %+v", a.receipts[0])
	}
}
