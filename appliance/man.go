package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func manCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "man DIR", Short: "Write the manual pages", Args: cobra.ExactArgs(1), Annotations: map[string]string{withoutConfig: "yes"},
		Long: "Man writes a manual page for each command into a directory: seedbed.1, seedbed-deploy.1, ... Copy them to /usr/local/share/man/man1."}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := os.MkdirAll(args[0], 0o755); err != nil {
			return fmt.Errorf("make the directory of the manual pages: %w", err)
		}
		root := cmd.Root()
		root.DisableAutoGenTag = true
		date := time.Unix(0, 0).UTC() // the same pages each time
		if err := doc.GenManTree(root, &doc.GenManHeader{Title: "SEEDBED", Section: "1", Date: &date, Source: "Seedbed", Manual: "Seedbed"}, args[0]); err != nil {
			return fmt.Errorf("write the manual pages: %w", err)
		}
		return nil
	}
	return cmd
}
