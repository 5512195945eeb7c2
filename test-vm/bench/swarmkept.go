package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
)

// Target of a room whose machines keep partitions of their disks: its efficiency in that of a room that lacks everything, for as
// much content.
const keptRatio = 0.95

// scenarioKept races a room of each kind, one after the other.
func scenarioKept(ctx context.Context, b *bench) (err error) {
	c, err := b.content(ctx)
	if err != nil {
		return err
	}
	const machines = 8
	results := map[bool][]figures{}
	for range b.runs {
		for _, kept := range []bool{false, true} {
			one := racers[0]
			one.engine.Part = kept
			s, e := b.heat(one, c, roomPlan(machines)).run(ctx)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if e != nil {
				err = errors.Join(err, e)
				continue
			}
			f := measure(s, c)
			fmt.Fprintf(os.Stderr, "  partitions kept: %v, %d receivers: %.2f s, %.3f of the link, %.2f images\n", kept, machines, f.last, f.efficiency, f.images)
			results[kept] = append(results[kept], f)
			if e := b.record("kept", s, map[string]any{"Kept": kept, "Length": c.Length}); e != nil {
				return errors.Join(err, e)
			}
		}
	}
	if len(results[false])*len(results[true]) == 0 {
		return err
	}
	fmt.Printf("\n%d receivers of %d MiB each, %d Mbit/s each way; medians of %d\n\n", machines, c.Length>>20, linkRate, b.runs)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "machines\tlast s\tefficiency\tworst\timages sent\t")
	var efficiency [2]float64
	for i, kept := range []bool{false, true} {
		list := results[kept]
		last, _, _ := spread(list, func(f figures) float64 { return f.last })
		middle, worst, _ := spread(list, func(f figures) float64 { return f.efficiency })
		images, _, _ := spread(list, func(f figures) float64 { return f.images })
		efficiency[i] = middle
		fmt.Fprintf(w, "%s\t%.2f\t%.3f\t%.3f\t%.2f\t\n", map[bool]string{false: "lack everything", true: "keep partitions"}[kept], last, middle, worst, images)
	}
	return errors.Join(err, shortfall(w.Flush(), atLeast("efficiency of a room that keeps partitions, in that of one that does not,", efficiency[1]/efficiency[0], keptRatio)))
}
