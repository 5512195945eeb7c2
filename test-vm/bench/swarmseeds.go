package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"seedbed/images/swarm"
)

// A room with a seed node beside the appliance, and the targets: what a throttled one gives of what both give, and which share
// of the rate before is there again so long after the appliance's end.
const (
	seedNode      = 1
	seedReceivers = 8
	seedThrottle  = 0.1
	seedShare     = 0.10
	deathShare    = 0.5
	deathRate     = 0.8
	deathWait     = 5 * time.Second
)

// scenarioSeeds throttles a seed node, and ends the appliance in the middle.
func scenarioSeeds(ctx context.Context, b *bench) (err error) {
	c, err := b.content(ctx)
	if err != nil {
		return err
	}
	// A repository is open in one process at a time: the seed node has its own.
	for _, name := range []string{"repository", "spool"} {
		if err := tool(ctx, "coreutils", "cp", "-r", filepath.Join(c.Folder, name), filepath.Join(c.Folder, name+seedCopy)); err != nil {
			return err
		}
		defer os.RemoveAll(filepath.Join(c.Folder, name+seedCopy))
	}
	var throttled, killed []seedScore
	for range b.runs {
		for _, part := range []struct {
			name  string
			limit float64 // of the link; 0 is none
			kill  bool
			into  *[]seedScore
		}{{"throttled", seedThrottle, false, &throttled}, {"killed", 0, true, &killed}} {
			s, e := b.seeds(ctx, c, part.name, part.limit, part.kill)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err = errors.Join(err, e); e == nil {
				*part.into = append(*part.into, s)
			}
		}
	}
	return b.printSeeds(throttled, killed, err)
}

// seedScore is what one heat with a seed node came to.
type seedScore struct {
	figures
	share float64 // of what the two seeds gave, by the seed node
	kept  float64 // of the rate before the appliance's end, afterwards
}

func (b *bench) seeds(ctx context.Context, c *content, name string, limit float64, kill bool) (s seedScore, err error) {
	h := b.heat(racers[0], c, roomPlan(1+seedReceivers))
	h.seeds = map[int]bool{seedNode: true}
	h.engine = map[int]engineOrder{seedNode: {Seed: true, Transport: swarm.Transport{UploadLimit: int64(limit * linkRate * 1e6 / 8)}}}
	var progress []progressAt
	var death time.Duration
	h.watch = func(h *heat, station int, share float64) {
		progress = append(progress, progressAt{time.Since(h.start), station, share})
		if kill && share >= deathShare && death == 0 {
			death = time.Since(h.start)
			h.kill(0)
		}
	}
	score, err := h.run(ctx)
	if err != nil {
		return s, err
	}
	s.figures = measure(score, c)
	if kill {
		before := rate(progress, death/4, death)
		s.kept = rate(progress, min(death+deathWait, whenHeld(progress, 0.9)), whenHeld(progress, 0.98)) / max(before, 1e-9)
	} else {
		given := score.stats[seedNode].ToPeers
		s.share = float64(given) / float64(given+score.stats[0].ToPeers)
	}
	return s, b.record("seeds "+name, score, map[string]any{"Length": c.Length, "Share": s.share, "Kept": s.kept})
}

// progressAt is a share of the content that a station held at a time from the start.
type progressAt struct {
	at      time.Duration
	station int
	share   float64
}

// held is how much all stations held at a time, in images.
func held(list []progressAt, at time.Duration) (sum float64) {
	latest := map[int]float64{}
	for _, p := range list {
		if p.at <= at {
			latest[p.station] = p.share
		}
	}
	for _, share := range latest {
		sum += share
	}
	return sum
}

// rate is that of all stations together, in images a second.
func rate(list []progressAt, from, to time.Duration) float64 {
	return (held(list, to) - held(list, from)) / max((to-from).Seconds(), 1e-9)
}

// whenHeld is when the stations held that share of the content on average.
func whenHeld(list []progressAt, share float64) time.Duration {
	i := slices.IndexFunc(list, func(p progressAt) bool { return held(list, p.at) >= share*seedReceivers })
	if i < 0 {
		return 0
	}
	return list[i].at
}

func (b *bench) printSeeds(throttled, killed []seedScore, err error) error {
	pick := func(list []seedScore, of func(s seedScore) float64) (middle, lowest, highest float64) {
		var values []figures
		for _, s := range list {
			values = append(values, figures{last: of(s)})
		}
		return spread(values, func(f figures) float64 { return f.last })
	}
	efficiency := func(s seedScore) float64 { return s.efficiency }
	fmt.Printf("\n%d receivers, the appliance and a seed node; medians of %d and worst; every disk was compared\n\n", seedReceivers, b.runs)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tefficiency\tworst\tof both seeds' bytes\tmost\trate kept\tworst\t")
	middle, worst, _ := pick(throttled, efficiency)
	share, _, most := pick(throttled, func(s seedScore) float64 { return s.share })
	fmt.Fprintf(w, "seed node throttled to %.0f %%\t%.3f\t%.3f\t%.3f\t%.3f\t\t\t\n", 100*seedThrottle, middle, worst, share, most)
	middle, worst, _ = pick(killed, efficiency)
	kept, least, _ := pick(killed, func(s seedScore) float64 { return s.kept })
	fmt.Fprintf(w, "appliance killed at %.0f %%\t%.3f\t%.3f\t\t\t%.2f\t%.2f\t\n", 100*deathShare, middle, worst, kept, least)
	return shortfall(errors.Join(err, w.Flush()), atMost("share of the throttled seed node", share, seedShare),
		atLeast("share of the throttled seed node", share, 0.001), atLeast("rate kept after the appliance's end", kept, deathRate))
}
