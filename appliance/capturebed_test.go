//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/client"
	"seedbed/appliance/job"
	"seedbed/initramfs/agent"
	"seedbed/initramfs/disk"
)

// reference is a machine whose disk is a file, with the real agent.
type reference struct {
	machine
	disk    string
	console bytes.Buffer  // to be read when the agent has ended
	hold    chan struct{} // the disk opens when this is closed; nil: at once
}

func (r *reference) SetClock(time.Time) error { return nil }
func (r *reference) Inventory() job.Inventory {
	disks, _ := r.Disks()
	return job.Inventory{Firmware: "uefi", Serial: "SN" + r.boot.MAC, NICs: []job.NIC{{MAC: r.boot.MAC}}, Disks: []job.Disk{disks[0].Disk}}
}

func (r *reference) Disks() ([]disk.Disk, error) {
	info, err := os.Stat(r.disk)
	if err != nil {
		return nil, err
	}
	return []disk.Disk{{Disk: job.Disk{Name: "vda", Serial: "D" + r.boot.MAC, Bus: "virtio", Length: info.Size(), SectorLength: 512}}}, nil
}

func (r *reference) Open(string) (*disk.Device, error) {
	return nil, errors.New("the disk of a reference machine was opened for writing")
}

func (r *reference) OpenSource(name string) (*disk.Source, error) {
	return disk.OpenSource(r.disk, name)
}

// newReference makes a machine that the appliance has seen, with a disk.
func newReference(t *testing.T, mac, file string) *reference {
	t.Helper()
	r := &reference{machine: machine{t: t, mac: mac}, disk: file}
	if script := r.firmware(); strings.Contains(script, "/boot/token") {
		t.Fatalf("a machine without a job boots the agent:\n%s", script)
	}
	return r
}

// ended is what an agent came to.
type ended struct {
	after string
	err   error
}

// work boots the machine from the network and runs its agent until ctx ends.
func (r *reference) work(ctx context.Context) <-chan ended {
	r.t.Helper()
	r.bootAgent()
	screen := agent.NewScreen(&r.console)
	a, err := agent.New(agent.Config{Boot: r.boot, Machine: r, Screen: screen, Version: "test"})
	if err != nil {
		r.t.Fatal(err)
	}
	out := make(chan ended, 1)
	go func() {
		after, err := a.Run(ctx)
		screen.Close(time.Second)
		out <- ended{after, err}
	}()
	return out
}

// finish waits for the end of a capture.
func (r *reference) finish(out <-chan ended) {
	r.t.Helper()
	select {
	case e := <-out:
		if e.err != nil || e.after != agent.Reboot {
			r.t.Fatalf("%v, then %q:\n%s", e.err, e.after, r.console.String())
		}
	case <-time.After(60 * time.Second):
		r.t.Fatal("the agent did not end")
	}
}

// traffic is how many bytes the network has carried.
func traffic(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "lo:")
	n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// passed waits until the network has carried n bytes more than before.
func passed(t *testing.T, before, n int64) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); traffic(t) < before+n; {
		if time.Now().After(end) {
			t.Fatalf("only %d bytes travelled", traffic(t)-before)
		}
		time.Sleep(2 * time.Millisecond) // the counter is all there is to wait for
	}
}

// newReferenceDisk makes a disk with a GPT, an ext4 file system full of noise, and swap.
func newReferenceDisk(t *testing.T, noise int64, seed byte) (file string) {
	t.Helper()
	dir := t.TempDir()
	content := filepath.Join(dir, "content")
	if err := os.Mkdir(content, 0o755); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, noise)
	mathrand.NewChaCha8([32]byte{seed}).Read(b)
	if err := os.WriteFile(filepath.Join(content, "noise"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "disk.img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	length := noise + noise/8 + 48<<20
	if err := os.Truncate(file, length); err != nil {
		t.Fatal(err)
	}
	table := fmt.Sprintf("label: gpt\nstart=2048, size=%d, type=L\nsize=16384, type=S\n", (length-24<<20)/512)
	tools(t, table, "sfdisk", "-q", file)
	tools(t, "", "mkfs.ext4", "-q", "-F", "-E", "offset=1048576", "-d", content, file, fmt.Sprintf("%dk", (length-24<<20)>>10))
	return file
}

// tools runs a program that has to succeed.
func tools(t *testing.T, input, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s (packages fdisk, e2fsprogs)", name, args, err, out)
	}
	return string(out)
}

func sumOf(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// roots are the roots of an image's partitions.
func roots(t *testing.T, data, image string) (list []string) {
	t.Helper()
	c := client.Local(filepath.Join(data, "seedbed.sock"))
	defer c.Close()
	d, err := c.Show(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Manifest.Partitions {
		list = append(list, p.Root.String())
	}
	return list
}
