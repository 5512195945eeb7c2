package main

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// tellPlan says what a deployment would do.
func tellPlan(cmd *cobra.Command, p *fleet.Plan, asJSON bool) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), p)
	}
	out := cmd.OutOrStdout()
	t := newTable(out, "MACHINE", "DISK", "NOW ON IT", "FETCHED", "THEN")
	for _, m := range p.Machines {
		if m.Refused != "" {
			t.row(m.Name, "-", "-", "-", "refused: "+m.Refused)
			continue
		}
		disk := "not known"
		if m.Disk != nil {
			disk = job.DescribeDisk(*m.Disk)
		}
		t.row(m.Name, disk, m.Now, planBytes(m.Fetched, m.AtMost), cmp.Or(m.Waits, "begins at once"))
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, m := range p.Machines {
		for _, note := range m.Notes {
			fmt.Fprintf(out, "%s: %s\n", plain(m.Name), plain(note.Text))
		}
	}
	_, err := fmt.Fprintf(out, "%s would be written to %d disks, %s in all; %d machines refused. Nothing was changed.\n", p.ImageName, p.Written, planBytes(p.Fetched, p.AtMost), p.Refused)
	return err
}

// planBytes says how much would be fetched.
func planBytes(n int64, atMost bool) string {
	if atMost {
		return "at most " + bytesText(n)
	}
	return bytesText(n)
}
