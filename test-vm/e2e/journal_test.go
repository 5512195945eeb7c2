package e2e

import (
	"encoding/csv"
	"math"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/test-vm/lab"
)

// counting has what machines had received when they took their jobs: what came before that is their boot.
type counting struct {
	t     *testing.T
	all   sync.WaitGroup
	mu    sync.Mutex // guards began
	began map[string]lab.Traffic
}

// countFromJob begins to watch machines that are about to boot.
func countFromJob(t *testing.T, a *lab.Appliance, machines []*lab.Machine) *counting {
	c := &counting{t: t, began: map[string]lab.Traffic{}}
	for _, m := range machines {
		c.all.Go(func() {
			ctx, before := within(t, 6*time.Minute), lab.Traffic{}
			_, err := a.WaitJob(ctx, m, func(j *api.Job) bool {
				if !j.Claimed.IsZero() {
					return true
				}
				now, err := m.Traffic(ctx)
				if err != nil {
					t.Error(err)
				}
				before = now
				return false
			})
			if err != nil {
				t.Error(err)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			c.began[m.Config.Name] = before
		})
	}
	return c
}

// received returns what a machine received of connections since it took its job.
func (c *counting) received(m *lab.Machine) int64 {
	c.t.Helper()
	c.all.Wait()
	now, err := m.Traffic(c.t.Context())
	must(c.t, err)
	return now.Content(c.began[m.Config.Name])
}

// journalAddsUp holds the journal of the only deployment against what the machines received, and against the image's manifest.
func journalAddsUp(t *testing.T, a *lab.Appliance, detail *api.ImageDetail, received map[string]int64) {
	t.Helper()
	jobs, err := a.Jobs(t.Context())
	must(t, err)
	out, err := a.Command(t.Context(), "deployment", "journal", jobs[0].Deployment)
	must(t, err)
	all, err := csv.NewReader(strings.NewReader(string(out))).ReadAll()
	must(t, err)
	column := map[string]int{}
	for i, name := range all[0] {
		column[name] = i
	}
	roots := map[string]string{}
	for _, p := range detail.Manifest.Partitions {
		roots[strconv.Itoa(p.Number)] = p.Root.String()
	}
	names, partitions := map[string]string{}, 0 // of machines, by ID
	for _, j := range jobs {
		names[j.Machine] = j.MAC
	}
	for _, row := range all[1:] {
		cell := func(name string) string { return row[column[name]] }
		if p := cell("partition"); p != "" {
			partitions++
			if cell("hash") != roots[p] || cell("verified") != "yes" {
				t.Errorf("partition %s of %s: %s, verified %s; the manifest has %s", p, cell("name"), cell("hash"), cell("verified"), roots[p])
			}
			continue
		}
		said, counted := int64(0), received[names[cell("machine")]]
		for _, name := range []string{"from_appliance", "from_peers", "from_seeds"} {
			n, err := strconv.ParseInt(cell(name), 10, 64)
			must(t, err)
			said += n
		}
		off := float64(counted-said) / float64(counted)
		t.Logf("%s: %d bytes by the journal, %d by its cable, %.2f %% apart", cell("name"), said, counted, 100*off)
		if math.Abs(off) > 0.02 {
			t.Errorf("%s received %d bytes by the journal and %d by its cable", cell("name"), said, counted)
		}
	}
	if want := len(received) * len(roots); partitions != want {
		t.Errorf("%d partitions in the journal, want %d", partitions, want)
	}
}
