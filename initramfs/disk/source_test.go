package disk

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"seedbed/appliance/job"
)

// loopDevice returns a loop device on a file of noise.
func loopDevice(t *testing.T, length int64) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, make([]byte, length), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s (package mount)", err, out)
	}
	name := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", name).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach %s: %v: %s", name, err, out)
		}
	})
	return name
}

func TestSourceRefusesWritesToTheDeviceUntilItIsClosed(t *testing.T) {
	name := loopDevice(t, 1<<20)
	write := func() error {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.WriteAt([]byte("written"), 0); err != nil {
			return err
		}
		return f.Sync()
	}
	s, err := OpenSource(name, "loop")
	if err != nil {
		t.Fatal(err)
	}
	if s.Length != 1<<20 || s.SectorLength != 512 {
		t.Errorf("%d bytes in sectors of %d", s.Length, s.SectorLength)
	}
	if err := write(); !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		t.Errorf("a write while the disk is captured: %v", err)
	}
	b := make([]byte, 7)
	if _, err := s.ReadAt(b, 0); err != nil || string(b) != "\x00\x00\x00\x00\x00\x00\x00" {
		t.Errorf("%q, %v", b, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := write(); err != nil {
		t.Errorf("a write after the capture: %v", err)
	}
}

func TestChooseSourceNeverGuesses(t *testing.T) {
	a := Disk{Disk: job.Disk{Name: "sda", Serial: "A", Bus: "sata"}}
	b := Disk{Disk: job.Disk{Name: "sdb", Serial: "B", Bus: "sata"}}
	stick := Disk{Disk: job.Disk{Name: "sdc", Serial: "U", Bus: "usb"}}
	for _, c := range []struct {
		disks      []Disk
		serial     string
		want, code string
	}{
		{[]Disk{a}, "", "sda", ""},
		{[]Disk{a, stick}, "", "sda", ""},
		{[]Disk{a, b}, "", "", CodeAmbiguous},
		{[]Disk{a, b}, "B", "sdb", ""},
		{[]Disk{a, stick}, "U", "sdc", ""}, // nothing is written: a disk that is named may hang anywhere
		{[]Disk{a, a}, "A", "", CodeAmbiguous},
		{[]Disk{a}, "C", "", CodeNoDisk},
		{[]Disk{stick}, "", "", CodeNoDisk},
		{nil, "", "", CodeNoDisk},
	} {
		got, refusal := ChooseSource(c.disks, c.serial)
		code := ""
		if refusal != nil {
			code = refusal.Code
		}
		if got.Name != c.want || code != c.code {
			t.Errorf("%v, %q: %q, %q; want %q, %q", c.disks, c.serial, got.Name, code, c.want, c.code)
		}
	}
}
