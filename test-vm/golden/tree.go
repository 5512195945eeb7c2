package golden

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// payloadLength is the length of the random file in the tiny system, in bytes: enough that a test can cut a machine's
// power in the middle.
const payloadLength = 64 * mib

// extractRoot makes the directory that becomes the root file system.
func extractRoot(ctx context.Context, kind Kind, r root, dir string) error {
	full := dir
	if kind == Mini {
		full += ".debian"
	}
	if err := os.MkdirAll(full, 0o755); err != nil {
		return err
	}
	if _, err := run(ctx, "tar", "--zstd", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", r.tar(), "-C", full); err != nil {
		return err
	}
	switch kind {
	case Debian:
		return nil
	case Mini:
		return miniRoot(r, full, dir)
	}
	return fmt.Errorf("no such kind of image: %q", kind)
}

// applets are the names under which the tiny system's boot calls busybox.
var applets = []string{"init", "getty", "login", "mount", "sh", "hostname", "poweroff"}

// miniRoot makes the tiny system from Debian's kernel, its initrd and busybox: the initrd mounts the root file system,
// busybox's init starts getty there.
func miniRoot(r root, debian, dir string) error {
	for _, d := range []string{"", "bin", "boot", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Rename(filepath.Join(debian, "boot"), filepath.Join(dir, "boot", "x")); err != nil {
		return err
	}
	for _, name := range []string{"vmlinuz", "initrd.img", "grub/grub.cfg"} {
		from, err := filepath.EvalSymlinks(filepath.Join(dir, "boot", "x", name))
		if err != nil {
			return err
		}
		to := filepath.Join(dir, "boot", name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.Rename(from, to); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "boot", "x")); err != nil {
		return err
	}
	b, err := os.ReadFile(r.busybox())
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"bin/busybox": b,
		"payload":     randomBytes(64, payloadLength),
		"etc/passwd":  []byte("root::0:0:root:/root:/bin/sh\n"),
		"etc/issue":   []byte("Tiny golden system on \\l\n"),
		"etc/fstab":   []byte("UUID=" + rootUUID + " / ext4 defaults 0 1\n"),
		"etc/inittab": []byte("::sysinit:/bin/hostname golden\n::sysinit:/bin/mount -o remount,rw /\n" +
			"ttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100\n::shutdown:/bin/mount -o remount,ro /\n"),
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o755); err != nil {
			return err
		}
	}
	for _, a := range applets {
		for _, d := range []string{"bin", "sbin"} {
			if err := os.Symlink("/bin/busybox", filepath.Join(dir, d, a)); err != nil {
				return err
			}
		}
	}
	return nil
}
