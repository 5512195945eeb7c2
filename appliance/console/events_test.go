package console

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"seedbed/appliance/fleet"
)

// notes adds events.
func (w *world) notes(count int) {
	w.t.Helper()
	for i := range count {
		if err := w.fleet.Note(w.ctx, "test.noted", fmt.Sprintf("note %d", i+1)); err != nil {
			w.t.Fatal(err)
		}
	}
}

func TestEventsComeInPages(t *testing.T) {
	w := newWorld(t)
	w.notes(2*eventsShown + 10)
	q := fleet.EventQuery{Kind: "test.noted", Limit: eventsShown}
	texts := func(q fleet.EventQuery) (first, last string, count int, more bool, list []fleet.Event) {
		list, more, err := eventsOf(t.Context(), w.fleet, q)
		if err != nil || len(list) == 0 {
			t.Fatal(list, err)
		}
		return list[0].Text, list[len(list)-1].Text, len(list), more, list
	}
	check := func(what string, q fleet.EventQuery, first, last string, count int, more bool) []fleet.Event {
		t.Helper()
		f, l, n, m, list := texts(q)
		if f != first || l != last || n != count || m != more {
			t.Errorf("%s: %s to %s, %d, more: %v", what, f, l, n, m)
		}
		return list
	}
	list := check("the latest", q, "note 110", "note 61", 50, true)
	q.Before = list[49].ID
	list = check("older", q, "note 60", "note 11", 50, true)
	q.Before = list[49].ID
	list = check("the oldest", q, "note 10", "note 1", 10, false)
	q.Before, q.After = 0, list[0].ID
	list = check("newer", q, "note 60", "note 11", 50, true)
	q.After = list[0].ID
	check("the latest again", q, "note 110", "note 61", 50, false)
}

func TestEventsFollowAndAreChosen(t *testing.T) {
	w := newWorld(t)
	w.machine("left", true)
	right := w.machine("right", true)
	b := w.open(t, how{Role: fleet.RoleViewer}, "/events")
	b.says("#event-list", "was seen for the first time")
	w.notes(1)
	b.says("#event-list tbody tr:first-child", "note 1")
	b.typed(`input[name="machine"]`, "right")
	b.choose(`select[name="kind"]`, "machine.")
	b.click(`form[role="search"] button`)
	b.until(`location.search.includes("machine=right")`)
	b.says("#event-list", "right")
	if n := eval[int](b, `[...document.querySelectorAll("#event-list tbody tr")].filter(r => !r.querySelector('a[href="/machines/`+right+`"]')).length`); n > 0 {
		t.Errorf("%d events are not about the machine", n)
	}
	b.load("/events?kind=test.&actor=nobody")
	b.says("#event-list", "Nothing that was chosen")
	w.notes(eventsShown + 5)
	b.load("/events?kind=test.noted")
	b.click(`nav.pages a[rel="next"]`)
	b.until(`location.search.includes("before=")`)
	b.says("#event-list", "note 1")
	b.click(`nav.pages a[rel="prev"]`)
	b.says("#event-list tbody tr:first-child", "note 55")
}

func TestEventsAreDownloaded(t *testing.T) {
	w := newWorld(t)
	w.machine("=cmd()", true)
	w.notes(1234)
	_, body, header := w.ask(fleet.RoleViewer, "/events/file?format=csv", nil)
	rows, err := csv.NewReader(strings.NewReader(body)).ReadAll()
	if err != nil || len(rows) < 1240 || strings.Join(rows[0], ",") != strings.Join(eventColumns, ",") || !strings.Contains(header.Get("Content-Disposition"), ".csv") {
		t.Fatalf("%d rows, %v, %v", len(rows), header, err)
	}
	named := 0
	for _, r := range rows[1:] {
		if r[4] == "'=cmd()" {
			named++
		}
		if strings.HasPrefix(r[4], "=") || strings.HasPrefix(r[9], "=") {
			t.Errorf("a spreadsheet computes %q", r)
		}
	}
	if named == 0 {
		t.Error("no row names the machine")
	}
	_, body, _ = w.ask(fleet.RoleViewer, "/events/file?format=jsonl&kind=test.noted", nil)
	lines := strings.Split(strings.TrimSpace(body), "\n")
	var last fleet.Event
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || len(lines) != 1234 || last.Text != "note 1234" {
		t.Errorf("%d lines, the last %+v, %v", len(lines), last, err)
	}
	if _, body, _ := w.ask(fleet.RoleViewer, "/events/file?format=csv&kind=none.", nil); strings.TrimSpace(body) != strings.Join(eventColumns, ",") {
		t.Errorf("a table of nothing is %q", body)
	}
	if status, body, _ := w.ask(fleet.RoleViewer, "/events/file?format=exe", nil); status != 400 || !strings.Contains(body, "csv or as jsonl") {
		t.Errorf("%d %s", status, body)
	}
}
