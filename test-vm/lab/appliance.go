package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
)

// Appliance is the program under test, driven as a person drives it: by its command line. Safe for concurrent use, but
// for Start, Kill and Stop, which one goroutine calls.
type Appliance struct {
	// Program is the seedbed program, BootDir the boot files, Data its directory.
	Program, BootDir, Data string
	// Addr is where machines reach it.
	Addr netip.Addr
	// Flags are of all its commands, `serve` too: where images and records are, if not in Data.
	Flags []string
	// Log receives what the appliance prints.
	Log io.Writer

	lab     *Lab
	ns      string // its network namespace
	process *Process
}

// Appliance returns the lab's appliance, not yet running; its data lie in the lab's directory.
func (l *Lab) Appliance(program, bootDir string) (*Appliance, error) {
	return l.appliance(program, bootDir, l.Namespace(), 1)
}

// AnotherAppliance returns one more appliance, not yet running, on a host of its own: of the same site, if it is given that
// site's identity, records and images.
func (l *Lab) AnotherAppliance(ctx context.Context, program, bootDir string) (*Appliance, error) {
	ns, err := l.plugAppliance(ctx)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	n := len(l.others) + 1
	l.mu.Unlock()
	return l.appliance(program, bootDir, ns, n)
}

// appliance returns the n-th appliance, n from 1.
func (l *Lab) appliance(program, bootDir, ns string, n int) (*Appliance, error) {
	name := "appliance"
	if n > 1 {
		name += strconv.Itoa(n)
	}
	a := &Appliance{Data: filepath.Join(l.Dir, name), Addr: applianceAddr(n), lab: l, ns: ns}
	var err error
	if a.Program, err = filepath.Abs(program); err != nil {
		return nil, err
	}
	if a.BootDir, err = filepath.Abs(bootDir); err != nil {
		return nil, err
	}
	for path, how := range map[string]string{a.Program: "make build", filepath.Join(a.BootDir, "vmlinuz"): "make assets",
		filepath.Join(a.BootDir, "initramfs.cpio.zst"): "make initramfs"} {
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("%w; run `%s`", err, how)
		}
	}
	if a.Log, err = os.Create(a.logFile()); err != nil {
		return nil, err
	}
	return a, os.MkdirAll(a.Data, 0o700)
}

func (a *Appliance) logFile() string { return a.Data + ".log" }

// Start runs `seedbed serve` and returns when it answers.
func (a *Appliance) Start(ctx context.Context) error {
	args := append([]string{"serve", "--data", a.Data, "--boot-dir", a.BootDir, "--interface", Interface, "--admit", "auto"}, a.Flags...)
	p, err := a.lab.runIn(a.ns, nil, a.Log, a.Program, args...)
	if err != nil {
		return err
	}
	a.process = p
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c := client.Local(filepath.Join(a.Data, "seedbed.sock"))
	defer c.Close()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !c.Running(ctx) {
		select {
		case <-tick.C:
		case <-p.Done():
			return fmt.Errorf("the appliance ended at its start: %w; see %s", p.Err(), a.logFile())
		case <-ctx.Done():
			return fmt.Errorf("the appliance does not answer: %w; see %s", ctx.Err(), a.logFile())
		}
	}
	return nil
}

// Kill ends the appliance with SIGKILL.
func (a *Appliance) Kill() error { return a.process.Kill() }

// Stop ends the appliance as a service manager does.
func (a *Appliance) Stop() error { return a.process.Stop() }

// Command runs one of the operator's commands and returns what it prints.
func (a *Appliance) Command(ctx context.Context, args ...string) ([]byte, error) {
	return a.lab.output(ctx, a.ns, a.Program, slices.Concat(args, []string{"--data", a.Data}, a.Flags)...)
}

// AddImage makes an image of a raw disk file.
func (a *Appliance) AddImage(ctx context.Context, name, file string) (*api.ImageDetail, error) {
	d := new(api.ImageDetail)
	return d, a.query(ctx, d, "image", "add", file, "--name", name, "--json")
}

// Jobs returns the appliance's jobs, oldest first.
func (a *Appliance) Jobs(ctx context.Context) (jobs []api.Job, err error) {
	return jobs, a.query(ctx, &jobs, "job", "ls", "--json")
}

// Machines returns the machines that the appliance knows.
func (a *Appliance) Machines(ctx context.Context) (list []api.Machine, err error) {
	return list, a.query(ctx, &list, "machine", "ls", "--json")
}

// Machine returns a machine by its name, ID, MAC or serial number.
func (a *Appliance) Machine(ctx context.Context, name string) (*api.Machine, error) {
	m := new(api.Machine)
	return m, a.query(ctx, m, "machine", "show", name, "--json")
}

// Boot returns how a machine boots, as the appliance's boot doctor sees it.
func (a *Appliance) Boot(ctx context.Context, m *Machine) (*api.MachineBoot, error) {
	c := client.Local(filepath.Join(a.Data, "seedbed.sock"))
	defer c.Close()
	return c.MachineBoot(ctx, m.MAC.String())
}

// Events returns the appliance's events, oldest first.
func (a *Appliance) Events(ctx context.Context) (events []fleet.Event, err error) {
	return events, a.query(ctx, &events, "event", "ls", "--json")
}

func (a *Appliance) query(ctx context.Context, v any, args ...string) error {
	out, err := a.Command(ctx, args...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, v); err != nil {
		return fmt.Errorf("output of seedbed %s: %w", args[0], err)
	}
	return nil
}
