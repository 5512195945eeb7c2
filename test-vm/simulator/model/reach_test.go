package model

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"seedbed/images/schedule"
)

// reachTime is how long after the last trouble everyone has to hold what anyone holds, beside the time to send it. A computer
// without power is found out after silenceTime, and what it was shown alone is shown again then.
const (
	reachTime    = 8 * time.Second
	reachTimeCut = silenceTime + reachTime
)

// Whatever dies at whatever moment, every piece that a living computer holds reaches every machine that lives: those that were
// shown to one machine only, those in flight, and those of a peer that announced them and is gone.
func TestWhatExistsReachesEveryone(t *testing.T) {
	for range 10 { // times a hundred rooms
		rapid.Check(t, reaches)
	}
}

func reaches(t *rapid.T) {
	c := room(rapid.IntRange(2, 8).Draw(t, "machines"), rapid.IntRange(1, 96).Draw(t, "pieces"))
	c.Seed = rapid.Uint64().Draw(t, "seed")
	c.Seeders = rapid.IntRange(1, 2).Draw(t, "seeders")
	if rapid.Bool().Draw(t, "the last seeder is slow") {
		c.LastSeederRate = c.Rate / 10
	}
	if rapid.Bool().Draw(t, "the last machine is slow") {
		c.Slow = 1
	}
	if rapid.IntRange(0, 3).Draw(t, "a liar") == 0 {
		c.Liars, c.Lies = 1, 0.05
	}
	m, err := newModel(c)
	if err != nil {
		t.Fatal(err)
	}
	ideal := time.Duration(float64(c.Length) / (c.Rate / 8) * 1e9)
	last, reach := time.Duration(0), reachTime
	troubles := rapid.IntRange(1, 5).Draw(t, "troubles")
	for range troubles {
		at := time.Duration(rapid.Int64Range(1, int64(2*ideal)).Draw(t, "at"))
		last = max(last, at)
		victim := rapid.IntRange(0, c.Seeders+c.Peers-1).Draw(t, "victim")
		what := rapid.SampledFrom([]string{"crash", "cut", "crash and come again", "the first seeder and the tracker crash"}).Draw(t, "trouble")
		if what == "cut" {
			reach = reachTimeCut
		}
		m.later(at, func() { m.trouble(what, victim) })
	}
	end := last + reach + 20*ideal
	for e, ok := m.queue.pop(); ok && e.at <= int64(end); e, ok = m.queue.pop() {
		if m.step(e); m.err != nil {
			t.Fatal(m.err)
		}
	}
	if lack := m.unreached(); lack != "" {
		t.Fatalf("%v after the last trouble:%s", end-last, lack)
	}
}

// trouble lets something happen to a computer.
func (m *model) trouble(what string, victim int) {
	if strings.Contains(what, "tracker") {
		m.untracked, victim = true, 0
	}
	p := m.peers[victim]
	if !p.alive {
		return
	}
	if what == "cut" {
		m.powerOff(p)
		return
	}
	if m.crash(p); strings.Contains(what, "again") && p.hand == nil && !m.untracked {
		m.lacking++
		m.powerOn(m.newPeer(m.Rate, p.group, schedule.NewSet(m.pieces)))
	}
}

// unreached says which machine lacks a piece that another living computer holds, of those that the tracker has heard of.
func (m *model) unreached() string {
	var lack strings.Builder
	for _, p := range m.peers {
		if !p.alive || p.lies || p.hand == nil && !p.told {
			continue
		}
		for _, o := range m.peers {
			if !o.alive || o.lies || o.hand == nil && !o.told {
				continue
			}
			for piece := range o.have.All() {
				if !p.have.Has(piece) {
					fmt.Fprintf(&lack, " %d lacks %d of %d, which %d holds;", p.index, piece, m.pieces, o.index)
					break
				}
			}
		}
	}
	return lack.String()
}
