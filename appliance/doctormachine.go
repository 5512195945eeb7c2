package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"seedbed/appliance/api"
	"seedbed/appliance/bootdoctor"
	"seedbed/appliance/client"
)

const machineDoctorHelp = `With a MACHINE (ID, name, MAC or serial number) it asks the appliance how that machine boots: what was seen of it, step by step, where
it stopped, why, and what to do. Where the evidence cannot tell causes apart it names each.`

// examineMachine says how a machine boots.
func (o *options) examineMachine(cmd *cobra.Command, name string, asJSON bool) error {
	return o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		b, err := c.MachineBoot(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if asJSON {
			err = printJSON(cmd.OutOrStdout(), b)
		} else {
			err = printBoot(cmd.OutOrStdout(), b)
		}
		if err == nil && b.Verdict.Level == bootdoctor.Stopped {
			err = &ailing{wrong: 1, of: 1}
		}
		return err
	})(cmd, []string{name})
}

// printBoot prints a verdict and the steps that it follows from.
func printBoot(w io.Writer, b *api.MachineBoot) error {
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "%-8s %s\n", name, plain(text))
		}
	}
	v := b.Verdict
	line(string(v.Level), v.Sentence)
	for i, cause := range v.Causes {
		name := "or"
		if i == 0 {
			name = "either"
		}
		line(name, cause)
	}
	line("do", v.Next)
	line("case", v.Case)
	if e := v.Left; e != nil {
		at := ""
		if !e.At.IsZero() {
			at = e.At.Local().Format(time.DateTime) + ": "
		}
		line("before", at+e.Sentence)
		line("do", e.Next)
	}
	boot, title := b.Now, "its present boot"
	if v.Before && b.Last != nil {
		boot, title = b.Last, "the boot before its present one"
	}
	if boot == nil {
		return nil
	}
	fmt.Fprintf(w, "\n%s, %s", title, boot.Began.Local().Format(time.DateTime))
	for _, fact := range []string{boot.MAC, boot.Firmware, boot.Addr} {
		if fact != "" {
			fmt.Fprintf(w, ", %s", plain(fact))
		}
	}
	fmt.Fprintln(w)
	t := newTable(w, "AFTER", "TOOK", "TIMES", "STEP", "WHAT")
	for _, s := range boot.Steps {
		t.row(brief(s.After), brief(s.Took), s.Count, s.Kind, stepText(s))
	}
	return t.flush()
}

// brief prints a duration in seconds.
func brief(d api.Duration) string { return fmt.Sprintf("%.1f s", time.Duration(d).Seconds()) }

func stepText(s api.BootStep) string {
	text := s.Text
	if s.Length > 0 && s.Bytes < s.Length {
		text += fmt.Sprintf(" (%d of %d bytes)", s.Bytes, s.Length)
	}
	if s.Appliance != "" {
		text += " (seen by " + plain(s.Appliance) + ")"
	}
	if s.Problem != "" {
		text += ": " + s.Problem
		if s.Note != "" {
			text += ", " + s.Note
		}
	}
	return text
}
