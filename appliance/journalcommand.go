package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"seedbed/appliance/client"
)

// journalCommand writes a table of what jobs did to a file or to standard output.
func (o *options) journalCommand(what, short string, names namesOf, write func(*client.Client, context.Context, string, io.Writer) error) *cobra.Command {
	cmd := &cobra.Command{Use: "journal " + what + " [FILE|-]", Short: short, Args: cobra.RangeArgs(1, 2), ValidArgsFunction: o.completesBefore(1, cobra.ShellCompDirectiveDefault, names),
		Long: short + ", RFC 4180. A row is a job, or a partition of one: bytes stand in the row of the job alone, the one without a partition. The manual tells every column."}
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		to := func(w io.Writer) error { return write(c, cmd.Context(), args[0], w) }
		if len(args) == 1 || args[1] == "-" {
			return to(cmd.OutOrStdout())
		}
		return newFile(args[1], to)
	})
	return cmd
}

// newFile makes a file that was not there before, and removes it again where writing it fails.
func newFile(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	if err = write(f); err != nil {
		os.Remove(path)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
