//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// What `make install` puts there is a service that systemd takes, and a configuration that the program takes.
func TestInstalledServiceIsAsSystemdWantsIt(t *testing.T) {
	root, build := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(build, "seedbed"), []byte("#!/bin/sh\n"+envCommand+"=1 exec '"+os.Args[0]+"' \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(build, "boot"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(build, "boot", "vmlinuz"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	tools(t, "", "make", "-C", "..", "-o", "build", "install", "DESTDIR="+root, "BUILD="+build)
	for path, mode := range map[string]os.FileMode{"usr/bin/seedbed": 0o755, "usr/lib/systemd/system/seedbed.service": 0o644, "usr/lib/sysusers.d/seedbed.conf": 0o644,
		"usr/share/man/man1/seedbed-user-token-new.1": 0o644, "usr/share/bash-completion/completions/seedbed": 0o644, "usr/share/zsh/vendor-completions/_seedbed": 0o644,
		"usr/share/fish/vendor_completions.d/seedbed.fish": 0o644, "usr/lib/tmpfiles.d/seedbed.conf": 0o644, "etc/seedbed": 0o750, "etc/seedbed/seedbed.yaml": 0o640, "var/lib/seedbed": 0o700, "var/lib/seedbed/boot/vmlinuz": 0o644} {
		if info, err := os.Stat(filepath.Join(root, path)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", path, info, err)
		}
	}
	must(t, t.TempDir(), "config", "show", "--config", filepath.Join(root, "etc/seedbed/seedbed.yaml"))
	unit := filepath.Join(root, "usr/lib/systemd/system/seedbed.service")
	if out, err := exec.Command("systemd-sysusers", "--root="+root).CombinedOutput(); err != nil {
		t.Errorf("systemd-sysusers: %v %s", err, out)
	}
	if out, err := exec.Command("systemd-tmpfiles", "--root="+root, "--create", "seedbed.conf").CombinedOutput(); err != nil {
		t.Errorf("systemd-tmpfiles: %v %s", err, out)
	}
	users, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil || !strings.Contains(string(users), "seedbed:x:") {
		t.Fatalf("there is no user seedbed: %v %s", err, users)
	}
	for path, want := range map[string]string{"var/lib/seedbed": "700 seedbed", "etc/seedbed": "750 root", "etc/seedbed/seedbed.yaml": "640 root"} {
		info, err := os.Stat(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		owner := "root"
		if strings.Contains(string(users), fmt.Sprintf("seedbed:x:%d:", info.Sys().(*syscall.Stat_t).Uid)) {
			owner = "seedbed"
		}
		if got := fmt.Sprintf("%o %s", info.Mode().Perm(), owner); got != want {
			t.Errorf("%s is %s, not %s", path, got, want)
		}
	}
	// Beside the program the unit names /bin/kill alone.
	b, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), "seedbed.service")
	if err := os.WriteFile(own, []byte(strings.Replace(string(b), "/usr/bin/seedbed", filepath.Join(root, "usr/bin/seedbed"), 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", own).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v %s", err, out)
	}
	// 10 is the service of everyday that is bound by nothing; most of Debian's are above 9.
	out, err := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", own).CombinedOutput()
	m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("systemd-analyze security: %v %s (install the package systemd)", err, out)
	}
	if level, err := strconv.ParseFloat(string(m[1]), 64); err != nil || level > 3 {
		t.Errorf("exposure level %s: %s", m[1], out)
	}
}
