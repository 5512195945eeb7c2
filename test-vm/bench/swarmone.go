package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
)

// Targets of one to one: the rate against a copy with SHA-256, and against libtorrent, over TLS and without.
const (
	oneTLSCopy, oneTLSLibtorrent     = 0.75, 1.5
	onePlainCopy, onePlainLibtorrent = 1.0, 2.0
)

// playIdle is a station that does nothing.
func playIdle(ctx context.Context, a *actor) error {
	if err := a.ready(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// playCopy copies the content from file to file and computes its SHA-256 on the way.
func playCopy(ctx context.Context, a *actor) error {
	from, err := os.Open(a.Content.raw())
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(a.Disk, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer to.Close()
	if err := a.ready(ctx); err != nil {
		return err
	}
	hash := sha256.New()
	for b := make([]byte, 1<<20); ; {
		n, err := from.Read(b)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		hash.Write(b[:n])
		if _, err := to.Write(b[:n]); err != nil {
			return err
		}
	}
	if err := to.Sync(); err != nil {
		return err
	}
	hash.Sum(nil)
	a.tell(actorEvent{Event: "done"})
	<-ctx.Done()
	return nil
}

// oneRacers compete in one to one.
var oneRacers = []racer{
	{name: "copy", source: own("idle"), receiver: own("copy")},
	racers[0],
	{name: "seedbed without TLS", source: own("appliance"), receiver: own("peer"), engine: engineOrder{Plain: true}},
	racers[1],
}

// scenarioOne measures one appliance and one machine over loopback.
func scenarioOne(ctx context.Context, b *bench) (err error) {
	folder, err := os.MkdirTemp(b.folder, "one-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	c, err := makeNoise(ctx, folder, b.swarm.oneMiB<<20)
	if err != nil {
		return err
	}
	results := map[string][]figures{}
	for range b.runs {
		for _, one := range oneRacers {
			if !named(b.swarm.only, one.name) && one.name == "libtorrent" {
				continue
			}
			s, e := b.heat(one, c, netPlan{loopback: 2}).run(ctx)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if e != nil {
				err = errors.Join(err, e)
				continue
			}
			results[one.name] = append(results[one.name], measure(s, c))
			if e := b.record("one", s, map[string]any{"Length": c.Length}); e != nil {
				return errors.Join(err, e)
			}
		}
	}
	return errors.Join(err, b.printOne(c, results))
}

func (b *bench) printOne(c *content, results map[string][]figures) error {
	fmt.Printf("\n%d MiB over loopback, files in memory, hashes checked; medians of %d and worst\n\n", c.Length>>20, b.runs)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tseconds\tMB/s\tworst\tx copy\tx libtorrent\tCPU s/GiB receiver\tsource\tpeak MB receiver\tsource\t")
	rate := func(name string) float64 {
		m, _, _ := spread(results[name], func(f figures) float64 { return float64(c.Length) / 1e6 / f.last })
		return m
	}
	over := func(name, base string) string {
		if rate(base) == 0 {
			return "-"
		}
		return fmt.Sprintf("%.2f", rate(name)/rate(base))
	}
	var missed []error
	for _, one := range oneRacers {
		r := results[one.name]
		if len(r) == 0 {
			continue
		}
		pick := func(of func(figures) float64) float64 { m, _, _ := spread(r, of); return m }
		_, worst, _ := spread(r, func(f figures) float64 { return float64(c.Length) / 1e6 / f.last })
		fmt.Fprintf(w, "%s\t%.2f\t%.0f\t%.0f\t%s\t%s\t%.2f\t%.2f\t%.0f\t%.0f\t\n", one.name, pick(func(f figures) float64 { return f.last }), rate(one.name), worst,
			over(one.name, "copy"), over(one.name, "libtorrent"), pick(func(f figures) float64 { return f.cpu }), pick(func(f figures) float64 { return f.source }),
			pick(func(f figures) float64 { return float64(f.memory) })/1e6, pick(func(f figures) float64 { return float64(f.sourceMemory) })/1e6)
	}
	for _, target := range []struct {
		name, base string
		atLeast    float64
	}{
		{"seedbed", "copy", oneTLSCopy}, {"seedbed", "libtorrent", oneTLSLibtorrent},
		{"seedbed without TLS", "copy", onePlainCopy}, {"seedbed without TLS", "libtorrent", onePlainLibtorrent},
	} {
		if rate(target.base) > 0 {
			missed = append(missed, atLeast("rate of "+target.name+" against "+target.base, rate(target.name)/rate(target.base), target.atLeast))
		}
	}
	return shortfall(w.Flush(), missed...)
}

// shortfall prints the targets that were not reached, and joins them with an error.
func shortfall(err error, missed ...error) error {
	missed = slices.DeleteFunc(missed, func(e error) bool { return e == nil })
	for _, m := range missed {
		fmt.Println("  not reached:", m)
	}
	return errors.Join(append([]error{err}, missed...)...)
}
