package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"seedbed/test-vm/storm"
)

// stormSettings are what a person may change about the boot storm.
type stormSettings struct {
	clients  int
	loss     float64 // of the second table, 0 to below 1; 0 leaves that out
	spread   time.Duration
	hashEach int
	shrink   int64
	program  string
}

func (s *stormSettings) flags() {
	flag.IntVar(&s.clients, "clients", 500, "storm: `NUMBER` of machines")
	flag.Float64Var(&s.loss, "loss", 0.01, "storm: share of packets that the lossy variant loses in each direction; 0 leaves it out")
	flag.DurationVar(&s.spread, "spread", time.Second, "storm: `TIME` within which the machines are switched on")
	flag.IntVar(&s.hashEach, "hash", 10, "storm: each so-maniest machine hashes its kernel and initramfs, the others count bytes")
	flag.Int64Var(&s.shrink, "shrink", 1, "storm: divide the length of all files by this `NUMBER`")
	flag.StringVar(&s.program, "program", "build/seedbed", "storm: `PATH` of the program")
}

// stormRate is the target: clients per second against the usual programs.
const stormRate = 1.1

// stormServers compete; ours is the first.
func (s *stormSettings) servers() []stormServer {
	return []stormServer{{"seedbed", storm.Seedbed{Program: s.program}}, {"dnsmasq + nginx", storm.Usual{}}}
}

type stormServer struct {
	name   string
	server storm.Server
}

// benchStorm boots a room at once from the program, and from dnsmasq and nginx with the same files.
func benchStorm(ctx context.Context, s settings) (err error) {
	if s.storm.clients < 1 || s.storm.loss < 0 || s.storm.loss >= 1 || s.storm.shrink < 1 || s.storm.spread < 0 {
		return errors.New("-clients and -shrink are numbers from 1, -loss one from 0 to below 1, -spread a time from 0")
	}
	folder, err := os.MkdirTemp(s.scratch, "seedbed-stormbench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	files, err := storm.MakeFiles(filepath.Join(folder, "boot"), s.storm.shrink)
	if err != nil {
		return err
	}
	fmt.Printf("\n%d machines, half BIOS (undionly, iPXE), half UEFI (shim, GRUB), switched on within %s; medians of %d.\n", s.storm.clients, s.storm.spread, s.runs)
	fmt.Printf("All bytes by TFTP and all scripts are hashed; kernel and initramfs at one machine in %d, the others count their bytes.\n", max(s.storm.hashEach, 1))
	clean, err := s.storms(ctx, folder, files, 0)
	if err != nil {
		return err
	}
	missed := []error{atLeast("clients per second against dnsmasq + nginx", clean[0].rate/clean[1].rate, stormRate), clean[0].nobodyLost()}
	if s.storm.loss > 0 {
		lossy, err := s.storms(ctx, folder, files, s.storm.loss)
		if err != nil {
			return shortfall(err, missed...)
		}
		missed = append(missed, lossy[0].nobodyLost())
	}
	return shortfall(nil, missed...)
}

// stormFigures are those of one server: medians of its runs, and everybody who was lost in any of them.
type stormFigures struct {
	stormServer
	rate, last, middle, cpu, clients, memory float64
	dhcp, tftp, http, segments, dropped      float64
	phases                                   [len(storm.PhaseNames)]float64
	booted                                   int
	lost                                     []string
}

func (f *stormFigures) nobodyLost() error {
	if len(f.lost) == 0 {
		return nil
	}
	return fmt.Errorf("%s lost %d machines, the first: %s", f.name, len(f.lost), f.lost[0])
}

// storms runs all servers in turn, as often as asked for, and prints the table.
func (s settings) storms(ctx context.Context, folder string, files *storm.Files, loss float64) (list []*stormFigures, err error) {
	servers := s.storm.servers()
	results := make([][]*storm.Result, len(servers))
	for range s.runs {
		for i, c := range servers {
			r, err := storm.Run(ctx, storm.Config{Clients: s.storm.clients, Loss: loss, Spread: s.storm.spread, HashEach: s.storm.hashEach, Folder: folder}, files, c.server)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			results[i] = append(results[i], r)
		}
	}
	for i, c := range servers {
		list = append(list, stormMedians(c, results[i]))
	}
	return list, printStorm(list, loss)
}

func stormMedians(c stormServer, results []*storm.Result) *stormFigures {
	middle := func(of func(*storm.Result) float64) float64 { m, _, _ := spread(results, of); return m }
	f := &stormFigures{
		stormServer: c,
		rate:        middle((*storm.Result).Rate),
		last:        middle(func(r *storm.Result) float64 { return r.Last.Seconds() }),
		middle:      middle(func(r *storm.Result) float64 { return r.Median.Seconds() }),
		cpu:         middle(func(r *storm.Result) float64 { return r.CPU }),
		clients:     middle(func(r *storm.Result) float64 { return r.Clients }),
		memory:      middle(func(r *storm.Result) float64 { return float64(r.Memory) }),
		dhcp:        middle(func(r *storm.Result) float64 { return float64(r.Again.DHCP) }),
		tftp:        middle(func(r *storm.Result) float64 { return float64(r.Again.TFTP) }),
		http:        middle(func(r *storm.Result) float64 { return float64(r.Again.HTTP) }),
		segments:    middle(func(r *storm.Result) float64 { return float64(r.Segments) }),
		dropped:     middle(func(r *storm.Result) float64 { return float64(r.Dropped) }),
	}
	for i := range f.phases {
		f.phases[i] = middle(func(r *storm.Result) float64 { return r.Phases[i].Seconds() })
	}
	f.booted = int(middle(func(r *storm.Result) float64 { return float64(r.Booted) }))
	for _, r := range results {
		f.lost = append(f.lost, r.Lost...)
	}
	return f
}

func printStorm(list []*stormFigures, loss float64) error {
	fmt.Printf("\nloss of packets %.1f %% each way\n\n", 100*loss)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "\tbooted\tlost\tclients/s\tlast s\tmedian s\tCPU s\tclients' CPU s\tpeak MB\tDHCP again\tTFTP\tHTTP\tTCP segments\tdropped\t")
	for _, p := range storm.PhaseNames {
		fmt.Fprintf(w, "%s s\t", p)
	}
	fmt.Fprintln(w)
	for _, f := range list {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.1f\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t", f.name, f.booted, len(f.lost), f.rate, f.last, f.middle, f.cpu,
			f.clients, f.memory/1e6, f.dhcp, f.tftp, f.http, f.segments, f.dropped)
		for _, p := range f.phases {
			fmt.Fprintf(w, "%.2f\t", p)
		}
		fmt.Fprintln(w)
	}
	if len(list) > 1 && list[1].rate > 0 {
		fmt.Fprintf(w, "ratio\t\t\t%.2f\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\n", list[0].rate/list[1].rate)
	}
	return w.Flush()
}
