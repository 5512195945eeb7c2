//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/images"
)

// Guests are held to the policy as machines are: the second group has everything from the first, what is pinned from its
// parent alone, and a forbidden edge carries nothing.
func TestGuestsKeepToThePolicy(t *testing.T) {
	network(t)
	first, second, pinned := newHost(t, 1), newHost(t, 1), newHost(t, 1)
	policy := filepath.Join(t.TempDir(), "topology.yaml")
	writeTopology(t, policy, fmt.Sprintf(`groups:
  - {name: first, members: [%s]}
  - {name: second, members: [%s, %s]}
edges:
  - forbid: [second, appliance]
pins:
  - {child: %[3]s, parent: %[2]s}
`, first.addrs[0], second.addrs[0], pinned.addrs[0]))
	s := newTestSite(t, 24<<20, "--no-dhcp", "--topology", policy)
	fetch := func(h *host) *process {
		return h.start(t.TempDir(), "get", "debian", filepath.Join(t.TempDir(), "disk.img"), "--token-file", s.token("--for", "get"), "--json",
			"--seed-for", "12s", "--log-level", "error")
	}
	hosts := []*host{first, second, pinned}
	var running []*process
	for i := range hosts { // those who wait for others come first
		running = append(running, fetch(hosts[len(hosts)-1-i]))
	}
	for i, p := range running {
		h, text := hosts[len(hosts)-1-i], p.finish()
		var r GetReport
		if err := json.Unmarshal([]byte(text[strings.Index(text, "{"):]), &r); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		same(t, r.Path, s.exported)
		switch fromAppliance := r.FromAppliance > images.TileLength; { // the description of the image is asked for over HTTPS
		case h == first && (!fromAppliance || r.FromPeers > r.DataLength/10):
			t.Errorf("the first group: %+v", r)
		case h != first && (fromAppliance || r.FromPeers < 20<<20):
			t.Errorf("%s, which may not fetch from the appliance: %+v", h.addrs[0], r)
		}
	}
	for _, c := range []struct {
		what   string
		h      *host
		images float64
	}{{"the first machine", first, 1}, {"the parent", second, 1}, {"the pinned machine", pinned, 0}} {
		if sent := float64(c.h.sent("nic0")) / (24 << 20); sent < c.images*0.9 || sent > c.images*1.2+0.2 {
			t.Errorf("%s sent %.2f images, want %.0f", c.what, sent, c.images)
		}
	}
}
