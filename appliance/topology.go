package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	topology "seedbed/images/schedule"
)

// errTopology is a policy file that cannot be used.
var errTopology = errors.New("the topology cannot be used")

// readTopology reads a policy file; an empty path is the policy of one group. The error names the file in each line.
func readTopology(path string) (*topology.Policy, error) {
	if path == "" {
		return topology.NoPolicy(), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the topology: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, topology.MaxPolicyLength+1))
	if err != nil {
		return nil, fmt.Errorf("read the topology: %w", err)
	}
	p, err := topology.ParsePolicy(b)
	if err != nil {
		return nil, fmt.Errorf("%w:\n%s: %s", errTopology, path, strings.ReplaceAll(err.Error(), "\n", "\n"+path+": "))
	}
	return p, nil
}

func topologyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "topology", Short: "Policy files that say which machines may be linked"}
	check := &cobra.Command{Use: "check FILE", Short: "Say what a policy file means, or what is wrong in it", Args: cobra.ExactArgs(1),
		Long: "Check reads a policy file as \"seedbed serve --topology\" does. With --json it prints the same sentences, as a list."}
	asJSON := jsonFlag(check)
	check.RunE = func(cmd *cobra.Command, args []string) error {
		p, err := readTopology(args[0])
		if err != nil {
			return err
		}
		text := fmt.Sprint(p)
		return tell(cmd, *asJSON, strings.Split(strings.TrimSuffix(text, "\n"), "\n"), "%s", text)
	}
	cmd.AddCommand(check)
	return cmd
}
