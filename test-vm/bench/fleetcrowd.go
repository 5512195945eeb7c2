package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
	"seedbed/test-vm/agents"
)

// crowdArg makes this program the process of the simulated agents.
const crowdArg = "-crowd"

// Addresses of the appliance and of the first agent; 10.79.0.0/16 belongs to the loopback interface of their namespace.
const (
	crowdAppliance = "10.79.0.1"
	crowdFirst     = "10.79.1.0"
)

// crowdMain is the child process. Its order comes on standard input; the result goes to standard output.
func crowdMain() {
	var c agents.Config
	err := json.NewDecoder(os.Stdin).Decode(&c)
	if err == nil {
		r, runErr := agents.Run(context.Background(), c)
		if runErr != nil {
			fmt.Fprintln(os.Stderr, "bench: agents:", runErr) // the comparison tells what became of them
		}
		err = json.NewEncoder(os.Stdout).Encode(r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: agents:", err)
		os.Exit(1)
	}
}

// crowd is an appliance and simulated agents, two processes in a namespace of their own.
type crowd struct {
	settings
	folder, data, space string
	serve               *exec.Cmd
	log                 *os.File
	operator            *client.Client
}

func openCrowd(ctx context.Context, s settings, folder string) (c *crowd, err error) {
	c = &crowd{settings: s, folder: folder, data: filepath.Join(folder, "data"), space: fmt.Sprintf("sbfleet%d", os.Getpid())}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	for _, args := range [][]string{{"netns", "add", c.space}, {"-n", c.space, "link", "set", "lo", "up"}, {"-n", c.space, "addr", "add", crowdAppliance + "/16", "dev", "lo"}} {
		if err := tool(ctx, "iproute2", "ip", args...); err != nil {
			return c, err
		}
	}
	boot := filepath.Join(folder, "boot")
	if err := errors.Join(os.Mkdir(c.data, 0o700), os.Mkdir(boot, 0o700)); err != nil {
		return c, err
	}
	for _, name := range []string{"vmlinuz", "initramfs.cpio.zst", "undionly.kpxe", "snponly.efi", "ipxe.efi", "shimx64.efi", "grubx64.efi"} {
		if err := os.WriteFile(filepath.Join(boot, name), []byte(name), 0o600); err != nil { // how files travel is another bench's
			return c, err
		}
	}
	if c.log, err = os.Create(filepath.Join(folder, "serve.log")); err != nil {
		return c, err
	}
	args := []string{"netns", "exec", c.space, filepath.Join(folder, "seedbed"), "--data", c.data}
	if s.fleet.records != "" {
		args = append(args, "--store", s.fleet.records)
	}
	c.serve = exec.Command("ip", append(args, "serve", "--boot-dir", boot, "--address", crowdAppliance)...)
	c.serve.Stdout, c.serve.Stderr = c.log, c.log
	c.serve.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.serve.Start(); err != nil {
		c.serve = nil
		return c, err
	}
	c.operator = client.Local(filepath.Join(c.data, "seedbed.sock"))
	return c, c.ready(ctx)
}

// ready waits until the appliance answers.
func (c *crowd) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for !c.operator.Running(ctx) {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the appliance does not answer: %s", c.lastLines())
		}
	}
	return nil
}

func (c *crowd) lastLines() []byte {
	b, _ := os.ReadFile(c.log.Name())
	return b[max(0, len(b)-2000):]
}

// close ends the appliance and removes the namespace.
func (c *crowd) close() (err error) {
	if c.operator != nil {
		c.operator.Close()
	}
	if c.serve != nil {
		err = c.serve.Process.Signal(syscall.SIGTERM)
		_ = c.serve.Wait() // what it says is in its log
	}
	if c.log != nil {
		err = errors.Join(err, c.log.Close())
	}
	if _, statErr := os.Stat(filepath.Join("/run/netns", c.space)); statErr == nil {
		err = errors.Join(err, tool(context.Background(), "iproute2", "ip", "netns", "del", c.space))
	}
	return err
}

// image makes the image "bench".
func (c *crowd) image(ctx context.Context) error {
	disk := filepath.Join(c.folder, "disk.img")
	if err := errors.Join(os.WriteFile(disk, bytes.Repeat([]byte("seedbed bench "), 1<<19), 0o600), truncate(disk, 16<<20)); err != nil {
		return err
	}
	_, err := c.operator.Add(ctx, api.ImageOrder{Path: disk, Name: "bench"}, nil)
	return err
}

// prepare makes an image, and a job for each machine of the room.
func (c *crowd) prepare(ctx context.Context) (*api.Deployment, error) {
	if err := c.image(ctx); err != nil {
		return nil, err
	}
	if _, err := c.operator.ImportMachines(ctx, strings.NewReader(agents.Table(c.fleet.agents)), false); err != nil {
		return nil, err
	}
	o := api.Order{All: true, Order: fleet.Order{Image: "bench"}}
	if c.fleet.herd {
		o.NotBefore = time.Now().Add(c.fleet.ramp + 5*time.Second)
	}
	return c.operator.Deploy(ctx, o)
}

// run has the room imaged.
func (c *crowd) run(ctx context.Context) (f *fleetFigures, err error) {
	deployment, err := c.prepare(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, c.lastLines())
	}
	watching, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer func() { stop(); beside.Wait() }()
	for range c.fleet.watchers {
		beside.Go(func() {
			for watching.Err() == nil {
				_ = c.operator.Live(watching, 0, func(client.Change) error { return nil })
			}
		})
	}
	if c.profile != "" {
		beside.Go(func() { c.profiles(watching) })
	}
	meter := &meter{pid: c.serve.Process.Pid}
	beside.Go(func() { meter.run(watching) })
	began, err := meter.cpu()
	if err != nil {
		return nil, err
	}
	result, own, err := c.agents(ctx)
	if err != nil {
		return nil, err
	}
	ended, err := meter.cpu()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, c.lastLines())
	}
	f = &fleetFigures{took: result.Ended.Sub(result.Began), appliance: ended - began, agents: own, requests: result.Took}
	if f.memory, err = meter.peak(); err != nil {
		return nil, err
	}
	stop()
	beside.Wait()
	f.busiest = meter.busiest(10 * time.Second)
	for i := range result.Stories {
		f.retries += result.Stories[i].Retries
		for _, step := range result.Stories[i].Steps {
			if step.What == "job.claimed" {
				f.herd = max(f.herd, step.At.Sub(deployment.NotBefore))
			}
		}
	}
	f.compared, err = agents.Compare(ctx, c.operator, deployment.ID, result)
	return f, err
}

// agents runs the process of the agents, and returns what they did and their CPU time in seconds.
func (c *crowd) agents(ctx context.Context) (*agents.Result, float64, error) {
	order, err := json.Marshal(agents.Config{
		Appliance: netip.MustParseAddr(crowdAppliance), First: netip.MustParseAddr(crowdFirst), Count: c.fleet.agents, Ramp: c.fleet.ramp,
		Content: c.fleet.content, Verify: 3 * time.Second, Firmware: 10 * time.Second,
	})
	if err != nil {
		return nil, 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*(c.fleet.ramp+c.fleet.content)+3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", c.space, self, crowdArg)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(order), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, 0, fmt.Errorf("agents: %w; the appliance: %s", err, c.lastLines())
	}
	r := new(agents.Result)
	return r, cpuSeconds(cmd), json.Unmarshal(out, r)
}

// profiles fetches a profile of the appliance's CPU time for as long as it lasts, and one of its memory.
func (c *crowd) profiles(ctx context.Context) {
	local := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(c.data, "seedbed.sock"))
	}}}
	seconds := int((c.fleet.ramp + c.fleet.content).Seconds()) + 5
	for _, p := range []struct{ file, path string }{{"fleet-cpu.pprof", fmt.Sprintf("profile?seconds=%d", seconds)}, {"fleet-heap.pprof", "heap"}, {"fleet-allocs.pprof", "allocs"}} {
		err := func() error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://appliance/debug/pprof/"+p.path, nil)
			if err != nil {
				return err
			}
			resp, err := local.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err == nil && resp.StatusCode != http.StatusOK {
				err = errors.New(resp.Status)
			}
			return errors.Join(err, os.WriteFile(filepath.Join(c.profile, p.file), b, 0o644))
		}()
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench: profile of the appliance:", err)
			return
		}
	}
}

// meter reads what a process takes. Owned by run until that has returned, but for cpu and peak.
type meter struct {
	pid   int
	looks []look
}

type look struct {
	at  time.Time
	cpu float64
}

// clockTick is the unit of CPU time in /proc (proc(5), USER_HZ): 100 on every architecture that Go runs on.
const clockTick = 100

// cpu returns the seconds of CPU time that the process has taken so far.
func (m *meter) cpu() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.pid))
	if err != nil {
		return 0, fmt.Errorf("the appliance ended: %w", err)
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // from the third one on
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", m.pid, len(fields))
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return float64(user+system) / clockTick, errors.Join(err, err2)
}

// peak returns the most resident bytes of the process.
func (m *meter) peak() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(b), "VmHWM:")
	kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(strings.SplitN(after, "\n", 2)[0]), " kB"), 10, 64)
	return kib << 10, err
}

// run looks at the CPU time until ctx is done.
func (m *meter) run(ctx context.Context) {
	tick := time.NewTicker(fleetTurn)
	defer tick.Stop()
	for {
		if cpu, err := m.cpu(); err == nil {
			m.looks = append(m.looks, look{time.Now(), cpu})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// busiest returns the most cores that were taken over so long a time.
func (m *meter) busiest(long time.Duration) (cores float64) {
	from := 0
	for _, l := range m.looks {
		for l.at.Sub(m.looks[from].at) > long {
			from++
		}
		if passed := l.at.Sub(m.looks[from].at); passed > long*9/10 {
			cores = max(cores, (l.cpu-m.looks[from].cpu)/passed.Seconds())
		}
	}
	return cores
}
