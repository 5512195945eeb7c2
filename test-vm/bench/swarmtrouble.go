package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"
)

// The stations of the room with trouble. Those from troubleHealthy on have none; the last one comes late.
const (
	troubleSlow = iota + 1
	troubleKilled
	troubleLiar
	troubleHealthy
	troubleLate = 9
)

// What happens in it, and the target: how much of the plain room's efficiency the healthy ones keep.
const (
	slowRate     = 10.0 // Mbit/s
	killShare    = 0.5
	lateShare    = 0.8
	liesOneIn    = 100
	troubleKeeps = 0.95
)

func healthy(i int) bool { return i >= troubleHealthy && i < troubleLate }

// trouble is what one heat with trouble came to.
type trouble struct {
	room, healthy figures
	slow, late    float64 // efficiency of the slow link, and of the late station from its own start
	lies, named   int64   // tiles given away wrong, and stations whose log names the liar
}

func scenarioTrouble(ctx context.Context, b *bench) (err error) {
	c, err := b.content(ctx)
	if err != nil {
		return err
	}
	var results []trouble
	for range b.runs {
		plain, e := b.heat(racers[0], c, roomPlan(troubleLate-1)).run(ctx)
		if e == nil {
			var t trouble
			if t, e = b.troubled(ctx, c); e == nil {
				t.room = measure(plain, c)
				results = append(results, t)
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err = errors.Join(err, e)
	}
	if len(results) == 0 {
		return err
	}
	return b.printTrouble(results, err)
}

// troubled runs the room in which all goes wrong at once.
func (b *bench) troubled(ctx context.Context, c *content) (t trouble, err error) {
	plan := roomPlan(troubleLate)
	plan.stations[troubleSlow][0].rate = slowRate
	h := b.heat(racers[0], c, plan)
	h.limit = time.Minute + 2*ideal(c.Length)*linkRate/slowRate
	h.engine = map[int]engineOrder{troubleLiar: {Lies: liesOneIn}}
	h.late = map[int]bool{troubleLate: true}
	h.watch = func(h *heat, station int, share float64) {
		if station == troubleKilled && share >= killShare && !h.processes[troubleKilled].killed {
			h.kill(troubleKilled)
		}
		if station == troubleHealthy && share >= lateShare && h.late[troubleLate] {
			h.late[troubleLate] = false
			h.begin(troubleLate)
		}
	}
	s, err := h.run(ctx)
	if err != nil {
		return t, err
	}
	t.healthy = measure(s, c)
	t.healthy.last, _ = s.last(healthy)
	t.healthy.efficiency = ideal(c.Length).Seconds() / t.healthy.last
	t.slow = ideal(c.Length).Seconds() * linkRate / slowRate / s.Finish[troubleSlow]
	t.late = ideal(c.Length).Seconds() / (s.Finish[troubleLate] - s.Began[troubleLate])
	t.lies = s.stats[troubleLiar].Lies
	t.named, err = h.accusers(troubleLiar)
	if err != nil {
		return t, err
	}
	return t, b.record("trouble", s, map[string]any{"Length": c.Length, "Lies": t.lies, "Named": t.named})
}

// accusers counts the stations whose log warns of a station; that one of them warns of another is an error.
func (h *heat) accusers(liar int) (count int64, err error) {
	for i, p := range h.processes {
		log, e := os.ReadFile(p.log)
		if e != nil {
			return 0, e
		}
		found := false
		for line := range bytes.Lines(log) {
			if !bytes.Contains(line, []byte("level=WARN")) || !bytes.Contains(line, []byte("wrong")) {
				continue
			}
			if bytes.Contains(line, []byte("peer="+h.net.stations[liar].addresses[0].String()+":")) {
				found = true
			} else {
				err = errors.Join(err, fmt.Errorf("station %d accuses the wrong one: %s", i, line))
			}
		}
		if found {
			count++
		}
	}
	return count, err
}

func (b *bench) printTrouble(results []trouble, err error) error {
	pick := func(of func(t trouble) float64) (float64, float64, float64) {
		var list []figures
		for _, t := range results {
			list = append(list, figures{last: of(t)})
		}
		return spread(list, func(f figures) float64 { return f.last })
	}
	room, _, _ := pick(func(t trouble) float64 { return t.room.efficiency })
	others, _, _ := pick(func(t trouble) float64 { return t.healthy.efficiency })
	kept, worst, _ := pick(func(t trouble) float64 { return t.healthy.efficiency / t.room.efficiency })
	slow, _, _ := pick(func(t trouble) float64 { return t.slow })
	late, _, _ := pick(func(t trouble) float64 { return t.late })
	_, lies, _ := pick(func(t trouble) float64 { return float64(t.lies) })
	_, named, _ := pick(func(t trouble) float64 { return float64(t.named) })
	fmt.Printf("\n%d receivers, and one late; median of %d and worst; every disk was compared\n\n", troubleLate-1, b.runs)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "plain room\tothers\tkept\tworst\tslow one of its link\tlate one from its start\ttiles given wrong, least\tstations that name the liar, least\t")
	fmt.Fprintf(w, "%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%.0f\t%.0f\t\n", room, others, kept, worst, slow, late, lies, named)
	return shortfall(errors.Join(err, w.Flush()), atLeast("what the others keep of the plain room's efficiency", kept, troubleKeeps),
		atLeast("tiles given away wrong", lies, 1), atLeast("stations that name the liar", named, 1))
}
