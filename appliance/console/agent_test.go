package console

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/monitor"
)

// agent is a boot of a machine.
type agent struct {
	caller fleet.Caller
	key    *ecdsa.PrivateKey
}

// claim has a machine begin its job.
func (w *world) claim(machine string) *job.Job {
	w.t.Helper()
	j, err := w.fleet.Claim(w.ctx, w.agents[machine].caller, job.Claim{Machine: machine})
	if err != nil || j == nil || j.Waits != "" {
		w.t.Fatalf("machine %s gets no job: %+v, %v", machine, j, err)
	}
	w.reports(machine, j, job.Report{Phase: job.PhaseContent, State: job.Running, Total: 40e9, Held: 10e9, Written: 10e9, Disk: "nvme0n1"})
	return j
}

func (w *world) reports(machine string, j *job.Job, r job.Report) {
	w.t.Helper()
	r.Job, r.Epoch = j.ID, j.Epoch
	if _, err := w.fleet.Report(w.ctx, w.agents[machine].caller, r); err != nil {
		w.t.Fatal(err)
	}
}

// finish sends the receipt of a machine that has the image on its disk.
func (w *world) finish(machine string, j *job.Job) {
	w.t.Helper()
	m, err := w.fleet.Machine(machine)
	if err != nil {
		w.t.Fatal(err)
	}
	image, err := w.shelf.Image(w.ctx, j.Image.String())
	if err != nil {
		w.t.Fatal(err)
	}
	disk := m.Inventory.Disks[0]
	r := job.Receipt{Job: j.ID, Machine: machine, Image: j.Image, DiskSerial: disk.Serial, DiskLength: disk.Length, At: time.Now().UTC()}
	for _, p := range image.Manifest.Partitions {
		r.Roots = append(r.Roots, job.PartitionRoot{Number: p.Number, Root: p.Root})
	}
	b, err := json.Marshal(r)
	if err != nil {
		w.t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	signature, err := ecdsa.SignASN1(rand.Reader, w.agents[machine].key, sum[:])
	if err != nil {
		w.t.Fatal(err)
	}
	final := job.Report{Phase: job.PhaseTable, Total: 40e9, Held: 40e9, Verified: 40e9, Disk: disk.Name, DiskSerial: disk.Serial}
	if _, err := w.fleet.Receipt(w.ctx, w.agents[machine].caller, job.SignedReceipt{Receipt: b, Signature: signature, Final: final}); err != nil {
		w.t.Fatal(err)
	}
}

// deployed is a deployment of debian:2 to machines that get on by these words, one after the other and then again from the first; the
// picture shows the same. It returns the ID.
func (w *world) deployed(ids []string, words ...monitor.Word) string {
	w.t.Helper()
	d, err := w.fleet.Deploy(fleet.As(w.ctx, fleet.Actor{Name: "otto", Role: fleet.RoleOperator}), fleet.Order{Image: "debian:2", Machines: ids, Priority: 5})
	if err != nil {
		w.t.Fatal(err)
	}
	course := &monitor.Course{ID: d.ID, Machines: len(ids), Words: map[monitor.Word]int{}, Rate: 2.31e9, FromAppliance: 0.2e9, FromPeers: 2e9, FromSeeds: 0.11e9,
		BytesFromAppliance: 41e9, BytesFromPeers: 312e9, BytesFromSeeds: 18e9, Written: 371e9, Median: 108e6, Efficiency: 0.91, LastAt: time.Now().Add(17 * time.Minute)}
	for i := range 180 {
		at, n := time.Now().Add(time.Duration(i-180)*5*time.Second), float64(min(i, 60))/60
		course.Series = append(course.Series, monitor.Sample{At: at, Rate: 2.3e9 * n, FromAppliance: 0.9e9 * n / (1 + float64(i)/20), FromPeers: 2e9 * n, FromSeeds: 0.1e9 * n, AtWork: len(ids)})
	}
	w.change(func(p *monitor.Picture) {
		p.Deployments[d.ID] = course
		for i, id := range ids {
			word := words[i%len(words)]
			course.Words[word]++
			at := progress(id, nameOf(w, id), word, int64(i+1)*16e8)
			at.Job, at.Deployment = w.drive(id, d.ID, word), d.ID
			p.Machines[id] = at
			if word == monitor.Slow {
				course.Last = id
			}
		}
	})
	return d.ID
}

// drive brings a machine's job of a deployment to where a word says, and returns its ID.
func (w *world) drive(machine, deployment string, word monitor.Word) string {
	w.t.Helper()
	id := jobOf(w, machine).ID
	switch word {
	case monitor.Normal, monitor.Slow, monitor.Silent:
		w.claim(machine)
	case monitor.Done:
		w.finish(machine, w.claim(machine))
	case monitor.Failed:
		w.reports(machine, w.claim(machine), job.Report{Phase: job.PhaseContent, State: job.Failed, Code: "write-error", Disk: "nvme0n1",
			Reason: fmt.Sprintf("disk nvme0n1 of %s took nothing more at byte 12400000000. Check its cable, or replace it", nameOf(w, machine))})
	case monitor.Paused:
		if err := w.fleet.Pause(w.ctx, id); err != nil {
			w.t.Fatal(err)
		}
	case monitor.Cancelled:
		if err := w.fleet.Cancel(w.ctx, id); err != nil {
			w.t.Fatal(err)
		}
	}
	return id
}
