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
	"seedbed/appliance/fleet"
)

var machineNames = listed(func(c *client.Client, ctx context.Context) ([]api.Machine, error) {
	return c.Machines(ctx, api.MachineQuery{})
}, func(m api.Machine) string { return m.Name })

func machineCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "machine", Short: "List, admit, name, wake and remove machines; verify, repair and wipe their disks",
		Long: "A MACHINE is an ID, a name, a MAC or a serial number."}
	cmd.AddCommand(machineLs(o), machineShow(o), machineEdit(o), machineAdmit(o), machineRm(o), machineMerge(o), machineWake(o), machineImport(o), machineExport(o),
		o.journalCommand("MACHINE", "Write what its jobs did as a table (CSV)", machineNames, (*client.Client).MachineJournal))
	cmd.AddCommand(workCommands(o)...)
	return cmd
}

// jsonFlag adds --json.
func jsonFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "print JSON")
}

func machineLs(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Short: "List the machines", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	var q api.MachineQuery
	f := cmd.Flags()
	f.StringVar(&q.Group, "group", "", "only machines of this `GROUP`")
	f.StringVar(&q.State, "state", "", "only machines whose job is in this `STATE`; none is without a job")
	f.StringVar(&q.Text, "text", "", "only machines with this `TEXT` in name, MAC, serial number, model, image or notes")
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Machines(cmd.Context(), q)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		t := newTable(cmd.OutOrStdout(), "MACHINE", "NAME", "MAC", "MODEL", "FIRMWARE", "SECURE BOOT", "GROUPS", "ADMITTED", "HOLDS", "JOB")
		for _, m := range list {
			t.row(m.ID, m.Name, m.MAC, model(m), dash(m.Firmware), dash(m.SecureBoot), dash(strings.Join(m.Groups, ", ")), admittedText(m), holds(m), dash(string(m.State)))
		}
		return t.flush()
	})
	return cmd
}

func model(m api.Machine) string {
	if m.Inventory == nil {
		return "-"
	}
	return dash(strings.TrimSpace(m.Inventory.Manufacturer + " " + m.Inventory.Product))
}

func admittedText(m api.Machine) string {
	text := "yes"
	switch {
	case !m.Admitted && m.Crowded:
		text = "code " + m.Code + ", too many by themselves"
	case !m.Admitted:
		text = "code " + m.Code
	case !m.ByItself.IsZero():
		text = "by itself"
	}
	if m.Conflict != "" {
		text += ", conflict"
	}
	return text
}

func holds(m api.Machine) string {
	if m.Deployed == nil {
		return "-"
	}
	if m.Deployed.Unverified {
		return m.Deployed.ImageName + " (unverified)"
	}
	return m.Deployed.ImageName
}

func machineShow(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "show MACHINE", Short: "Show what is known of a machine, and its latest events", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, machineNames)}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		m, err := c.Machine(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), m)
		}
		events, err := c.Events(cmd.Context(), api.EventQuery{Machine: m.ID, Before: 1 << 62, Limit: 10})
		if err != nil {
			return err
		}
		return printMachine(cmd.OutOrStdout(), m, events)
	})
	return cmd
}

func printMachine(w io.Writer, m *api.Machine, events []fleet.Event) error {
	line := func(name, format string, a ...any) {
		fmt.Fprintf(w, "%-10s %s\n", name, plain(fmt.Sprintf(format, a...)))
	}
	line("machine", "%s (%s)", m.Name, m.ID)
	line("MACs", "%s", strings.Join(m.MACs, ", "))
	line("UUID", "%s", dash(m.UUID))
	line("admitted", "%s", admittedText(*m))
	if m.Conflict != "" {
		line("conflict", "%s", m.Conflict)
	}
	line("groups", "%s", dash(strings.Join(m.Groups, ", ")))
	if m.Seat != nil {
		line("seat", "row %d, column %d", m.Seat.Row, m.Seat.Column)
	}
	if m.Boot != nil {
		line("boots", "%s%s", m.Boot.To, map[bool]string{true: ", once"}[m.Boot.Once])
	}
	if i := m.Inventory; i != nil {
		line("model", "%s, serial number %s", model(*m), dash(i.Serial))
		line("hardware", "%d cores, %s, %s, Secure Boot %s", i.Cores, bytesText(i.MemoryBytes), i.Firmware, dash(i.SecureBoot))
		for _, d := range i.Disks {
			line("disk", "%s %s, %s, serial number %s", d.Name, bytesText(d.Length), dash(d.Model), dash(d.Serial))
		}
		for _, n := range i.NICs {
			line("card", "%s %s %s, %d Mbit/s", n.Name, n.MAC, dash(n.Driver), n.Mbit)
		}
	}
	line("holds", "%s", holds(*m))
	line("job", "%s", dash(strings.TrimSpace(m.JobID+" "+string(m.State))))
	line("first seen", "%s", timeText(m.FirstSeen))
	line("last seen", "%s", timeText(m.LastSeen))
	for _, text := range strings.Split(m.Notes, "\n") {
		if text != "" {
			line("notes", "%s", text)
		}
	}
	for _, e := range events {
		line("event", "%s  %s", timeText(e.At), e.Text)
	}
	return nil
}

func machineEdit(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "edit MACHINE", Short: "Name a machine, put it into groups, say where it stands and what it boots", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, machineNames)}
	asJSON := jsonFlag(cmd)
	var name, notes, seat, boot string
	var groups []string
	var once bool
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "another `NAME`")
	f.StringVar(&notes, "notes", "", "`TEXT` for people")
	f.StringSliceVar(&groups, "groups", nil, "the `GROUPS` that it belongs to, in place of those before; \"\" is none")
	f.StringVar(&seat, "seat", "", "its place in the plan of its room, `ROW,COLUMN` from 1; \"\" is none")
	f.StringVar(&boot, "boot", "", "what it boots: agent, local (its disk; jobs wait), or jobs (by its jobs)")
	f.BoolVar(&once, "once", false, "--boot is for the next boot alone")
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		var order fleet.MachineOrder
		given := cmd.Flags().Changed
		if given("name") {
			order.Name = &name
		}
		if given("notes") {
			order.Notes = &notes
		}
		if given("groups") {
			list := []string{}
			for _, g := range groups {
				if g != "" {
					list = append(list, g)
				}
			}
			order.Groups = &list
		}
		if given("seat") {
			s, err := parseSeat(seat)
			if err != nil {
				return usageError{err}
			}
			order.Seat = &s
		}
		if given("boot") {
			if boot == "jobs" {
				boot = ""
			}
			order.Boot = &fleet.BootOverride{To: fleet.BootTo(boot), Once: once}
		} else if once {
			return usageError{errors.New("--once goes with --boot")}
		}
		if order == (fleet.MachineOrder{}) {
			return usageError{errors.New("say what to change; see `seedbed machine edit --help`")}
		}
		m, err := c.EditMachine(cmd.Context(), args[0], 0, order)
		if err != nil {
			return err
		}
		return tell(cmd, *asJSON, m, "machine %s (%s) is changed\n", m.Name, m.ID)
	})
	return cmd
}

func parseSeat(text string) (s fleet.Seat, err error) {
	if text == "" {
		return s, nil
	}
	row, column, ok := strings.Cut(text, ",")
	if s.Row, err = strconv.Atoi(row); err == nil {
		s.Column, err = strconv.Atoi(column)
	}
	if !ok || err != nil {
		return s, fmt.Errorf("a seat is ROW,COLUMN, as in 2,5; %q is none", text)
	}
	return s, nil
}

func machineAdmit(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "admit CODE", Short: "Admit the machine that shows the code on its screen", Args: cobra.ExactArgs(1)}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		m, err := c.Admit(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), m)
		}
		if _, err = fmt.Fprintf(cmd.OutOrStdout(), "machine %s (%s) is admitted\n", plain(m.Name), m.ID); err != nil || m.JobID == "" {
			return err
		}
		j, err := c.Job(cmd.Context(), m.JobID)
		if err != nil || j.State.Ended() {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "it has job %s now (%s %s); `seedbed job cancel %s` if it is not to have that\n", j.ID, j.Kind, plain(j.ImageName), j.ID)
		return err
	})
	return cmd
}

func machineRm(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "rm MACHINE...", Short: "Forget machines; one that is seen again is new", Args: cobra.MinimumNArgs(1), ValidArgsFunction: o.completes(0, machineNames)}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		gone := []named{}
		for _, name := range args {
			if err := c.RemoveMachine(cmd.Context(), name); err != nil {
				if len(gone) > 0 && *asJSON {
					err = errors.Join(printJSON(cmd.OutOrStdout(), gone), err)
				}
				return err
			}
			if gone = append(gone, named{name}); !*asJSON {
				fmt.Fprintf(cmd.OutOrStdout(), "machine %s is removed\n", plain(name))
			}
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), gone)
		}
		return nil
	})
	return cmd
}

func machineMerge(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "merge MACHINE INTO", Short: "Say that a machine is the same computer as another, which stays", Args: cobra.ExactArgs(2), ValidArgsFunction: o.completes(2, machineNames)}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		m, err := c.MergeMachines(cmd.Context(), args[0], args[1])
		if err != nil {
			return err
		}
		return tell(cmd, *asJSON, m, "%s is %s (%s)\n", args[0], m.Name, m.ID)
	})
	return cmd
}

func machineWake(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "wake [MACHINE...]", Short: "Wake machines over the network", ValidArgsFunction: o.completes(0, machineNames),
		Long: "Wake sends machines the packet that wakes them: in every network of the appliance, or to the broadcast addresses of their groups."}
	asJSON := jsonFlag(cmd)
	groups := cmd.Flags().StringSlice("group", nil, "all machines of this `GROUP`; may be repeated")
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		if len(args)+len(*groups) == 0 {
			return usageError{errors.New("say which machines, or --group")}
		}
		w, err := c.Wake(cmd.Context(), api.Names{Machines: args, Groups: *groups})
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), w)
		}
		for _, name := range w.Failed {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: no packet could be sent; `seedbed event ls` and the appliance's log say more\n", plain(name))
		}
		if _, err = fmt.Fprintf(cmd.OutOrStdout(), "%d machines are woken, by %d packets\n", len(w.Machines), w.Packets); err == nil && len(w.Failed) > 0 {
			err = fmt.Errorf("%d of %d machines were not woken", len(w.Failed), len(w.Failed)+len(w.Machines))
		}
		return err
	})
	return cmd
}

func machineImport(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "import FILE|-", Short: "Take over a table of machines (CSV), all of it or nothing", Args: cobra.ExactArgs(1),
		Long: `Import reads a table with a header: mac, and any of name, groups (between semicolons), row, column, notes, admitted. A MAC that is not known
makes a machine that is known before it is seen; groups that are not there are made. "seedbed machine export" writes such a table.`}
	asJSON := jsonFlag(cmd)
	dry := cmd.Flags().Bool("dry-run", false, "only say what it would do")
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		in := cmd.InOrStdin()
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("read the table of machines: %w", err)
			}
			defer f.Close()
			in = f
		}
		done, err := c.ImportMachines(cmd.Context(), in, *dry)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), done)
		}
		if len(done.NewGroups) > 0 {
			fmt.Fprintf(cmd.OutOrStdout(), "groups that were not there: %s\n", plain(strings.Join(done.NewGroups, ", ")))
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d machines are new, %d changed, %d the same%s\n", done.Added, done.Changed, done.Same, map[bool]string{true: "; nothing was written"}[*dry])
		return err
	})
	return cmd
}

func machineExport(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "export [FILE]", Short: "Write the table of machines (CSV)", Args: cobra.MaximumNArgs(1)}
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		if len(args) == 0 || args[0] == "-" {
			return c.ExportMachines(cmd.Context(), cmd.OutOrStdout())
		}
		return newFile(args[0], func(w io.Writer) error { return c.ExportMachines(cmd.Context(), w) })
	})
	return cmd
}
