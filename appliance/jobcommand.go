package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/job"
	"seedbed/appliance/queue"
)

var jobIDs = listed(func(c *client.Client, ctx context.Context) ([]api.Job, error) { return c.Jobs(ctx, api.JobQuery{}) }, func(j api.Job) string { return j.ID })

func jobCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "job", Short: "List jobs; cancel, pause, resume and retry them"}
	cmd.AddCommand(jobLs(o), jobShow(o), jobPriority(o), jobWait(o))
	for verb, short := range map[string]string{
		"cancel": "End a job; the machine stops with its next report", "pause": "Hold a job", "resume": "Let a paused job go on",
		"retry": "Have a job that failed or was cancelled done again",
	} {
		sub := &cobra.Command{Use: verb + " JOB", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, jobIDs)}
		asJSON := jsonFlag(sub)
		wait := new(bool)
		var confirm string
		if verb == "retry" {
			sub.Flags().StringVar(&confirm, "confirm", "", "the word `wipe` where the job is a wipe: nothing of the disk can be had back")
		}
		if verb == "retry" || verb == "resume" {
			wait = sub.Flags().Bool("wait", false, "show the progress and wait until the job has ended")
		}
		sub.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
			act := func() (*api.Job, error) { return c.Operate(cmd.Context(), args[0], verb) }
			if verb == "retry" {
				act = func() (*api.Job, error) { return c.Retry(cmd.Context(), args[0], confirm) }
			}
			j, err := act()
			switch {
			case err != nil:
				return err
			case *wait:
				return waitJob(cmd, c, j.ID, *asJSON)
			case *asJSON:
				return printJSON(cmd.OutOrStdout(), j)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "job %s of %s is %s\n", j.ID, plain(j.MachineName), j.State)
			return err
		})
		cmd.AddCommand(sub)
	}
	return cmd
}

func jobLs(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Short: "List the jobs that have not ended, and those of the last 30 days", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	var q api.JobQuery
	var state, kind string
	var old int
	f := cmd.Flags()
	f.StringVar(&q.Machine, "machine", "", "only jobs of this `MACHINE`")
	f.StringVar(&q.Deployment, "deployment", "", "only jobs of this `DEPLOYMENT`")
	f.StringVar(&state, "state", "", "only jobs in this `STATE`; open is any that has not ended")
	f.StringVar(&kind, "kind", "", "only jobs of this `KIND`: deploy, capture, ...")
	f.IntVar(&old, "history", 0, "the last `N` jobs that have ended, also those of more than 30 days ago, the latest first")
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		if old > 0 {
			return listHistory(cmd, c, q, old, *asJSON)
		}
		q.State, q.Kind = job.State(state), job.Kind(kind)
		list, err := c.Jobs(cmd.Context(), q)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		return printJobs(cmd.OutOrStdout(), list)
	})
	return cmd
}

func printJobs(w io.Writer, list []api.Job) error {
	t := newTable(w, "JOB", "KIND", "MACHINE", "IMAGE", "STATE", "PLACE", "PHASE", "DONE", "FROM APPLIANCE", "FROM PEERS", "REASON")
	for _, j := range list {
		place := "-"
		if j.Place > 0 {
			place = strconv.Itoa(j.Place)
		}
		t.row(j.ID, j.Kind, or(j.MachineName, j.Machine), dash(j.ImageName), stateText(j), place, dash(string(j.Phase)), doneText(j), bytesText(j.FromAppliance), bytesText(j.FromPeers), or(j.Reason, strings.Join(j.Barred, "; ")))
	}
	return t.flush()
}

// stateText is the state of a job; one that waits for a machine that was woken is called.
func stateText(j api.Job) string {
	if j.Wait == queue.WaitsCalled {
		return "called"
	}
	return string(j.State)
}

// listHistory lists the last n jobs that have ended.
func listHistory(cmd *cobra.Command, c *client.Client, q api.JobQuery, n int, asJSON bool) error {
	list, cursor := []api.Ended{}, ""
	for len(list) < n {
		p, err := c.History(cmd.Context(), q.Machine, q.Deployment, cursor, 1000)
		if err != nil {
			return err
		}
		list = append(list, p.Items...)
		if cursor = p.Next; cursor == "" {
			break
		}
	}
	list = list[:min(n, len(list))]
	if asJSON {
		return printJSON(cmd.OutOrStdout(), list)
	}
	t := newTable(cmd.OutOrStdout(), "JOB", "KIND", "MACHINE", "IMAGE", "STATE", "ENDED", "REASON")
	for _, j := range list {
		t.row(j.ID, j.Kind, or(j.MachineName, j.Machine), dash(j.ImageName), j.State, timeText(j.Ended), j.Reason)
	}
	return t.flush()
}

// doneText is the share of the image that the disk holds, or that was read back.
func doneText(j api.Job) string {
	switch {
	case j.Total == 0:
		return "-"
	case j.Kind == job.Capture:
		return fmt.Sprintf("%d %% read, %s sent", 100*j.Done/j.Total, bytesText(j.Sent))
	case j.Kind == job.WipeDisk:
		return fmt.Sprintf("%d %% wiped", 100*j.Done/j.Total)
	case j.Unverified:
		return fmt.Sprintf("%d %%, UNVERIFIED", 100*j.Held/j.Total)
	case j.Phase == job.PhaseVerify:
		return fmt.Sprintf("%d %% verified", 100*j.Verified/j.Total)
	}
	return fmt.Sprintf("%d %%", 100*j.Held/j.Total)
}

func jobShow(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "show JOB", Short: "Show a job", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, jobIDs)}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		j, err := c.Job(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), j)
		}
		w := cmd.OutOrStdout()
		for _, l := range [][2]string{
			{"job", j.ID + ", " + string(j.Kind)}, {"machine", j.MachineName + " (" + j.Machine + ")"}, {"image", dash(j.ImageName)}, {"deployment", dash(j.Deployment)},
			{"state", strings.TrimSpace(string(j.State) + " " + string(j.Phase))}, {"reason", dash(j.Reason)}, {"code", dash(or(j.Code, j.Wait))}, {"done", doneText(*j)},
			{"disk", dash(strings.TrimSpace(j.Disk + " " + j.DiskSerial))}, {"written", bytesText(j.Written)}, {"received", bytesText(j.FromAppliance) + " from the appliance, " + bytesText(j.FromPeers) + " from machines"},
			{"created", timeText(j.Created)}, {"started", timeText(j.Started)}, {"ended", timeText(j.Ended)},
		} {
			fmt.Fprintf(w, "%-11s %s\n", l[0], plain(l[1]))
		}
		for _, l := range foundLines(j) {
			fmt.Fprintf(w, "%-11s %s\n", l[0], l[1])
		}
		for _, text := range append(j.Warnings, j.Barred...) {
			fmt.Fprintf(w, "%-11s %s\n", "warning", plain(text))
		}
		for _, text := range strings.Split(strings.TrimSpace(j.Log), "\n") {
			if text != "" {
				fmt.Fprintf(w, "%-11s %s\n", "log", plain(text))
			}
		}
		return nil
	})
	return cmd
}

func jobPriority(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "priority JOB NUMBER", Short: "Give a job another priority; higher ones begin first", Args: cobra.ExactArgs(2), ValidArgsFunction: o.completes(1, jobIDs)}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return usageError{errors.New("a priority is a whole number from -1000 to 1000")}
		}
		j, err := c.Prioritise(cmd.Context(), args[0], n)
		if err != nil {
			return err
		}
		return tell(cmd, *asJSON, j, "job %s has priority %d\n", j.ID, j.Priority)
	})
	return cmd
}

func jobWait(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "wait JOB", Short: "Show the progress of a job and wait until it has ended", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, jobIDs)}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		return waitJob(cmd, c, args[0], *asJSON)
	})
	return cmd
}

// waitJob waits for one job.
func waitJob(cmd *cobra.Command, c *client.Client, id string, asJSON bool) error {
	j, err := c.Job(cmd.Context(), id)
	if err != nil {
		return err
	}
	list, err := waitJobs(cmd.Context(), c, api.JobQuery{ID: j.ID}, os.Stderr)
	if err != nil {
		return err
	}
	if asJSON {
		if err := printJSON(cmd.OutOrStdout(), list[0]); err != nil {
			return err
		}
	}
	return outcome(cmd, list, asJSON)
}
