package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/job"
	"seedbed/test-vm/lab"
)

// printTable prints what became of each machine and returns an error if one did not make it.
func printTable(ctx context.Context, out io.Writer, a *lab.Appliance, seats []*seat) error {
	// The appliance is asked even where the time limit ended the wait.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "machine\tfirmware\tboot time\tfrom appliance\tfrom peers\twrite rate\tverified\tbooted")
	var errs []error
	for _, s := range seats {
		j, err := a.Job(ctx, s.machine)
		at, bootErr := s.result()
		switch {
		case err != nil:
		case j == nil:
			err = errors.New("it never got a job")
		case j.State != job.Succeeded:
			err = fmt.Errorf("its job is %s in phase %s: %s", j.State, j.Phase, j.Reason)
		}
		if err = errors.Join(err, bootErr); err != nil {
			errs = append(errs, fmt.Errorf("%s (%s): %w", s.machine.Config.Name, s.machine.Config.Firmware, err))
		}
		fmt.Fprintln(w, row(s, j, at, bootErr))
	}
	if err := w.Flush(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// row is one line of the table. The boot time runs from power on to the agent's first word to the appliance, the write
// rate is that of the disk alone.
func row(s *seat, j *api.Job, login time.Time, bootErr error) string {
	text := s.machine.Config.Name + "\t" + string(s.machine.Config.Firmware)
	if j == nil {
		return text + "\t-\t-\t-\t-\t-\tno"
	}
	boot, rate, verified, booted := "-", "-", "no", "no"
	if !j.HelloAt.IsZero() {
		boot = fmt.Sprintf("%.0f s", j.HelloAt.Sub(s.on).Seconds())
	}
	if j.WriteNanos > 0 {
		rate = fmt.Sprintf("%.0f MB/s", float64(j.Written)/1e6/time.Duration(j.WriteNanos).Seconds())
	}
	if j.State == job.Succeeded && j.Total > 0 && j.Verified >= j.Total {
		verified = "yes"
	}
	if bootErr == nil && !login.IsZero() {
		booted = fmt.Sprintf("yes, %.0f s", login.Sub(s.on).Seconds())
	}
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s", text, boot, megabytes(j.FromAppliance), megabytes(j.FromPeers), rate, verified, booted)
}
