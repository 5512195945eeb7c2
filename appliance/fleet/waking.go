package fleet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"seedbed/appliance/job"
)

// Woken says which machines were sent a packet that wakes them.
type Woken struct {
	Machines []string `json:"machines"`         // names
	Failed   []string `json:"failed,omitempty"` // names of those that no packet could be sent to
	Packets  int      `json:"packets"`
}

// Wake sends machines the packet that wakes them, at every network card that they have.
func (f *Fleet) Wake(ctx context.Context, machines, groups []string) (*Woken, error) {
	if err := may(ctx, RoleOperator, "wake machines"); err != nil {
		return nil, err
	}
	var list []*Machine
	err := f.change(ctx, func(d *draft) (err error) {
		if list, err = d.pick(d.machines(), machines, groups); err != nil {
			return err
		}
		woken := map[string]bool{}
		for _, m := range list {
			woken[m.ID] = true
			d.event(by(ctx, Event{Kind: "machine.wake", Machine: m.ID, Text: m.Name + " is woken over the network"}))
		}
		for _, j := range d.openJobs() {
			if woken[j.Machine] && j.State == job.Waiting && j.Calls >= maxCalls { // a person has looked after it: it is called anew
				d.editJob(j).uncall()
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	w := &Woken{}
	var failed error
	for _, m := range list { // one that cannot be reached does not keep the others asleep
		n, err := f.wakeMachine(m)
		if w.Packets += n; n == 0 {
			failed = err
			w.Failed = append(w.Failed, m.Name)
			f.log.Warn("a machine was not woken", "machine", m.Name, "err", err)
			continue
		}
		w.Machines = append(w.Machines, m.Name)
	}
	if len(w.Machines) == 0 {
		return w, failed
	}
	return w, nil
}

// wakeMachine sends the packets for one machine.
func (f *Fleet) wakeMachine(m *Machine) (packets int, err error) {
	if f.config.Wake == nil {
		return 0, refuse(CodeInvalid, "this appliance sends no packets that wake machines")
	}
	f.mu.RLock()
	var to []netip.Addr
	for _, id := range m.Groups {
		if g, ok := f.state.others[Key{KindGroup, id}].(*Group); ok && g.Broadcast != "" {
			if a, err := netip.ParseAddr(g.Broadcast); err == nil && !slices.Contains(to, a) {
				to = append(to, a)
			}
		}
	}
	f.mu.RUnlock()
	for _, text := range m.MACs {
		mac, failed := net.ParseMAC(text)
		if failed != nil || len(mac) != 6 {
			continue
		}
		if failed = f.config.Wake(mac, to); failed != nil {
			err = fmt.Errorf("wake %s: %w", m.Name, failed)
			continue
		}
		packets++
	}
	if packets == 0 && err != nil {
		return 0, err
	}
	if packets == 0 {
		return 0, refuse(CodeInvalid, "%s has no network card that is known", m.Name)
	}
	return packets, nil // one card is enough
}
