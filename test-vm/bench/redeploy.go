package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
)

// redeployRatio is the target: the time of a new version onto the old one, over that onto a blank disk.
const redeployRatio = 0.35

// Addresses of the appliance and of the machine, which nothing else in their namespaces has.
const (
	benchAppliance = "10.78.0.1"
	benchMachine   = "10.78.0.2"
	benchMAC       = "52:54:00:78:00:02"
)

// deployRun is one deployment.
type deployRun struct {
	machineResult
	job api.Job
}

// redeployCase is one of the deployments that are compared.
type redeployCase struct {
	name, image string
	// before is what the disk holds: an image, or "" for a blank one.
	before string
}

var redeployCases = []redeployCase{
	{"v2 onto a blank disk", "bench:2", ""},
	{"v2 onto v1", "bench:2", "bench:1"},
	{"v2 onto v2", "bench:2", "bench:2"},
}

// benchRedeploy deploys from a real appliance to an agent process over a link of 1 Gbit/s.
func benchRedeploy(ctx context.Context, s settings) (err error) {
	folder, err := os.MkdirTemp(s.scratch, "seedbed-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	if err := tool(ctx, "golang", "go", "build", "-o", filepath.Join(folder, "seedbed"), "./appliance"); err != nil {
		return fmt.Errorf("%w; run it in the project's folder", err)
	}
	for _, kind := range []string{"ext4", "ntfs"} {
		if e := redeployOf(ctx, s, folder, kind); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", kind, e))
		}
	}
	return err
}

func redeployOf(ctx context.Context, s settings, folder, kind string) (err error) {
	disks, update, err := makeVersions(ctx, folder, kind, s.aged)
	if err != nil {
		return err
	}
	room, err := openRoom(ctx, folder, kind)
	if err != nil {
		return err
	}
	room.profile = s.profile
	defer func() { err = errors.Join(err, room.close()) }()
	for i, d := range disks {
		if err := room.seedbed(ctx, nil, "image", "add", d, "--name", "bench", "--version", fmt.Sprint(i+1)); err != nil {
			return err
		}
	}
	fmt.Printf("%s, disk of %.1f GB, %.0f MB of files, %.1f MB replaced; link of 1 Gbit/s; median of %d runs\n\n", kind, float64(s.aged)/1e9,
		float64(update.Files)/1e6, float64(update.Replaced)/1e6, s.runs)
	results := make([][]deployRun, len(redeployCases))
	for range s.runs {
		for i, c := range redeployCases {
			r, err := room.deploy(ctx, c, disks, s.aged)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			results[i] = append(results[i], r)
		}
	}
	return printRedeploy(results)
}

func printRedeploy(results [][]deployRun) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tseconds\thash\tcontent\tverify\treceived MB\ttiles MB\twere there MB\twritten MB\tpeak MB\tratio\t")
	var blank, ratio float64
	for i, c := range redeployCases {
		runs := results[i]
		slices.SortFunc(runs, func(a, b deployRun) int { return int(1e6 * (a.Job - b.Job)) })
		r := runs[len(runs)/2]
		if i == 0 {
			blank = r.Job
		}
		if i == 1 {
			ratio = r.Job / blank
		}
		mb := func(n int64) string { return fmt.Sprintf("%.1f", float64(n)/1e6) }
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.1f\t%.1f\t%s\t%s\t%s\t%s\t%s\t%.2f\t\n", c.name, r.Job, r.Phases["hash"], r.Phases["content"], r.Phases["verify"],
			mb(r.Received), mb(r.job.FromAppliance+r.job.FromPeers), mb(r.job.Resumed), mb(r.job.Written), mb(r.Memory), r.Job/blank)
	}
	err := w.Flush()
	if ratio > redeployRatio {
		err = errors.Join(err, fmt.Errorf("a new version takes %.2f of the time of a fresh one, the target is %.2f", ratio, redeployRatio))
	}
	fmt.Println()
	return err
}

// room is an appliance and a machine's place, in two network namespaces that are joined by a cable.
type room struct {
	folder, data string
	profile      string    // folder for CPU profiles; "" makes none
	names        [2]string // of the namespaces: appliance, machine
	serve        *exec.Cmd
	log          *os.File
}

func openRoom(ctx context.Context, folder, kind string) (r *room, err error) {
	name := fmt.Sprintf("sbbench%d", os.Getpid())
	r = &room{folder: folder, data: filepath.Join(folder, "data-"+kind), names: [2]string{name + "a", name + "m"}}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := os.Mkdir(r.data, 0o700); err != nil {
		return r, err
	}
	link := []string{"eth0", "eth0"}
	for i, ns := range r.names {
		if err := tool(ctx, "iproute2", "ip", "netns", "add", ns); err != nil {
			return r, err
		}
		if err := r.ip(ctx, i, "link", "set", "lo", "up"); err != nil {
			return r, err
		}
	}
	if err := r.ip(ctx, 0, "link", "add", "name", link[0], "type", "veth", "peer", "name", link[1], "address", benchMAC, "netns", r.names[1]); err != nil {
		return r, err
	}
	for i, address := range []string{benchAppliance, benchMachine} {
		for _, args := range [][]string{{"ip", "addr", "add", address + "/24", "dev", "eth0"}, {"ip", "link", "set", "eth0", "up"},
			{"tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "1gbit", "burst", "256kb", "latency", "20ms"}} {
			if err := tool(ctx, "iproute2", "ip", append([]string{"netns", "exec", r.names[i]}, args...)...); err != nil {
				return r, err
			}
		}
	}
	return r, r.start(ctx)
}

func (r *room) ip(ctx context.Context, i int, args ...string) error {
	return tool(ctx, "iproute2", "ip", append([]string{"-n", r.names[i]}, args...)...)
}

// start runs the appliance and returns when it answers.
func (r *room) start(ctx context.Context) (err error) {
	if r.log, err = os.Create(filepath.Join(r.folder, "serve.log")); err != nil {
		return err
	}
	r.serve = exec.Command("ip", "netns", "exec", r.names[0], filepath.Join(r.folder, "seedbed"), "serve", "--data", r.data, "--boot-dir", "build/boot",
		"--interface", "eth0", "--admit", "auto")
	r.serve.Stdout, r.serve.Stderr = r.log, r.log
	r.serve.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.serve.Start(); err != nil {
		r.serve = nil
		return err
	}
	c := client.Local(filepath.Join(r.data, "seedbed.sock"))
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for !c.Running(ctx) {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			b, _ := os.ReadFile(r.log.Name())
			return fmt.Errorf("the appliance does not answer: %s", b)
		}
	}
	return nil
}

// close ends the appliance and removes the namespaces.
func (r *room) close() (err error) {
	if r.serve != nil {
		err = errors.Join(r.serve.Process.Signal(syscall.SIGTERM))
		_ = r.serve.Wait() // what it says is in its log
	}
	if r.log != nil {
		err = errors.Join(err, r.log.Close())
	}
	for _, ns := range r.names {
		if _, statErr := os.Stat(filepath.Join("/run/netns", ns)); statErr == nil {
			err = errors.Join(err, tool(context.Background(), "iproute2", "ip", "netns", "del", ns))
		}
	}
	return err
}

// seedbed runs a command of the appliance; its JSON goes into out if that is not nil.
func (r *room) seedbed(ctx context.Context, out any, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(r.folder, "seedbed"), append(args, "--data", r.data)...)
	var problem strings.Builder
	cmd.Stderr = &problem
	b, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("seedbed %s: %w: %s", strings.Join(args, " "), err, problem.String())
	}
	if out != nil {
		return json.Unmarshal(b, out)
	}
	return nil
}

// deploy gives the machine a disk and a job and boots it.
func (r *room) deploy(ctx context.Context, c redeployCase, disks [2]string, length int64) (d deployRun, err error) {
	file := filepath.Join(r.folder, "machine.img")
	defer os.Remove(file)
	switch c.before {
	case "":
		err = truncate(file, length)
	default:
		err = tool(ctx, "coreutils", "cp", "--sparse=always", disks[slices.Index([]string{"bench:1", "bench:2"}, c.before)], file)
	}
	if err != nil {
		return d, err
	}
	if err := r.seedbed(ctx, nil, "deploy", c.image, "--all"); err != nil {
		return d, err
	}
	o := machineOrder{Appliance: benchAppliance, Address: benchMachine, MAC: benchMAC, Disk: file}
	if r.profile != "" {
		o.Profile = filepath.Join(r.profile, strings.ReplaceAll(c.name, " ", "-")+".prof")
	}
	order, err := json.Marshal(o)
	if err != nil {
		return d, err
	}
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", r.names[1], "/proc/self/exe", machineArg, string(order))
	if self, err := os.Executable(); err == nil {
		cmd.Args[4] = self
	}
	var screen strings.Builder
	cmd.Stderr = &screen
	out, err := cmd.Output()
	if err != nil {
		return d, fmt.Errorf("%w: %s", err, screen.String())
	}
	if err := json.Unmarshal(out, &d.machineResult); err != nil {
		return d, err
	}
	var jobs []api.Job
	if err := r.seedbed(ctx, &jobs, "job", "ls", "--json"); err != nil {
		return d, err
	}
	d.job = jobs[len(jobs)-1]
	if d.job.State != "succeeded" {
		return d, fmt.Errorf("the job %s: %s\n%s", d.job.State, d.job.Reason, screen.String())
	}
	return d, nil
}
