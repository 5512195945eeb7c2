package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"seedbed/appliance/job"
	"seedbed/initramfs/disk"
	"seedbed/initramfs/identity"
	"seedbed/initramfs/network"
)

// hardware is the computer that the agent runs on. Safe for concurrent use.
type hardware struct {
	root    string
	modules *modules
	net     *network.Network
	lease   network.Lease
	log     *slog.Logger

	edd        []disk.EDD
	signatures map[string]uint32 // disk signatures as the machine started, by name

	mu sync.Mutex // guards against two rescans at once
}

var _ interface {
	SetClock(time.Time) error
	Inventory() job.Inventory
	Disks() ([]disk.Disk, error)
	Open(string) (*disk.Device, error)
	OpenSource(string) (*disk.Source, error)
} = (*hardware)(nil)

// newHardware takes down how the BIOS counts the disks, before any of them is written.
func newHardware(root string, m *modules, net *network.Network, lease network.Lease, log *slog.Logger) *hardware {
	h := &hardware{root: root, modules: m, net: net, lease: lease, log: log, edd: disk.ReadEDD(root), signatures: map[string]uint32{}}
	if len(h.edd) == 0 {
		return h
	}
	disks, err := disk.List(root)
	if err != nil {
		return h
	}
	for _, d := range disks {
		if sig, err := readSignature(filepath.Join(root, "dev", d.Name)); err == nil {
			h.signatures[d.Name] = sig
		}
	}
	return h
}

func readSignature(path string) (uint32, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b := make([]byte, 4096)
	n, err := f.ReadAt(b, 0)
	if n < 512 {
		return 0, err
	}
	return disk.Signature(b), nil
}

// SetClock implements agent.Machine.
func (h *hardware) SetClock(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	return unix.Settimeofday(&tv)
}

// Disks implements agent.Machine: drivers of controllers that were put in meanwhile are loaded.
func (h *hardware) Disks() ([]disk.Disk, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.modules.coldPlug(h.log)
	disks, err := disk.List(h.root)
	if err != nil {
		return nil, err
	}
	disk.NumberDrives(disks, h.edd, h.signatures)
	return disks, nil
}

// Open implements agent.Machine.
func (h *hardware) Open(name string) (*disk.Device, error) {
	return disk.Open(filepath.Join(h.root, "dev", name), name)
}

// OpenSource implements agent.Machine.
func (h *hardware) OpenSource(name string) (*disk.Source, error) {
	return disk.OpenSource(filepath.Join(h.root, "dev", name), name)
}

// Inventory implements agent.Machine.
func (h *hardware) Inventory() job.Inventory {
	inv := identity.Read(h.root)
	inv.LinkWait = h.lease.Wait
	inv.NICs = network.List(h.root, h.net.Leases())
	disks, err := h.Disks()
	if err != nil {
		h.log.Warn("disks not listed", "err", err)
	}
	for _, d := range disks {
		inv.Disks = append(inv.Disks, d.Disk)
	}
	return inv
}
