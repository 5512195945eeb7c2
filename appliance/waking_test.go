//go:build linux

package main

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/wake"
)

// TestARoomIsWokenOneAfterTheOther has the appliance wake the machines of a room that may be at work one at a time.
func TestARoomIsWokenOneAfterTheOther(t *testing.T) {
	network(t)
	data := t.TempDir()
	serve(t, data, bootFiles(t), "--no-boot")
	ear, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 9, 1, 1), Port: wake.Port})
	if err != nil {
		t.Fatal(err)
	}
	defer ear.Close()
	next := func() string { // the address of the card that is woken next
		t.Helper()
		got := make([]byte, 200)
		ear.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, _, err := ear.ReadFrom(got)
		if err != nil {
			t.Fatal(err)
		}
		mac := net.HardwareAddr(got[6:12])
		if want, err := wake.Packet(mac); err != nil || !bytes.Equal(got[:n], want) {
			t.Fatalf("% x", got[:n])
		}
		return mac.String()
	}
	disk, _ := newDisk(t)
	must(t, data, "image", "add", disk, "--name", "debian")
	must(t, data, "group", "new", "lab", "--kind", "room", "--limit", "1", "--broadcast", "127.9.1.1")
	if out, code := say(t, machineTable, data, "machine", "import", "-"); code != 0 {
		t.Fatalf("import: %d %s", code, out)
	}
	d := decode[api.Deployment](t, data, "deploy", "debian", "--group", "lab", "--wake")
	if !d.Wake {
		t.Fatalf("%+v", d)
	}
	first := next()
	called := func(mac string) (id string) {
		t.Helper()
		for _, j := range decode[[]api.Job](t, data, "job", "ls", "--deployment", d.ID, "--state", "open") {
			switch {
			case j.MAC == mac && (j.Wait != "called" || j.Calls != 1 || time.Since(j.Called) > time.Minute || !strings.HasSuffix(j.Reason, "and has not answered yet")):
				t.Errorf("a machine that was called: %+v", j)
			case j.MAC == mac:
				id = j.ID
			case j.Wait != "group-limit" || j.Calls != 0:
				t.Errorf("a machine that waits for its turn: %+v", j)
			}
		}
		return id
	}
	id := called(first)
	if out := must(t, data, "job", "ls"); strings.Count(out, "debian:1  called ") != 1 || strings.Count(out, "was called at ") != 1 {
		t.Errorf("job ls: %s", out)
	}
	if out := must(t, data, "deployment", "show", d.ID); !strings.Contains(out, "woken over the network when it is their turn") {
		t.Errorf("deployment show: %s", out)
	}
	must(t, data, "job", "cancel", id) // and its place is the other's
	second := next()
	if second == first {
		t.Fatalf("%s is woken again", first)
	}
	called(second)
}
