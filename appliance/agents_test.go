//go:build linux

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/test-vm/agents"
)

// TestNoTransitionOfARoomIsLost is the small version of `make bench-fleet`: what its agents did is what the API tells.
func TestNoTransitionOfARoomIsLost(t *testing.T) {
	network(t)
	const first = "10.77.0.100" // of 10.77.0.0/24, which is the host's
	data, count := t.TempDir(), 50
	if out, err := exec.Command("ip", "addr", "replace", first+"/24", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	serve(t, data, bootFiles(t), "--admit", "ask")
	disk, _ := newDisk(t)
	must(t, data, "image", "add", disk, "--name", "debian")
	operator := client.Local(filepath.Join(data, "seedbed.sock"))
	defer operator.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	if _, err := operator.ImportMachines(ctx, strings.NewReader(agents.Table(count)), false); err != nil {
		t.Fatal(err)
	}
	deployment, err := operator.Deploy(ctx, api.Order{All: true, Order: fleet.Order{Image: "debian"}})
	if err != nil {
		t.Fatal(err)
	}
	result, err := agents.Run(ctx, agents.Config{
		Appliance: netip.MustParseAddr(applianceAddr), First: netip.MustParseAddr(first), Count: count,
		Ramp: time.Second, Content: time.Second, Verify: 200 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := agents.Compare(t.Context(), operator, deployment.ID, result)
	if err != nil {
		t.Fatal(err)
	}
	for i, sentence := range c.Wrong {
		if i == 10 {
			t.Errorf("and %d more", len(c.Wrong)-i)
			break
		}
		t.Error(sentence)
	}
	if want := 14 * count; c.Done != want || c.Recorded != want {
		t.Errorf("%d transitions, %d of them recorded, want %d", c.Done, c.Recorded, want)
	}
	if reports := len(result.Took["report"]); reports < 8*count {
		t.Error(fmt.Sprint(reports, " reports"))
	}
	forgotten := *result
	forgotten.Stories[7].Steps = append(forgotten.Stories[7].Steps, agents.Step{What: "job.phase wipe"})
	if c, err := agents.Compare(t.Context(), operator, deployment.ID, &forgotten); err != nil || len(c.Wrong) != 1 || c.Recorded != c.Done-1 {
		t.Errorf("a transition that was lost: %+v, %v", c, err)
	}
}

// TestMachinesThatGetOnBadly has simulated machines be slow, fall silent, fail and receive wrong tiles, as the records then tell.
func TestMachinesThatGetOnBadly(t *testing.T) {
	network(t)
	const first = "10.77.0.100"
	if out, err := exec.Command("ip", "addr", "replace", first+"/24", "dev", "lo").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	data := t.TempDir()
	serve(t, data, bootFiles(t), "--admit", "ask")
	disk, _ := newDisk(t)
	must(t, data, "image", "add", disk, "--name", "debian")
	operator := client.Local(filepath.Join(data, "seedbed.sock"))
	defer operator.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	table, rooms := agents.RoomTable(5, 5, 4)
	if _, err := operator.NewGroup(ctx, fleet.GroupOrder{Name: rooms[0], Kind: new(fleet.Room), Rows: new(5), Columns: new(4)}); err != nil {
		t.Fatal(err)
	}
	if _, err := operator.ImportMachines(ctx, strings.NewReader(table), false); err != nil {
		t.Fatal(err)
	}
	if _, err := operator.Deploy(ctx, api.Order{All: true, Order: fleet.Order{Image: "debian", Retries: new(0)}}); err != nil {
		t.Fatal(err)
	}
	_, err := agents.Run(ctx, agents.Config{
		Appliance: netip.MustParseAddr(applianceAddr), First: netip.MustParseAddr(first), Count: 5, Content: 3 * time.Second, Verify: 200 * time.Millisecond,
		Behave: map[int]agents.Behaviour{
			1: {FailAfter: time.Second, Code: "write-error", Sentence: "disk nvme0n1 took no more writes. Replace it and deploy again"},
			2: {SilentAfter: 1500 * time.Millisecond},
			3: {Wrong: 0.25, Seeds: 0.5, Mbit: 100, CPU: 0.8, Peers: -1},
			4: {Rate: 5e9, SlowAfter: 2 * time.Second, SlowRate: 1e9},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := operator.Jobs(ctx, api.JobQuery{})
	if err != nil {
		t.Fatal(err)
	}
	of := map[string]api.Job{}
	for _, j := range jobs {
		of[j.MachineName] = j
	}
	if j := of["seat-0001"]; j.State != job.Succeeded || j.WrongTiles != 0 || j.Tiles == 0 {
		t.Errorf("an ordinary machine: %+v", j)
	}
	if j := of["seat-0002"]; j.State != job.Failed || j.Code != "write-error" || !strings.Contains(j.Reason, "Replace it") || j.Log == "" {
		t.Errorf("one that fails: %+v", j)
	}
	if j := of["seat-0003"]; j.State != job.Running || j.Phase != job.PhaseContent || j.Held == 0 || j.Held == j.Total {
		t.Errorf("one that is switched off: %+v", j)
	}
	if j := of["seat-0004"]; j.WrongTiles < j.Tiles/5 || j.FromSeeds != j.FromPeers || j.CPU != 0.8 {
		t.Errorf("one that receives wrong tiles: %+v", j)
	}
	slow, usual := of["seat-0005"], of["seat-0001"]
	if took := slow.Ended.Sub(slow.Started); slow.State != job.Succeeded || took < usual.Ended.Sub(usual.Started)+5*time.Second {
		t.Errorf("one that becomes slow was done in %s: %+v", took, slow)
	}
}
