//go:build linux

package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/job"
	"seedbed/initramfs/agent"
	"seedbed/initramfs/disk"
)

// desktop is a machine with the real agent, whose board and disk stay what they are when it gets another network card.
type desktop struct{ reference }

func (d *desktop) Inventory() job.Inventory {
	disks, _ := d.Disks()
	return job.Inventory{UUID: "3b1f0a52-8d64-4b53-9d0e-7a1c5e0f9d21", Manufacturer: "Maker", Product: "Desk", Serial: "SN-4711", Firmware: "uefi",
		NICs: []job.NIC{{MAC: d.boot.MAC}}, Disks: []job.Disk{disks[0].Disk}}
}

func (d *desktop) Disks() ([]disk.Disk, error) {
	list, err := d.reference.Disks()
	for i := range list {
		list[i].Serial = "DISK-4711"
	}
	return list, err
}

func (d *desktop) Open(name string) (*disk.Device, error) { return disk.Open(d.disk, name) }

// run boots the machine from the network card with this MAC, as far as its agent.
func (d *desktop) run(ctx context.Context, mac string) <-chan ended {
	d.t.Helper()
	d.mac = mac
	d.bootAgent()
	screen := agent.NewScreen(&d.console)
	a, err := agent.New(agent.Config{Boot: d.boot, Machine: d, Screen: screen, Version: "test", ListenAddr: machineAddr + ":0"})
	if err != nil {
		d.t.Fatal(err)
	}
	out := make(chan ended, 1)
	go func() {
		after, err := a.Run(ctx)
		screen.Close(time.Second)
		out <- ended{after, err}
	}()
	return out
}

// TestAMachineWithAnotherNetworkCardIsAConflictUntilAPersonSaysWhichItIs: board and disk are known, and the card is new. Somebody may
// have put the disk and the words of another machine before us: nothing is guessed, and the job waits.
func TestAMachineWithAnotherNetworkCardIsAConflictUntilAPersonSaysWhichItIs(t *testing.T) {
	network(t)
	data := t.TempDir()
	file, _ := newDisk(t)
	serve(t, data, bootFiles(t), "--admit", "ask")
	must(t, data, "image", "add", file, "--name", "debian")
	d := &desktop{reference{machine: machine{t: t}, disk: filepath.Join(t.TempDir(), "disk.img")}}
	if err := os.WriteFile(d.disk, make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	machines := func() []api.Machine { return decode[[]api.Machine](t, data, "machine", "ls") }
	one := func(which string, is func(api.Machine) bool) (found api.Machine) {
		t.Helper()
		until(t, 20*time.Second, which, func() bool {
			list := machines()
			i := slices.IndexFunc(list, is)
			if i >= 0 {
				found = list[i]
			}
			return i >= 0
		})
		return found
	}

	out := d.run(t.Context(), "52:54:00:77:00:21")
	fresh := one("a machine shows its code", func(m api.Machine) bool { return m.Code != "" && m.Inventory != nil })
	must(t, data, "machine", "admit", fresh.Code)
	must(t, data, "machine", "edit", fresh.ID, "--name", "desk-1")
	must(t, data, "deploy", "debian", "--machine", "desk-1")
	d.finish(out)

	must(t, data, "deploy", "debian", "--machine", "desk-1")
	out = d.run(t.Context(), "52:54:00:77:00:22")
	other := one("a conflict", func(m api.Machine) bool { return m.Conflict != "" })
	if other.ID == fresh.ID || other.Admitted || other.Code == "" || !strings.Contains(other.Conflict, "desk-1") || !strings.Contains(other.Conflict, "seedbed machine merge "+other.ID+" "+fresh.ID) {
		t.Fatalf("the machine with another card is %+v", other)
	}
	waiting := jobs(t, data)
	if j := waiting[len(waiting)-1]; len(waiting) != 2 || j.State != job.Waiting || j.Machine != fresh.ID || j.Epoch != 0 {
		t.Fatalf("jobs before a person has said who it is: %+v", waiting)
	}
	must(t, data, "machine", "merge", other.ID, "desk-1")
	merged := time.Now()
	d.finish(out)
	if took := time.Since(merged); took > 15*time.Second { // a question for a job is held for 20 s
		t.Errorf("the job was done %v after the merge: the machine did not learn of it at once", took)
	}
	list := machines()
	if len(list) != 1 || list[0].ID != fresh.ID || list[0].MAC != "52:54:00:77:00:22" || list[0].Conflict != "" || !list[0].Admitted || list[0].Deployed == nil {
		t.Errorf("after the merge there are %+v", list)
	}
	if all := jobs(t, data); len(all) != 2 || all[1].State != job.Succeeded || all[1].Epoch != 1 {
		t.Errorf("jobs %+v", all)
	}
	if n := countEvents(t, data, "machine.conflict"); n != 1 {
		t.Errorf("%d conflicts were told", n)
	}
	if script := d.firmware(); strings.Contains(script, "/boot/token") {
		t.Errorf("the machine has no job, and boots the agent:\n%s", script)
	}
}
