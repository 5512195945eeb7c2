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
