package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"
)

// Targets of the room: efficiency of the last finisher (median, and worst), against libtorrent, what the appliance sends in
// images, and the share of the time that the last hundredth takes.
const (
	roomEfficiency = 0.90
	roomWorst      = 0.88
	roomRatio      = 1.5
	roomImages     = 1.15
	roomTail       = 0.02
)

// figures are what the room's table shows of one heat.
type figures struct {
	efficiency, last, first, images, wasted, tail, cpu, source, busy float64
	memory, sourceMemory                                             int64
}

func everyone(int) bool { return true }

// measure makes figures of a score of so many bytes for each receiver.
func measure(s *score, c *content) (f figures) {
	var tail float64
	f.last, tail = s.last(everyone)
	f.efficiency = ideal(c.Length).Seconds() / f.last
	f.first = f.last
	receivers := 0.0
	for _, t := range s.Finish {
		if t > 0 {
			f.first = min(f.first, t)
			receivers++
		}
	}
	f.images, f.wasted = float64(s.Sent)/float64(c.Encoded), float64(s.Wasted)/float64(c.Encoded)/receivers
	f.tail = tail / f.last
	gib := float64(c.Length) / (1 << 30)
	f.cpu, f.source, f.busy, f.memory, f.sourceMemory = (s.CPU-s.Source)/receivers/gib, s.Source/gib, s.Busy, s.Memory, s.SourceMemory
	return f
}

func scenarioRoom(ctx context.Context, b *bench) (err error) {
	c, err := b.content(ctx)
	if err != nil {
		return err
	}
	for _, text := range list(b.swarm.peers) {
		n, _ := strconv.Atoi(text) // checked at the start
		results := map[string][]figures{}
		for range b.runs {
			for _, one := range b.racers() {
				s, e := b.heat(one, c, roomPlan(n)).run(ctx)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if e != nil {
					err = errors.Join(err, e)
					continue
				}
				f := measure(s, c)
				fmt.Fprintf(os.Stderr, "  %s, %d receivers: %.2f s, %.3f of the link, %.2f images\n", one.name, n, f.last, f.efficiency, f.images)
				results[one.name] = append(results[one.name], f)
				if e := b.record("room", s, map[string]any{"Receivers": n, "Length": c.Length}); e != nil {
					return errors.Join(err, e)
				}
			}
		}
		err = errors.Join(err, b.printRoom(n, c, results))
	}
	return err
}

// spread returns the middle, the lowest and the highest of a value.
func spread[T any](list []T, of func(T) float64) (middle, lowest, highest float64) {
	var values []float64
	for _, f := range list {
		values = append(values, of(f))
	}
	slices.Sort(values)
	if len(values) == 0 {
		return 0, 0, 0
	}
	return values[len(values)/2], values[0], values[len(values)-1]
}

func (b *bench) printRoom(n int, c *content, results map[string][]figures) error {
	fmt.Printf("\n%d receivers, %d MiB, %d Mbit/s each way; medians of %d and worst; 1.000 is the bare rate of the link\n\n", n, c.Length>>20, linkRate, b.runs)
	// A forwarding chain is what the network gives with hardly any work: it shows how busy the host was beside.
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tlast s\tfirst s\tefficiency\tworst\tx libtorrent\tx chain\timages sent\twasted\tlast 1 %\tCPU s/GiB\tof source\tpeak MB\tcores busy\t")
	base, _, _ := spread(results["libtorrent"], func(f figures) float64 { return f.efficiency })
	bound, _, _ := spread(results["chain"], func(f figures) float64 { return f.efficiency })
	var missed []error
	for _, one := range b.racers() {
		r := results[one.name]
		if len(r) == 0 {
			fmt.Fprintf(w, "%s\tfailed\t\t\t\t\t\t\t\t\t\t\t\t\n", one.name)
			continue
		}
		pick := func(of func(figures) float64) float64 { m, _, _ := spread(r, of); return m }
		efficiency, worst, _ := spread(r, func(f figures) float64 { return f.efficiency })
		images := pick(func(f figures) float64 { return f.images })
		tail := pick(func(f figures) float64 { return f.tail })
		over := func(base float64) string {
			if base == 0 {
				return "-"
			}
			return fmt.Sprintf("%.2f", efficiency/base)
		}
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.3f\t%.3f\t%s\t%s\t%.2f\t%.3f\t%.1f %%\t%.1f\t%.1f\t%.0f\t%.2f\t\n", one.name, pick(func(f figures) float64 { return f.last }),
			pick(func(f figures) float64 { return f.first }), efficiency, worst, over(base), over(bound), images, pick(func(f figures) float64 { return f.wasted }), 100*tail,
			pick(func(f figures) float64 { return f.cpu }), pick(func(f figures) float64 { return f.source }),
			pick(func(f figures) float64 { return float64(f.memory) })/1e6, pick(func(f figures) float64 { return f.busy }))
		if one.name == racers[0].name {
			missed = append(missed, atLeast("efficiency", efficiency, roomEfficiency), atLeast("worst efficiency", worst, roomWorst),
				atMost("images sent by the appliance", images, roomImages), atMost("share of the time for the last 1 %", tail, roomTail))
			if base > 0 {
				missed = append(missed, atLeast("ratio to libtorrent", efficiency/base, roomRatio))
			}
		}
	}
	return shortfall(w.Flush(), missed...)
}

func atLeast(what string, got, want float64) error {
	if got >= want {
		return nil
	}
	return fmt.Errorf("%s is %.3f, the target is at least %.3f", what, got, want)
}

func atMost(what string, got, want float64) error {
	if got <= want {
		return nil
	}
	return fmt.Errorf("%s is %.3f, the target is at most %.3f", what, got, want)
}
