package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
)

var groupNames = listed((*client.Client).Groups, func(g fleet.GroupView) string { return g.Name })

func groupCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "group", Short: "Put machines into rooms, lines and other groups, with limits and times of their own"}
	cmd.AddCommand(groupLs(o), groupEdit(o, true), groupEdit(o, false), groupMembers(o, true), groupMembers(o, false), groupRm(o))
	return cmd
}

func groupLs(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Short: "List the groups", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Groups(cmd.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		t := newTable(cmd.OutOrStdout(), "GROUP", "KIND", "MACHINES", "AT WORK", "LIMIT", "WINDOWS", "UPLINK", "BROADCAST", "CLEAN", "NOTES")
		for _, g := range list {
			uplink := g.Uplink
			if uplink != "" && g.UplinkLimit > 0 {
				uplink += fmt.Sprintf(", %d at once", g.UplinkLimit)
			}
			t.row(g.Name, g.Kind, g.Machines, g.AtWork, limitText(g.Limit), dash(strings.Join(g.Windows, "; ")), dash(uplink), dash(g.Broadcast), cleanText(g.KeepClean), dash(g.Notes))
		}
		return t.flush()
	})
	return cmd
}

func limitText(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func cleanText(k *fleet.KeepClean) string {
	switch {
	case k == nil:
		return "-"
	case k.Image == "":
		return "at every boot"
	}
	return "at every boot, " + k.Image
}

// groupEdit is `group new` where fresh, else `group edit`.
func groupEdit(o *options, fresh bool) *cobra.Command {
	cmd := &cobra.Command{Use: "edit GROUP", Short: "Change a group", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, groupNames)}
	if fresh {
		cmd = &cobra.Command{Use: "new GROUP", Short: "Make a group", Args: cobra.ExactArgs(1)}
	}
	asJSON := jsonFlag(cmd)
	var kind, notes, uplink, broadcast, clean string
	var limit, uplinkLimit, rows, columns int
	var windows []string
	var keepClean bool
	f := cmd.Flags()
	f.StringVar(&kind, "kind", string(fleet.Tag), "room (a machine has one), line or tag")
	f.StringVar(&notes, "notes", "", "`TEXT` for people")
	f.IntVar(&limit, "limit", 0, "how many of its machines are at work at once; 0 is no limit")
	f.StringArrayVar(&windows, "window", nil, "when its jobs may begin: `DAYS FROM-TO [ZONE]`, as in \"Mon-Fri 18:00-06:00\"; may be repeated; \"\" is any time")
	f.StringVar(&uplink, "uplink", "", "`NAME` of the link that content for its machines crosses")
	f.IntVar(&uplinkLimit, "uplink-limit", 0, "how many machines behind that link are at work at once; 0 is no limit")
	f.StringVar(&broadcast, "broadcast", "", "`ADDRESS` to which packets go that wake its machines: 10.1.2.255")
	f.IntVar(&rows, "rows", 0, "rows of a room's plan")
	f.IntVar(&columns, "columns", 0, "columns of a room's plan")
	f.BoolVar(&keepClean, "keep-clean", false, "verify the disks of its machines, and repair them, at every boot")
	f.StringVar(&clean, "clean-image", "", "the `IMAGE` of --keep-clean (default: what was deployed last)")
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		order := fleet.GroupOrder{Name: args[0]}
		given := cmd.Flags().Changed
		set := func(name string, to **string, v *string) {
			if given(name) {
				*to = v
			}
		}
		number := func(name string, to **int, v *int) {
			if given(name) {
				*to = v
			}
		}
		set("notes", &order.Notes, &notes)
		set("uplink", &order.Uplink, &uplink)
		set("broadcast", &order.Broadcast, &broadcast)
		set("clean-image", &order.CleanImage, &clean)
		number("limit", &order.Limit, &limit)
		number("uplink-limit", &order.UplinkLimit, &uplinkLimit)
		number("rows", &order.Rows, &rows)
		number("columns", &order.Columns, &columns)
		if given("kind") {
			k := fleet.GroupKind(kind)
			order.Kind = &k
		}
		if given("keep-clean") {
			order.KeepClean = &keepClean
		}
		if given("window") {
			list := []string{}
			for _, w := range windows {
				if w != "" {
					list = append(list, w)
				}
			}
			order.Windows = &list
		}
		if !fresh && order == (fleet.GroupOrder{Name: args[0]}) {
			return usageError{errors.New("say what to change; see `seedbed group edit --help`")}
		}
		var g *fleet.GroupView
		var err error
		if fresh {
			g, err = c.NewGroup(cmd.Context(), order)
		} else {
			g, err = c.EditGroup(cmd.Context(), args[0], 0, order)
		}
		if err != nil {
			return err
		}
		return tell(cmd, *asJSON, g, "group %s is %s\n", g.Name, map[bool]string{true: "made", false: "changed"}[fresh])
	})
	return cmd
}

func groupMembers(o *options, in bool) *cobra.Command {
	cmd := &cobra.Command{Use: "remove GROUP MACHINE...", Short: "Take machines out of a group", Args: cobra.MinimumNArgs(2), ValidArgsFunction: o.completes(0, groupNames, machineNames)}
	if in {
		cmd.Use, cmd.Short = "add GROUP MACHINE...", "Put machines into a group"
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		n, err := c.GroupMachines(cmd.Context(), args[0], args[1:], in)
		if err != nil {
			return err
		}
		return tell(cmd, *asJSON, map[string]int{"count": n}, "%d machines %s group %s\n", n, map[bool]string{true: "came into", false: "left"}[in], args[0])
	})
	return cmd
}

func groupRm(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "rm GROUP", Short: "Remove a group; its machines stay", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, groupNames)}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		if err := c.RemoveGroup(cmd.Context(), args[0]); err != nil {
			return err
		}
		return tell(cmd, *asJSON, named{args[0]}, "group %s is removed\n", args[0])
	})
	return cmd
}
