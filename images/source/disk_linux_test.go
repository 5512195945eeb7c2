package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newLoop makes a loop device on a file.
func newLoop(t *testing.T, name string, args ...string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("this test makes loop devices: run it as root")
	}
	dev := strings.TrimSpace(tool(t, "mount", "losetup", append(args, "--find", "--show", name)...))
	t.Cleanup(func() { tool(t, "mount", "losetup", "-d", dev) })
	return dev
}

// readOnly reports whether the kernel lets a disk be written.
func readOnly(t *testing.T, dev string) bool {
	t.Helper()
	return strings.TrimSpace(tool(t, "util-linux", "blockdev", "--getro", dev)) == "1"
}

func TestADiskIsReadOnlyWhileItIsOpen(t *testing.T) {
	raw, content := newRaw(t)
	dev := newLoop(t, raw)
	s, err := Open(t.Context(), dev, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Format != "disk" || s.Length != int64(len(content)) || len(s.Files) != 0 || !readOnly(t, dev) {
		t.Errorf("%+v, read-only %v", s, readOnly(t, dev))
	}
	if f, err := os.OpenFile(dev, os.O_WRONLY, 0); err == nil {
		if _, err = f.Write([]byte{1}); err == nil {
			t.Error("the disk could be written")
		}
		f.Close()
	}
	got, err := io.ReadAll(io.NewSectionReader(s, 0, s.Length))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("other bytes: %v", err)
	}
	if err := s.Close(); err != nil || readOnly(t, dev) {
		t.Errorf("after Close: %v, read-only %v", err, readOnly(t, dev))
	}
	first, second := openSource(t, dev, Options{}), openSource(t, dev, Options{})
	if err := first.Close(); err != nil || !readOnly(t, dev) {
		t.Errorf("one of two sources is closed: %v, read-only %v", err, readOnly(t, dev))
	}
	if err := second.Close(); err != nil || readOnly(t, dev) {
		t.Errorf("both are closed: %v, read-only %v", err, readOnly(t, dev))
	}
	after, err := os.ReadFile(raw)
	if err != nil || !bytes.Equal(after, content) {
		t.Errorf("the disk was changed: %v", err)
	}
	already := newLoop(t, raw, "--read-only")
	openSource(t, already, Options{}).Close()
	if !readOnly(t, already) {
		t.Error("a read-only disk became writable")
	}
}

// firstPartition returns a node for the first partition of a loop device, which not every host makes.
func firstPartition(t *testing.T, dev string) string {
	t.Helper()
	own := filepath.Base(dev)
	number, err := os.ReadFile(filepath.Join("/sys/block", own, own+"p1", "dev"))
	if err != nil {
		t.Fatalf("the kernel found no partition on %s: %v", dev, err)
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(string(number), "%d:%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	node := filepath.Join(t.TempDir(), "p1")
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(major, minor))); err != nil {
		t.Fatal(err)
	}
	return node
}

func TestAMountedDiskIsRefused(t *testing.T) {
	name := filepath.Join(t.TempDir(), "disk")
	write(t, name, make([]byte, 16*mib))
	dev := newLoop(t, name)
	tool(t, "util-linux", "addpart", dev, "1", "2048", "16384") // not every kernel looks for tables on loop devices
	t.Cleanup(func() { tool(t, "util-linux", "delpart", dev, "1") })
	part := firstPartition(t, dev)
	tool(t, "e2fsprogs", "mkfs.ext4", "-q", part)
	at := t.TempDir()
	tool(t, "mount", "mount", part, at)
	t.Cleanup(func() { _ = exec.Command("umount", at).Run() })
	for _, c := range []string{dev, part, name} {
		s, err := Open(t.Context(), c, Options{})
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), at) {
			t.Errorf("%s mounted: %v", c, err)
		}
	}
	if s := openSource(t, dev, Options{Live: true}); len(s.Warnings) != 1 || readOnly(t, dev) {
		t.Errorf("live: %q, read-only %v", s.Warnings, readOnly(t, dev))
	}
	tool(t, "mount", "mount", "-o", "remount,ro", at)
	openSource(t, dev, Options{}).Close()
	tool(t, "mount", "umount", at)
	tool(t, "util-linux", "mkswap", "-q", part)
	tool(t, "mount", "swapon", part)
	s, err := Open(t.Context(), dev, Options{})
	tool(t, "mount", "swapoff", part)
	if err == nil {
		s.Close()
	}
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "swap") {
		t.Errorf("used as swap space: %v", err)
	}
}

func TestADiskOfAPoolIsRefused(t *testing.T) {
	var devs []string
	for _, name := range []string{"one", "two"} {
		name = filepath.Join(t.TempDir(), name)
		write(t, name, nil)
		if err := os.Truncate(name, 128*mib); err != nil {
			t.Fatal(err)
		}
		devs = append(devs, newLoop(t, name))
	}
	tool(t, "btrfs-progs", "mkfs.btrfs", "-q", "-m", "raid1", devs[0], devs[1])
	at := t.TempDir()
	tool(t, "mount", "mount", "-o", "device="+devs[1], devs[0], at)
	t.Cleanup(func() { _ = exec.Command("umount", at).Run() })
	for _, dev := range devs { // the kernel tells of one of them that it is mounted
		s, err := Open(t.Context(), dev, Options{})
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, ErrInUse) || readOnly(t, dev) {
			t.Errorf("%s: %v, read-only %v", dev, err, readOnly(t, dev))
		}
	}
	tool(t, "mount", "umount", at)
	openSource(t, devs[1], Options{}).Close()
}

func TestTheDiskOfARunningMachineIsRefused(t *testing.T) {
	raw, _ := newRaw(t)
	dev := newLoop(t, raw)
	qcow2 := convert(t, raw, "qcow2")
	for _, name := range []string{raw, dev, qcow2} {
		folder, want := t.TempDir(), ErrInUse
		format := "raw"
		if name == qcow2 {
			want, format = ErrLocked, "qcow2"
		}
		pid := filepath.Join(folder, "pid") // of a server that may write, as a machine does
		tool(t, "qemu-utils", qemuNBD, "--fork", "--socket="+filepath.Join(folder, "socket"), "--pid-file="+pid, "--format="+format, name)
		s, err := Open(t.Context(), name, Options{})
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "virtual machine") || readOnly(t, dev) {
			t.Errorf("%s: %v, read-only %v", name, err, readOnly(t, dev))
		}
		if s, err = Open(t.Context(), name, Options{Live: true}); err == nil {
			if len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "virtual machine") || readOnly(t, dev) {
				t.Errorf("%s live: %q, read-only %v", name, s.Warnings, readOnly(t, dev))
			}
			s.Close()
		} else if name != qcow2 {
			t.Error(err)
		}
		if err := endProcess(pid); err != nil {
			t.Error(err)
		}
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			s, err := Open(t.Context(), name, Options{})
			if err == nil {
				s.Close()
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s when the machine is off: %v", name, err)
			}
		}
	}
}
