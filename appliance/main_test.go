//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/images/repository"
	"seedbed/images/repository/s3/s3test"
)

// Environment by which the test binary is asked to be something else.
const (
	envCommand = "SEEDBED_TEST_COMMAND" // the program itself
	envPrivate = "SEEDBED_TEST_PRIVATE" // the tests, in a network namespace of their own
	envMachine = "SEEDBED_TEST_MACHINE" // a machine that boots its agent, see booted
)

// TestMain runs the tests apart from all else, see runApart.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(envCommand) != "":
		main()
	case os.Getenv(envMachine) != "":
		os.Exit(runMachine(os.Getenv(envMachine)))
	case os.Getenv(envPrivate) != "":
		os.Exit(m.Run())
	}
	if _, err := s3test.Build(); err != nil { // in there is no network
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(runApart())
}

// commandEnv makes the test binary the program. Under the race detector a program waits a second before it ends, for
// reports that are late; here there are dozens.
func commandEnv() []string { return append(os.Environ(), envCommand+"=1", "GORACE=atexit_sleep_ms=0") }

const (
	applianceAddr = "10.77.0.1"
	machineAddr   = "10.77.0.5"
)

// network gives the namespace its addresses.
func network(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{{"link", "set", "lo", "up"}, {"addr", "replace", applianceAddr + "/24", "dev", "lo"},
		{"addr", "replace", machineAddr + "/24", "dev", "lo"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v %s (install the package iproute2)", args, err, out)
		}
	}
}

// seedbed runs a command of the program and returns what it printed and its exit code.
func seedbed(t *testing.T, data string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"--data", data}, args...)...)
	cmd.Env = commandEnv()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if cmd.ProcessState.ExitCode() != 0 {
		return errs.String(), cmd.ProcessState.ExitCode()
	}
	return out.String(), 0
}

// must runs a command that has to succeed.
func must(t *testing.T, data string, args ...string) string {
	t.Helper()
	out, code := seedbed(t, data, args...)
	if code != 0 {
		t.Fatalf("seedbed %v: exit code %d: %s", args, code, out)
	}
	return out
}

// decode runs a command with --json.
func decode[T any](t *testing.T, data string, args ...string) (v T) {
	t.Helper()
	out := must(t, data, append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("seedbed %v: %v: %s", args, err, out)
	}
	return v
}

// bootFiles makes a folder with something under each name.
func bootFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"vmlinuz", "initramfs.cpio.zst", "undionly.kpxe", "snponly.efi", "ipxe.efi", "shimx64.efi", "grubx64.efi"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// process is a running appliance.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	log   *bytes.Buffer // to be read when it has ended
	out   *bytes.Buffer // what it printed, likewise
	ended chan struct{} // closed then
}

// serve starts an appliance on all its ports and waits until it answers.
func serve(t *testing.T, data, boot string, args ...string) *process {
	t.Helper()
	p := &process{t: t, log: new(bytes.Buffer), out: new(bytes.Buffer), ended: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0], append([]string{"--data", data, "serve", "--boot-dir", boot, "--address", applianceAddr}, args...)...)
	p.cmd.Env = commandEnv()
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.cmd.Wait(); close(p.ended) }()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("appliance:\n%s", p.log)
		}
	})
	c := client.Local(filepath.Join(data, "seedbed.sock"))
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		if _, err := c.Jobs(ctx, api.JobQuery{}); err == nil {
			return p
		}
		select {
		case <-p.ended:
			t.Fatalf("the appliance ended: %s", p.log)
		case <-ctx.Done():
			t.Fatal("the appliance does not answer")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// kill ends the appliance without a warning.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		p.t.Fatal(err)
	}
	<-p.ended
}

// newDisk makes a disk file of random bytes and zeros.
func newDisk(t *testing.T) (path string, content []byte) {
	t.Helper()
	content = make([]byte, 6<<20)
	mathrand.NewChaCha8([32]byte{1}).Read(content[1<<20 : 5<<20])
	path = filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

func TestImageCommandsWorkWithAndWithoutAnAppliance(t *testing.T) {
	network(t)
	data := filepath.Join(t.TempDir(), "data")
	disk, _ := newDisk(t)
	must(t, data, "image", "add", disk, "--name", "one")
	boot := bootFiles(t)
	p := serve(t, data, boot)
	must(t, data, "image", "add", disk, "--name", "one")
	must(t, data, "image", "add", disk, "--name", "two", "--version", "v1", "--compress", "lz4")
	if out, code := seedbed(t, data, "image", "add", disk, "--name", "two", "--version", "v1", "--sector", "4096"); code != exitRefused {
		t.Errorf("the same version again: exit code %d: %s", code, out)
	}
	if _, code := seedbed(t, data, "image", "add", "/nowhere", "--name", "x"); code != exitRefused {
		t.Errorf("a disk that is not there: exit code %d", code)
	}
	p.kill()
	var names []string
	for _, i := range decode[[]api.ImageListing](t, data, "image", "ls") {
		names = append(names, i.Name+":"+i.Version)
	}
	if got := strings.Join(names, " "); got != "one:1 one:2 two:v1" {
		t.Fatalf("images %s", got)
	}
	d := decode[api.ImageDetail](t, data, "image", "show", "one:1")
	if !d.Signed || d.EncodedLength < 4<<20 || d.Manifest.DiskLength != 6<<20 {
		t.Fatalf("image %+v", d)
	}
	if out := must(t, data, "image", "show", d.Digest.Short()); !strings.Contains(out, "by this site") {
		t.Fatalf("image show: %s", out)
	}
	must(t, data, "image", "verify", "two")
	damage(t, filepath.Join(data, "repository", "packs"))
	if out := output(t, data, exitDamaged, "image", "verify", "one"); !strings.Contains(string(out), "bytes [") {
		t.Errorf("a damaged image: %s", out)
	}
}

// damage changes one byte in the middle of every pack.
func damage(t *testing.T, packs string) {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(packs, "*"))
	if err != nil || len(list) == 0 {
		t.Fatalf("packs: %v, %v", list, err)
	}
	for _, path := range list {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExitCodes(t *testing.T) {
	data := t.TempDir()
	for _, c := range []struct {
		code int
		args []string
	}{
		{0, []string{"--help"}},
		{exitUsage, []string{"nonsense"}},
		{exitUsage, []string{"image", "nonsense"}},
		{exitUsage, []string{"image", "show"}},
		{exitUsage, []string{"image", "ls", "--nonsense"}},
		{exitUsage, []string{"image", "add", "/disk"}},
		{exitUsage, []string{"serve", "--admit", "perhaps"}},
		{exitUsage, []string{"serve", "--address", "nowhere"}},
		{exitUsage, []string{"deploy", "debian"}},
		{exitUsage, []string{"job", "ls", "--history", "x"}},
		{exitUsage, []string{"machine", "ls", "--appliance", "http://127.0.0.1"}},
		{exitNotFound, []string{"image", "show", "nothing"}},
		{exitStopped, []string{"job", "ls"}},
		{exitStopped, []string{"deploy", "debian", "--all"}},
		{exitFailure, []string{"serve", "--no-boot", "--https", "256.0.0.1:1", "--address", "127.0.0.1"}},
	} {
		if out, code := seedbed(t, data, c.args...); code != c.code {
			t.Errorf("seedbed %v: exit code %d, want %d: %s", c.args, code, c.code, out)
		} else if strings.Contains(out, "strconv") {
			t.Errorf("seedbed %v speaks of functions: %s", c.args, out)
		}
	}
	bucket, err := repository.OpenDir(filepath.Join(data, "repository"))
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Open(t.Context(), bucket, repository.Config{Spool: filepath.Join(data, "spool")})
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	if out, code := seedbed(t, data, "image", "ls"); code != exitLocked {
		t.Errorf("a locked repository: exit code %d: %s", code, out)
	}
}

// Two processes that make an identity at one time leave the key of the one and the certificate of the other.
func TestIdentityIsMadeUnderTheLock(t *testing.T) {
	data := t.TempDir()
	first, err := openLibrary(t.Context(), data, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer first.close()
	if err := os.RemoveAll(filepath.Join(data, "site")); err != nil {
		t.Fatal(err)
	}
	if _, err := openLibrary(t.Context(), data, "", nil); !errors.Is(err, repository.ErrLocked) {
		t.Errorf("a second process: %v", err)
	}
	if _, err := os.Stat(filepath.Join(data, "site")); err == nil {
		t.Error("a second process made an identity")
	}
}

func TestServeSaysWhichBootFilesAreMissing(t *testing.T) {
	network(t)
	out, code := seedbed(t, t.TempDir(), "serve", "--address", applianceAddr)
	if code != exitFailure || !strings.Contains(out, "vmlinuz is missing") || !strings.Contains(out, "--boot-dir") {
		t.Fatalf("exit code %d: %s", code, out)
	}
}

func TestServeSaysThatADataDirectoryIsTooDeep(t *testing.T) {
	network(t)
	data := filepath.Join(t.TempDir(), strings.Repeat("deep/", 30))
	out, code := seedbed(t, data, "serve", "--address", applianceAddr, "--no-boot")
	if code != exitFailure || !strings.Contains(out, "choose a data directory with a shorter path") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

func TestServeStopsWhenItIsAskedTo(t *testing.T) {
	network(t)
	data := t.TempDir()
	p := serve(t, data, bootFiles(t))
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-p.ended
	if p.cmd.ProcessState.ExitCode() != 0 || strings.Contains(p.log.String(), "level=ERROR") {
		t.Fatalf("exit code %d: %s", p.cmd.ProcessState.ExitCode(), p.log)
	}
}

// jobs returns the jobs as the program prints them.
func jobs(t *testing.T, data string) []api.Job {
	return decode[[]api.Job](t, data, "job", "ls")
}
