package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
)

func eventCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "event", Short: "List what happened"}
	var asJSON, follow bool
	var q api.EventQuery
	ls := &cobra.Command{Use: "ls", Short: "List the events", Args: cobra.NoArgs,
		Long: "List the events, oldest first. With --json and --follow, one event a line."}
	f := ls.Flags()
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.BoolVar(&follow, "follow", false, "go on until interrupted")
	f.Int64Var(&q.After, "after", 0, "only events with a higher `ID`")
	f.StringVar(&q.Machine, "machine", "", "only events of this `MACHINE`")
	f.StringVar(&q.Job, "job", "", "only events of this `JOB`")
	f.StringVar(&q.Deployment, "deployment", "", "only events of this `DEPLOYMENT`")
	f.StringVar(&q.Kind, "kind", "", "only events of this `KIND`, or of all that begin so with a dot at its end: machine.")
	f.StringVar(&q.Actor, "actor", "", "only what this `USER` did")
	ls.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		return listEvents(cmd, c, q, asJSON, follow)
	})
	cmd.AddCommand(ls)
	return cmd
}

// eventPage is how many events are asked for at once.
const eventPage = 1000

func listEvents(cmd *cobra.Command, c *client.Client, q api.EventQuery, asJSON, follow bool) error {
	ctx, w := cmd.Context(), cmd.OutOrStdout()
	all := []fleet.Event{}
	q.Limit = eventPage
	for {
		page, err := c.Events(ctx, q)
		if ctx.Err() != nil && follow {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range page {
			q.After = e.ID
			switch {
			case asJSON && !follow:
				all = append(all, e)
			case asJSON:
				if err := json.NewEncoder(w).Encode(e); err != nil {
					return err
				}
			default:
				fmt.Fprintf(w, "%6d  %s  %-22s %s%s\n", e.ID, timeText(e.At), e.Kind, plain(e.Text), byText(e))
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

// byText says who did what an event tells: " (alice, 10.1.2.3)".
func byText(e fleet.Event) string {
	switch {
	case e.Actor == "":
		return ""
	case e.From == "":
		return " (" + plain(e.Actor) + ")"
	}
	return " (" + plain(e.Actor) + ", " + e.From + ")"
}
