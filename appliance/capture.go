package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images/intake"
	"seedbed/images/repository"
)

// begin opens a session of the repository for an image that a machine captures. Package upload has checked its tiles.
func (l *library) begin(ctx context.Context, name, version string) (intake.Sink, error) {
	return l.repo.Begin(ctx, repository.SessionConfig{Name: name, Version: version, Sign: l.sign})
}

// free implements fleet.Config.FreeVersion: a session that begins could be carried out.
func (l *library) free(ctx context.Context, name, version string) error {
	session, err := l.begin(ctx, name, version)
	switch {
	case errors.Is(err, intake.ErrVersionExists):
		return &fleet.Refusal{Code: fleet.CodeVersionExists, Detail: err.Error() + "; choose another version"}
	case errors.Is(err, intake.ErrBusy):
		return &fleet.Refusal{Code: fleet.CodeCaptureBusy, Detail: err.Error()}
	case err != nil:
		return err
	}
	return session.Close()
}

func captureCommand(o *options) *cobra.Command {
	var order fleet.CaptureOrder
	var wait, asJSON bool
	cmd := &cobra.Command{Use: "capture MACHINE", Short: "Make an image of a machine's disk over the network", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, machineNames),
		Long: `Capture gives a machine, by ID, name, MAC or serial number, the job to make an image of its disk. When it boots from the
network next it reads the disk, which is never written, hashes and compresses there, and sends what the repository lacks.

File systems must be clean: shut the system down (Windows: with "shutdown /s /t 0" and fast start-up off) before.`}
	f := cmd.Flags()
	f.StringVar(&order.Name, "name", "", "`NAME` of the image: 1-64 of a-z 0-9 . _ -")
	f.StringVar(&order.Version, "version", "", "its version (default: the next whole number)")
	f.StringVar(&order.Compress, "compress", "zstd", "zstd, zstd:1 to zstd:22, lz4 (fast links, weak machines) or none")
	f.BoolVar(&order.KeepContents, "keep-contents", false, "keep the contents of page files, hibernation files and swap")
	f.BoolVar(&order.Full, "full", false, "copy file systems whole, even dirty ones")
	f.BoolVar(&order.RefuseOpaque, "refuse-encrypted", false, "refuse partitions that are encrypted or whose free space cannot be told")
	f.IntSliceVar(&order.Partitions, "partitions", nil, "the `NUMBERS` of the partitions to capture (default: all)")
	f.Int64Var(&order.PieceLength, "piece", 0, "length of a piece in `BYTES`, a power of two (default: by the length of the data)")
	f.StringVar(&order.DiskSerial, "disk", "", "`SERIAL` number of the disk, where there are several")
	f.StringVar(&order.After, "after", "reboot", "what the machine does then: reboot, poweroff or stay")
	f.BoolVar(&wait, "wait", false, "show the progress and wait until the image is made")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		if order.Name == "" {
			return usageError{errors.New("the image needs a name; give one with --name")}
		}
		order.Machine = args[0]
		slices.Sort(order.Partitions)
		j, err := c.Capture(cmd.Context(), order)
		if err != nil {
			return err
		}
		if wait {
			if !asJSON {
				fmt.Fprintf(cmd.ErrOrStderr(), "job %s captures %s from %s when it boots from the network\n", j.ID, j.ImageName, plain(j.MachineName))
			}
			if j, err = waitCapture(cmd.Context(), c, j.ID, newProgress(os.Stderr)); err != nil {
				return err
			}
		}
		for _, w := range j.Warnings {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning:", plain(w))
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), j)
		}
		if !wait {
			fmt.Fprintf(cmd.OutOrStdout(), "job %s captures %s from %s; start that machine from the network, or follow with `seedbed job ls`\n", j.ID, j.ImageName, plain(j.MachineName))
			return nil
		}
		fmt.Fprintf(cmd.OutOrStdout(), "image %s %s: captured from %s, %s read, %s sent, %.0f s\n", j.ImageName, j.Image.Short(), plain(j.MachineName),
			bytesText(j.Done), bytesText(j.Sent), j.Ended.Sub(j.Started).Seconds())
		return nil
	})
	return cmd
}

// waitCapture shows how far a job is until it has ended. An appliance that is away for a while is waited for.
func waitCapture(ctx context.Context, c *client.Client, id string, show *progress) (*api.Job, error) {
	defer show.end()
	tick := time.NewTicker(waitEvery)
	defer tick.Stop()
	for {
		j, err := c.Job(ctx, id)
		switch {
		case errors.Is(err, client.ErrNotRunning):
			show.say("the appliance does not answer")
		case err != nil:
			return nil, err
		case j.State == job.Succeeded:
			return j, nil
		case j.State.Ended():
			return nil, &unfinished{all: 1, text: fmt.Sprintf("job %s %s: %s", id, map[bool]string{true: "was cancelled", false: "has failed"}[j.State == job.Cancelled], j.Reason)}
		default:
			show.say("%s", captureText(*j))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errInterrupted
		}
	}
}

// captureText says where a capture stands: "read   42 % of 3.0 GiB, 110 MB/s, 16 s left, 0.9 GiB sent".
func captureText(j api.Job) string {
	switch {
	case j.State == job.Waiting || j.State == job.Paused:
		return string(j.State) + ": " + j.Reason
	case j.Phase != job.PhaseRead || j.Total == 0:
		return string(j.Phase)
	}
	text := fmt.Sprintf("%s %3d %% of %s", j.Phase, 100*j.Done/j.Total, bytesText(j.Total))
	if j.BytesPerSecond > 0 {
		text += fmt.Sprintf(", %.0f MB/s, %v left", j.BytesPerSecond/1e6, time.Duration(j.Left).Round(time.Second))
	}
	return text + ", " + bytesText(j.Sent) + " sent"
}

// progress is one line that is written over on a terminal; elsewhere a line for each thing that is new.
type progress struct {
	w        io.Writer
	terminal bool
	last     string
	at       time.Time
}

func newProgress(f *os.File) *progress {
	st, err := f.Stat()
	return &progress{w: f, terminal: err == nil && st.Mode()&os.ModeCharDevice != 0}
}

// lineEvery is how often progress is written where it is not a terminal.
const lineEvery = 10 * time.Second

func (p *progress) say(format string, a ...any) {
	line := fmt.Sprintf(format, a...)
	word := func(s string) string { // what a line is about
		if len(s) > 5 {
			return s[:5]
		}
		return s
	}
	switch {
	case line == p.last:
		return
	case p.terminal:
		fmt.Fprintf(p.w, "\r\x1b[K%s", line) // back to the beginning, clear the line (ECMA-48 §8.3.41)
	case word(line) == word(p.last) && time.Since(p.at) < lineEvery:
		return
	default:
		fmt.Fprintln(p.w, line)
	}
	p.last, p.at = line, time.Now()
}

func (p *progress) end() {
	if p.terminal && p.last != "" {
		fmt.Fprintln(p.w)
	}
}
