package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	// Log receives what the appliance prints.
	Log io.Writer

	lab     *Lab
	process *Process
}

// Appliance returns the lab's appliance, not yet running; its data lie in the lab's directory.
func (l *Lab) Appliance(program, bootDir string) (*Appliance, error) {
	a := &Appliance{Data: filepath.Join(l.Dir, "appliance"), lab: l}
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
	if a.Log, err = os.Create(filepath.Join(l.Dir, "appliance.log")); err != nil {
		return nil, err
	}
	return a, os.MkdirAll(a.Data, 0o700)
}

// Start runs `seedbed serve` and returns when it answers.
func (a *Appliance) Start(ctx context.Context) error {
	p, err := a.lab.Run(a.Log, a.Program, "serve", "--data", a.Data, "--boot-dir", a.BootDir, "--interface", Interface, "--admit", "auto")
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
			return fmt.Errorf("the appliance ended at its start: %w; see %s", p.Err(), filepath.Join(a.lab.Dir, "appliance.log"))
		case <-ctx.Done():
			return fmt.Errorf("the appliance does not answer: %w; see %s", ctx.Err(), filepath.Join(a.lab.Dir, "appliance.log"))
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
	return a.lab.Output(ctx, a.Program, append(args, "--data", a.Data)...)
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
