//go:build !linux

package main

import (
	"github.com/spf13/cobra"
)

// config is what serve may be told where it works.
type config struct{}

func serveCommand(*options) *cobra.Command {
	return &cobra.Command{
		Use: "serve", Short: "Boot machines from the network and image them (on Linux)", DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return needsLinux("seedbed serve", "run it on a host with Linux; `seedbed get` and `seedbed seed` work here, with a token of that appliance")
		},
	}
}
