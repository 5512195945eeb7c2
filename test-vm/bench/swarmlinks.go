package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"text/tabwriter"

	"seedbed/images/swarm"
)

// Targets of two links on one machine, in Mbit/s of content, and what the second part asks of the connections.
const (
	twoLinks     = 180.0
	fastLink     = 1000.0 // of the appliance, which is not what is measured
	wantedDSCP   = 8      // CS1, RFC 4594: low-priority data
	wireSegments = 500    // that are looked at
)

// scenarioLinks measures a machine with two links, and looks at the packets of one that asks for another congestion control.
func scenarioLinks(ctx context.Context, b *bench) (err error) {
	c, err := b.content(ctx)
	if err != nil {
		return err
	}
	var list []figures
	for range b.runs {
		plan := netPlan{switches: 1, stations: []stationPlan{{{rate: fastLink}, {rate: fastLink}}, {{rate: linkRate}, {rate: linkRate}}}}
		h := b.heat(racers[0], c, plan)
		h.engine = map[int]engineOrder{1: {Transport: swarm.Transport{Interfaces: []string{"eth0", "eth1"}}}}
		s, e := h.run(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if e != nil {
			err = errors.Join(err, e)
			continue
		}
		list = append(list, measure(s, c))
		if e := b.record("links", s, map[string]any{"Length": c.Length}); e != nil {
			return errors.Join(err, e)
		}
	}
	rate, worst, _ := spread(list, func(f figures) float64 { return float64(c.Length) * 8 / 1e6 / f.last })
	fmt.Printf("\none machine with two links of %d Mbit/s: %.0f Mbit/s of content, worst %.0f; median of %d\n\n", linkRate, rate, worst, b.runs)
	err = shortfall(err, atLeast("content over two links in Mbit/s", rate, twoLinks))
	return errors.Join(err, b.wire(ctx, c))
}

// wire shows what the kernel and the packets say of connections, with the engine's own choice and with another.
func (b *bench) wire(ctx context.Context, c *content) (err error) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "asked for\tcongestion control by ss -ti\tDSCP of segments from the appliance\tfrom the machine\tby tshark\t")
	for _, asked := range []swarm.Transport{{}, {Congestion: "bbr", DSCP: wantedDSCP}} {
		one := racers[0]
		one.engine.Transport = asked
		h := b.heat(one, c, roomPlan(1))
		var seen wireView
		var looked error
		h.watch = func(h *heat, _ int, _ float64) {
			if seen.segments == 0 && looked == nil {
				seen, looked = h.look(ctx, 1)
			}
		}
		if _, e := h.run(ctx); e != nil || looked != nil {
			return errors.Join(err, e, looked)
		}
		name, control := "nothing", swarm.DefaultCongestion
		if asked.Congestion != "" {
			name, control = fmt.Sprintf("%s, DSCP %d", asked.Congestion, asked.DSCP), asked.Congestion
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d segments\t\n", name, strings.Join(seen.control, " "), marks(seen.in), marks(seen.out), seen.segments)
		for _, got := range seen.control {
			if got != control {
				err = errors.Join(err, fmt.Errorf("asked for %s, a connection has congestion control %s", name, got))
			}
		}
		for _, direction := range []map[int]int{seen.in, seen.out} {
			if len(direction) != 1 || direction[asked.DSCP] == 0 {
				err = errors.Join(err, fmt.Errorf("asked for %s, segments are marked %s", name, marks(direction)))
			}
		}
	}
	return errors.Join(w.Flush(), err)
}

// wireView is what was seen of a station's connections.
type wireView struct {
	control  []string    // of each connection of the swarm
	in, out  map[int]int // segments by DSCP
	segments int
}

func marks(count map[int]int) string {
	var list []string
	for mark, n := range count {
		list = append(list, fmt.Sprintf("%d: %d", mark, n))
	}
	return strings.Join(list, ", ")
}

// look asks ss for the connections of a station, and tshark for some of their segments.
func (h *heat) look(ctx context.Context, station int) (v wireView, err error) {
	at := h.net.stations[station]
	inside := func(args ...string) ([]byte, error) {
		out, err := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", at.namespace}, args...)...).Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w (make setup installs it)", args[0], err)
		}
		return out, nil
	}
	out, err := inside("ss", "-tinHO", "state", "established", "( sport = :"+swarmPort+" or dport = :"+swarmPort+" )")
	if err != nil {
		return v, err
	}
	for line := range strings.Lines(string(out)) {
		for _, word := range strings.Fields(line) {
			if word == "cubic" || word == "bbr" || word == "reno" {
				v.control = append(v.control, word)
			}
		}
	}
	if len(v.control) == 0 {
		return v, fmt.Errorf("ss shows no connection of the swarm:\n%s", out)
	}
	out, err = inside("tshark", "-n", "-i", "eth0", "-f", "tcp port "+swarmPort, "-c", strconv.Itoa(wireSegments), "-a", "duration:20",
		"-T", "fields", "-e", "ip.src", "-e", "ip.dsfield.dscp")
	if err != nil {
		return v, err
	}
	v.in, v.out = map[int]int{}, map[int]int{}
	for line := range strings.Lines(string(out)) {
		from, mark, _ := strings.Cut(strings.TrimSpace(line), "\t")
		n, err := strconv.Atoi(mark)
		if err != nil {
			return v, fmt.Errorf("tshark: %q", line)
		}
		v.segments++
		if from == at.addresses[0].String() {
			v.out[n]++
		} else {
			v.in[n]++
		}
	}
	return v, nil
}
