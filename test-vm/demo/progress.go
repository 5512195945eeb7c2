package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/job"
	"seedbed/test-vm/lab"
)

// follow prints one line per machine, again and again, until every machine is at its end: in place on a terminal, else
// every ten seconds.
func follow(ctx context.Context, out io.Writer, a *lab.Appliance, seats []*seat) {
	every, back := 10*time.Second, ""
	if isTerminal(out) {
		every, back = time.Second, fmt.Sprintf("\x1b[%dA", len(seats))
	}
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	var printed time.Time
	began := time.Now()
	for {
		ended := allEnded(seats)
		if ended || time.Since(printed) >= every {
			if !printed.IsZero() {
				fmt.Fprint(out, back)
			}
			printed = time.Now()
			for _, s := range seats {
				j, err := a.Job(ctx, s.machine)
				line := progress(s, j)
				if err != nil && ctx.Err() == nil {
					line = err.Error()
				}
				fmt.Fprintf(out, "%4.0f s  %-8s %-8s %s%s\n", time.Since(began).Seconds(), s.machine.Config.Name, s.machine.Config.Firmware, line, clearLine(back))
			}
		}
		if ended {
			return
		}
		<-tick.C // the machines end with ctx
	}
}

func clearLine(back string) string {
	if back == "" {
		return ""
	}
	return "\x1b[K"
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func allEnded(seats []*seat) bool {
	for _, s := range seats {
		if at, _ := s.result(); at.IsZero() {
			return false
		}
	}
	return true
}

// progress says in one line how far a machine is.
func progress(s *seat, j *api.Job) string {
	at, err := s.result()
	switch {
	case err != nil:
		return "did not make it"
	case !at.IsZero():
		return fmt.Sprintf("login prompt after %.0f s", at.Sub(s.on).Seconds())
	case j == nil || j.HelloAt.Before(s.on):
		return "boots from the network: " + shorten(lastLine(s.boot))
	case j.State == job.Failed || j.State == job.Paused || j.State == job.Cancelled:
		return fmt.Sprintf("%s: %s", j.State, j.Reason)
	case j.State == job.Succeeded && j.Phase == job.PhaseReboot:
		return "boots from its disk: " + shorten(lastLine(s.boot))
	case j.Total == 0:
		return string(j.Phase)
	}
	percent := 100 * j.Held / j.Total
	if j.Phase == job.PhaseVerify {
		percent = 100 * j.Verified / j.Total
	}
	return fmt.Sprintf("%-8s %s %3d %%  from appliance %s, from peers %s", j.Phase, bar(percent), percent, megabytes(j.FromAppliance), megabytes(j.FromPeers))
}

func bar(percent int64) string {
	n := int(min(max(percent, 0), 100) / 5)
	return "[" + strings.Repeat("#", n) + strings.Repeat(".", 20-n) + "]"
}

func lastLine(b *lab.Boot) string { return b.Serial.Tail(1) }

// shorten cuts a line of text to what fits beside the rest.
func shorten(line string) string {
	if r := []rune(line); len(r) > 60 {
		return string(r[:59]) + "…"
	}
	return line
}

// megabytes prints bytes with one decimal.
func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
