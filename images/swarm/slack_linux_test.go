package swarm

import (
	"os"
	"strings"
	"testing"
)

func TestThreadsMayWakeLate(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("only root may let its threads wake late: run this test as root")
	}
	slacken()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	late := 0
	for _, thread := range threads {
		b, err := os.ReadFile("/proc/" + thread.Name() + "/timerslack_ns")
		if err == nil && strings.TrimSpace(string(b)) == "1000000" {
			late++
		}
	}
	if late == 0 || late < len(threads)-1 { // one may have begun meanwhile
		t.Errorf("%d threads of %d may wake late", late, len(threads))
	}
}
