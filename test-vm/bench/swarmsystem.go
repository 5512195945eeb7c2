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
	systemLength = 300 << 20
	systemRate   = 2.3
)

// scenarioSystem measures an image that codecs shorten: the effective rate counts decoded bytes of data.
func scenarioSystem(ctx context.Context, b *bench) (err error) {
	folder, err := os.MkdirTemp(b.folder, "system-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	c, err := makeSystem(ctx, folder, systemLength)
	if err != nil {
		return err
	}
	const receivers = 4
	var list []figures
	for range b.runs {
		s, e := b.heat(racers[0], c, roomPlan(receivers)).run(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		list = append(list, measure(s, c))
		if e := b.record("system", s, map[string]any{"Receivers": receivers, "Length": c.Length, "Data": c.DataLength, "Encoded": c.Encoded}); e != nil {
			return errors.Join(err, e)
		}
	}
	if len(list) == 0 {
		return err
	}
	effective := func(f figures) float64 { return ideal(c.DataLength).Seconds() / f.last }
	middle, worst, _ := spread(list, effective)
	last, _, _ := spread(list, func(f figures) float64 { return f.last })
	images, _, _ := spread(list, func(f figures) float64 { return f.images })
	fmt.Printf("\n%d receivers; median of %d and worst\n\n", receivers, b.runs)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "data MB\tencoded MB\tratio\tlast s\teffective rate / link\tworst\tof the encoded bytes\timages sent\t")
	fmt.Fprintf(w, "%.0f\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.3f\t%.2f\t\n", float64(c.DataLength)/1e6, float64(c.Encoded)/1e6, float64(c.DataLength)/float64(c.Encoded),
		last, middle, worst, ideal(c.Encoded).Seconds()/last, images)
	return shortfall(errors.Join(err, w.Flush()), atLeast("effective rate against the link", middle, systemRate))
}
