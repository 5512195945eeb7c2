package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// MachineConfig describes a machine before its first start.
type MachineConfig struct {
	// Name is for people and for file names: "room-1".
	Name     string
	Firmware Firmware
	// MemoryMiB is the memory in MiB; zero means 1024.
	MemoryMiB int
	Disks     []Disk // none is a machine without a disk
	// Display gives it a screen that Boot.Picture reads. Firmware then shows its text there and not on the serial line.
	Display bool
}

// Machine is one virtual computer. It keeps its disks and its firmware's variables from start to start. Safe for
// concurrent use.
type Machine struct {
	Config MachineConfig
	MAC    net.HardwareAddr
	UUID   string // SMBIOS

	lab   *Lab
	index int
	tap   string
	vars  string // file of the firmware's variables

	mu    sync.Mutex // guards boot, boots
	boot  *Boot
	boots int
}

// StartOptions say how a machine is switched on.
type StartOptions struct {
	// StopAtReboot ends the machine where it would start again, so that its disks can be looked at.
	StopAtReboot bool
	// Unplugged starts it without a NIC.
	Unplugged bool
}

// Machine adds a machine to the room, switched off.
func (l *Lab) Machine(ctx context.Context, c MachineConfig) (*Machine, error) {
	if c.MemoryMiB == 0 {
		c.MemoryMiB = 1024
	}
	l.mu.Lock()
	m := &Machine{Config: c, lab: l, index: len(l.machines)}
	l.machines = append(l.machines, m)
	l.mu.Unlock()
	m.MAC = MAC(m.index)
	m.UUID = fmt.Sprintf("5eedbed0-0000-4000-8000-%x", []byte(m.MAC))
	m.tap = fmt.Sprintf("tap%d", m.index)
	if c.Firmware != BIOS {
		if err := m.makeVariables(); err != nil {
			return nil, err
		}
	}
	return m, l.plug(ctx, m.tap)
}

// makeVariables gives the machine its own copy of the firmware's variables.
func (m *Machine) makeVariables() error {
	from := varsFile
	switch m.Config.Firmware {
	case SecureBoot:
		from = secureVarsFile
	case OtherKeys:
		from = otherKeysFile
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if b, err = withBootEntries(b, m.MAC); err != nil {
		return err
	}
	m.vars = filepath.Join(m.lab.Dir, m.Config.Name+".vars")
	return os.WriteFile(m.vars, b, 0o644)
}

// Start switches the machine on. It fails if the machine is on.
func (m *Machine) Start(o StartOptions) (*Boot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.boot != nil && !m.boot.hasEnded() {
		return nil, fmt.Errorf("lab: machine %s is on already", m.Config.Name)
	}
	m.boots++
	log, err := os.Create(filepath.Join(m.lab.Dir, fmt.Sprintf("%s.%d.serial", m.Config.Name, m.boots)))
	if err != nil {
		return nil, err
	}
	// QEMU reads its serial line's input from a pipe that stays open and empty.
	in, keep, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	socket, remove, err := m.monitorSocket()
	if err != nil {
		return nil, errors.Join(err, keep.Close(), log.Close())
	}
	args := arguments(m, acceleration(), o)
	if socket != "" {
		args = append(args, "-qmp", "unix:"+socket+",server=on,wait=off")
	}
	s := newSerial(log)
	p, err := start(m.lab.switchNS(), in, s, "qemu-system-x86_64", args...)
	in.Close()
	if err != nil {
		return nil, errors.Join(err, keep.Close(), log.Close(), remove())
	}
	m.boot = &Boot{Serial: s, Name: m.Config.Name, process: p, ended: make(chan struct{}), dir: m.lab.Dir, socket: socket}
	go m.boot.watch(keep, log, closer(remove))
	m.lab.log.Debug("machine on", "machine", m.Config.Name, "pid", p.PID())
	return m.boot, nil
}

// Cut takes the machine's power away and waits until it is off.
func (m *Machine) Cut() error {
	m.mu.Lock()
	b := m.boot
	m.mu.Unlock()
	if b == nil {
		return nil
	}
	return b.Cut()
}

// Boot is one run of a machine, from power on to its end.
type Boot struct {
	Name   string // of the machine
	Serial *Serial

	process *Process
	ended   chan struct{}
	dir     string // of the lab
	socket  string // of QEMU's own port, "" without a screen
}

// closer is a function as an io.Closer.
type closer func() error

func (c closer) Close() error { return c() }

// watch waits for QEMU's end and closes what belongs to the run.
func (b *Boot) watch(closers ...io.Closer) {
	<-b.process.Done()
	b.Serial.end()
	for _, c := range closers {
		c.Close()
	}
	close(b.ended)
}

// Ended is closed when the machine is off.
func (b *Boot) Ended() <-chan struct{} { return b.ended }

func (b *Boot) hasEnded() bool {
	select {
	case <-b.ended:
		return true
	default:
		return false
	}
}

// Cut takes the power away and waits until the machine is off.
func (b *Boot) Cut() error {
	err := b.process.Kill()
	<-b.ended
	return err
}

// WaitEnd waits until the machine is off by itself, as after StopAtReboot.
func (b *Boot) WaitEnd(ctx context.Context) error {
	select {
	case <-b.ended:
	case <-ctx.Done():
		return fmt.Errorf("machine %s: it did not reboot or power off: %w; its serial line ends:\n%s", b.Name, ctx.Err(), b.Serial.Tail(15))
	}
	var exit *exec.ExitError
	if err := b.process.Err(); errors.As(err, &exit) {
		return fmt.Errorf("machine %s: QEMU: %w; its serial line ends:\n%s", b.Name, err, b.Serial.Tail(15))
	}
	return nil
}

// WaitFor waits until one of the texts is on the serial line and returns it. A machine that ends before is an error.
func (b *Boot) WaitFor(ctx context.Context, texts ...string) (string, error) {
	for {
		found, changed := b.Serial.find(texts)
		if found != "" {
			return found, nil
		}
		select {
		case <-changed:
		case <-b.ended:
			if found, _ := b.Serial.find(texts); found != "" {
				return found, nil
			}
			return "", fmt.Errorf("machine %s: it ended before it showed %q; its serial line ends:\n%s", b.Name, texts, b.Serial.Tail(15))
		case <-ctx.Done():
			return "", fmt.Errorf("machine %s: it did not show %q: %w; its serial line ends:\n%s", b.Name, texts, ctx.Err(), b.Serial.Tail(15))
		}
	}
}

// deadEnds are what machines show where they stop for good: SeaBIOS, OVMF, GRUB, Linux.
var deadEnds = []string{"No bootable device", "No bootable option or device was found", "grub> ", "grub rescue>", "Kernel panic"}

// WaitBoot waits until text is on the serial line, as WaitFor does; a machine that stops for good before is an error at
// once.
func (b *Boot) WaitBoot(ctx context.Context, text string) error {
	found, err := b.WaitFor(ctx, append([]string{text}, deadEnds...)...)
	if err == nil && found != text {
		return fmt.Errorf("machine %s: it stopped (%q) before it showed %q; its serial line ends:\n%s", b.Name, found, text, b.Serial.Tail(15))
	}
	return err
}
