//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/test-vm/mailserver"
)

// course is by what numbers a link is slowed and cut.
type course struct {
	settings             []string
	content              int64  // of the image, bytes
	normal, slow         string // rates of links, as tc has them
	steady               time.Duration
	slowWithin, cutAfter time.Duration // the bounds of the requirement, with these settings
}

// The thresholds of the defaults with SEEDBED_FULL=1, else shorter ones.
func courseOf() course {
	if os.Getenv("SEEDBED_FULL") != "" {
		return course{nil, 1300 << 20, "130mbit", "16mbit", 35 * time.Second, 35 * time.Second, 125 * time.Second}
	}
	return course{[]string{"--slow-rate", "1M", "--slow-for", "5s", "--silence", "10s"}, 90 << 20, "20mbit", "2mbit", 8 * time.Second, 10 * time.Second, 15 * time.Second}
}

// shape bounds what the appliance and others send to a host.
func (h *host) shape(cable, rate string) {
	h.t.Helper()
	tools(h.t, "", "tc", "qdisc", "replace", "dev", cable, "root", "tbf", "rate", rate, "burst", "64kb", "latency", "50ms")
}

// onHost runs the agent of a machine on a host, with an empty disk of this length.
func onHost(t *testing.T, m *machine, h *host, length int64) *process {
	t.Helper()
	m.bootAgent()
	file := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, length); err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(booted{Boot: m.boot, File: file})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", h.space, os.Args[0])
	cmd.Env = append(os.Environ(), envMachine+"="+string(config))
	return startWith(t, cmd)
}

// TestAMachineThatIsSlowAndThenSilentIsToldOf: real agents behind links of their own, one of which is slowed and then cut. Alerts come in
// time, and at a real mail server arrives one mail for each breach of it and one for the end.
func TestAMachineThatIsSlowAndThenSilentIsToldOf(t *testing.T) {
	network(t)
	c := courseOf()
	server := mailserver.New(t)
	server.Start()
	data := filepath.Join(t.TempDir(), "data")
	serve(t, data, bootFiles(t), "--admit", "auto", "--mail-password-file", writeSecret(t, mailserver.Password+"\n"), "--alert-ca", server.CA)
	must(t, data, toldTo(server, server.Plain, "starttls")...)
	must(t, data, append([]string{"settings", "set", "--free-bytes", "0", "--free-share", "0"}, c.settings...)...)
	disk := newReferenceDisk(t, c.content, 9)
	info, err := os.Stat(disk)
	if err != nil {
		t.Fatal(err)
	}
	must(t, data, "image", "add", disk, "--name", "debian", "--compress", "none")
	must(t, data, "deploy", "debian", "--all")
	var agents []*process
	var cables []string
	for i := range 2 {
		h := newHost(t, 1)
		cable := fmt.Sprintf("cable%d", cableCount.Load())
		h.shape(cable, c.normal)
		m := &machine{t: t, mac: fmt.Sprintf("52:54:00:77:02:%02x", i)}
		agents, cables = append(agents, onHost(t, m, h, info.Size())), append(cables, cable)
	}
	phase := func(p job.Phase) bool {
		list := jobs(t, data)
		return len(list) == 2 && !slices.ContainsFunc(list, func(j api.Job) bool { return j.Phase != p })
	}
	until(t, 90*time.Second, "both machines fetch", func() bool { return phase(job.PhaseContent) })
	time.Sleep(c.steady) // they have been normal for as long as it takes to be slow
	if list := decode[[]fleet.Alert](t, data, "alert", "ls"); len(list) > 0 {
		t.Fatalf("alerts before anything was done: %+v", list)
	}
	const name = "pc-770200" // the one behind cables[0]
	slow := func(rule fleet.AlertRule) *fleet.Alert { return alertOf(t, data, name, rule) }
	told := func() (parts []string) { // what the mails say of it; of the other one, which may wait for it, they are in the log
		for _, m := range server.Mails() {
			for part := range strings.SplitSeq(strings.TrimPrefix(m.Subject(), "Seedbed: "), "; ") {
				if strings.Contains(part, name) {
					parts = append(parts, part)
				}
			}
		}
		return parts
	}

	began := time.Now()
	tools(t, "", "tc", "qdisc", "change", "dev", cables[0], "root", "tbf", "rate", c.slow, "burst", "64kb", "latency", "50ms")
	took := until(t, c.slowWithin, "the machine is slow", func() bool { return slow(fleet.RuleSlow) != nil })
	mailed := until(t, 30*time.Second, "the mail is there", func() bool { return len(told()) > 0 }) + took
	t.Logf("link of %s slowed to %s: slow after %.1f s, mail after %.1f s", c.normal, c.slow, took.Seconds(), mailed.Seconds())

	began = time.Now()
	tools(t, "", "ip", "link", "set", cables[0], "down")
	took = until(t, c.cutAfter, "the machine is silent", func() bool { return slow(fleet.RuleSilent) != nil })
	until(t, 30*time.Second, "the mail is there", func() bool { return len(told()) > 1 })
	t.Logf("link cut: silent after %.1f s, mail after %.1f s", took.Seconds(), time.Since(began).Seconds())

	// Once its link is back, what the other one still lacks would come through it, and both would be slow together.
	until(t, 2*time.Minute, "the other machine is done", func() bool {
		return slices.ContainsFunc(jobs(t, data), func(j api.Job) bool { return j.MachineName != name && j.State == job.Succeeded })
	})
	began = time.Now()
	tools(t, "", "ip", "link", "set", cables[0], "up")
	tools(t, "", "tc", "qdisc", "change", "dev", cables[0], "root", "tbf", "rate", c.normal, "burst", "64kb", "latency", "50ms")
	until(t, 120*time.Second, "the mail of its end is there", func() bool { return len(told()) > 2 })
	t.Logf("link restored: mail after %.1f s", time.Since(began).Seconds())
	for _, p := range agents {
		select {
		case <-p.ended:
		case <-time.After(4 * time.Minute):
			t.Fatalf("an agent did not end: %s", p.log)
		}
	}
	until(t, 60*time.Second, "no alert is open", func() bool {
		return !slices.ContainsFunc(decode[[]fleet.Alert](t, data, "alert", "ls"), func(a fleet.Alert) bool { return a.Open() })
	})
	if want := []string{name + " is slow", name + " is silent", "over: " + name + " is silent"}; !slices.Equal(told(), want) {
		t.Errorf("mails %q, want %q", told(), want)
	}
	for _, m := range server.Mails() {
		t.Logf("%s\n%s", m.Subject(), m.Text)
	}
}

// alertOf is the open alert of a rule about a machine, or nil.
func alertOf(t *testing.T, data, name string, rule fleet.AlertRule) *fleet.Alert {
	t.Helper()
	for _, a := range decode[[]fleet.Alert](t, data, "alert", "ls", "--open") {
		if a.Name == name && a.Rule == rule {
			return &a
		}
	}
	return nil
}
