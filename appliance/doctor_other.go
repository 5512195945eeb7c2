//go:build !linux

package main

import "github.com/spf13/cobra"

func doctorCommand(o *options, _ *cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor [MACHINE]", Short: "Say what is wrong with the boot of a machine, or with an appliance (on Linux)", Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: o.completes(1, machineNames), Long: machineDoctorHelp, FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true},
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			return o.examineMachine(cmd, args[0], *asJSON)
		}
		return needsLinux("seedbed doctor", "run it on the host of the appliance, or name a machine")
	}
	return cmd
}
