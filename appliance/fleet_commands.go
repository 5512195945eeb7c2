package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// withAppliance returns a RunE that talks to the running appliance.
func (o *options) withAppliance(fn func(cmd *cobra.Command, c *api.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c := api.NewClient(o.socket())
		defer c.Close()
		return fn(cmd, c, args)
	}
}

func deployCommand(o *options) *cobra.Command {
	var order fleet.Order
	var asJSON bool
	cmd := &cobra.Command{Use: "deploy IMAGE", Short: "Put an image on machines", Args: cobra.ExactArgs(1),
		Long: `Deploy gives machines a job; each gets the image when it boots from the network next. With --all that is every machine
of the site, those seen later too, until another deployment to all or until "seedbed deployment close".`}
	f := cmd.Flags()
	f.BoolVar(&order.All, "all", false, "every machine, those seen later too")
	f.StringSliceVar(&order.Machines, "machine", nil, "a machine by `ID`, name, MAC or serial number; may be repeated")
	f.DurationVar(&order.SeedFor, "seed-for", time.Minute, "how long a finished machine serves others at most")
	f.StringVar(&order.After, "after", "reboot", "what a finished machine does: reboot, poweroff or stay")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *api.Client, args []string) error {
		order.Image = args[0]
		if order.All == (len(order.Machines) > 0) {
			return usageError{fmt.Errorf("say which machines: --all, or --machine for each")}
		}
		d, err := c.Deploy(cmd.Context(), order)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), d)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "deployment %s of %s; switch the machines on, or follow with `seedbed job ls`\n", d.ID, d.ImageName)
		return nil
	})
	return cmd
}

func deploymentCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "deployment", Short: "List deployments, close those to all machines"}
	var asJSON bool
	ls := &cobra.Command{Use: "ls", Short: "List the deployments", Args: cobra.NoArgs}
	ls.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	ls.RunE = o.withAppliance(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		list, err := c.Deployments(cmd.Context())
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		t := newTable(cmd.OutOrStdout(), "DEPLOYMENT", "IMAGE", "CREATED", "MACHINES")
		for _, d := range list {
			machines := "named"
			if d.All && d.Closed {
				machines = "all, closed"
			} else if d.All {
				machines = "all, later ones too"
			}
			t.row(d.ID, d.ImageName, timeText(d.Created), machines)
		}
		return t.flush()
	})
	shut := &cobra.Command{Use: "close DEPLOYMENT", Short: "Give machines seen from now on no job of it", Args: cobra.ExactArgs(1)}
	shut.RunE = o.withAppliance(func(cmd *cobra.Command, c *api.Client, args []string) error {
		return c.CloseDeployment(cmd.Context(), args[0])
	})
	cmd.AddCommand(ls, shut)
	return cmd
}

func jobCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "job", Short: "List jobs; cancel, pause and resume them"}
	var asJSON bool
	ls := &cobra.Command{Use: "ls", Short: "List the jobs that have not ended, and those of the last 30 days", Args: cobra.NoArgs}
	ls.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	ls.RunE = o.withAppliance(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		list, err := c.Jobs(cmd.Context())
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		t := newTable(cmd.OutOrStdout(), "JOB", "KIND", "MACHINE", "IMAGE", "STATE", "PHASE", "DONE", "FROM APPLIANCE", "FROM PEERS", "REASON")
		for _, j := range list {
			t.row(j.ID, j.Kind, j.MachineName, j.ImageName, j.State, dash(string(j.Phase)), doneText(j), bytesText(j.FromAppliance), bytesText(j.FromPeers), or(j.Reason, strings.Join(j.Barred, "; ")))
		}
		return t.flush()
	})
	cmd.AddCommand(ls)
	for verb, short := range map[string]string{
		"cancel": "End a job; the machine stops with its next report", "pause": "Hold a job", "resume": "Let a paused job go on",
	} {
		sub := &cobra.Command{Use: verb + " JOB", Short: short, Args: cobra.ExactArgs(1)}
		sub.RunE = o.withAppliance(func(cmd *cobra.Command, c *api.Client, args []string) error {
			return c.Operate(cmd.Context(), args[0], verb)
		})
		cmd.AddCommand(sub)
	}
	return cmd
}

// doneText is the share of the image that the disk holds, or that was read back.
func doneText(j fleet.JobView) string {
	switch {
	case j.Total == 0:
		return "-"
	case j.Kind == job.Capture:
		return fmt.Sprintf("%d %% read, %s sent", 100*j.Done/j.Total, bytesText(j.Sent))
	case j.Phase == job.PhaseVerify:
		return fmt.Sprintf("%d %% verified", 100*j.Verified/j.Total)
	}
	return fmt.Sprintf("%d %%", 100*j.Held/j.Total)
}

func machineCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "machine", Short: "List machines and admit them"}
	var asJSON bool
	ls := &cobra.Command{Use: "ls", Short: "List the machines", Args: cobra.NoArgs}
	ls.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	ls.RunE = o.withAppliance(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		list, err := c.Machines(cmd.Context())
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		t := newTable(cmd.OutOrStdout(), "MACHINE", "NAME", "MAC", "MODEL", "FIRMWARE", "SECURE BOOT", "ADMITTED", "HOLDS", "JOB")
		for _, m := range list {
			t.row(m.ID, m.Name, m.MAC, model(m), dash(m.Firmware), dash(m.SecureBoot), admittedText(m), holds(m), dash(string(m.State)))
		}
		return t.flush()
	})
	admit := &cobra.Command{Use: "admit CODE", Short: "Admit the machine that shows the code on its screen", Args: cobra.ExactArgs(1)}
	admit.RunE = o.withAppliance(func(cmd *cobra.Command, c *api.Client, args []string) error {
		m, err := c.Admit(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "machine %s (%s) is admitted\n", m.Name, m.ID)
		return nil
	})
	cmd.AddCommand(ls, admit)
	return cmd
}

func model(m fleet.MachineView) string {
	if m.Inventory == nil {
		return "-"
	}
	return dash(strings.TrimSpace(m.Inventory.Manufacturer + " " + m.Inventory.Product))
}

func admittedText(m fleet.MachineView) string {
	if m.Admitted {
		return "yes"
	}
	return "code " + m.Code
}

func holds(m fleet.MachineView) string {
	if m.Deployed == nil {
		return "-"
	}
	return m.Deployed.ImageName
}

func eventCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "event", Short: "List what happened"}
	var asJSON, follow bool
	var after int64
	ls := &cobra.Command{Use: "ls", Short: "List the events", Args: cobra.NoArgs,
		Long: "List the events, oldest first. With --json and --follow, one event a line."}
	ls.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	ls.Flags().BoolVar(&follow, "follow", false, "go on until interrupted")
	ls.Flags().Int64Var(&after, "after", 0, "only events with a higher `ID`")
	ls.RunE = o.withAppliance(func(cmd *cobra.Command, c *api.Client, _ []string) error {
		return listEvents(cmd, c, after, asJSON, follow)
	})
	cmd.AddCommand(ls)
	return cmd
}

// eventPage is how many events are asked for at once.
const eventPage = 1000

func listEvents(cmd *cobra.Command, c *api.Client, after int64, asJSON, follow bool) error {
	ctx, w := cmd.Context(), cmd.OutOrStdout()
	all := []fleet.Event{}
	for {
		page, err := c.Events(ctx, after, eventPage)
		if ctx.Err() != nil && follow {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range page {
			after = e.ID
			switch {
			case asJSON && !follow:
				all = append(all, e)
			case asJSON:
				if err := json.NewEncoder(w).Encode(e); err != nil {
					return err
				}
			default:
				fmt.Fprintf(w, "%6d  %s  %-22s %s\n", e.ID, timeText(e.At), e.Kind, e.Text)
			}
		}
		if len(page) == eventPage {
			continue
		}
		if !follow {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
	}
	if asJSON {
		return printJSON(w, all)
	}
	return nil
}
