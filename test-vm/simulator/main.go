// Command simulator runs the swarm's schedule over modelled computers, cables and switches, and prints how long the last
// machine takes. Without flags it prints the standard tables.
//
//	go run ./test-vm/simulator -peers 1000 -rate 1g -size 60G -ports 47 -uplink 10g -churn 0.01
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"time"

	"seedbed/test-vm/simulator/model"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "simulator:", err)
		os.Exit(1)
	}
}

func run(args []string) (err error) {
	var c model.Config
	f := flag.NewFlagSet("simulator", flag.ContinueOnError)
	full := f.Bool("full", false, "the standard tables with 10,000 machines; takes a quarter of an hour and 1.2 GB")
	profile := f.String("profile", "", "file for a CPU profile of the simulator itself")
	flags(f, &c)
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if *profile != "" {
		file, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if c.Peers == 0 {
		return printTables(os.Stdout, *full)
	}
	heading(os.Stdout, "")
	return line(os.Stdout, "", c)
}

// flags are those of a single run; -peers makes one.
func flags(f *flag.FlagSet, c *model.Config) {
	c.Rate, c.Length = 1e9, 60e9
	f.IntVar(&c.Peers, "peers", 0, "machines")
	f.Func("rate", "of a machine's cable in bits a second (1g)", number(&c.Rate))
	f.Func("size", "of the image in bytes, as 60G or 256Mi (60G)", bytes(&c.Length))
	f.Func("piece", "length of a piece in bytes; the product's choice for the size where it is not given", bytes(&c.PieceLength))
	f.IntVar(&c.Seeders, "seeders", 1, "computers that hand out")
	f.Func("seeder-rate", "of a seeder's cable; that of a machine where it is not given", number(&c.SeederRate))
	f.Func("last-seeder-rate", "of the last one's, of several; that of the others where it is not given", number(&c.LastSeederRate))
	f.IntVar(&c.Ports, "ports", 0, "machines on a switch, which are a group; 0 is all")
	f.Func("uplink", "rate of a switch's cable to the one in the middle; no limit where it is not given", number(&c.Uplink))
	f.IntVar(&c.Fanout, "fanout", 0, "groups that fetch from one group: a tree, 1 is a chain; 0 is a mesh where -uplink carries two images and more")
	f.IntVar(&c.Images, "images", 0, "over a switch's cable each way, as the policy says; 0 is -uplink over -rate")
	f.IntVar(&c.Connections, "connections", 0, "of a machine at most; 0 is the policy's default")
	f.Float64Var(&c.Churn, "churn", 0, "share of the machines that lose their power on the way")
	f.DurationVar(&c.Reboot, "reboot", time.Minute, "after which they are back, with an empty disk; 0 is never")
	f.IntVar(&c.Slow, "slow", 0, "machines with a slow cable")
	f.Func("slow-rate", "of those; a tenth where it is not given", number(&c.SlowRate))
	f.IntVar(&c.Liars, "liars", 0, "machines that give away one wrong tile of a hundred")
	f.IntVar(&c.Late, "late", 0, "machines that come late")
	f.DurationVar(&c.LateAt, "late-at", 0, "when the last of them comes; the others evenly before")
	f.DurationVar(&c.KillSeeder, "kill-seeder", 0, "when the first seeder loses its power; 0 is never")
	f.Uint64Var(&c.Seed, "seed", 1, "of all that is random")
	f.Func("memory", "of a machine for pieces, in bytes (128Mi)", bytes(&c.Memory))
	f.Func("host", "bytes a second that the processors handle, if all machines are processes of one host", number(&c.HostRate))
	f.IntVar(&c.Bursts, "bursts", 0, "parts of a piece that travel by themselves; 0 is 8 to 16, and 2 beyond 128 machines")
}
