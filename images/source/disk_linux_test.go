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
