package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

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

// mayReach is fleet.Config.MayReach; the tracker is opened before anybody claims.
func (a *appliance) mayReach(names []string, at netip.Addr, seeder netip.AddrPort) bool {
	if seeder == a.seeder() || slices.Contains(a.fleet.OtherSeeders(), seeder) {
		return a.tracker.MayReachAppliance(names, at)
	}
	return a.tracker.MayReachSeedNode(names, at, seeder.Addr())
}

// openTopology makes SIGHUP read the policy file again. One that cannot be used changes nothing.
func (a *appliance) openTopology() {
	if a.config.Topology == "" {
		return
	}
	hangUp := make(chan os.Signal, 1)
	signal.Notify(hangUp, syscall.SIGHUP)
	a.closers = append(a.closers, func() error { signal.Stop(hangUp); return nil })
	a.parts = append(a.parts, func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hangUp:
			}
			a.reloadTopology()
		}
	})
}

func (a *appliance) reloadTopology() {
	p, err := readTopology(a.config.Topology)
	if err != nil {
		a.log.Error("topology not read again, the one before counts on", "file", a.config.Topology, "err", err)
		return
	}
	a.tracker.SetPolicy(p)
	a.log.Info("topology read again", "file", a.config.Topology, "groups", len(p.Groups))
}

func topologyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "topology", Short: "Policy files that say which machines may be linked"}
	cmd.AddCommand(&cobra.Command{
		Use: "check FILE", Short: "Say what a policy file means, or what is wrong in it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := readTopology(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), p)
			return err
		},
	})
	return cmd
}
