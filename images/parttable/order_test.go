package parttable

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestLogicalPartitionsInAnyOrderAreNumberedAsLinuxNumbersThem(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 6 {
		starts := []int64{43008, 67584, 100000, 130048, 170000, 199680}
		r.Shuffle(len(starts), func(i, j int) { starts[i], starts[j] = starts[j], starts[i] })
		var script strings.Builder
		fmt.Fprintf(&script, "label: dos\nlabel-id: 0xdeadbeef\nstart=40960, size=200000, type=%s\nstart=2048, size=20480, type=83\n", []string{"5", "f", "85"}[round%3])
		for i, start := range starts {
			fmt.Fprintf(&script, "start=%d, size=%d, type=%s\n", start, 4096+512*i, []string{"83", "7", "c"}[i%3])
		}
		path := newDisk(t, 256<<20)
		run(t, "fdisk", script.String(), "sfdisk", path)
		table := read(t, path, 512)
		if len(table.Partitions) != 1+len(starts) || len(table.Warnings) > 0 {
			t.Fatalf("%d partitions, warnings %q", len(table.Partitions), table.Warnings)
		}
		same(t, table, path)
		moved := move(t, table, 1<<30)
		same(t, read(t, moved, 512), moved)
		if got, want := dump(t, moved), dump(t, path); got != want {
			t.Errorf("sfdisk says\n%s\nof the source it said\n%s", got, want)
		}
	}
}
