//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/site"
	"seedbed/images"
)

// room is machines at work at an appliance that is killed again and again, the people who operate it, and what all of them were told.
type room struct {
	t        *testing.T
	data     string
	manifest *images.Manifest
	operator *client.Client
	over     atomic.Bool // no new orders
	done     atomic.Bool // no work is left
	steps    atomic.Int64

	mu     sync.Mutex                 // guards what follows
	ended  map[string]job.State       // jobs that somebody was told to have ended
	claims map[string]map[int64]bool  // by job: the epochs that were given
	owner  map[string]string          // machine of each job
	orders map[time.Duration][]string // machines by SeedFor, which marks an order
	kept   map[time.Duration]bool     // orders that were acknowledged
	edits  int                        // acknowledged
	unsure int                        // of which nobody knows
}

// TestABusyApplianceIsKilledAtAnyMoment kills the real program with SIGKILL at random moments, while machines work over HTTPS and people
// order, cancel, retry and edit; with SEEDBED_FULL=1 a hundred times. What is seen from outside after each start is what everybody
// was told.
func TestABusyApplianceIsKilledAtAnyMoment(t *testing.T) {
	network(t)
	const machines = 4
	kills := 6
	if os.Getenv("SEEDBED_FULL") != "" {
		kills = 100
	}
	data, boot := t.TempDir(), bootFiles(t)
	disk, _ := newDisk(t)
	p := serve(t, data, boot, "--admit", "auto")
	must(t, data, "image", "add", disk, "--name", "debian")
	r := &room{t: t, data: data, ended: map[string]job.State{}, claims: map[string]map[int64]bool{}, owner: map[string]string{},
		orders: map[time.Duration][]string{}, kept: map[time.Duration]bool{}, operator: client.Local(filepath.Join(data, "seedbed.sock"))}
	defer r.operator.Close()
	d, err := r.operator.Show(t.Context(), "debian")
	if err != nil {
		t.Fatal(err)
	}
	r.manifest = d.Manifest
	if _, err := r.operator.NewGroup(t.Context(), fleet.GroupOrder{Name: "room", Notes: &zero}); err != nil {
		t.Fatal(err)
	}
	must(t, data, "deploy", "debian", "--all") // so that unknown machines boot the agent
	var list []*machine
	for i := range machines {
		m := &machine{t: t, mac: fmt.Sprintf("52:54:00:77:02:%02x", i)}
		m.bootAgent()
		m.hello()
		list = append(list, m)
	}
	all, err := r.operator.Deployments(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("%d deployments, %v", len(all), err)
	}
	if _, err := r.operator.CloseDeployment(t.Context(), all[0].ID); err != nil {
		t.Fatal(err)
	}
	for _, m := range list {
		r.orders[time.Duration(all[0].SeedFor)] = append(r.orders[time.Duration(all[0].SeedFor)], m.me.Machine)
	}
	r.kept[time.Duration(all[0].SeedFor)] = true

	var group sync.WaitGroup
	defer func() { r.over.Store(true); r.done.Store(true); group.Wait() }()
	for i, m := range list {
		group.Go(func() { r.work(m, mathrand.New(mathrand.NewPCG(uint64(i), 1))) })
	}
	for i := range 2 {
		group.Go(func() { r.operate(list, mathrand.New(mathrand.NewPCG(uint64(i), 2)), i) })
	}
	began := time.Now()
	for range kills {
		wanted := r.steps.Load() + 10
		until(t, 60*time.Second, "the room goes on", func() bool { return r.steps.Load() >= wanted })
		time.Sleep(time.Duration(mathrand.IntN(100)) * time.Millisecond) // at any moment
		p.kill()
		p = serve(t, data, boot, "--admit", "auto")
		r.check()
	}
	r.over.Store(true)
	until(t, 60*time.Second, "each job has ended", r.finished)
	r.done.Store(true)
	group.Wait()
	r.check()
	if r.steps.Load() < int64(kills*10) || len(r.ended) < machines || r.edits == 0 {
		t.Errorf("%d steps, %d ends, %d edits: the test tests nothing", r.steps.Load(), len(r.ended), r.edits)
	}
	t.Logf("%d kills in %.1f s: %d steps, %d orders, %d jobs told to have ended, %d edits", kills, time.Since(began).Seconds(), r.steps.Load(),
		len(r.orders), len(r.ended), r.edits)
}

var zero = "0"

// insist asks until the appliance answers, and returns what it was refused for.
func (r *room) insist(do func() error) error {
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := do()
		switch {
		case err == nil:
			r.steps.Add(1)
			return nil
		case refused(err):
			r.steps.Add(1)
			return err
		case time.Now().After(end) || r.t.Context().Err() != nil:
			r.t.Error(err)
			return err
		}
	}
}

// refused reports whether an appliance answered, and would answer the same again.
func refused(err error) bool {
	if r, ok := errors.AsType[*fleet.Refusal](err); ok {
		return r.Code != "internal"
	}
	for _, status := range []string{": 400 ", ": 403 ", ": 404 ", ": 409 ", ": 410 ", ": 412 ", ": 422 "} { // of machine.try
		if strings.Contains(err.Error(), status) {
			return true
		}
	}
	return false
}

// work does the machine's jobs until none is left.
func (r *room) work(m *machine, random *mathrand.Rand) {
	for !r.done.Load() {
		var j job.Job
		ended := r.endedNow()
		if r.insist(func() error {
			j = job.Job{}
			var raw []byte
			if _, err := m.try("POST", job.PathClaim, job.Claim{Machine: m.me.Machine}, &raw); err != nil {
				return err
			}
			if len(bytes.TrimSpace(raw)) == 0 {
				return nil
			}
			return json.Unmarshal(raw, &j)
		}) != nil || j.ID == "" || j.Waits != "" {
			continue
		}
		if state, over := ended[j.ID]; over {
			r.t.Errorf("%s was given job %s, which was %s already", m.mac, j.ID, state)
		}
		r.claimed(m, &j)
		r.do(m, &j, random)
	}
}

// do carries one job out, with a random end.
func (r *room) do(m *machine, j *job.Job, random *mathrand.Rand) {
	frame, err := cbor.Marshal(job.OldFrame{Job: j.ID, Disk: "vda", DiskLength: 1 << 30})
	if err != nil {
		r.t.Error(err)
	}
	if r.insist(func() error { _, err := m.try("POST", job.PathFrame, frame, nil); return err }) != nil {
		return
	}
	fails := random.IntN(6) == 0 && !r.over.Load()
	for _, phase := range []job.Phase{job.PhaseContent, job.PhaseContent, job.PhaseVerify, job.PhaseTable} {
		report := job.Report{Job: j.ID, Epoch: j.Epoch, Phase: phase, State: job.Running, Total: 1000, Held: 1000, Disk: "vda"}
		if fails && phase == job.PhaseVerify {
			report.State, report.Code, report.Reason = job.Failed, "write-error", "disk vda refused a write; replace it"
		}
		var d job.Directive
		if r.insist(func() error { _, err := m.try("POST", job.PathReport, report, &d); return err }) != nil {
			return
		}
		if report.State == job.Failed && d.State == job.Failed {
			r.end(j.ID, job.Failed)
		}
		if d.State != job.Running {
			return
		}
	}
	signed := m.sign(r.t, j, r.manifest)
	var c job.Countersigned
	if r.insist(func() error { _, err := m.try("POST", job.PathReceipt, signed, &c); return err }) != nil {
		return
	}
	if !site.VerifyReceipt(m.welcome.SiteKey, signed.Receipt, c.Signature) {
		r.t.Error("the countersignature is not the site's")
	}
	r.end(j.ID, job.Succeeded)
}

// sign makes the receipt of a job.
func (m *machine) sign(t *testing.T, j *job.Job, manifest *images.Manifest) job.SignedReceipt {
	receipt := job.Receipt{Job: j.ID, Machine: m.me.Machine, Image: j.Image, At: time.Now()}
	for i := range manifest.Partitions {
		receipt.Roots = append(receipt.Roots, job.PartitionRoot{Number: manifest.Partitions[i].Number, Root: manifest.Partitions[i].Root})
	}
	b, err := json.Marshal(receipt)
	if err != nil {
		t.Error(err)
	}
	sum := sha256.Sum256(b)
	signature, err := ecdsa.SignASN1(rand.Reader, m.key, sum[:])
	if err != nil {
		t.Error(err)
	}
	return job.SignedReceipt{Receipt: b, Signature: signature, Final: job.Report{Phase: job.PhaseTable, Total: 1000, Held: 1000, Verified: 1000}}
}

func (r *room) endedNow() map[string]job.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.ended)
}

func (r *room) end(id string, state job.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended[id] = state
}

func (r *room) claimed(m *machine, j *job.Job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.claims[j.ID] == nil {
		r.claims[j.ID] = map[int64]bool{}
	}
	r.claims[j.ID][j.Epoch] = true
	r.owner[j.ID] = m.me.Machine
}

// operate is a person, who looks before asking again.
func (r *room) operate(machines []*machine, random *mathrand.Rand, person int) {
	ctx := r.t.Context()
	for n := 0; !r.over.Load(); n++ {
		switch random.IntN(5) {
		case 0, 1:
			var chosen []string
			for _, m := range machines {
				if random.IntN(2) == 0 {
					chosen = append(chosen, m.me.Machine)
				}
			}
			if len(chosen) > 0 {
				r.order(ctx, time.Hour+time.Duration(2*n+person)*time.Second, chosen) // a mark that no other order has, however many there are
			}
		case 2:
			r.operateOne(ctx, random, "cancel", func(j api.Job) bool { return !j.State.Ended() })
		case 3:
			r.operateOne(ctx, random, "retry", func(j api.Job) bool { return j.State == job.Failed && j.RetriedBy == "" })
		default:
			r.edit(ctx)
		}
		time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
	}
}

func (r *room) order(ctx context.Context, mark time.Duration, machines []string) {
	r.mu.Lock()
	r.orders[mark] = machines
	r.mu.Unlock()
	if err := r.insist(func() error {
		list, err := r.operator.Deployments(ctx)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(list, func(d api.Deployment) bool { return time.Duration(d.SeedFor) == mark }) {
			return nil
		}
		_, err = r.operator.Deploy(ctx, api.Order{Order: fleet.Order{Image: "debian", Machines: machines}, SeedFor: api.Duration(mark)})
		return err
	}); err != nil {
		r.t.Errorf("an order was refused: %v", err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[mark] = true
}

func (r *room) operateOne(ctx context.Context, random *mathrand.Rand, verb string, fits func(api.Job) bool) {
	var list []api.Job
	if r.insist(func() (err error) { list, err = r.operator.Jobs(ctx, api.JobQuery{}); return err }) != nil {
		return
	}
	list = slices.DeleteFunc(list, func(j api.Job) bool { return !fits(j) })
	if len(list) == 0 {
		return
	}
	id := list[random.IntN(len(list))].ID
	if r.insist(func() error { _, err := r.operator.Operate(ctx, id, verb); return err }) == nil && verb == "cancel" {
		r.end(id, job.Cancelled)
	}
}

// edit counts in the notes of the group by the version that was read.
func (r *room) edit(ctx context.Context) {
	r.insist(func() error {
		g, err := r.operator.Group(ctx, "room")
		if err != nil {
			return err
		}
		n := 0
		if _, err := fmt.Sscan(g.Notes, &n); err != nil {
			return err
		}
		notes := fmt.Sprint(n + 1)
		r.mu.Lock()
		r.unsure++
		r.mu.Unlock()
		_, err = r.operator.EditGroup(ctx, "room", g.Version, fleet.GroupOrder{Notes: &notes})
		r.mu.Lock()
		defer r.mu.Unlock()
		if err == nil {
			r.edits++
		}
		if err == nil || refused(err) {
			r.unsure--
		}
		return err
	})
}

// finished reports whether no job is left.
func (r *room) finished() bool {
	list, err := r.operator.Jobs(r.t.Context(), api.JobQuery{})
	return err == nil && !slices.ContainsFunc(list, func(j api.Job) bool { return !j.State.Ended() })
}

// check compares what the appliance shows with what was told before it was asked.
func (r *room) check() {
	r.t.Helper()
	ctx := r.t.Context()
	r.mu.Lock()
	ended, kept, owner, edits := maps.Clone(r.ended), maps.Clone(r.kept), maps.Clone(r.owner), r.edits
	epochs := map[string]int64{}
	for id, given := range r.claims {
		for epoch := range given {
			epochs[id] = max(epochs[id], epoch)
		}
	}
	r.mu.Unlock()
	deployments, err := r.operator.Deployments(ctx) // before their jobs: the room goes on
	list, err2 := r.operator.Jobs(ctx, api.JobQuery{})
	group, err3 := r.operator.Group(ctx, "room")
	events, err4 := r.operator.Events(ctx, api.EventQuery{Kind: "job.", Limit: 10000})
	for _, err := range []error{err, err2, err3, err4} {
		if err != nil {
			r.t.Fatal(err)
		}
	}
	r.checkEvents(events)
	jobs, retries := map[string]api.Job{}, map[string]bool{}
	for _, j := range list {
		jobs[j.ID] = j
		retries[j.RetriedBy] = true
	}
	for id, state := range ended {
		if jobs[id].State != state {
			r.t.Errorf("job %s is %q, and was said to be %s", id, jobs[id].State, state)
		}
	}
	for id, epoch := range epochs {
		if jobs[id].Epoch < epoch {
			r.t.Errorf("job %s was claimed %d times, and knows of %d", id, epoch, jobs[id].Epoch)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := map[time.Duration]int{}
	for _, d := range deployments {
		seen[time.Duration(d.SeedFor)]++
		var of []string
		for _, j := range list {
			if j.Deployment == d.ID && !retries[j.ID] {
				of = append(of, j.Machine)
			}
		}
		want := slices.Sorted(slices.Values(r.orders[time.Duration(d.SeedFor)]))
		if slices.Sort(of); !slices.Equal(of, want) || seen[time.Duration(d.SeedFor)] > 1 {
			r.t.Errorf("deployment %s has jobs for %v, ordered was %v", d.ID, of, want)
		}
	}
	for mark := range kept {
		if seen[mark] != 1 {
			r.t.Errorf("an order that was acknowledged is there %d times", seen[mark])
		}
	}
	for id, machine := range owner {
		if j, there := jobs[id]; !there || j.Machine != machine {
			r.t.Errorf("job %s is lost, or another machine's", id)
		}
	}
	n := 0
	if _, err := fmt.Sscan(group.Notes, &n); err != nil || n < edits || n > r.edits+r.unsure {
		r.t.Errorf("%q edits are there, %d were acknowledged", group.Notes, edits)
	}
}

// checkEvents demands that each claim is recorded once, and nothing after the end of a job.
func (r *room) checkEvents(events []fleet.Event) {
	r.t.Helper()
	over := map[string]bool{}
	for _, e := range events {
		if over[e.Job] && e.Kind != "job.frame" {
			r.t.Errorf("after the end of job %s: %s", e.Job, e.Text)
		}
		over[e.Job] = over[e.Job] || job.State(strings.TrimPrefix(e.Kind, "job.")).Ended()
	}
}
