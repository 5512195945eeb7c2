//go:build linux

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/fleet"
)

// Two appliances of a site, two seed nodes and six machines: all who hand out share the work, so that each machine gets most
// from the other machines and nothing is handed out by everyone again.
func TestAllWhoHandOutShareTheWork(t *testing.T) {
	network(t)
	const second = "10.77.0.2"
	tools(t, "", "ip", "addr", "replace", second+"/24", "dev", "lo")
	repository := filepath.Join(t.TempDir(), "repository")
	data := []string{t.TempDir(), t.TempDir()}
	disk := newReferenceDisk(t, 24<<20, 7)
	must(t, data[0], "--repository", repository, "image", "add", disk, "--name", "debian", "--compress", "none", "--piece", "256KiB")
	tools(t, "", "cp", "-r", filepath.Join(data[0], "site"), data[1])
	for i, a := range []string{applianceAddr, second} {
		serve(t, data[i], "", "--repository", repository, "--store", filepath.Join(data[0], "records.db"), "--no-boot", "--address", a,
			"--https", a+":443", "--swarm", a+":6881")
	}
	sites := []*testSite{{process: &process{t: t}, data: data[0]}, {process: &process{t: t}, data: data[1]}}
	if a, b := must(t, data[0], "image", "ls"), must(t, data[1], "image", "ls"); a != b {
		t.Fatalf("the appliances have different images:\n%s\n%s", a, b)
	}
	whole, warm := map[string]bool{}, int64(0)
	for i, s := range sites { // each has a seed node
		newHost(t, 1).start(t.TempDir(), "seed", "debian", "--token-file", s.token("--for", "seed"))
		nodes(t, data[i], "all of the image", hold(1, 1))
	}
	for i := range sites { // what one gave the other
		warm += decode[[]fleet.NodeView](t, data[i], "seed", "ls")[0].Images[0].Sent
	}
	type got struct {
		p   *process
		out string
	}
	var list []got
	for i := range 6 {
		s, out := sites[i%2], filepath.Join(t.TempDir(), "disk.img")
		p := newHost(t, 1).start(t.TempDir(), "get", "debian", out, "--token-file", s.token("--for", "get"), "--json", "--limit", "6M", "--seed-for", "10s", "--log-level", "error")
		list = append(list, got{p, out})
	}
	before := time.Now()
	for len(whole) < len(list) {
		for _, g := range list {
			if _, err := os.Stat(g.out); err == nil {
				whole[g.out] = true
			}
		}
		if time.Since(before) > 60*time.Second {
			t.Fatalf("%d of %d machines have the image", len(whole), len(list))
		}
		time.Sleep(20 * time.Millisecond) // the files are all there is to wait for
	}
	var fromNodes, total int64
	for i := range sites {
		v := decode[[]fleet.NodeView](t, data[i], "seed", "ls")
		fromNodes, total = fromNodes+v[0].Images[0].Sent, v[0].Images[0].Total
		if v[0].Images[0].Sent == 0 {
			t.Errorf("the seed node of %d sent nothing", i)
		}
	}
	var fromAppliances int64
	for _, g := range list {
		text := g.p.finish()
		var r GetReport
		if err := json.Unmarshal([]byte(text[strings.Index(text, "{"):]), &r); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		fromAppliances += r.FromAppliance
		if sumOf(t, g.out) != sumOf(t, list[0].out) {
			t.Errorf("%s is not %s", g.out, list[0].out)
		}
	}
	fromNodes -= warm
	copies := float64(fromAppliances+fromNodes) / float64(total)
	t.Logf("the appliances sent %.2f images, the seed nodes %.2f", float64(fromAppliances)/float64(total), float64(fromNodes)/float64(total))
	if copies > 3 || fromAppliances == 0 {
		t.Errorf("for %d machines %.2f images were handed out", len(list), copies)
	}
}
