package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"
)

// Targets of the capture part.
const (
	zstdRatio  = 1.0       // of partclone's time to ours
	lz4Ratio   = 1.2       //
	peakMemory = 256 << 20 // bytes
)

// outcome is one run of one contender.
type outcome struct {
	seconds float64
	cpu     float64 // seconds of all cores, user and system
	stored  int64   // bytes
	memory  int64   // peak resident bytes; 0 if not measured
}

// contender captures the disk into folder, which is empty.
type contender struct {
	name   string
	target float64 // ratio; 0 for who is compared with
	run    func(ctx context.Context, d *filled, folder string, s settings) (outcome, error)
}

var contenders = []contender{
	{"partclone | zstd -1 -T0", 0, runPartclone},
	{"seedbed zstd", zstdRatio, runSeedbed("zstd")},
	{"seedbed lz4", lz4Ratio, runSeedbed("lz4")},
}

// benchCapture runs the contenders in turn, so that what else the machine does meets all of them.
func benchCapture(ctx context.Context, s settings) error {
	folder, err := os.MkdirTemp(s.scratch, "seedbed-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	d, err := fillDisk(ctx, folder, s.length)
	if err != nil {
		return err
	}
	fmt.Printf("disk of %.1f GB, %.2f GB of files; median of %d runs, in turn\n\n", float64(d.length)/1e9, float64(d.used)/1e9, s.runs)
	results := make([][]outcome, len(contenders))
	for range s.runs {
		for i, c := range contenders {
			to := filepath.Join(folder, "out")
			if err := os.Mkdir(to, 0o700); err != nil {
				return err
			}
			o, err := c.run(ctx, d, to, s)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			results[i] = append(results[i], o)
			if err := os.RemoveAll(to); err != nil {
				return err
			}
		}
	}
	missed := printCapture(d, results)
	if err := printStages(ctx, d, folder); err != nil {
		return err
	}
	return missed
}

// printCapture prints a line for each contender and returns what was not reached.
func printCapture(d *filled, results [][]outcome) error {
	var missed []error
	base := median(results[0])
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "contender\ttime\tCPU time\trate\tstored\tpeak memory\tratio\ttarget")
	for i, c := range contenders {
		m, memory := median(results[i]), int64(0)
		for _, o := range results[i] {
			memory = max(memory, o.memory)
		}
		ratio := base.seconds / m.seconds
		target, peak := "", "-"
		if c.target > 0 {
			target, peak = fmt.Sprintf("%.1f", c.target), fmt.Sprintf("%d MB", memory/1e6)
			if ratio < c.target {
				missed = append(missed, fmt.Errorf("%s is %.2f times as fast, the target is %.1f", c.name, ratio, c.target))
			}
			if memory > peakMemory {
				missed = append(missed, fmt.Errorf("%s took %d bytes of memory, the target is %d", c.name, memory, peakMemory))
			}
		}
		fmt.Fprintf(t, "%s\t%.2f s\t%.2f s\t%.0f MB/s\t%.2f GB\t%s\t%.2f\t%s\n", c.name, m.seconds, m.cpu, float64(d.used)/1e6/m.seconds, float64(m.stored)/1e9, peak, ratio, target)
	}
	t.Flush()
	fmt.Println()
	return errors.Join(missed...)
}

func median(list []outcome) outcome {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b outcome) int {
		if a.seconds < b.seconds {
			return -1
		}
		return 1
	})
	return list[len(list)/2]
}

// runPartclone is how disks are captured without Seedbed; it hashes nothing.
func runPartclone(ctx context.Context, d *filled, folder string, _ settings) (o outcome, err error) {
	for name, pkg := range map[string]string{"partclone.ext4": "partclone", "zstd": "zstd"} {
		if _, err := exec.LookPath(name); err != nil {
			return o, fmt.Errorf("%s is missing (Debian: apt install %s)", name, pkg)
		}
	}
	const script = `set -o pipefail; partclone.ext4 -c -s "$1" -o - -L "$2/log" 2>"$2/err" | zstd -q -1 -T0 >"$2/image" && sync "$2/image"`
	cmd := exec.CommandContext(ctx, "bash", "-c", script, "bash", d.partition, folder)
	cmd.Stderr = os.Stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(filepath.Join(folder, "err"))
		return o, fmt.Errorf("%w: %.500s", err, text)
	}
	o.seconds, o.cpu = time.Since(start).Seconds(), cpuSeconds(cmd)
	st, err := os.Stat(filepath.Join(folder, "image"))
	if err != nil {
		return o, err
	}
	o.stored = st.Size()
	return o, nil
}

// cpuSeconds returns the CPU time that a program and those it waited for took.
func cpuSeconds(cmd *exec.Cmd) float64 {
	return (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
}

// contenderArg begins the command line of a child process that captures once, so that its memory is its own.
const contenderArg = "-contend"

// runSeedbed captures in a child process, from opening the repository to closing it.
func runSeedbed(codec string) func(context.Context, *filled, string, settings) (outcome, error) {
	return func(ctx context.Context, d *filled, folder string, s settings) (o outcome, err error) {
		self, err := os.Executable()
		if err != nil {
			return o, err
		}
		order := contest{Parts: d.parts, Folder: folder, Codec: codec}
		if s.profile != "" {
			order.Profile = filepath.Join(s.profile, "capture-"+codec+".pprof")
		}
		text, err := json.Marshal(order)
		if err != nil {
			return o, err
		}
		cmd := exec.CommandContext(ctx, self, contenderArg, string(text))
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, os.Stderr
		start := time.Now()
		if err := cmd.Run(); err != nil {
			return o, err
		}
		o.seconds, o.cpu = time.Since(start).Seconds(), cpuSeconds(cmd)
		var made contestResult
		if err := json.Unmarshal(out.Bytes(), &made); err != nil {
			return o, err
		}
		o.stored, o.memory = made.Stored, made.PeakMemory
		return o, nil
	}
}
