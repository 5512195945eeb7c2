package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"seedbed/appliance/client"
)

func alertCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "alert", Short: "What is beyond its threshold, and who is told"}
	cmd.AddCommand(alertLs(o), alertMessages(o), alertTest(o))
	return cmd
}

func alertLs(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Short: "List the alerts, those that are open first", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	open := cmd.Flags().Bool("open", false, "only those that are open")
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		all, err := c.Alerts(cmd.Context())
		if err != nil {
			return err
		}
		list := all[:0]
		for _, a := range all {
			if a.Open() || !*open {
				list = append(list, a)
			}
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		t := newTable(cmd.OutOrStdout(), "ALERT", "SINCE", "UNTIL", "WHAT", "CAUSE", "WHAT TO DO")
		for _, a := range list {
			until := "lasts"
			if !a.Open() {
				until = timeText(a.Ended)
			}
			t.row(a.Rule, timeText(a.Since), until, a.Text, dash(a.Cause), a.Advice)
		}
		return t.flush()
	})
	return cmd
}

func alertMessages(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "messages", Short: "List the messages about alerts, those that were not sent first", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Messages(cmd.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		t := newTable(cmd.OutOrStdout(), "WRITTEN", "BY", "SUBJECT", "STATE")
		for _, m := range list {
			state := "waits to be sent"
			switch {
			case !m.Sent.IsZero():
				state = "sent " + timeText(m.Sent)
			case !m.GivenUp.IsZero():
				state = fmt.Sprintf("given up after %d attempts: %s", m.Attempts, m.Error)
			case m.Error != "":
				state = fmt.Sprintf("kept after %d attempts, next %s: %s", m.Attempts, timeText(m.Next), m.Error)
			}
			t.row(timeText(m.Created), m.Channel, m.Subject, state)
		}
		return t.flush()
	})
	return cmd
}

// errTest says that a test message did not arrive.
var errTest = errors.New("not every test message was taken")

func alertTest(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "test", Short: "Send a test message to where alerts go, and say what the servers answered", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.TestMessages(cmd.Context())
		if err != nil {
			return err
		}
		taken := true
		for _, t := range list {
			taken = taken && t.Taken
			if *asJSON {
				continue
			}
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), plain(t.Text)); err != nil {
				return err
			}
		}
		if *asJSON {
			if err := printJSON(cmd.OutOrStdout(), list); err != nil {
				return err
			}
		}
		if !taken {
			return errTest
		}
		return nil
	})
	return cmd
}
