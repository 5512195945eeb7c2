// Command bench measures what the program does against the tools that people use today, in one run on the same cores, and
// prints a table. Ratios count: absolute figures depend on the machine.
//
//	go run ./test-vm/bench            every part
//	go run ./test-vm/bench capture    only the named parts
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// settings are what a person may change about a run.
type settings struct {
	runs    int    // of each contender; the median counts
	length  int64  // of the disk in bytes
	aged    int64  // of a disk with an aged file system in bytes
	scratch string // folder for disks and repositories; a tmpfs, so that no disk is measured
	profile string // folder for CPU profiles; "" makes none
	swarm   swarmSettings
	fleet   fleetSettings
	storm   stormSettings
}

// part is one benchmark. It prints its table, and returns an error if it cannot be run or falls short of its target.
type part struct {
	name, what string
	run        func(ctx context.Context, s settings) error
	// alone says that it runs only where it is named.
	alone bool
}

// parts has one line for each benchmark, in the order in which they run. Each lies in a file of its name.
var parts = []part{
	{"capture", "a filled disk into a repository, against partclone | zstd -1 -T0", benchCapture, false},
	{"delta", "a second version after an update, against the 4 KiB regions that changed", benchDelta, false},
	{"redeploy", "a new version onto a blank disk and onto the old one, over 1 Gbit/s", benchRedeploy, false},
	{"scale", "10 TiB of synthetic tiles: opening, reading at 30 ms a request, the index", benchScale, false},
	{"swarm", "an image into a room, against libtorrent, aria2, a chain and udpcast", benchSwarm, true},
	{"fleet", "1,000 simulated agents against an appliance: its time, its memory, its answers, its records", benchFleet, true},
	{"console", "1,000 simulated agents in their rooms, in a browser: the page's work, the wire, the appliance", benchConsole, true},
	{"storm", "500 machines boot at once over PXE, against dnsmasq + nginx", benchStorm, true},
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == contenderArg {
		contend(os.Args[2:]) // a child process of the capture part
		return
	}
	if len(os.Args) > 1 && os.Args[1] == agedArg {
		age(os.Args[2:]) // a child process that has a file system mounted
		return
	}
	if len(os.Args) > 1 && os.Args[1] == machineArg {
		machineMain(os.Args[2:]) // a child process that is a machine
		return
	}
	if len(os.Args) > 1 && os.Args[1] == actorArg {
		actorMain(os.Args[2:]) // a child process of the swarm part
		return
	}
	if len(os.Args) > 1 && os.Args[1] == crowdArg {
		crowdMain() // a child process of the fleet part
		return
	}
	if len(os.Args) > 1 && os.Args[1] == lookArg {
		lookMain() // a child process of the console part
		return
	}
	s := settings{}
	var gib, agedGiB float64
	flag.IntVar(&s.runs, "runs", 3, "how often each contender runs")
	flag.Float64Var(&gib, "disk", 8, "length of the disk in `GiB`")
	flag.Float64Var(&agedGiB, "aged", 3, "length of the disks of delta and redeploy in `GiB`; six times that is needed as scratch")
	flag.StringVar(&s.scratch, "scratch", "/dev/shm", "`FOLDER` for disks and repositories")
	flag.StringVar(&s.profile, "profile", "", "write CPU profiles into this `FOLDER`")
	s.swarm.flags()
	s.fleet.flags()
	s.storm.flags()
	flag.Usage = usage
	flag.Parse()
	s.length, s.aged = int64(gib*1024)<<20, int64(agedGiB*1024)<<20
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, s, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func usage() {
	fmt.Fprintln(flag.CommandLine.Output(), "usage: bench [flags] [part...]")
	flag.PrintDefaults()
	for _, p := range parts {
		fmt.Fprintf(flag.CommandLine.Output(), "  %-10s %s\n", p.name, p.what)
	}
}

// run runs the named parts, or all. It goes on after a failure and returns which parts failed.
func run(ctx context.Context, s settings, names []string) error {
	for _, n := range names {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == n }) {
			return fmt.Errorf("there is no part %q; -help lists them", n)
		}
	}
	var failed []string
	for _, p := range parts {
		if (len(names) > 0 || p.alone) && !slices.Contains(names, p.name) {
			continue
		}
		fmt.Printf("%s: %s\n", p.name, p.what)
		if err := p.run(ctx, s); err != nil {
			fmt.Printf("%s: %v\n", p.name, err)
			failed = append(failed, p.name)
		}
		fmt.Println()
	}
	if len(failed) > 0 {
		return fmt.Errorf("not reached: %s", strings.Join(failed, ", "))
	}
	return nil
}
