package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
)

func settingsCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "settings", Short: "Show and change what is set for the whole site"}
	cmd.AddCommand(settingsShow(o), settingsSet(o))
	return cmd
}

func settingsShow(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "show", Short: "Show what is set", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		s, err := c.Settings(cmd.Context())
		if err != nil {
			return err
		}
		return tellSettings(cmd, s, *asJSON)
	})
	return cmd
}

func tellSettings(cmd *cobra.Command, s *fleet.Settings, asJSON bool) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), s)
	}
	limit := "no limit"
	if s.Limit > 0 {
		limit = fmt.Sprint(s.Limit)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "machines at work at once  %s\ntime zone of windows      %s\nretries of a failed job   %d\n", limit, or(s.TimeZone, "that of the appliance's host"), s.Retries)
	return err
}

func settingsSet(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "set", Short: "Change what is set", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	f := cmd.Flags()
	limit := f.Int("limit", 0, "how many machines of the site are at work at once; 0 is no limit")
	zone := f.String("time-zone", "", "the time `ZONE` of windows that name none, as in Europe/Berlin; \"\" is that of the appliance's host")
	retries := f.Int("retries", 0, "how often a job that failed of the network is tried again by itself")
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		var order fleet.SettingsOrder
		if f.Changed("limit") {
			order.Limit = limit
		}
		if f.Changed("time-zone") {
			order.TimeZone = zone
		}
		if f.Changed("retries") {
			order.Retries = retries
		}
		if order == (fleet.SettingsOrder{}) {
			return usageError{errors.New("say what to set: --limit, --time-zone or --retries")}
		}
		s, err := c.EditSettings(cmd.Context(), 0, order)
		if err != nil {
			return err
		}
		return tellSettings(cmd, s, *asJSON)
	})
	return cmd
}

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
