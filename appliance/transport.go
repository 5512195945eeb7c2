package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"seedbed/appliance/job"
	"seedbed/images/swarm"
)

// rate is a flag in bytes a second, 0 for no limit: "500k", "12.5M", "1G" are bytes in powers of ten, "100Mbit" are bits.
type rate int64

var _ pflag.Value = (*rate)(nil)

// rateUnits are the units of a rate in bytes a second.
var rateUnits = []struct {
	suffix string
	unit   float64
}{
	{"kbit", 1e3 / 8}, {"Mbit", 1e6 / 8}, {"Gbit", 1e9 / 8},
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9},
	{"", 1},
}

// Set implements pflag.Value.
func (r *rate) Set(s string) error {
	for _, u := range rateUnits {
		number, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(number, 64)
		n *= u.unit
		switch {
		case err != nil || !(n >= 0 && n < 1e15):
			return errors.New("a rate is bytes a second, as in 500k, 12.5M, 1G, or bits, as in 100Mbit; 0 is no limit")
		case n > 0 && n < swarm.MinLimit:
			return fmt.Errorf("the lowest limit is %d bytes a second (%s)", swarm.MinLimit, bytesText(swarm.MinLimit))
		}
		*r = rate(n)
		return nil
	}
	return nil // the last suffix is empty
}

// String implements pflag.Value.
func (r *rate) String() string { return strconv.FormatInt(int64(*r), 10) }

// Type implements pflag.Value.
func (r *rate) Type() string { return "RATE" }

// transportFlags are serve's flags about the swarm's use of the network.
type transportFlags struct {
	upload, download, link, machine rate
	dscp, hashThreads               int
	congestion, nics                string
}

func (n *transportFlags) flags(f *pflag.FlagSet) {
	f.Var(&n.upload, "swarm-upload-limit", "most that all seeders send together, `RATE` in bytes a second (500M) or bits (100Mbit) (default: no limit)")
	f.Var(&n.download, "swarm-download-limit", "most that they receive, `RATE` (default: no limit)")
	f.Var(&n.link, "swarm-peer-limit", "most that a seeder sends to one machine, `RATE` (default: no limit)")
	f.Var(&n.machine, "machine-limit", "most that each machine sends, and receives, `RATE` (default: no limit)")
	f.IntVar(&n.dscp, "dscp", 0, "mark the swarm's packets, here and on machines, with this DSCP `NUMBER` (0 to 63; 8 is CS1) (default: 0, no mark)")
	f.StringVar(&n.congestion, "congestion", "", "congestion control of the swarm, here and on machines: `NAME` of the kernel's, cubic or bbr (default: cubic)")
	f.StringVar(&n.nics, "machine-nics", "boot", "network cards of a machine that take part in the swarm: boot (one, by its routes) or all")
	f.IntVar(&n.hashThreads, "hash-threads", 0, "`NUMBER` of threads that decode and hash on a machine (default: one per processor, 4 at most)")
}

// settings returns what the flags mean for seeders and for machines.
func (n *transportFlags) settings() (seeders swarm.Transport, machines job.Transport, err error) {
	seeders = swarm.Transport{
		PeerUploadLimit: int64(n.link), Shared: swarm.NewLimits(int64(n.upload), int64(n.download)), DSCP: n.dscp, Congestion: n.congestion,
	}
	machines = job.Transport{
		UploadLimit: int64(n.machine), DownloadLimit: int64(n.machine), DSCP: n.dscp, Congestion: n.congestion, AllNICs: n.nics == "all",
		HashThreads: n.hashThreads,
	}
	switch {
	case n.nics != "all" && n.nics != "boot":
		err = fmt.Errorf("--machine-nics is boot or all, not %q", n.nics)
	case n.dscp < 0 || n.dscp > 63:
		err = fmt.Errorf("--dscp is a number from 0 to 63, not %d", n.dscp)
	case n.hashThreads < 0 || n.hashThreads > 256:
		err = fmt.Errorf("--hash-threads is a number from 0 to 256, not %d", n.hashThreads)
	case strings.Trim(n.congestion, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "":
		err = fmt.Errorf("--congestion is the name of a congestion control, such as cubic or bbr, not %q", n.congestion)
	}
	if err != nil {
		return seeders, machines, usageError{err}
	}
	return seeders, machines, seeders.Check()
}
