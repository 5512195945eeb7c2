package fleet_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/site"
	"seedbed/appliance/store"
	"seedbed/images"
	"seedbed/test-vm/powercut"
)

// world is a room at work with the people who operate it, and what they were told. Its appliances crash and start again.
type world struct {
	t      *testing.T
	dir    string
	site   *site.Site
	lib    library
	clock  *clock
	random *rand.Rand // of the test's own goroutine
	book   *book
	log    *commitLog     // of an appliance that has its records to itself
	disk   *powercut.Disk // likewise
	steps  atomic.Int64   // that were answered

	gate  sync.RWMutex // held for reading by each step, for writing while appliances start
	rooms []*room

	over    atomic.Bool // no new orders, and no new misfortunes
	done    atomic.Bool // nothing is left to do
	actors  sync.WaitGroup
	serials atomic.Int64
}

// The people and the machines of the room.
const (
	worldMachines  = 8
	worldOperators = 2
)

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), lib: newLibrary(), clock: &clock{t: time.Date(2026, 5, 4, 8, 0, 0, 0, time.UTC)},
		random: rand.New(rand.NewPCG(seed, 0x5eedbed)), book: newBook(), log: &commitLog{}}
	var err error
	if w.site, err = site.Open(filepath.Join(w.dir, "site")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, r := range w.rooms {
			r.store.Close()
		}
	})
	return w
}

// start starts an appliance. The caller holds the gate, or nobody works yet.
func (w *world) start(i int, location string) {
	w.t.Helper()
	r := &room{t: w.t, id: fmt.Sprintf("appliance-%d", i), location: location, admit: fleet.AdmitAuto, lib: w.lib, clock: w.clock, site: w.site}
	var err error
	if r.store, err = store.Open(w.t.Context(), location); err != nil {
		w.t.Fatal(err)
	}
	var records fleet.Records = r.store
	if !r.store.Shared() {
		w.log.power, records = w.disk, &loggedRecords{r.store, w.log}
	}
	r.Fleet, err = fleet.New(w.t.Context(), fleet.Config{
		ID: r.id, Records: records, Authority: w.site, Library: w.lib, Admit: fleet.AdmitAuto, Now: w.clock.now, ClaimPoll: 5 * time.Millisecond,
		InfoHashURI: func(h images.InfoHash) string { return "urn:seedbed:infohash:" + h.String() },
	})
	if err != nil {
		r.store.Close()
		w.t.Fatal(err)
	}
	if i < len(w.rooms) {
		w.rooms[i] = r
	} else {
		w.rooms = append(w.rooms, r)
	}
}

// begin sets everybody to work.
func (w *world) begin() {
	w.insist("make a group", func(r *room) error {
		_, err := r.NewGroup(w.t.Context(), fleet.GroupOrder{Name: "room", Notes: ptr("0")})
		return err
	})
	for i := range worldMachines {
		w.actors.Go(func() {
			m := &worker{w: w, random: rand.New(rand.NewPCG(uint64(i), 1)), number: i, mac: fmt.Sprintf("52:54:00:00:02:%02x", i)}
			for !w.done.Load() && !w.t.Failed() {
				m.boot()
			}
		})
	}
	for i := range worldOperators {
		w.actors.Go(func() {
			o := &operator{w: w, random: rand.New(rand.NewPCG(uint64(i), 2)), name: fmt.Sprintf("operator-%d", i)}
			for !w.over.Load() && !w.t.Failed() {
				o.order()
			}
		})
	}
	w.actors.Go(func() {
		for !w.done.Load() && !w.t.Failed() { // what an appliance does by itself each second
			w.try(func(r *room) error { return fleet.Tidy(r.Fleet, w.t.Context()) })
			w.clock.add(time.Second)
			time.Sleep(2 * time.Millisecond)
		}
	})
	w.t.Cleanup(func() {
		w.over.Store(true)
		w.done.Store(true)
		w.actors.Wait()
	})
}

// try asks an appliance once.
func (w *world) try(fn func(r *room) error) error {
	w.gate.RLock()
	defer w.gate.RUnlock()
	return fn(w.rooms[rand.IntN(len(w.rooms))])
}

// insist asks until an appliance answers, and returns what it was refused for.
func (w *world) insist(what string, fn func(r *room) error) *fleet.Refusal {
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		err := w.try(fn)
		refusal, refused := errors.AsType[*fleet.Refusal](err)
		switch {
		case err == nil || refused:
			w.steps.Add(1)
			return refusal
		case w.t.Failed():
			return &fleet.Refusal{Detail: "the test has failed"}
		case time.Now().After(end):
			w.t.Errorf("%s: %v", what, err)
			return &fleet.Refusal{Detail: err.Error()}
		}
	}
}

// comeToAnEnd has the room finish what was ordered, and looks at the whole of it.
func (w *world) comeToAnEnd() {
	w.t.Helper()
	w.over.Store(true)
	end := time.Now().Add(time.Minute)
	for {
		left := 0
		w.insist("resume what is paused", func(r *room) error {
			left = 0
			for _, j := range r.Jobs() {
				if j.State.Ended() {
					continue
				}
				left++
				if j.State == job.Paused {
					if err := r.Resume(w.t.Context(), j.ID); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if left == 0 || w.t.Failed() {
			break
		}
		if time.Now().After(end) {
			w.t.Errorf("%d jobs never end", left)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.done.Store(true)
	w.actors.Wait()
	for _, r := range w.rooms {
		if err := fleet.CatchUp(r.Fleet); r.store.Shared() && err != nil {
			w.t.Error(err)
		}
	}
	w.check()
	if w.book.count(job.Succeeded) == 0 || w.book.edits == 0 {
		w.t.Errorf("%s: the test tests nothing", w.book)
	}
}

// worker is a machine that boots, works and fails.
type worker struct {
	w      *world
	random *rand.Rand
	number int
	mac    string
	agent  *agent
}

// boot is one boot of the machine, which may end at any step.
func (m *worker) boot() {
	w, ctx := m.w, m.w.t.Context()
	a := &agent{mac: m.mac, r: &room{t: w.t, lib: w.lib, clock: w.clock, site: w.site}}
	m.agent = a
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader); err != nil {
		w.t.Error(err)
		return
	}
	inv := job.Inventory{UUID: fmt.Sprintf("33333333-2222-3333-4444-5555555555%02x", m.number), Serial: fmt.Sprintf("CRASH-%d", m.number), Firmware: "uefi",
		NICs: []job.NIC{{Name: "eth0", MAC: m.mac}}}
	for _, step := range []struct {
		what string
		do   func(r *room) error
	}{
		{"be seen", func(r *room) error {
			return r.Sighted(ctx, fleet.Sighting{MAC: m.mac, Stage: "dhcp", Firmware: "uefi"})
		}},
		{"get a token", func(r *room) error {
			b, err := r.BootToken(ctx, m.mac, netip.MustParseAddr("10.77.0.100"))
			a.token = b.Token
			return err
		}},
		{"say hello", func(r *room) error { return m.at(r, a.hello) }},
		{"tell the inventory", func(r *room) error {
			return m.known(r, func() error {
				a.me, err = r.Inventory(ctx, a.caller, inv)
				return err
			})
		}},
	} {
		if w.insist(step.what, step.do) != nil {
			return // a token that grew old while the appliance was away; the machine starts again
		}
	}
	w.book.isMachine(m.mac, a.me.Machine)
	for tries := 0; tries < 20 && !w.done.Load(); tries++ {
		j := m.claim()
		if j != nil && !m.work(j) {
			return
		}
	}
}

// at has the agent speak to an appliance.
func (m *worker) at(r *room, fn func() error) error {
	m.agent.r = r
	return fn()
}

// known has the agent speak to an appliance by its certificate.
func (m *worker) known(r *room, fn func() error) error {
	caller, err := r.Authenticate(&x509.Certificate{RawSubjectPublicKeyInfo: m.agent.public()})
	if err != nil {
		return err
	}
	m.agent.caller = caller
	return m.at(r, fn)
}

// claim returns the machine's next job, or nil.
func (m *worker) claim() (got *job.Job) {
	w := m.w
	ended := w.book.ended()
	refused := w.insist("claim", func(r *room) error {
		return m.known(r, func() (err error) {
			got, err = r.Claim(w.t.Context(), m.agent.caller, job.Claim{Machine: m.agent.me.Machine})
			return err
		})
	})
	if refused != nil || got == nil || got.Waits != "" {
		return nil
	}
	if state, over := ended[got.ID]; over {
		w.t.Errorf("%s was given job %s, which was %s already", m.mac, got.ID, state)
	}
	if err := w.book.claimed(got.ID, got.Epoch, m.agent.token); err != nil {
		w.t.Error(err)
	}
	return got
}

// work does a job, and reports whether the machine is still on.
func (m *worker) work(j *job.Job) bool {
	w, a := m.w, m.agent
	a.job = j
	fate := m.random.IntN(20)
	if w.over.Load() {
		fate = 19
	}
	if fate < 3 {
		return false // power cut
	}
	raw := encodeFrame(w.t, job.OldFrame{Job: j.ID, Disk: "vda", DiskLength: 1 << 30, Regions: []job.OldFrameRegion{{Kind: "lba0", Bytes: []byte(a.token)}}})
	if w.insist("save the frame", func(r *room) error {
		return m.known(r, func() error { return r.Frame(w.t.Context(), a.caller, raw) })
	}) != nil {
		return m.random.IntN(2) == 0
	}
	w.book.framed(j.ID, images.Sum(raw))
	for i, phase := range []job.Phase{job.PhaseContent, job.PhaseContent, job.PhaseVerify, job.PhaseTable} {
		report := job.Report{Job: j.ID, Epoch: j.Epoch, Phase: phase, State: job.Running, Total: 1000, Held: int64(i) * 300, Disk: "vda"}
		switch {
		case i == 2 && fate < 6:
			report.State, report.Code, report.Reason = job.Failed, "swarm-error", "no peer answers; look at the cable"
		case i == 2 && fate < 8:
			report.State, report.Code, report.Reason = job.Failed, "write-error", "disk vda refused a write; replace it"
		case i == 3 && fate < 9:
			return false // power cut
		}
		goesOn, on := m.report(report)
		if !goesOn {
			return on
		}
	}
	return m.receipt(j)
}

// report says where the job is until it may go on, and whether it does; on says that the machine stays on.
func (m *worker) report(report job.Report) (goesOn, on bool) {
	w := m.w
	for range 20 {
		var d job.Directive
		refused := w.insist("report", func(r *room) error {
			return m.known(r, func() (err error) {
				d, err = r.Report(w.t.Context(), m.agent.caller, report)
				return err
			})
		})
		switch {
		case refused != nil:
			return false, false
		case report.State == job.Failed:
			if d.State == job.Failed {
				w.book.end(report.Job, job.Failed)
			}
			return false, true
		case d.State != job.Paused:
			return d.State == job.Running, true
		}
		time.Sleep(time.Millisecond)
	}
	return false, false // it waits for a person no longer
}

func (m *worker) receipt(j *job.Job) bool {
	w := m.w
	signed := m.agent.receipt(nil)
	var c job.Countersigned
	if w.insist("give the receipt", func(r *room) error {
		return m.known(r, func() (err error) {
			c, err = r.Receipt(w.t.Context(), m.agent.caller, signed)
			return err
		})
	}) != nil {
		return true // a person was faster
	}
	w.book.end(j.ID, job.Succeeded)
	w.book.receipted(j.ID, signed.Receipt, c.Signature)
	return true
}

// operator is a person who orders and changes things, and looks before asking again.
type operator struct {
	w      *world
	random *rand.Rand
	name   string
}

func (o *operator) order() {
	w := o.w
	ctx := fleet.As(w.t.Context(), fleet.Actor{Name: o.name, Role: fleet.RoleOperator})
	switch o.random.IntN(8) {
	case 0, 1:
		o.deploy(ctx)
	case 2:
		o.change(ctx, "pause", job.Paused, (*fleet.Fleet).Pause, func(j fleet.JobView) bool { return !j.State.Ended() })
	case 3:
		o.change(ctx, "resume", "", (*fleet.Fleet).Resume, func(j fleet.JobView) bool { return j.State == job.Paused })
	case 4:
		o.change(ctx, "cancel", job.Cancelled, (*fleet.Fleet).Cancel, func(j fleet.JobView) bool { return !j.State.Ended() })
	case 5:
		o.change(ctx, "retry", "", func(f *fleet.Fleet, ctx context.Context, id string) error {
			_, err := f.Retry(ctx, id)
			return err
		}, func(j fleet.JobView) bool { return j.State == job.Failed && j.RetriedBy == "" })
	default:
		o.edit(ctx)
	}
	time.Sleep(time.Duration(o.random.IntN(10)) * time.Millisecond)
}

// deploy orders the image for some machines; an odd length of SeedFor marks the order.
func (o *operator) deploy(ctx context.Context) {
	w := o.w
	machines := w.book.someMachines(o.random)
	if len(machines) == 0 {
		return
	}
	mark := time.Minute + time.Duration(w.serials.Add(1))
	w.book.ordering(mark, machines)
	refused := w.insist("deploy", func(r *room) error {
		for _, r := range w.rooms { // whichever answered before
			if err := fleet.CatchUp(r.Fleet); r.store.Shared() && err != nil {
				return err
			}
			for _, d := range r.Deployments() {
				if d.SeedFor == mark {
					return nil
				}
			}
		}
		_, err := r.Deploy(ctx, fleet.Order{Image: "debian", Machines: machines, SeedFor: mark})
		return err
	})
	if refused != nil {
		w.t.Errorf("an order was refused: %v", refused)
		return
	}
	w.book.ordered(mark)
}

// change does something to a job for which it is possible.
func (o *operator) change(ctx context.Context, what string, to job.State, do func(*fleet.Fleet, context.Context, string) error, fits func(fleet.JobView) bool) {
	w := o.w
	id := ""
	w.insist("look", func(r *room) error {
		var list []string
		for _, j := range r.Jobs() {
			if fits(j) {
				list = append(list, j.ID)
			}
		}
		if id = ""; len(list) > 0 {
			id = list[o.random.IntN(len(list))]
		}
		return nil
	})
	if id == "" {
		return
	}
	if w.insist(what, func(r *room) error { return do(r.Fleet, ctx, id) }) == nil && to.Ended() {
		w.book.end(id, to)
	}
}

// edit counts in the notes of the group, by the version that was read: of two who count at once one is refused.
func (o *operator) edit(ctx context.Context) {
	w := o.w
	w.insist("edit", func(r *room) error {
		g, err := r.Group("room")
		if err != nil {
			return err
		}
		n := 0
		if _, err := fmt.Sscan(g.Notes, &n); err != nil {
			return err
		}
		w.book.editing()
		_, err = r.EditGroup(ctx, "room", g.Version, fleet.GroupOrder{Notes: ptr(fmt.Sprint(n + 1))})
		w.book.edited(err)
		return err
	})
}
