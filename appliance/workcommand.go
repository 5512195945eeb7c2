package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// workCommands are the commands that give machines jobs which belong to no deployment.
func workCommands(o *options) []*cobra.Command {
	return []*cobra.Command{
		workCommand(o, job.VerifyDisk, "Compare machines' disks with their image; nothing is written",
			`Verify has each machine read its disk at its next network boot and compare it with the image that it got last, or with --image. Nothing is
written. A job fails with the code "damaged" where something differs, and says how much of which partition.`),
		workCommand(o, job.RepairDisk, "Write what differs from the image on machines' disks",
			`Repair has each machine compare its disk with the image that it got last, or with --image, fetch what differs and write only that. A disk with
another partition table, or nothing of the image, is written as by a deployment.`),
		workCommand(o, job.WipeDisk, "Make everything on machines' disks unreadable",
			`Wipe destroys everything on the only fixed disk of each machine, or on the one that --disk names by its serial number; USB and removable disks are
never wiped. It has to be confirmed with --confirm wipe. Samples are read afterwards; the job says what was done.`),
		workCommand(o, job.InventoryOf, "Have machines tell what they are", "Inventory has each machine boot the agent once, tell what it is, and go on."),
	}
}

// workCommand is the command for one kind of job.
func workCommand(o *options, kind job.Kind, short, long string) *cobra.Command {
	order := fleet.WorkOrder{Kind: kind}
	var at, method string
	cmd := &cobra.Command{Use: string(kind) + " [MACHINE...]", Short: short, Long: long + "\n\nWith --wait the exit code is 10 unless every job succeeds.",
		ValidArgsFunction: o.completes(0, machineNames)}
	asJSON := jsonFlag(cmd)
	f := cmd.Flags()
	f.StringSliceVar(&order.Groups, "group", nil, "all machines of this `GROUP`; may be repeated")
	f.StringVar(&order.After, "after", "reboot", "what a machine does then: reboot, poweroff or stay")
	f.IntVar(&order.Priority, "priority", 0, "-1000 to 1000; higher ones begin first")
	f.StringVar(&at, "at", "", "machines begin at this `TIME` or later: 18:30, \"2026-01-31 18:30\", or RFC 3339")
	f.BoolVar(&order.Windowless, "any-time", false, "machines begin outside the windows of their groups too")
	if kind.OfImage() {
		f.StringVar(&order.Image, "image", "", "the `IMAGE` that the disk should have (default: what the machine got last)")
	}
	if kind != job.InventoryOf {
		f.StringVar(&order.DiskSerial, "disk", "", "the `SERIAL` number or WWN of the disk, for one machine")
	}
	if kind == job.WipeDisk {
		f.StringVar(&method, "method", string(job.WipeZero), "zero, discard, or secure (a secure discard, where the disk knows it); zeros where that does not empty the disk")
		f.StringVar(&order.Confirm, "confirm", "", "the word `wipe`: nothing of the disks can be had back")
	}
	dry := new(bool)
	if kind != job.InventoryOf {
		dry = f.Bool("dry-run", false, "only say which disk of each machine it would be, what is on it, and what is refused")
	}
	wait := f.Bool("wait", false, "show the progress and wait until all jobs have ended")
	_ = cmd.RegisterFlagCompletionFunc("group", o.completes(0, groupNames))
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) (err error) {
		if order.Machines = args; len(args)+len(order.Groups) == 0 {
			return usageError{errors.New("say which machines, or --group")}
		}
		if order.Method = job.WipeMethod(method); at != "" {
			if order.NotBefore, err = parseTime(at, time.Now()); err != nil {
				return usageError{fmt.Errorf("--at: %w", err)}
			}
		}
		if *dry {
			p, err := c.PlanWork(cmd.Context(), order)
			if err != nil {
				return err
			}
			return tellWorkPlan(cmd, p, *asJSON)
		}
		made, err := c.Work(cmd.Context(), order)
		if err != nil {
			return err
		}
		return tellWork(cmd, c, made, *wait, *asJSON)
	})
	return cmd
}

// tellWork says which jobs were made, or waits for their end.
func tellWork(cmd *cobra.Command, c *client.Client, made []api.Job, wait, asJSON bool) error {
	if !wait && asJSON {
		return printJSON(cmd.OutOrStdout(), made)
	}
	if !asJSON {
		for _, j := range made {
			fmt.Fprintf(cmd.OutOrStdout(), "job %s: %s of %s %s; it begins when the machine boots from the network\n", j.ID, j.Kind, plain(j.MachineName), plain(j.ImageName))
		}
	}
	if !wait {
		return nil
	}
	ids := make([]string, len(made))
	for i, j := range made {
		ids[i] = j.ID
	}
	ended, err := waitJobs(cmd.Context(), c, api.JobQuery{ID: strings.Join(ids, ",")}, os.Stderr)
	if err != nil {
		return err
	}
	if asJSON {
		if err := printJSON(cmd.OutOrStdout(), ended); err != nil {
			return err
		}
	}
	return outcome(cmd, ended, asJSON)
}

// tellWorkPlan says what an order of work would do.
func tellWorkPlan(cmd *cobra.Command, p *fleet.WorkPlan, asJSON bool) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), p)
	}
	t := newTable(cmd.OutOrStdout(), "MACHINE", "DISK", "NOW ON IT", "IMAGE", "THEN")
	for _, m := range p.Machines {
		if m.Refused != "" {
			t.row(m.Name, "-", "-", dash(m.Image), "refused: "+m.Refused)
			continue
		}
		disk, then := "not known", map[job.Kind]string{job.VerifyDisk: "is compared", job.RepairDisk: "is repaired", job.WipeDisk: "is wiped: all of it is lost"}[p.Kind]
		if m.Disk != nil {
			disk = job.DescribeDisk(*m.Disk)
		}
		t.row(m.Name, disk, m.Now, dash(m.Image), then)
	}
	if err := t.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d machines, %d of them refused, %d whose disks are not known yet. Nothing was changed.\n", len(p.Machines), p.Refused, p.Unknown)
	return err
}

// foundLines are what a job found, repaired, wiped or left unverified, each with what it is about.
func foundLines(j *api.Job) (lines [][2]string) {
	if f := j.Found; !f.IsClean() {
		name := map[job.Kind]string{job.RepairDisk: "repaired"}[j.Kind]
		if name == "" {
			name = "damaged"
		}
		if f.Table {
			lines = append(lines, [2]string{name, "the partition table"})
		}
		for _, d := range f.Damage {
			lines = append(lines, [2]string{name, fmt.Sprintf("partition %d: %d of %d tiles, %s", d.Partition, d.Tiles, d.Of, bytesText(d.Bytes))})
		}
	}
	if w := j.Wiped; w != nil {
		lines = append(lines, [2]string{"wiped", fmt.Sprintf("by %s; %d places read, %s", w.Done, w.Samples, bytesText(w.Bytes))})
	}
	for _, u := range j.Unproven {
		lines = append(lines, [2]string{"unverified", fmt.Sprintf("partition %d: %s of %s read back", u.Number, bytesText(u.Proven), bytesText(u.Total))})
	}
	return lines
}
