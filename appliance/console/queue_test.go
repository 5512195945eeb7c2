package console

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"seedbed/appliance/fleet"
)

// queued is a world with a deployment that n machines, pc-0 on, wait for.
func queued(t testing.TB, n int) *world {
	w := newWorld(t)
	var ids []string
	for i := range n {
		ids = append(ids, w.machine(fmt.Sprint("pc-", i), true))
	}
	for _, id := range ids { // one after the other: jobs of one moment stand in the order of their IDs
		if _, err := w.fleet.Deploy(w.ctx, fleet.Order{Image: "debian:2", Machines: []string{id}}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// order are the machines of the jobs that wait, in the order of the queue.
func (w *world) order() string {
	list, _ := (&console{Config: Config{Fleet: w.fleet}}).waitingJobs()
	var names []string
	for _, j := range list {
		names = append(names, strings.TrimPrefix(j.MachineName, "pc-"))
	}
	return strings.Join(names, " ")
}

func TestMoveInQueueIsOfWhatAPersonSaw(t *testing.T) {
	w := queued(t, 4)
	list, _ := (&console{Config: Config{Fleet: w.fleet}}).waitingJobs()
	form := func(job, after, before int) url.Values {
		v := url.Values{"job": {list[job].ID}, "version": {fmt.Sprint(list[job].Version)}}
		if after >= 0 {
			v.Set("after", list[after].ID)
		}
		if before < len(list) {
			v.Set("before", list[before].ID)
		}
		return v
	}
	for _, c := range []struct {
		what string
		role fleet.Role
		form url.Values
		says string
		want string
	}{
		{"a viewer", fleet.RoleViewer, form(3, -1, 0), "operator", "0 1 2 3"},
		{"the last one first", fleet.RoleOperator, form(3, -1, 0), "pc-3 is at place 1 now.", "3 0 1 2"},
		{"the same again, by what was seen before", fleet.RoleOperator, form(3, -1, 0), "changed meanwhile", "3 0 1 2"},
		{"between two that stand side by side no more", fleet.RoleOperator, form(2, -1, 0), "changed meanwhile", "3 0 1 2"},
		{"between two that still do", fleet.RoleOperator, form(2, 0, 1), "pc-2 is at place 3 now.", "3 0 2 1"},
		{"a job that is not there", fleet.RoleOperator, url.Values{"job": {"none"}}, "changed meanwhile", "3 0 2 1"},
	} {
		_, body, _ := w.ask(c.role, "/queue/move", c.form)
		if !strings.Contains(body, c.says) || c.role == fleet.RoleOperator && !strings.Contains(body, `<tr data-job=`) {
			t.Errorf("%s: %s", c.what, body)
		}
		if got := w.order(); got != c.want {
			t.Errorf("%s: the queue is %s, want %s", c.what, got, c.want)
		}
	}
}

// drag moves the mouse from one element to a place in another one, with its button down.
func (b *tab) drag(from, to string, share float64) {
	b.t.Helper()
	type point struct{ X, Y float64 }
	at := func(selector string, share float64) point {
		return eval[point](b, fmt.Sprintf("(() => { const r = document.querySelector(`%s`).getBoundingClientRect(); return {X: r.left + Math.min(r.width / 2, 200), Y: r.top + r.height * %f}; })()", selector, share))
	}
	mouse := func(kind input.DispatchMouseEventType, p point, buttons int64) {
		b.call(chromedp.Call(b.ctx, input.DispatchMouseEvent, input.DispatchMouseEventParams{Type: kind, X: p.X, Y: p.Y, Button: input.MouseButtonLeft, Buttons: buttons, ClickCount: 1}))
	}
	a, z := at(from, 0.5), at(to, share)
	mouse("mouseMoved", a, 0)
	mouse("mousePressed", a, 1)
	for i := 1; i <= 5; i++ {
		mouse("mouseMoved", point{a.X + (z.X-a.X)*float64(i)/5, a.Y + (z.Y-a.Y)*float64(i)/5}, 1)
	}
	mouse("mouseReleased", z, 0)
}

func TestQueueIsReorderedByDragAndByKeys(t *testing.T) {
	w := queued(t, 5)
	b := w.open(t, how{Role: fleet.RoleOperator}, "/queue")
	b.until(`document.documentElement.dataset.heard === "1"`)
	row := func(name int) string {
		return fmt.Sprintf(`tr[data-job="%s"]`, jobOf(w, machineNamed(w, fmt.Sprint("pc-", name))).ID)
	}
	b.drag(row(4)+" .grip", row(1), 0.25)
	b.says("#said", "pc-4 is at place 2 now.")
	b.until(`document.querySelectorAll("tbody tr")[1].innerText.includes("pc-4")`)
	if got := w.order(); got != "0 4 1 2 3" {
		t.Fatalf("after the drag upwards: %s", got)
	}
	b.drag(row(0)+" .grip", row(3), 0.75)
	b.says("#said", "pc-0 is at place 5 now.")
	if got := w.order(); got != "4 1 2 3 0" {
		t.Fatalf("after the drag to the end: %s", got)
	}
	b.tabTo(row(2) + " .moves button")
	b.press(kb.Enter)
	b.says("#said", "pc-2 is at place 2 now.")
	b.until("document.activeElement.closest('tr')?.matches(`" + row(2) + "`)")
	b.press(kb.Enter)
	b.says("#said", "pc-2 is at place 1 now.")
	b.until("document.activeElement.getAttribute('aria-label') === 'Move pc-2 down'")
	if got := w.order(); got != "2 4 1 3 0" {
		t.Fatalf("after the keys: %s", got)
	}
	// Somebody else was faster: what this page sends is of what it shows.
	id := jobOf(w, machineNamed(w, "pc-0")).ID
	if err := w.fleet.Prioritise(w.ctx, id, -7); err != nil {
		t.Fatal(err)
	}
	eval[bool](b, `(() => { const r = document.querySelector('`+row(0)+`'); r.dataset.version = "1"; r.querySelector(".moves button").click(); return true; })()`)
	b.says("#said", "changed meanwhile")
	if got := w.order(); got != "2 4 1 3 0" {
		t.Errorf("after the refusal: %s", got)
	}
	b.axe()
}

func machineNamed(w *world, name string) string {
	m, err := w.fleet.Machine(name)
	if err != nil {
		w.t.Fatal(err)
	}
	return m.ID
}

func TestViewerSeesTheQueueAndMovesNothing(t *testing.T) {
	w := queued(t, 3)
	b := w.open(t, how{Role: fleet.RoleViewer}, "/queue")
	b.says("tbody tr", "pc-2")
	if n := eval[int](b, `document.querySelectorAll(".grip, .moves button").length`); n != 0 {
		t.Errorf("a viewer sees %d ways to move jobs", n)
	}
	if err := w.fleet.Cancel(w.ctx, jobOf(w, machineNamed(w, "pc-1")).ID); err != nil {
		t.Fatal(err)
	}
	b.until(`document.querySelectorAll("tbody tr").length === 2`) // by itself
	for _, c := range []how{{Role: fleet.RoleOperator, Width: 390, Theme: "dark"}, {Role: fleet.RoleOperator, Width: 1280, Language: "zh"}} {
		b := w.open(t, c, "/queue")
		b.fits()
		b.axe()
		if first := eval[bool](b, `[...document.querySelectorAll("tbody tr")].every(r => [...r.querySelectorAll("td[data-label]")].every(d => d.getBoundingClientRect().top >= r.querySelector("th").getBoundingClientRect().bottom - 1))`); c.Width == 390 && !first {
			t.Error("a card of the queue does not begin with its machine's name")
		}
		b.picture("queue-" + b.how.String())
	}
}
