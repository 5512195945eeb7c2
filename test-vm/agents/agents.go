// Package agents simulates machines that are imaged: as far as an appliance sees, each boots from the network, says hello, tells
// what it is, takes its job, reports each second, announces to the tracker, proves its disk with a receipt and boots that disk.
// Requests, certificates and their order are those of the real agent; disks and the swarm's content are made up.
package agents

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Config of a run. Appliance, First, Count and Content are needed.
type Config struct {
	// Appliance is its address; it serves DHCP, boot files and agents at their usual ports.
	Appliance netip.Addr
	// First is the address of the first agent; those of the others follow. All are addresses of this host.
	First netip.Addr
	Count int
	// Ramp is the time in which the machines are switched on, one after the other.
	Ramp time.Duration
	// Content is how long the transfer takes each machine, Verify how long the read-back.
	Content, Verify time.Duration
	// Firmware is how long at most the firmware of a machine takes from its restart to its first packet.
	Firmware time.Duration
	// Behave says which machines are not ordinary, by their index from 0.
	Behave map[int]Behaviour
}

// Story is what one agent did and had acknowledged by the appliance.
type Story struct {
	MAC     string
	Machine string // ID
	Job     string // ID
	Steps   []Step
	// Retries counts requests that were made again, Problem is why the machine gave up.
	Retries int
	Problem string
}

// Step is one transition. What names it as the appliance's events do: "job.claimed", "job.phase content", "machine.local-boot".
type Step struct {
	What string
	At   time.Time
}

// Result of a run.
type Result struct {
	Stories []Story
	// Took is how long requests took in seconds, from the first byte of the question, connection and handshake included, to the
	// last one of the answer, by what was asked: "report", "hello".
	Took  map[string][]float64
	Began time.Time
	Ended time.Time
}

// Table is the table of a room's machines, as `seedbed machine import` reads it: all are admitted.
func Table(count int) string {
	var b strings.Builder
	b.WriteString("mac,name,admitted\n")
	for i := range count {
		fmt.Fprintf(&b, "%s,seat-%04d,true\n", MACOf(i), i+1)
	}
	return b.String()
}

// RoomTable is such a table of machines that stand in rooms of so many columns and rows: "room-01", ... The rooms have to be there.
func RoomTable(count, rows, columns int) (table string, rooms []string) {
	var b strings.Builder
	b.WriteString("mac,name,groups,row,column,admitted\n")
	for i := range count {
		room, seat := i/(rows*columns), i%(rows*columns)
		name := fmt.Sprintf("room-%02d", room+1)
		if seat == 0 {
			rooms = append(rooms, name)
		}
		fmt.Fprintf(&b, "%s,seat-%04d,%s,%d,%d,true\n", MACOf(i), i+1, name, seat/columns+1, seat%columns+1)
	}
	return b.String(), rooms
}

// MACOf is the address of the network card of an agent, which counts from 0.
func MACOf(index int) string { return fmt.Sprintf("52:54:00:a6:%02x:%02x", index>>8&255, index&255) }

// Run has all machines imaged once and returns when the last one has booted its disk. An error is the end of ctx, or that of the
// machines that gave up; the result is whole as far as they came.
func Run(ctx context.Context, c Config) (*Result, error) {
	r := &run{Config: c, took: map[string][]float64{}}
	result := &Result{Began: time.Now()}
	machines, address := make([]*machine, c.Count), c.First
	var all sync.WaitGroup
	for i := range machines {
		m := &machine{run: r, index: i, own: address, is: c.Behave[i]}
		m.story.MAC = MACOf(i)
		machines[i], address = m, address.Next()
		all.Go(func() {
			if err := m.live(ctx); err != nil {
				m.story.Problem = err.Error()
			}
		})
	}
	all.Wait()
	result.Ended = time.Now()
	var errs []error
	for _, m := range machines {
		result.Stories = append(result.Stories, m.story)
		if m.story.Problem != "" {
			errs = append(errs, fmt.Errorf("%s: %s", m.story.MAC, m.story.Problem))
		}
	}
	result.Took = r.took
	if len(errs) > 3 {
		errs = append(errs[:3], fmt.Errorf("and %d other machines", len(errs)-3))
	}
	return result, errors.Join(errs...)
}

// run is what the machines share.
type run struct {
	Config

	mu   sync.Mutex // guards took
	took map[string][]float64
}

// note keeps how long a request took.
func (r *run) note(what string, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.took[what] = append(r.took[what], took.Seconds())
}

// pause waits for d or returns the cause of ctx's end.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
