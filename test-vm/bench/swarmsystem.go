package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
)

// Of OS data: how many bytes of files are there to be, and the target of the effective rate against the link's.
const (
	systemLength = 1 << 30
	systemRate   = 2.3
)

// systemLevels are of zstd: the one that an image gets where nothing is asked for, and a higher one.
var systemLevels = []int{0, 7}

// scenarioSystem measures an image that codecs shorten: the effective rate counts decoded bytes of data.
func scenarioSystem(ctx context.Context, b *bench) (err error) {
	const receivers = 4
	fmt.Printf("\n%d receivers; medians of %d and worst\n\n", receivers, b.runs)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tdata MB\tencoded MB\tratio\tlast s\teffective rate / link\tworst\tof the encoded bytes\timages sent\t")
	best := 0.0
	for _, level := range systemLevels {
		c, list, e := b.system(ctx, level, receivers)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err = errors.Join(err, e); len(list) == 0 {
			continue
		}
		middle, worst, _ := spread(list, func(f figures) float64 { return ideal(c.DataLength).Seconds() / f.last })
		last, _, _ := spread(list, func(f figures) float64 { return f.last })
		images, _, _ := spread(list, func(f figures) float64 { return f.images })
		name := "zstd"
		if level > 0 {
			name = fmt.Sprintf("zstd:%d", level)
		}
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.3f\t%.2f\t\n", name, float64(c.DataLength)/1e6, float64(c.Encoded)/1e6,
			float64(c.DataLength)/float64(c.Encoded), last, middle, worst, ideal(c.Encoded).Seconds()/last, images)
		best = max(best, middle)
	}
	return shortfall(errors.Join(err, w.Flush()), atLeast("effective rate against the link", best, systemRate))
}

// system runs the heats of one level.
func (b *bench) system(ctx context.Context, level, receivers int) (c *content, list []figures, err error) {
	folder, err := os.MkdirTemp(b.folder, "system-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(folder)
	if c, err = makeSystem(ctx, folder, systemLength, level); err != nil {
		return nil, nil, err
	}
	for range b.runs {
		s, e := b.heat(racers[0], c, roomPlan(receivers)).run(ctx)
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		list = append(list, measure(s, c))
		err = errors.Join(err, b.record("system", s, map[string]any{"Receivers": receivers, "Level": level, "Data": c.DataLength, "Encoded": c.Encoded}))
	}
	return c, list, err
}
