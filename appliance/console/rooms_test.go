package console

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"seedbed/appliance/fleet"
	"seedbed/appliance/monitor"
)

// chosen returns the names of the machines that are chosen, and checks that the live region says how many.
func (b *tab) chosen() []string {
	b.t.Helper()
	names := eval[[]string](b, `[...document.querySelectorAll('.seat[aria-selected="true"] .name')].map(e => e.innerText)`)
	ids := strings.FieldsFunc(eval[string](b, `document.getElementById("machines").value`), func(r rune) bool { return r == ',' })
	said := eval[string](b, `document.getElementById("chosen").innerText`)
	want := fmt.Sprintf("%d machines are chosen.", len(names))
	switch len(names) {
	case 0:
		want = "No machine is chosen."
	case 1:
		want = "1 machine is chosen."
	}
	if said != want || len(ids) != len(names) {
		b.t.Errorf("%d machines are chosen, %d are sent, and the page says %q", len(names), len(ids), said)
	}
	return names
}

func (b *tab) wantChosen(what string, want ...string) {
	b.t.Helper()
	if got := b.chosen(); !slices.Equal(got, want) {
		b.t.Errorf("%s: %v are chosen, want %v", what, got, want)
	}
}

// roomsOf opens the rooms of a world with a room of 3 x 4 machines and one more machine.
func roomsOf(t *testing.T, role fleet.Role) (*world, *tab) {
	w := newWorld(t)
	w.room("R1", 3, 4)
	w.machine("loose", true)
	b := w.open(t, how{Role: role}, "/rooms")
	b.until(`document.documentElement.dataset.heard === "1"`)
	return w, b
}

// TestAScreenReaderHearsInARoomWhatMattersAlone: figures of eighty machines change all the time and nothing is said, but that one fails.
func TestAScreenReaderHearsInARoomWhatMattersAlone(t *testing.T) {
	w := newWorld(t)
	ids := w.crowd(80)
	step := int64(0)
	advance := func(words map[string]monitor.Word) {
		step++
		w.change(func(p *monitor.Picture) {
			for i, id := range ids {
				word := monitor.Normal
				if words[id] != "" {
					word = words[id]
				}
				p.Machines[id] = progress(id, fmt.Sprintf("pc-%04d", i), word, step*4e8)
			}
		})
	}
	advance(nil)
	b := w.open(t, how{Role: fleet.RoleOperator}, "/rooms")
	b.until(`document.documentElement.dataset.heard === "1" && document.querySelector(".seat .percent").textContent === "1 %"`)
	eval[bool](b, `(() => { window.said = []; const live = "[role=status], [role=alert], [aria-live]";
		new MutationObserver(l => l.forEach(m => { const e = (m.target.closest ? m.target : m.target.parentElement)?.closest(live); if (e) window.said.push(e.textContent); })).observe(document.body, {childList: true, characterData: true, subtree: true});
		const seat = document.getElementById("m-`+ids[0]+`"); seat.focus(); window.names = 0; new MutationObserver(() => window.names++).observe(seat, {attributeFilter: ["aria-label"]}); return true; })()`)
	if name := eval[string](b, `document.activeElement.getAttribute("aria-label")`); !strings.HasPrefix(name, "pc-0000, normal, 1 %, 108 MB/s, ") {
		t.Errorf("a seat is named %q", name)
	}
	for range 4 {
		advance(nil)
		b.until(fmt.Sprintf(`document.querySelector(".seat .percent").textContent === "%d %%"`, step))
	}
	if said := eval[[]string](b, "window.said"); len(said) > 0 || eval[int](b, "window.names") > 0 {
		t.Errorf("while figures change, a screen reader is told %q, and the name of the seat with the focus anew %d times", said, eval[int](b, "window.names"))
	}
	advance(map[string]monitor.Word{ids[0]: monitor.Failed, ids[7]: monitor.Silent})
	b.until(`window.said.length > 0`)
	advance(map[string]monitor.Word{ids[0]: monitor.Failed, ids[7]: monitor.Silent})
	b.until(fmt.Sprintf(`document.querySelectorAll(".seat .percent")[1].textContent === "%d %%"`, step))
	if said := eval[[]string](b, "window.said"); len(said) != 1 || said[0] != "Needs a look: pc-0000 failed, pc-0007 silent" {
		t.Errorf("a screen reader is told %q", said)
	}
	if name := eval[string](b, `document.activeElement.getAttribute("aria-label")`); !strings.HasPrefix(name, "pc-0000, failed") {
		t.Errorf("the seat with the focus is named %q", name)
	}
}

func TestMachinesAreChosenByKeysAlone(t *testing.T) {
	_, b := roomsOf(t, fleet.RoleOperator)
	for i := 0; !eval[bool](b, `document.activeElement.classList.contains("seat")`); i++ {
		if i > 40 {
			t.Fatal("Tab does not come to the seats")
		}
		b.press(kb.Tab)
	}
	here := func(want string) {
		t.Helper()
		if got := eval[string](b, `document.activeElement.querySelector(".name")?.innerText || ""`); got != want {
			t.Errorf("the focus is on %q, want %q", got, want)
		}
	}
	here("R1-01")
	b.press(kb.ArrowRight)
	b.press(kb.ArrowDown)
	here("R1-06")
	b.press(" ")
	b.wantChosen("space", "R1-06")
	b.press(kb.ArrowRight, chromedp.KeyModifiers(kb.ModifierShift))
	b.press(kb.ArrowDown, chromedp.KeyModifiers(kb.ModifierShift))
	b.wantChosen("shift and arrows", "R1-06", "R1-07", "R1-10", "R1-11")
	b.press(kb.ArrowLeft, chromedp.KeyModifiers(kb.ModifierCtrl))
	b.wantChosen("ctrl and an arrow leave the choice", "R1-06", "R1-07", "R1-10", "R1-11")
	b.press(" ")
	b.wantChosen("space takes one away", "R1-06", "R1-07", "R1-11")
	b.press("a", chromedp.KeyModifiers(kb.ModifierCtrl))
	if n := len(b.chosen()); n != 13 {
		t.Errorf("Ctrl+A chooses %d", n)
	}
	b.press(kb.Escape)
	b.wantChosen("escape")
	b.press(kb.End)
	here("loose")
	b.press(kb.Enter)
	b.until(`location.pathname.startsWith("/machines/")`)
}

func TestMachinesAreChosenByTheMouse(t *testing.T) {
	_, b := roomsOf(t, fleet.RoleOperator)
	type point struct{ X, Y float64 }
	at := func(name string) point {
		return eval[point](b, `(() => { const e = [...document.querySelectorAll(".seat")].find(e => e.dataset.name === "`+name+`"); e.scrollIntoView({block: "center"}); const r = e.getBoundingClientRect(); return {X: r.left + r.width / 2, Y: r.top + r.height / 2}; })()`)
	}
	click := func(name string, options ...chromedp.MouseOption) {
		t.Helper()
		p := at(name)
		b.do(chromedp.MouseClickXY(p.X, p.Y, options...))
	}
	click("R1-02")
	b.wantChosen("a click", "R1-02")
	click("R1-11", chromedp.ButtonModifiers(kb.ModifierShift))
	b.wantChosen("a click with shift", "R1-02", "R1-03", "R1-06", "R1-07", "R1-10", "R1-11")
	click("R1-06", chromedp.ButtonModifiers(kb.ModifierCtrl))
	b.wantChosen("a click with ctrl", "R1-02", "R1-03", "R1-07", "R1-10", "R1-11")
	from, to := at("R1-05"), at("R1-10")
	from = at("R1-05") // where it is now
	b.do(chromedp.DragAndDropXY(from.X, from.Y, to.X, to.Y, 8))
	b.wantChosen("a drag", "R1-05", "R1-06", "R1-09", "R1-10")
	b.click("#none")
	b.wantChosen("none")
	b.click("#all")
	if n := len(b.chosen()); n != 13 {
		t.Errorf("all are %d", n)
	}
}

func TestFilterHidesMachinesAndTakesThemFromTheChoice(t *testing.T) {
	w, b := roomsOf(t, fleet.RoleOperator)
	b.click("#all")
	b.typed("#filter input", "R1-1")
	b.wantChosen("the filter by text", "R1-10", "R1-11", "R1-12")
	b.typed("#filter input", "")
	b.press(" ") // something, so that the page notices
	ids := map[string]string{}
	for _, m := range w.fleet.Machines() {
		ids[m.Name] = m.ID
	}
	w.change(func(p *monitor.Picture) {
		p.Machines[ids["R1-05"]] = progress(ids["R1-05"], "R1-05", monitor.Slow, 3e9)
	})
	b.until(`document.querySelector(".seat.slow")`)
	b.says("#attention", "its network card has negotiated 100 Mbit/s")
	eval[bool](b, `(() => { const f = document.getElementById("filter"); f.elements.text.value = ""; f.elements.word.value = "slow"; f.elements.word.dispatchEvent(new Event("input", {bubbles: true})); return true; })()`)
	b.click("#all")
	b.wantChosen("the filter by word", "R1-05")
}

func TestSeatsShowHowTheirMachinesGetOn(t *testing.T) {
	w, b := roomsOf(t, fleet.RoleViewer)
	if eval[bool](b, `!!document.querySelector('.choice [data-some]')`) {
		t.Error("a viewer has buttons that do something")
	}
	m := w.fleet.Machines()[0]
	for _, word := range wordOrder {
		w.change(func(p *monitor.Picture) { p.Machines[m.ID] = progress(m.ID, m.Name, word, 10e9) })
		b.until(fmt.Sprintf(`document.querySelector("#m-%s .word.%s")?.innerText === %q`, m.ID, word, word))
		shape := eval[string](b, fmt.Sprintf(`(() => { const s = getComputedStyle(document.querySelector("#m-%s .word"), "::before"); return s.clipPath + s.borderRadius; })()`, m.ID))
		if shape == "none0px" {
			t.Errorf("%s has no shape", word)
		}
	}
	w.change(func(p *monitor.Picture) { p.Machines[m.ID] = progress(m.ID, m.Name, monitor.Normal, 10e9) })
	b.says("#m-"+m.ID, "108 MB/s")
	b.says("#m-"+m.ID, "25 %")
	b.says("#m-"+m.ID, "5 min")
	// A machine that comes to the room while somebody looks is there, and the choice stays.
	b.click("#m-" + m.ID)
	w.machine("newcomer", true)
	b.until(`[...document.querySelectorAll(".seat")].some(e => e.dataset.name === "newcomer")`)
	b.wantChosen("after another plan", m.Name)
}

func TestNewMachinesAreAdmittedByTheirCode(t *testing.T) {
	w := newWorld(t)
	w.machine("pc-1", true)
	b := w.open(t, how{Role: fleet.RoleOperator}, "/rooms")
	id := w.machine("", false)
	b.until(`document.getElementById("admit-` + id + `")`) // live
	m, err := w.fleet.Machine(id)
	if err != nil {
		t.Fatal(err)
	}
	b.says("#waiting", m.Code)
	b.click("#admit-" + id)
	b.says("main > .message.done", m.Name+" is admitted.")
	if m, _ := w.fleet.Machine(id); !m.Admitted {
		t.Error("it is not admitted")
	}
	// What is refused is said where it was asked, and nothing else happens.
	gone := w.machine("", false)
	b.until(`document.getElementById("admit-` + gone + `")`)
	eval[bool](b, `document.getElementById("admit-`+gone+`").form.elements.code.value = "NONE"; true`)
	b.expect("status of 404")
	b.click("#admit-" + gone)
	b.says("#waiting .answer", `no machine shows the code "NONE"`)
}

// worst is how long a page may work for one tick.
const worst = 50 * time.Millisecond

func TestAThousandMachinesLiveInOnePage(t *testing.T) {
	w := newWorld(t)
	const count = 1000
	ids := w.crowd(count)
	words := []monitor.Word{monitor.Normal, monitor.Normal, monitor.Normal, monitor.Slow, monitor.Normal, monitor.Done}
	tick := func(i int) {
		w.change(func(p *monitor.Picture) {
			for j, id := range ids {
				m := progress(id, fmt.Sprint("pc-", j), words[j%len(words)], int64(i)*1e8+int64(j)*1e6)
				if m.Rate > 0 {
					m.Rate += float64((i*7919+j*104729)%2000) * 1e4
				}
				p.Machines[id] = m
			}
		})
	}
	tick(0)
	b := w.open(t, how{Role: fleet.RoleOperator}, "/rooms")
	b.until(`document.documentElement.dataset.heard === "1"`)
	measured := func() int {
		return eval[int](b, `performance.getEntriesByName("seats").filter(e => e.detail.seats > 500).length`)
	}
	// What the page's thread does, in seconds of its processor's time: scripts, styles, layout and painting.
	b.call(chromedp.Call(b.ctx, performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks}))
	metrics := func() map[string]float64 {
		got, err := chromedp.Call(b.ctx, performance.GetMetrics, cdp.Empty{})
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]float64{}
		for _, one := range got.Metrics {
			m[one.Name] = one.Value
		}
		return m
	}
	before, first := metrics(), measured()
	const ticks = 12
	for i := range ticks {
		n := measured()
		tick(i + 1)
		b.until(fmt.Sprintf(`performance.getEntriesByName("seats").filter(e => e.detail.seats > 500).length > %d`, n))
	}
	after, n := metrics(), float64(measured()-first)
	per := func(name string) float64 { return (after[name] - before[name]) / n * 1000 }
	script := eval[float64](b, `(() => { const l = performance.getEntriesByName("seats").filter(e => e.detail.seats > 500).map(e => e.detail.worked).sort((x, y) => x - y); return l[l.length >> 1]; })()`)
	t.Logf("page work of a tick with %d machines that all change: %.1f ms (styles %.1f ms, layout %.1f ms); the console's script takes %.1f ms in the middle",
		count, per("TaskDuration"), per("RecalcStyleDuration"), per("LayoutDuration"), script)
	if limit := float64(worst / time.Millisecond); per("TaskDuration") > limit {
		t.Errorf("the page works %.1f ms a tick, more than %v", per("TaskDuration"), worst)
	}
}
