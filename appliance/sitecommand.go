package main

import (
	"github.com/spf13/cobra"

	"seedbed/appliance/client"
)

func applianceCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "appliance", Short: "List the appliances of the site"}
	ls := &cobra.Command{Use: "ls", Short: "List the appliances of the site", Args: cobra.NoArgs}
	asJSON := jsonFlag(ls)
	ls.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Appliances(cmd.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		t := newTable(cmd.OutOrStdout(), "APPLIANCE", "NAME", "URL", "SEEDER", "PROGRAM", "STARTED", "STATE")
		for _, a := range list {
			state := "is silent since " + timeText(a.Heard)
			switch {
			case a.Present && a.Schedule:
				state = "schedules the site"
			case a.Present:
				state = "stands by"
			}
			t.row(a.ID, a.Name, a.URL, a.Seeder, dash(a.Program), timeText(a.Started), state)
		}
		return t.flush()
	})
	cmd.AddCommand(ls)
	return cmd
}
