package storm

import (
	"os"
	"path/filepath"
	"testing"
)

// A small storm over a link that loses packets: every machine boots, from the program and from what people use today, so that the
// simulated machines are judged by both.
func TestMachinesBootOverALinkThatLosesPackets(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("only root can make network namespaces")
	}
	const program = "../../build/seedbed"
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v; run `make build`", err)
	}
	for name, server := range map[string]Server{"seedbed": Seedbed{Program: program}, "dnsmasq and nginx": Usual{}} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			files, err := MakeFiles(filepath.Join(folder, "boot"), 20)
			if err != nil {
				t.Fatal(err)
			}
			r, err := Run(t.Context(), Config{Clients: 20, Switches: 2, Loss: 0.01, Folder: folder}, files, server)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range r.Lost {
				t.Error(l)
			}
			t.Logf("%d booted, the last after %s, repeats %+v, TCP segments again %d", r.Booted, r.Last, r.Again, r.Segments)
		})
	}
}
