package main

import (
	"fmt"
	"io"
	"time"

	"seedbed/test-vm/simulator/model"
)

// table is one of those that `make simulate` prints.
type table struct {
	title string
	rows  []row
	slow  bool // only with -full
}

type row struct {
	name   string
	config model.Config
}

// small is a room as the bench of real processes has it: 100 Mbit/s, 256 MiB, pieces of 256 KiB.
func small(peers int, change func(*model.Config)) model.Config {
	c := model.Config{Peers: peers, Rate: 100e6, Length: 256 << 20, PieceLength: 256 << 10, Seed: 1}
	if change != nil {
		change(&c)
	}
	return c
}

func large(peers int, change func(*model.Config)) model.Config {
	c := model.Large(peers)
	if change != nil {
		change(&c)
	}
	return c
}

func tables() []table {
	return []table{
		{title: "100 Mbit/s, 256 MiB, pieces of 256 KiB", rows: []row{
			{"3", small(3, nil)}, {"8", small(8, nil)}, {"16", small(16, nil)}, {"64", small(64, nil)}, {"256", small(256, nil)},
			{"1000", small(1000, nil)},
			{"8, 1 MiB pieces", small(8, func(c *model.Config) { c.PieceLength = 1 << 20 })},
			{"64, 1 MiB pieces", small(64, func(c *model.Config) { c.PieceLength = 1 << 20 })},
		}},
		{title: "the same with trouble; efficiency of those who stayed and are not slow", rows: []row{
			{"8, one at 10 Mbit/s", small(8, func(c *model.Config) { c.Slow = 1 })},
			{"64, four at 10 Mbit/s", small(64, func(c *model.Config) { c.Slow = 4 })},
			{"8, one comes at 11 s", small(8, func(c *model.Config) { c.Late, c.LateAt = 1, 11*time.Second })},
			{"64, a tenth crashes", small(64, func(c *model.Config) { c.Churn, c.Reboot = 0.1, 5*time.Second })},
			{"8, one lies", small(8, func(c *model.Config) { c.Liars = 1 })},
			{"16, two hand out", small(16, func(c *model.Config) { c.Seeders = 2 })},
			{"16, one of two killed at 11 s", small(16, func(c *model.Config) { c.Seeders, c.KillSeeder = 2, 11*time.Second })},
			{"3 switches x 5, uplinks 100 Mbit/s", small(15, func(c *model.Config) { c.Ports, c.Uplink = 5, 100e6 })},
			{"3 switches x 16, uplinks 100 Mbit/s", small(48, func(c *model.Config) { c.Ports, c.Uplink = 16, 100e6 })},
		}},
		{title: "60 GB, 1 Gbit/s, switches of 47 machines, uplinks 10 Gbit/s, 1 % crash", slow: true, rows: []row{
			{"1000", large(1000, nil)},
			{"1000, tree of 2", large(1000, func(c *model.Config) { c.Fanout = 2 })},
			{"10000, pieces of 16 MiB", large(10000, func(c *model.Config) {
				c.PieceLength, c.Memory, c.Bursts = 16<<20, 1<<30, 1
			})},
		}},
	}
}

func printTables(w io.Writer, full bool) error {
	for _, t := range tables() {
		if t.slow && !full {
			continue
		}
		heading(w, t.title)
		for _, r := range t.rows {
			if err := line(w, r.name, r.config); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	return nil
}

func heading(w io.Writer, title string) {
	if title != "" {
		fmt.Fprintf(w, "\n%s\n", title)
	}
	fmt.Fprintf(w, "%-36s %10s %9s %9s %6s %7s %9s %7s %10s\n", "machines", "efficiency", "first", "last", "sent", "wasted", "up, down", "others", "events/s")
}

// line runs a simulation and prints what came out: efficiency of the last machine with 0.945 as the ceiling, times of the first
// and the last, images sent by who hands out, images received in vain by a machine, images over the busiest switch's cable
// up and down, and the longest that one of those took who came later or are slow.
func line(w io.Writer, name string, c model.Config) error {
	r, err := model.Run(c)
	if err != nil {
		return err
	}
	if name == "" {
		name = fmt.Sprintf("%d, %d pieces of %d KiB", c.Peers, r.Pieces, r.PieceLength>>10)
	}
	others := "-"
	if r.Others > 0 {
		others = fmt.Sprintf("%.1f s", r.LongestOther.Seconds())
	}
	_, err = fmt.Fprintf(w, "%-36s %10.3f %7.1f s %7.1f s %6.2f %7.4f %4.2f %4.2f %7s %10.0f\n", name, r.Efficiency,
		r.First.Seconds(), r.Last.Seconds(), r.Sent, r.Wasted, r.Up, r.Down, others, float64(r.Events)/r.Took.Seconds())
	return err
}
