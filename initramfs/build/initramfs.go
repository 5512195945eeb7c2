package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// initramfsName is the initramfs in the boot directory.
const initramfsName = "initramfs.cpio.zst"

// maxBootLength bounds kernel and initramfs together, in bytes; machines load them over a shared link.
const maxBootLength = 40 << 20

// initramfs builds the agent and joins it with the cached archives of modules and firmware. Each is compressed by
// itself; the kernel unpacks one after the other (Linux, early-userspace/buffer-format.rst).
func (r *recipe) initramfs(ctx context.Context) error {
	pkgs, err := r.packages(ctx)
	if err != nil {
		return err
	}
	set, err := r.kernel(ctx, pkgs)
	if err != nil {
		return err
	}
	agent, err := r.buildAgent(ctx)
	if err != nil {
		return err
	}
	a := newArchive()
	a.add("init", 0o755, agent)
	a.device("dev/console", 0o600, 5, 1) // Linux, devices.txt
	for _, dir := range []string{"proc", "sys", "run", "tmp", "etc/seedbed"} {
		a.folder(dir)
	}
	packed, err := a.compress(ctx)
	if err != nil {
		return err
	}
	whole := bytes.Join([][]byte{packed, set.modules, set.firmware}, nil)
	if n := len(whole) + len(set.vmlinuz); n > maxBootLength {
		return fmt.Errorf("kernel and initramfs are %d bytes, more than %d", n, maxBootLength)
	}
	kernel := findPackage(pkgs, "linux-image-")
	f, err := r.put(initramfsName, Package{Name: "seedbed", Version: kernel.Version}, whole)
	if err != nil {
		return err
	}
	r.log.Info("initramfs", "agent", len(packed), "modules", len(set.modules), "firmware", len(set.firmware),
		"with kernel", len(whole)+len(set.vmlinuz))
	return r.record([]File{f})
}

// buildAgent compiles the agent as a static program.
func (r *recipe) buildAgent(ctx context.Context) ([]byte, error) {
	dir, err := os.MkdirTemp("", "seedbed-agent-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "init")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, r.agent)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("build the agent: %w", err)
	}
	return os.ReadFile(out)
}
