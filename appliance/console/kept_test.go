package console

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"seedbed/appliance/fleet"
)

// countedRecords counts the questions to records.
type countedRecords struct {
	fleet.Records
	queries *atomic.Int64
}

func (r countedRecords) Events(ctx context.Context, q fleet.EventQuery) ([]fleet.Event, error) {
	r.queries.Add(1)
	return r.Records.Events(ctx, q)
}

func (r countedRecords) Jobs(ctx context.Context, q fleet.JobQuery) ([]*fleet.Job, error) {
	r.queries.Add(1)
	return r.Records.Jobs(ctx, q)
}

// TestALivePageAsksTheRecordsOnlyWhereSomethingWasWritten, and every two seconds at most, however often it is made.
func TestALivePageAsksTheRecordsOnlyWhereSomethingWasWritten(t *testing.T) {
	w := newWorld(t)
	id := w.machine("pc-1", true)
	for path, p := range map[string]*page{"/machines/" + id: machinePage, "/events": eventsPage} {
		now := time.Now()
		v := &visit{Request: httptest.NewRequest(http.MethodGet, w.url+path, nil), look: w.inner.looks["en"], kept: &kept{func() time.Time { return now }, map[string]keptAnswer{}}}
		setPathValues(v.Request, p)
		asked := func(ticks int) (n int64, html string) {
			t.Helper()
			before := w.queries.Load()
			for range ticks {
				l, err := p.live(w.inner, v)
				if err != nil {
					t.Fatal(err)
				}
				html = ""
				for _, part := range l.parts {
					html += part.HTML
				}
				now = now.Add(liveEvery)
			}
			return w.queries.Load() - before, html
		}
		if n, _ := asked(40); n != 1 {
			t.Errorf("%s: %d questions in 20 s in which nothing was written", path, n)
		}
		if err := w.fleet.Note(w.ctx, "machine.renamed", "a note of "+path); err != nil { // an event alone
			t.Fatal(err)
		}
		n, html := asked(1)
		if p == eventsPage && !strings.Contains(html, "a note of /events") || n != 1 {
			t.Errorf("%s: after something was written %d questions: %s", path, n, html)
		}
		if err := w.fleet.Note(w.ctx, "machine.renamed", "another note"); err != nil {
			t.Fatal(err)
		}
		if n, _ := asked(3); n != 0 { // 1.5 s
			t.Errorf("%s: %d questions less than %v after the last", path, n, recordsEvery)
		}
		if n, html := asked(2); n != 1 || p == eventsPage && !strings.Contains(html, "another note") {
			t.Errorf("%s: %d questions %v after the last: %s", path, n, recordsEvery, html)
		}
		for i := range 40 { // always something new
			if err := w.fleet.Note(w.ctx, "machine.renamed", "more"); err != nil {
				t.Fatal(err, i)
			}
			n2, _ := asked(1)
			n += n2
		}
		if n > 12 {
			t.Errorf("%s: %d questions in 20 s", path, n)
		}
		v.kept = nil // who loads the page
		if n, _ := asked(2); n != 2 {
			t.Errorf("%s: who loads the page twice asks %d times", path, n)
		}
	}
}
