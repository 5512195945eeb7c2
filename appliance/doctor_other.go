//go:build !linux

package main

import "github.com/spf13/cobra"

func doctorCommand(*options, *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Say what is wrong with an appliance (on Linux)", DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return needsLinux("seedbed doctor", "run it on the host of the appliance")
		},
	}
}
