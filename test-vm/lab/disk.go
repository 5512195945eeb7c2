package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Bus is how a disk is attached.
type Bus string

const (
	Virtio Bus = "virtio"
	SATA   Bus = "sata"
	NVMe   Bus = "nvme"
	USB    Bus = "usb"
)

// Disk is one disk of a machine. Disks are numbered by the firmware in their order in MachineConfig.
type Disk struct {
	// Path is the file behind it: ".raw" is what the machine sees byte by byte, ".qcow2" lies over another file.
	Path   string
	Bus    Bus // empty means Virtio
	Serial string
	// Removable makes a USB disk say that its medium can be taken out.
	Removable bool
}

func (d Disk) removable() string {
	if d.Removable {
		return "on"
	}
	return "off"
}

// EmptyDisk makes a sparse disk of length bytes in the lab's directory.
func (l *Lab) EmptyDisk(name string, length int64) (Disk, error) {
	d := Disk{Path: filepath.Join(l.Dir, name+".raw"), Serial: "SB" + strings.ToUpper(name)}
	f, err := os.Create(d.Path)
	if err != nil {
		return d, err
	}
	defer f.Close()
	return d, f.Truncate(length)
}

// Overlay makes a disk of length bytes which begins as the raw file base and leaves that file alone.
func (l *Lab) Overlay(ctx context.Context, name, base string, length int64) (Disk, error) {
	d := Disk{Path: filepath.Join(l.Dir, name+".qcow2"), Serial: "SB" + strings.ToUpper(name)}
	base, err := filepath.Abs(base)
	if err != nil {
		return d, err
	}
	out, err := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, d.Path, fmt.Sprint(length)).CombinedOutput()
	if err != nil {
		return d, fmt.Errorf("qemu-img create %s: %w: %s", d.Path, err, out)
	}
	return d, nil
}

// CopyDisk makes a disk that begins as a sparse copy of the raw file base, so that every byte of it can be looked at.
func (l *Lab) CopyDisk(ctx context.Context, name, base string) (Disk, error) {
	d := Disk{Path: filepath.Join(l.Dir, name+".raw"), Serial: "SB" + strings.ToUpper(name)}
	return d, Disk{Path: base}.Copy(ctx, d.Path)
}

// Copy makes a sparse copy of a raw disk's file while no machine runs on it.
func (d Disk) Copy(ctx context.Context, to string) error {
	out, err := exec.CommandContext(ctx, "cp", "--sparse=always", "--reflink=auto", d.Path, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copy %s: %w: %s", d.Path, err, out)
	}
	return nil
}

// Sum returns the SHA-256 of the file behind a disk.
func (d Disk) Sum() (string, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", d.Path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
