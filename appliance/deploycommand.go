package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/queue"
)

var imageNames = listed((*client.Client).List, func(i api.ImageListing) string { return i.Name + ":" + i.Version })

// deployFlags are what the flags of deploy say beside what goes into the order as it is.
type deployFlags struct {
	seedFor               time.Duration
	at, preload           string
	verify, free          string
	retries               int
	wait, asJSON, anyTime bool
	dry                   bool
}

func deployCommand(o *options) *cobra.Command {
	var order api.Order
	var d deployFlags
	cmd := &cobra.Command{Use: "deploy IMAGE", Short: "Put an image on machines", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, imageNames),
		Long: `Deploy gives machines a job; each gets the image when it boots from the network next. With --all that is every machine
of the site, those seen later too, until another deployment to all or until "seedbed deployment close".

With --dry-run nothing is changed: it says of each machine which disk would be written and what is on it, what would be fetched, what
is refused and what would be waited for, by what the machines told of themselves last.

With --wait the exit code is 10 unless every job of the deployment succeeds.`}
	f := cmd.Flags()
	f.BoolVar(&order.All, "all", false, "every machine, those seen later too")
	f.StringSliceVar(&order.Machines, "machine", nil, "a machine by `ID`, name, MAC or serial number; may be repeated")
	f.StringSliceVar(&order.Groups, "group", nil, "all machines of this `GROUP`; may be repeated")
	f.IntVar(&order.Priority, "priority", 0, "-1000 to 1000; higher ones begin first")
	f.StringVar(&d.at, "at", "", "machines begin at this `TIME` or later: 18:30, \"2026-01-31 18:30\", or RFC 3339")
	f.BoolVar(&d.anyTime, "any-time", false, "machines begin outside the windows of their groups too")
	f.StringVar(&d.verify, "verify", string(job.VerifyFull), "how much of the disk is read back: full, sample, or none (the receipt says \"unverified\")")
	f.StringVar(&d.free, "free", string(job.FreeKeep), "what becomes of the space that no file uses: keep, discard or zero")
	f.StringVar(&order.Options.Disk, "disk", "", "the `SERIAL` number or WWN of the disk to be written, of one machine (default: the only one that fits)")
	f.IntSliceVar(&order.Options.Keep, "keep", nil, "the `NUMBERS` of partitions that are on the disk already and stay as they are")
	f.IntVar(&d.retries, "retries", 0, "how often a job that failed of the network is tried again by itself (default: the settings')")
	f.StringVar(&d.preload, "preload", "none", "`SHARE` of the image that seed nodes fetch before machines begin: 20%, all, none")
	f.BoolVar(&order.Wake, "wake", false, "wake machines over the network when it is their turn")
	f.DurationVar(&d.seedFor, "seed-for", time.Minute, "how long a finished machine serves others at most; 4h with --seed-until-done")
	f.BoolVar(&order.SeedUntilDone, "seed-until-done", false, "finished machines serve others until the last one is done")
	f.StringVar(&order.After, "after", "reboot", "what a finished machine does: reboot, poweroff or stay")
	f.BoolVar(&d.dry, "dry-run", false, "say what would be done, and change nothing")
	f.BoolVar(&d.wait, "wait", false, "show the progress and wait until all jobs have ended")
	f.BoolVar(&d.asJSON, "json", false, "print JSON")
	_ = cmd.RegisterFlagCompletionFunc("machine", o.completes(0, machineNames))
	_ = cmd.RegisterFlagCompletionFunc("group", o.completes(0, groupNames))
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		order.Image = args[0]
		if order.All == (len(order.Machines)+len(order.Groups) > 0) {
			return usageError{fmt.Errorf("say which machines: --all, --group, or --machine for each")}
		}
		if !cmd.Flags().Changed("seed-for") {
			d.seedFor = 0 // the fleet's: longer where machines serve until the last one is done
		}
		if err := d.into(&order, cmd.Flags().Changed("retries")); err != nil {
			return usageError{err}
		}
		if d.dry {
			plan, err := c.Plan(cmd.Context(), order)
			if err != nil {
				return err
			}
			return tellPlan(cmd, plan, d.asJSON)
		}
		made, err := c.Deploy(cmd.Context(), order)
		if err != nil {
			return err
		}
		return d.tell(cmd, c, made)
	})
	return cmd
}

// into completes an order.
func (d *deployFlags) into(order *api.Order, retries bool) (err error) {
	order.SeedFor = api.Duration(d.seedFor)
	order.Windowless = d.anyTime
	order.Options.Verify, order.Options.Free = job.Verify(d.verify), job.Free(d.free)
	if retries {
		order.Retries = &d.retries
	}
	if order.Preload, err = parseShare(d.preload); err != nil {
		return fmt.Errorf("--preload: %w", err)
	}
	if d.at != "" {
		if order.NotBefore, err = parseTime(d.at, time.Now()); err != nil {
			return fmt.Errorf("--at: %w", err)
		}
	}
	return nil
}

// tell says what was begun, or waits for its end.
func (d *deployFlags) tell(cmd *cobra.Command, c *client.Client, made *api.Deployment) error {
	if !d.wait {
		if d.asJSON {
			return printJSON(cmd.OutOrStdout(), made)
		}
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "deployment %s of %s to %s; %s, or follow with `seedbed job ls`\n", made.ID, made.ImageName, machinesText(made), nextStep(made)); err != nil {
			return err
		}
		return tellWaits(cmd, c, made)
	}
	if !d.asJSON {
		fmt.Fprintf(cmd.ErrOrStderr(), "deployment %s of %s to %s; %s\n", made.ID, made.ImageName, machinesText(made), nextStep(made))
	}
	jobs, err := waitJobs(cmd.Context(), c, api.JobQuery{Deployment: made.ID}, os.Stderr)
	if err != nil {
		return err
	}
	if d.asJSON {
		if err := printJSON(cmd.OutOrStdout(), jobs); err != nil {
			return err
		}
	}
	return outcome(cmd, jobs, d.asJSON)
}

// machinesText says how many machines a deployment is for.
func machinesText(d *api.Deployment) string {
	n := 0
	for _, count := range d.Jobs {
		n += count
	}
	text := fmt.Sprintf("%d machines", n)
	if n == 1 {
		text = "1 machine"
	}
	if d.All && !d.Closed {
		text += ", and those seen later"
	}
	return text
}

// nextStep says what a person does after an order.
func nextStep(d *api.Deployment) string {
	step := "switch the machines on"
	if d.Wake {
		step = "machines that are off are woken"
	}
	if !d.NotBefore.IsZero() {
		step += ", at " + d.NotBefore.Local().Format("Mon 2006-01-02 15:04") + " or later"
	}
	return step
}

// mostWaits are the reasons that are told after an order.
const mostWaits = 5

// tellWaits says what the machines of a deployment wait for beside being switched on, and how many for each: a window that is shut
// is nothing to be found out in front of a room.
func tellWaits(cmd *cobra.Command, c *client.Client, made *api.Deployment) error {
	list, err := c.Jobs(cmd.Context(), api.JobQuery{Deployment: made.ID})
	if err != nil {
		return err
	}
	count := map[string]int{}
	for _, j := range list {
		if j.State == job.Waiting && j.Wait != queue.WaitsMachine && j.Wait != queue.WaitsTime && j.Wait != "" {
			count[j.Reason]++
		}
	}
	reasons := slices.SortedFunc(maps.Keys(count), func(a, b string) int { return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b)) })
	for i, reason := range reasons {
		if i == mostWaits {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "  and %d more reasons to wait\n", len(reasons)-i)
			return err
		}
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "  %d of them: %s\n", count[reason], plain(reason)); err != nil {
			return err
		}
	}
	return nil
}

// parseTime reads a time of the day, today's or tomorrow's, a time on a day, or RFC 3339; without a zone it is this host's.
func parseTime(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04", "2006-01-02T15:04"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	t, err := time.Parse("15:04", text)
	if err != nil {
		return t, fmt.Errorf("%q is no time; one is written 18:30, \"2026-01-31 18:30\" or 2026-01-31T18:30:00Z", text)
	}
	at := time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), 0, 0, now.Location())
	if at.Before(now) {
		at = time.Date(now.Year(), now.Month(), now.Day()+1, t.Hour(), t.Minute(), 0, 0, now.Location())
	}
	return at, nil
}

var deploymentIDs = listed((*client.Client).Deployments, func(d api.Deployment) string { return d.ID })

func deploymentCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "deployment", Short: "List deployments; steer all jobs of one; roll one back; write its journal"}
	cmd.AddCommand(deploymentLs(o), deploymentShow(o))
	for verb, short := range map[fleet.Verb]string{
		fleet.CancelAll: "End all its jobs that have not ended", fleet.PauseAll: "Hold all its jobs", fleet.ResumeAll: "Let all its jobs go on",
	} {
		cmd.AddCommand(o.countCommand(string(verb), short, func(ctx context.Context, c *client.Client, id string) (int, error) {
			return c.OperateDeployment(ctx, id, verb)
		}))
	}
	cmd.AddCommand(o.countCommand("retry", "Have its jobs that failed done again", func(ctx context.Context, c *client.Client, id string) (int, error) {
		return c.RetryFailed(ctx, id)
	}))
	shut := &cobra.Command{Use: "close DEPLOYMENT", Short: "Give machines seen from now on no job of it", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, deploymentIDs)}
	asJSON := jsonFlag(shut)
	shut.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		d, err := c.CloseDeployment(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return tell(cmd, *asJSON, d, "machines seen from now on get no job of deployment %s\n", d.ID)
	})
	cmd.AddCommand(shut, deploymentRollback(o), o.journalCommand("DEPLOYMENT", "Write what its jobs did as a table (CSV)", deploymentIDs, (*client.Client).DeploymentJournal))
	return cmd
}

// countCommand is a command that does something with all jobs of a deployment.
func (o *options) countCommand(verb, short string, fn func(ctx context.Context, c *client.Client, id string) (int, error)) *cobra.Command {
	cmd := &cobra.Command{Use: verb + " DEPLOYMENT", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, deploymentIDs)}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		n, err := fn(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		return tell(cmd, *asJSON, map[string]int{"count": n}, "%d jobs: %s\n", n, verb)
	})
	return cmd
}

func deploymentLs(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Short: "List the deployments", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Deployments(cmd.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		t := newTable(cmd.OutOrStdout(), "DEPLOYMENT", "IMAGE", "CREATED", "BY", "MACHINES", "PRIORITY", "JOBS")
		for _, d := range list {
			t.row(d.ID, d.ImageName, timeText(d.Created), dash(d.By), whomText(d), d.Priority, statesText(d.Jobs))
		}
		return t.flush()
	})
	return cmd
}

func whomText(d api.Deployment) string {
	switch {
	case d.All && d.Closed:
		return "all, closed"
	case d.All:
		return "all, later ones too"
	}
	return "named"
}

// statesText says how many jobs are in each state: "2 running, 5 succeeded".
func statesText(jobs map[job.State]int) string {
	var parts []string
	for _, s := range []job.State{job.Waiting, job.Claimed, job.Running, job.Paused, job.Succeeded, job.Failed, job.Cancelled} {
		if n := jobs[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	return dash(strings.Join(parts, ", "))
}

func deploymentShow(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "show DEPLOYMENT", Short: "Show a deployment with its jobs", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, deploymentIDs)}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		d, err := c.Deployment(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		jobs, err := c.Jobs(cmd.Context(), api.JobQuery{Deployment: d.ID})
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), struct {
				*api.Deployment
				List []api.Job `json:"list"`
			}{d, jobs})
		}
		w := cmd.OutOrStdout()
		fmt.Fprintf(w, "deployment  %s of %s, %s, by %s, %s\nmachines    %s\njobs        %s\npriority    %d\n", d.ID, d.ImageName, d.Image.Short(), dash(d.By), timeText(d.Created),
			whomText(*d), statesText(d.Jobs), d.Priority)
		if !d.NotBefore.IsZero() {
			fmt.Fprintf(w, "begins      %s or later\n", timeText(d.NotBefore))
		}
		if d.Wake {
			fmt.Fprintln(w, "wake        machines are woken over the network when it is their turn")
		}
		if d.Options.Disk != "" {
			fmt.Fprintf(w, "disk        %s\n", d.Options.Disk)
		}
		fmt.Fprintf(w, "verify      %s\nfree space  %s\nafter       %s\n\n", or(string(d.Options.Verify), string(job.VerifyFull)), or(string(d.Options.Free), string(job.FreeKeep)), d.After)
		return printJobs(w, jobs)
	})
	return cmd
}

func deploymentRollback(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "rollback DEPLOYMENT", Short: "Put on its machines what each held before; only what differs travels", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, deploymentIDs)}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		back, err := c.Rollback(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), back)
		}
		for _, d := range back.Deployments {
			fmt.Fprintf(cmd.OutOrStdout(), "deployment %s puts %s back\n", d.ID, d.ImageName)
		}
		if back.Left > 0 {
			fmt.Fprintf(cmd.OutOrStdout(), "%d machines held nothing before that is known, or got another image since, and stay as they are\n", back.Left)
		}
		return nil
	})
	return cmd
}

// unfinished says that not all jobs that were waited for succeeded; text, of one alone, says why.
type unfinished struct {
	failed, cancelled, all int
	text                   string
}

func (u *unfinished) Error() string {
	if u.text != "" {
		return u.text
	}
	return fmt.Sprintf("%d of %d jobs failed, %d were cancelled; `seedbed job ls` says why, `seedbed deployment retry` has those that failed done again", u.failed, u.all, u.cancelled)
}

// outcome says how jobs ended; the error is an *unfinished unless all succeeded.
func outcome(cmd *cobra.Command, jobs []api.Job, quiet bool) error {
	u := &unfinished{all: len(jobs)}
	for _, j := range jobs {
		switch {
		case j.State == job.Failed && j.RetriedBy != "": // the job that came of it is in the list too
			u.all--
			continue
		case j.State == job.Failed:
			u.failed++
		case j.State == job.Cancelled:
			u.cancelled++
		default:
			continue
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: job %s is %s: %s\n", plain(j.MachineName), j.ID, j.State, plain(j.Reason))
	}
	if u.failed+u.cancelled > 0 {
		return u
	}
	if !quiet {
		fmt.Fprintf(cmd.OutOrStdout(), "%d jobs succeeded\n", u.all)
	}
	return nil
}
