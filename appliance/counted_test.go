//go:build linux

package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/job"
	"seedbed/initramfs/agent"
	"seedbed/initramfs/disk"
)

// booted is a machine whose disk is a file, as a process of its own boots it: its agent has the network of that process for itself.
type booted struct {
	Boot job.Boot `json:"boot"`
	File string   `json:"file"`
}

func (b *booted) SetClock(time.Time) error { return nil }

func (b *booted) Inventory() job.Inventory {
	disks, _ := b.Disks()
	return job.Inventory{Firmware: "uefi", Serial: "SN" + b.Boot.MAC, NICs: []job.NIC{{MAC: b.Boot.MAC}}, Disks: []job.Disk{disks[0].Disk}}
}

func (b *booted) Disks() ([]disk.Disk, error) {
	info, err := os.Stat(b.File)
	if err != nil {
		return nil, err
	}
	return []disk.Disk{{Disk: job.Disk{Name: "vda", Serial: "D" + b.Boot.MAC, Bus: "virtio", Length: info.Size(), SectorLength: 512}}}, nil
}

func (b *booted) Open(name string) (*disk.Device, error)       { return disk.Open(b.File, name) }
func (b *booted) OpenSource(name string) (*disk.Source, error) { return disk.OpenSource(b.File, name) }

// runMachine runs the agent of a machine until it is done, and returns the exit code of the process.
func runMachine(text string) int {
	b := new(booted)
	if err := json.Unmarshal([]byte(text), b); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	screen := agent.NewScreen(os.Stdout)
	a, err := agent.New(agent.Config{Boot: b.Boot, Machine: b, Screen: screen, Version: "test"})
	if err == nil {
		var after string
		if after, err = a.Run(context.Background()); err == nil && after != agent.Reboot {
			err = fmt.Errorf("the machine is to %q", after)
		}
		screen.Close(time.Second)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// frameHeaders are the bytes of each packet that are no content of a connection: Ethernet 14 (IEEE 802.3), IPv4 20 (RFC 791), TCP 20 (RFC
// 9293) with 12 of time stamps (RFC 7323). A network card that leaves the cutting to another counts what it cut once, as one packet.
const frameHeaders = 14 + 20 + 32

// carried returns how many bytes of connections came in by an interface.
func (h *host) carried(nic string) int64 {
	h.t.Helper()
	out := tools(h.t, "", "ip", "-n", h.space, "-s", "-j", "link", "show", "dev", nic)
	var links []struct {
		Stats struct {
			RX struct{ Bytes, Packets int64 }
		} `json:"stats64"`
	}
	if err := json.Unmarshal([]byte(out), &links); err != nil || len(links) != 1 {
		h.t.Fatalf("counters of %s: %v: %s", nic, err, out)
	}
	return links[0].Stats.RX.Bytes - frameHeaders*links[0].Stats.RX.Packets
}

// journalOf returns the rows of a deployment's journal by the names of their columns.
func journalOf(t *testing.T, data, deployment string) (list []map[string]string) {
	t.Helper()
	all, err := csv.NewReader(strings.NewReader(must(t, data, "deployment", "journal", deployment))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, cells := range all[1:] {
		row := map[string]string{}
		for i, name := range all[0] {
			row[name] = cells[i]
		}
		list = append(list, row)
	}
	return list
}

// received adds up what a row says came from others, and adds it to sums by column.
func received(t *testing.T, row map[string]string, sums map[string]int64) (n int64) {
	t.Helper()
	for _, column := range []string{"from_appliance", "from_peers", "from_seeds"} {
		bytes, err := strconv.ParseInt(row[column], 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", column, err)
		}
		n += bytes
		sums[column] += bytes
	}
	return n
}

// TestTheJournalAddsUp deploys to machines with real agents, each alone in a network of its own, beside a seed node. What the journal says that each
// received is what its network card counted, less the headers of frames, to 2 %; each hash is that of the image's manifest.
func TestTheJournalAddsUp(t *testing.T) {
	s := newTestSite(t, 32<<20, "--admit", "auto")
	data := s.data
	newHost(t, 1).start(t.TempDir(), "seed", "debian", "--preload", "20%", "--token-file", s.token("--for", "seed"))
	nodes(t, data, "a fifth of the image", hold(1, 0.18))
	d := decode[api.Deployment](t, data, "deploy", "debian", "--all")
	var hosts []*host
	var machines []*process
	names := map[string]int{} // of machines: which host
	for i := range 3 {
		m := &machine{t: t, mac: fmt.Sprintf("52:54:00:77:01:%02x", i)}
		m.bootAgent()
		file := filepath.Join(t.TempDir(), "disk.img")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, 128<<20); err != nil {
			t.Fatal(err)
		}
		config, err := json.Marshal(booted{Boot: m.boot, File: file})
		if err != nil {
			t.Fatal(err)
		}
		h := newHost(t, 1)
		hosts = append(hosts, h)
		cmd := exec.Command("ip", "netns", "exec", h.space, os.Args[0])
		cmd.Env = append(os.Environ(), envMachine+"="+string(config))
		machines = append(machines, startWith(t, cmd))
		names["D"+m.mac] = i
	}
	for _, p := range machines {
		select {
		case <-p.ended:
		case <-time.After(90 * time.Second):
			t.Fatal("an agent did not end")
		}
		p.finish()
	}
	disks := map[string]int{} // of jobs: which host
	for _, j := range jobs(t, data) {
		disks[j.ID] = names[j.DiskSerial]
	}
	want, rows, sums := roots(t, data, "debian"), journalOf(t, data, d.ID), map[string]int64{}
	if len(rows) != len(hosts)*(1+len(want)) {
		t.Fatalf("%d rows for %d machines with %d partitions: %v", len(rows), len(hosts), len(want), rows)
	}
	var hashes []string
	for _, row := range rows {
		if row["verified"] != "yes" || row["state"] != "succeeded" || row["error_class"] != "" {
			t.Errorf("row %v", row)
		}
		if row["partition"] != "" {
			hashes = append(hashes, row["hash"])
			continue
		}
		said, counted := received(t, row, sums), hosts[disks[row["job"]]].carried("nic0")
		off := float64(counted-said) / float64(counted)
		t.Logf("%s: %d bytes by the journal, %d by its network card, %.2f %% apart", row["name"], said, counted, 100*off)
		if math.Abs(off) > 0.02 {
			t.Errorf("%s received %d bytes by the journal and %d by its network card", row["name"], said, counted)
		}
	}
	if want = slices.Concat(want, want, want); !slices.Equal(hashes, want) {
		t.Errorf("hashes %v, the manifest has %v", hashes, want)
	}
	t.Log(sums)
	for column, n := range sums {
		if n < 3<<20 { // a column that is left out would be seen
			t.Errorf("%s has %d bytes together: the check says nothing of it", column, n)
		}
	}
}
