package main

import (
	"github.com/spf13/cobra"

	"seedbed/appliance/metrics/dashboard"
)

func metricsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "metrics", Short: "What goes with the metrics that appliances tell Prometheus"}
	show := &cobra.Command{Use: "dashboard", Short: "Print a dashboard for Grafana", Args: cobra.NoArgs, Annotations: map[string]string{withoutConfig: "yes"},
		Long: "Dashboard prints a dashboard as JSON. Import it into Grafana 10 or later, which asks for the Prometheus that scrapes /metrics of the site's appliances."}
	show.RunE = func(cmd *cobra.Command, _ []string) error {
		_, err := cmd.OutOrStdout().Write(dashboard.JSON)
		return err
	}
	cmd.AddCommand(show)
	return cmd
}
