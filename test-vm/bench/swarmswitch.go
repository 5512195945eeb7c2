package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// Three switches in a row, and the target of what each uplink carries away from the appliance, in images.
const (
	switchCount   = 3
	switchPeers   = 5 // on each
	uplinkRate    = 100.0
	uplinkImages  = 1.1
	forbiddenFrom = 2 // stations of the edge that never carries a byte, on the first switch
	forbiddenTo   = 3
	seenImages    = 0.9 // what the capture sees at least beside, or it saw nothing
)

// switchScore is what one heat over three switches came to.
type switchScore struct {
	figures
	down, up  [switchCount]float64 // images over the uplink above each switch but the first
	forbidden int64                // bytes
	allowed   int64                // bytes on the station's other links
	length    int64                // of one image, bytes
}

func switchPlan() netPlan {
	p := netPlan{switches: switchCount, uplink: uplinkRate, stations: []stationPlan{{{rate: linkRate}}}}
	for b := range switchCount {
		for range switchPeers {
			p.stations = append(p.stations, stationPlan{{toSwitch: b, rate: linkRate}})
		}
	}
	return p
}

// switchPolicy is the tracker's policy file: a group for each switch, and one forbidden edge.
func switchPolicy(n *network) string {
	var b strings.Builder
	b.WriteString("groups:\n")
	for s := range switchCount {
		var members []string
		for i := range switchPeers {
			members = append(members, n.stations[1+s*switchPeers+i].addresses[0].String())
		}
		fmt.Fprintf(&b, "  - {name: switch-%d, members: [%s], uplink: {mbit: %d}}\n", s+1, strings.Join(members, ", "), int(uplinkRate))
	}
	fmt.Fprintf(&b, "edges:\n  - forbid: [%s, %s]\n", n.stations[forbiddenFrom].addresses[0], n.stations[forbiddenTo].addresses[0])
	return b.String()
}

func scenarioSwitches(ctx context.Context, b *bench) (err error) {
	c, err := b.content(ctx)
	if err != nil {
		return err
	}
	var list []switchScore
	for range b.runs {
		s, e := b.overSwitches(ctx, c)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err = errors.Join(err, e); e == nil {
			list = append(list, s)
		}
	}
	if len(list) == 0 {
		return err
	}
	return b.printSwitches(list, err)
}

func (b *bench) overSwitches(ctx context.Context, c *content) (s switchScore, err error) {
	h := b.heat(racers[0], c, switchPlan())
	h.policy = switchPolicy
	var before [switchCount][2]int64
	var capture *edgeCapture
	h.before = func() (err error) {
		for i := 1; i < switchCount && err == nil; i++ {
			before[i][0], before[i][1], err = h.net.uplink(ctx, i)
		}
		if err == nil {
			capture, err = h.captureEdges(forbiddenFrom)
		}
		return err
	}
	h.after = func() error {
		for i := 1; i < switchCount; i++ {
			down, up, err := h.net.uplink(ctx, i)
			if err != nil {
				return err
			}
			s.down[i], s.up[i] = float64(down-before[i][0])/float64(c.Encoded), float64(up-before[i][1])/float64(c.Encoded)
		}
		bytes, err := capture.end()
		for address, n := range bytes {
			if address == h.net.stations[forbiddenTo].addresses[0].String() {
				s.forbidden = n
			} else {
				s.allowed += n
			}
		}
		return err
	}
	score, err := h.run(ctx)
	if capture != nil {
		capture.stop()
	}
	if err != nil {
		return s, err
	}
	s.figures, s.length = measure(score, c), c.Encoded
	return s, b.record("switches", score, map[string]any{"Length": c.Length, "Down": s.down, "Up": s.up, "Forbidden": s.forbidden, "Allowed": s.allowed})
}

func (b *bench) printSwitches(list []switchScore, err error) error {
	pick := func(of func(s switchScore) float64) (middle, lowest, highest float64) {
		var values []figures
		for _, s := range list {
			values = append(values, figures{last: of(s)})
		}
		return spread(values, func(f figures) float64 { return f.last })
	}
	efficiency, worst, _ := pick(func(s switchScore) float64 { return s.efficiency })
	images, _, _ := pick(func(s switchScore) float64 { return s.images })
	fmt.Printf("\n%d switches in a row, %d receivers each, uplinks of %.0f Mbit/s; medians of %d and worst\n\n", switchCount, switchPeers, uplinkRate, b.runs)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\timages away from the appliance\tmost\ttowards it\t")
	var missed []error
	for i := 1; i < switchCount; i++ {
		down, _, most := pick(func(s switchScore) float64 { return s.down[i] })
		up, _, mostUp := pick(func(s switchScore) float64 { return s.up[i] })
		fmt.Fprintf(w, "uplink of switch %d\t%.2f\t%.2f\t%.2f\t\n", i+1, down, most, up)
		missed = append(missed, atMost(fmt.Sprintf("images down the uplink of switch %d", i+1), most, uplinkImages),
			atMost(fmt.Sprintf("images up the uplink of switch %d", i+1), mostUp, uplinkImages))
	}
	err = errors.Join(err, w.Flush())
	_, _, forbidden := pick(func(s switchScore) float64 { return float64(s.forbidden) })
	_, allowed, _ := pick(func(s switchScore) float64 { return float64(s.allowed) / float64(s.length) })
	fmt.Printf("last finisher at %.3f of the link, worst %.3f; the appliance sent %.2f images; the forbidden edge carried %.0f bytes, the station's others %.2f images\n",
		efficiency, worst, images, forbidden, allowed)
	missed = append(missed, atMost("bytes on the forbidden edge", forbidden, 0), atLeast("images on the station's other edges", allowed, seenImages))
	return shortfall(err, missed...)
}

// edgeCapture is tshark at a station, which sees every frame between it and the others' swarm ports.
type edgeCapture struct {
	own string
	cmd *exec.Cmd
	out bytes.Buffer
}

func (h *heat) captureEdges(station int) (*edgeCapture, error) {
	at := h.net.stations[station]
	c := &edgeCapture{own: at.addresses[0].String()}
	c.cmd = exec.Command("ip", "netns", "exec", at.namespace, "tshark", "-n", "-l", "-i", "eth0", "-s", "96", "-f", "tcp port "+swarmPort,
		"-T", "fields", "-e", "ip.src", "-e", "ip.dst", "-e", "frame.len")
	c.cmd.Stdout = &c.out
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	said, err := c.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("tshark (make setup installs it): %w", err)
	}
	// It says "Capturing on" when it is about to begin, and is given a frame to wait for by the heat itself.
	first := make([]byte, 256)
	if _, err := said.Read(first); err != nil {
		return nil, errors.Join(fmt.Errorf("tshark: %w", err), c.cmd.Wait())
	}
	go io.Copy(io.Discard, said)
	return c, nil
}

// stop ends the capture; it may be called again.
func (c *edgeCapture) stop() {
	if c.cmd.ProcessState != nil {
		return
	}
	ended := make(chan struct{})
	go func() {
		c.cmd.Wait() // ended by a signal
		close(ended)
	}()
	for { // it writes what it has seen, and loses a signal now and then
		c.cmd.Process.Signal(syscall.SIGINT)
		select {
		case <-ended:
			return
		case <-time.After(stopAgain):
		}
	}
}

// stopAgain is how long tshark has for what it has seen before it is told again to end.
const stopAgain = 20 * time.Second

// end stops the capture and returns the bytes by the other end's address.
func (c *edgeCapture) end() (map[string]int64, error) {
	c.stop()
	count := map[string]int64{}
	for line := range strings.Lines(c.out.String()) {
		words := strings.Fields(line)
		if len(words) != 3 {
			continue
		}
		n, err := strconv.ParseInt(words[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("tshark: %q", line)
		}
		other := words[slices.IndexFunc(words[:2], func(a string) bool { return a != c.own })]
		count[other] += n
	}
	return count, nil
}
