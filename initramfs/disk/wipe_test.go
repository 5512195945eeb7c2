package disk

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"testing"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/initramfs/disk/disktest"
)

func TestChooseWipe(t *testing.T) {
	d := func(name, serial, bus string, change func(*job.Disk)) Disk {
		x := Disk{Disk: job.Disk{Name: name, Serial: serial, Bus: bus, Length: 1 << 30, SectorLength: 512}}
		if change != nil {
			change(&x.Disk)
		}
		return x
	}
	one, two := d("sda", "A", "sata", nil), d("nvme0n1", "B", "nvme", func(x *job.Disk) { x.WWN = "eui.1"; x.SectorLength = 4096 })
	stick := d("sdc", "A", "usb", nil)
	card := d("mmcblk0", "C", "mmc", func(x *job.Disk) { x.Removable = true })
	locked := d("sdd", "D", "sata", func(x *job.Disk) { x.ReadOnly = true })
	for _, c := range []struct {
		name   string
		disks  []Disk
		serial string
		want   string // name, or code
	}{
		{"the only one", []Disk{one}, "", "sda"},
		{"beside what is never chosen", []Disk{one, stick, card, locked}, "", "sda"},
		{"one of two by its serial number", []Disk{one, two}, "A", "sda"},
		{"one of two by its WWN", []Disk{one, two}, "eui.1", "nvme0n1"},
		{"two", []Disk{one, two}, "", CodeAmbiguous},
		{"two of one serial number", []Disk{one, d("sdb", "A", "sata", nil)}, "A", CodeAmbiguous},
		{"none", nil, "", CodeNoDisk},
		{"USB, named", []Disk{stick}, "A", CodeNoDisk},
		{"removable, named", []Disk{card}, "C", CodeNoDisk},
		{"read-only, named", []Disk{locked}, "D", CodeNoDisk},
		{"another one", []Disk{one}, "Z", CodeNoDisk},
	} {
		got, refusal := ChooseWipe(c.disks, c.serial)
		name := got.Name
		if refusal != nil {
			if name = refusal.Code; refusal.Wait == (name == CodeAmbiguous) || got.Name != "" {
				t.Errorf("%s: %+v", c.name, refusal)
			}
		}
		if name != c.want {
			t.Errorf("%s: %s, not %s", c.name, name, c.want)
		}
	}
}

func TestBlankFindsWhatIsLeft(t *testing.T) {
	for _, length := range []int{512, 4096 + 512, 3<<20 + 512} {
		d, file, _ := noiseDisk(t, length)
		if _, _, at, err := d.Blank(t.Context()); err != nil || at < 0 || at > 8 {
			t.Errorf("%d bytes of noise: first at %d, %v", length, at, err)
		}
		if err := d.ZeroAll(t.Context(), func(int64) error { return nil }); err != nil {
			t.Fatal(err)
		}
		samples, count, at, err := d.Blank(t.Context())
		if err != nil || at != -1 || samples < 2 || count < int64(min(2*length, 2<<20)) {
			t.Errorf("%d bytes of zeros: %d samples of %d bytes, first at %d, %v", length, samples, count, at, err)
		}
		content := make([]byte, length)
		content[length-1] = 1
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, at, err := d.Blank(t.Context()); err != nil || at != int64(length-1) {
			t.Errorf("the last of %d bytes: first at %d, %v", length, at, err)
		}
	}
}

func TestEndedWipeStops(t *testing.T) {
	d, file, before := noiseDisk(t, 1<<20)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.ZeroAll(ctx, func(int64) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := d.Discard(ctx, d.Everything(), nothing); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if !bytes.Equal(readFile(t, file), before) {
		t.Error("the disk was written")
	}
}

// TestSourceTakesNoChanges: neither by its device nor by what is made of that.
func TestSourceTakesNoChanges(t *testing.T) {
	img := disktest.New(t)
	_, file, before := noiseDisk(t, disktest.DiskLength)
	src, err := OpenSource(file, "vda")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	d := src.Device()
	s := NewStorage(d, img.Layout)
	piece, tile := 0, -1 // the first with data
	for ; tile < 0 && piece < img.Layout.Count(); piece++ {
		for tile = range img.Layout.Data(piece).All() {
			break
		}
	}
	piece--
	for name, err := range map[string]error{
		"write": func() error { _, err := d.WriteAt([]byte{1}, 0); return err }(), "zero": d.Zero(0, 512), "wipe": d.Wipe(),
		"discard": d.Discard(t.Context(), d.Everything(), nothing), "tile": s.Write(piece, tile, [][]byte{img.Tile(piece, tile)}),
		"zeros": s.WriteZeros(t.Context(), len(img.Manifest.Partitions), nothing),
	} {
		if !errors.Is(err, ErrFenced) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !bytes.Equal(readFile(t, file), before) {
		t.Error("the disk was written")
	}
}

// TestSurveyCountsWhatCannotBeReadAsWrong.
func TestSurveyCountsWhatCannotBeReadAsWrong(t *testing.T) {
	img := disktest.New(t)
	d, file, _ := noiseDisk(t, disktest.DiskLength)
	if err := os.WriteFile(file, img.Disk, 0o600); err != nil {
		t.Fatal(err)
	}
	second := img.Manifest.Partitions[1]
	if err := os.Truncate(file, second.Offset+second.Length/2/disktest.PieceLength*disktest.PieceLength); err != nil {
		t.Fatal(err)
	}
	found, roots, err := NewStorage(d, img.Layout).Survey(t.Context(), img.Manifest, func(context.Context, int, []images.Extent) ([][]byte, error) {
		return nil, errors.New("hashes are of no use where nothing can be read")
	}, nothing)
	if err != nil || len(found) != 1 || found[0].Partition != second.Number || found[0].Tiles < found[0].Of/4 || found[0].Tiles > found[0].Of*3/4 ||
		len(roots) != 1 || roots[0].Number != img.Manifest.Partitions[0].Number {
		t.Errorf("found %+v, roots %+v, %v", found, roots, err)
	}
}

func TestFreeExtentsLeaveOutWhatIsUsedKeptOrTheTables(t *testing.T) {
	img := disktest.New(t)
	d, _, _ := noiseDisk(t, disktest.DiskLength+1<<20)
	frame, err := LoadFrame(img.Manifest, img.Fetch)
	if err != nil {
		t.Fatal(err)
	}
	for _, keep := range [][]int{nil, {0}, {1}} {
		s := NewStorage(d, img.Layout)
		s.Keep(keep)
		free, err := s.FreeExtents(img.Manifest, frame)
		if err != nil {
			t.Fatal(err)
		}
		want := d.Length - 2048*512 - 33*512 + (2048-34)*512 // all but the table
		for i, p := range img.Manifest.Partitions {
			whole := images.Extent{Offset: p.Offset, Length: p.Length}
			busy := images.TotalLength(img.Layout.Map(i).Extents)
			if len(keep) > 0 && keep[0] == i {
				busy = p.Length
				for _, e := range free {
					if e.Intersect(whole).Length > 0 {
						t.Errorf("partition %d is kept, and %v of the disk is free", p.Number, e)
					}
				}
			}
			want -= busy
		}
		if got := images.TotalLength(free); got != want {
			t.Errorf("keep %v: %d bytes are free, not %d", keep, got, want)
		}
		for i := range free {
			if free[i].Length <= 0 || i > 0 && free[i].Offset < free[i-1].End() {
				t.Errorf("keep %v: %v follows %v", keep, free[i], free[max(0, i-1)])
			}
		}
	}
}

// TestBlockDeviceIsWipedByEveryMethod that the kernel's loop devices know.
func TestBlockDeviceIsWipedByEveryMethod(t *testing.T) {
	name := loopDevice(t, 9<<20)
	fill := func() *Device {
		t.Helper()
		d, err := Open(name, "loop")
		if err != nil {
			t.Fatal(err)
		}
		noise := make([]byte, d.Length)
		rand.Read(noise)
		if _, err := d.WriteAt(noise, 0); err != nil {
			t.Fatal(err)
		}
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		return d
	}
	for method, wipe := range map[string]func(*Device) error{
		"zero":    func(d *Device) error { return d.ZeroAll(t.Context(), func(int64) error { return nil }) },
		"discard": func(d *Device) error { return d.Discard(t.Context(), d.Everything(), nothing) },
	} {
		d := fill()
		if _, _, at, err := d.Blank(t.Context()); err != nil || at < 0 {
			t.Errorf("%s: noise is blank: %v", method, err)
		}
		if !d.CanDiscard() {
			t.Errorf("%s: a loop device takes discards, and the kernel's word for that is not read", method)
		}
		if err := errors.Join(wipe(d), d.Sync()); err != nil {
			t.Errorf("%s: %v", method, err)
		}
		if _, _, at, err := d.Blank(t.Context()); err != nil || at != -1 {
			t.Errorf("%s: byte %d is left, %v", method, at, err)
		}
		d.Close()
	}
	d := fill()
	defer d.Close()
	if err := d.SecureDiscard(t.Context(), d.Everything(), nothing); !errors.Is(err, ErrNoDiscard) {
		t.Errorf("a loop device erases nothing by itself: %v", err)
	}
	if _, _, at, err := d.Blank(t.Context()); err != nil || at < 0 {
		t.Errorf("what was refused has done something: %v", err)
	}
	d.Close()
	src, err := OpenSource(name, "loop")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if err := src.Device().Zero(0, 512); !errors.Is(err, ErrFenced) {
		t.Error(err)
	}
}
