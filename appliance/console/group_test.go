package console

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"seedbed/appliance/fleet"
)

// seatIn returns where a machine sits: "a101 1.2", "a101", "".
func (w *world) seatIn(name string) string {
	w.t.Helper()
	m, err := w.fleet.Machine(name)
	if err != nil {
		w.t.Fatal(err)
	}
	at := strings.Join(m.Groups, ",")
	if m.Seat != nil {
		at += fmt.Sprintf(" %d.%d", m.Seat.Row, m.Seat.Column)
	}
	return at
}

// focusOn presses Tab until the element with an ID has the focus.
func (b *tab) focusOn(id string) {
	b.t.Helper()
	for range 80 {
		if eval[bool](b, `document.activeElement?.id === "`+id+`"`) {
			return
		}
		b.press(kb.Tab)
	}
	b.t.Fatalf("Tab does not come to %s\n%s", id, b.seen())
}

// TestARoomIsMadeAndFilledByKeysAlone: from the rooms to a machine in each of its seats.
func TestARoomIsMadeAndFilledByKeysAlone(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"pc-1", "pc-2", "pc-3"} {
		w.machine(name, true)
	}
	b := w.open(t, how{Role: fleet.RoleOperator}, "/rooms")
	b.focusOn("new-room")
	b.press(kb.Enter)
	b.until(`document.querySelector("#dialog #set-name")`)
	b.axe()
	b.picture("dialog-new-room-1280")
	b.focusOn("set-name")
	b.press("A101")
	b.focusOn("set-rows")
	b.do(chromedp.Clear("#set-rows"))
	b.press("x")
	b.press(kb.Enter)
	b.says("#new-group .wrong", "A whole number from 0 is wanted here.")
	b.until(`document.activeElement.id === "set-rows"`)
	if v := eval[string](b, `document.getElementById("set-name").value`); v != "A101" {
		t.Errorf("the name that was typed is %q after a refusal", v)
	}
	b.do(chromedp.Clear("#set-rows"))
	b.press("2")
	b.focusOn("set-columns")
	b.do(chromedp.Clear("#set-columns"))
	b.press("2")
	b.press(kb.Enter)
	b.arrives("A101 is made. Put its machines into their seats now.")

	b.focusOn("seat-1-1")
	b.press(kb.ArrowRight)
	b.until(`document.activeElement.id === "seat-1-2" && document.activeElement.checked`)
	b.focusOn("put-machine")
	b.press("pc-2")
	b.focusOn("put")
	b.press(kb.Enter)
	b.says("#placed", "pc-2 sits at row 1, column 2.")
	b.until(`document.activeElement.id === "put"`) // the next machine and the next seat are chosen
	b.press(kb.Enter)
	b.says("#placed", "pc-1 sits at row 2, column 1.")
	b.until(`document.activeElement.id === "put"`)
	b.press(kb.Enter)
	b.says("#placed", "pc-3 sits at row 2, column 2.")
	b.axe()
	for name, want := range map[string]string{"pc-1": "a101 2.1", "pc-2": "a101 1.2", "pc-3": "a101 2.2"} {
		if got := w.seatIn(name); got != want {
			t.Errorf("%s sits at %q, want %q", name, got, want)
		}
	}
	// Up and down go by rows; the mouse drags.
	b.focusOn("seat-1-1")
	b.press(kb.ArrowRight)
	b.press(kb.ArrowDown)
	b.until(`document.activeElement.id === "seat-2-2"`)
	b.drag("label:has(#seat-2-2)", "label:has(#seat-1-1)", 0.5)
	b.says("#placed", "pc-3 sits at row 1, column 1.")
	if got := w.seatIn("pc-3"); got != "a101 1.1" {
		t.Errorf("pc-3 was dragged to %q", got)
	}
	// Two do not get one seat, and a machine comes off its seat and out of the room.
	b.click("label:has(#seat-1-2)")
	eval[bool](b, `(() => { const s = document.getElementById("put-machine"); s.value = [...s.options].find(o => o.text.startsWith("pc-1")).value; return true; })()`)
	b.click("#put")
	b.says("#placed", "pc-2 sits there already: choose another seat, or take it off first.")
	b.picture("group-refused-1280")
	b.click("#off")
	b.says("#placed", "pc-2 has no seat now; it stays in the room.")
	b.click(`#members input[type="checkbox"]`)
	b.click(`#members button`)
	b.says("#placed", "1 machine left.")
	if got := w.seatIn("pc-2"); got != "" {
		t.Errorf("pc-2 is still at %q", got)
	}
	// One that has the seat of a room that is gone comes in without it.
	if _, err := w.fleet.EditMachine(w.ctx, "pc-2", 0, fleet.MachineOrder{Seat: &fleet.Seat{Row: 1, Column: 1}}); err != nil {
		t.Fatal(err)
	}
	b.load("/groups/a101")
	b.click(`#free input[type="checkbox"]`)
	b.click(`#free button`)
	b.says("#placed", "1 machine came in.")
	if got := w.seatIn("pc-2"); got != "a101" {
		t.Errorf("pc-2 is at %q", got)
	}
	b.click("main .back a")
	b.until(`document.querySelectorAll(".seat[data-row]").length === 2`)
}

// TestAGroupsTimesLimitsAndPoliciesAreChanged on its page, as a phone shows it; what is wrong stands at its field, and what was typed stays.
func TestAGroupsTimesLimitsAndPoliciesAreChanged(t *testing.T) {
	w := newWorld(t)
	w.room("A101", 1, 2)
	b := w.open(t, how{Role: fleet.RoleOperator, Width: 390}, "/groups/a101")
	set := func(name, value string) {
		t.Helper()
		if !eval[bool](b, fmt.Sprintf(`(() => { const e = document.getElementById("group").elements[%q]; e.value = %q; return e.value === %q; })()`, name, value, value)) {
			t.Fatalf("%s does not take %q", name, value)
		}
	}
	set("limit", "many")
	set("broadcast", "10.1.2")
	set("notes", "beside the stairs")
	set("from-1", "18:00")
	set("to-1", "00:00")
	b.click("#group button.main")
	b.says("#group > .message", "Nothing was changed: 3 values cannot be. Each says why.")
	b.says("#wrong-limit", "A whole number from 0 is wanted here.")
	b.says("#wrong-broadcast", "10.1.2")
	b.says("#wrong-window-1", "Choose the days on which it opens.")
	b.fits()
	b.axe()
	b.picture("group-wrong-390")
	if v := eval[string](b, `document.getElementById("set-notes").value`); v != "beside the stairs" {
		t.Errorf("the notes that were typed are %q after a refusal", v)
	}
	for _, day := range []string{"mon", "fri"} {
		b.click(`#group input[name="days-1"][value="` + day + `"]`)
	}
	set("zone-1", "Mars/Olympus")
	set("limit", "2")
	set("uplink", "branch-2")
	set("uplink_limit", "5")
	set("broadcast", "10.1.2.255")
	set("rows", "3")
	set("clean_image", "debian:2")
	b.click(`#group input[name="keep_clean"]`)
	b.click("#group button.main")
	b.says("#wrong-window-1", "Mars/Olympus")
	set("zone-1", "Europe/Berlin")
	b.click("#group button.main")
	b.arrives("A101 is changed.")
	g, err := w.fleet.Group("a101")
	if err != nil || g.Limit != 2 || g.Uplink != "branch-2" || g.UplinkLimit != 5 || g.Broadcast != "10.1.2.255" || g.Rows != 3 || g.Notes != "beside the stairs" ||
		!slices.Equal(g.Windows, []string{"mon,fri 18:00-24:00 Europe/Berlin"}) || g.KeepClean == nil || g.KeepClean.Image != "debian:2" {
		t.Fatalf("%+v, %v", g, err)
	}
	// What is not touched stays as it was written; a second window comes, and goes by its box.
	windows := []string{"mon-fri 18:00-07:00", "sat,sun 00:00-24:00"}
	if _, err := w.fleet.EditGroup(w.ctx, "a101", 0, fleet.GroupOrder{Windows: &windows}); err != nil {
		t.Fatal(err)
	}
	set("limit", "3")
	b.click("#group button.main")
	b.says("#group > .message", "somebody else")
	b.load("/groups/a101")
	b.click(`#group input[name="away-2"]`)
	b.click(`#group input[name="keep_clean"]`)
	b.click("#group button.main")
	b.arrives("A101 is changed.")
	if g, err = w.fleet.Group("a101"); err != nil || !slices.Equal(g.Windows, windows[:1]) || g.KeepClean != nil {
		t.Fatalf("%+v, %v", g, err)
	}
	b.click(`button[hx-get$="/remove"]`)
	b.says("#dialog", "Its 2 machines stay")
	b.axe()
	b.picture("dialog-remove-room-390")
	b.click("#dialog button.main")
	b.arrives("A101 is removed.")
	if _, err := w.fleet.Group("a101"); err == nil || w.seatIn("A101-01") != " 1.1" {
		t.Errorf("%v, the machine is at %q", err, w.seatIn("A101-01"))
	}
}

// TestMachinesComeIntoGroupsThatAreNoRooms by boxes, many at once.
func TestMachinesComeIntoGroupsThatAreNoRooms(t *testing.T) {
	w := newWorld(t)
	w.room("A101", 1, 2)
	line := fleet.Line
	if _, err := w.fleet.NewGroup(w.ctx, fleet.GroupOrder{Name: "Line 7", Kind: &line}); err != nil {
		t.Fatal(err)
	}
	b := w.open(t, how{Role: fleet.RoleOperator, Language: "zh"}, "/rooms")
	b.click(`a[href="/groups/line%207"]`)
	b.says("h1", "产线")
	b.click(`#free li:nth-child(1) input`)
	b.click(`#free li:nth-child(2) input`)
	b.click(`#free button`)
	b.says("#placed", "已加入 2 台机器。")
	if got := w.seatIn("A101-02"); got != "a101,line 7 1.2" {
		t.Errorf("the machine is at %q", got)
	}
	b.axe()
}

// TestWhoMayNotChangesNoGroup asks the actions of the page without a browser.
func TestWhoMayNotChangesNoGroup(t *testing.T) {
	w := newWorld(t)
	w.room("A101", 1, 2)
	id := w.machine("pc-9", true)
	m, err := w.fleet.Machine(id)
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"version": {"1"}, "name": {"B2"}, "kind": {"room"}, "rows": {"1"}, "columns": {"1"}, "seat": {"1.2"}, "do": {"put"}, "machine": {knownOf(m)}, "machines": {id}}
	for _, path := range []string{"/groups", "/groups/a101/edit", "/groups/a101/remove", "/groups/a101/seat", "/groups/a101/machines"} {
		if code, body, _ := w.ask(fleet.RoleViewer, path, form); code != http.StatusForbidden || !strings.Contains(body, "operator") {
			t.Errorf("%s by a viewer: %d %.200s", path, code, body)
		}
		if path == "/groups" {
			continue
		}
		if code, _, _ := w.ask(fleet.RoleOperator, strings.Replace(path, "a101", "nobody", 1), form); code != http.StatusNotFound {
			t.Errorf("%s of a group that is not there: %d", path, code)
		}
	}
	for _, path := range []string{"/rooms", "/groups/a101"} {
		if code, body, _ := w.ask(fleet.RoleViewer, path, nil); code != http.StatusOK || strings.Contains(body, "/rooms/new") || strings.Contains(body, "/remove") || strings.Contains(body, `name="do"`) {
			t.Errorf("a viewer has buttons on %s: %d", path, code)
		}
	}
	if code, body, _ := w.ask(fleet.RoleOperator, "/groups", url.Values{"name": {"a101"}, "kind": {"room"}, "rows": {"1"}, "columns": {"1"}}); code != http.StatusOK || !strings.Contains(body, "there is a group") {
		t.Errorf("a name that is taken: %d %.400s", code, body)
	}
	if code, body, _ := w.ask(fleet.RoleOperator, "/groups/a101/remove", url.Values{}); code != http.StatusBadRequest || !strings.Contains(body, "Load the page again") {
		t.Errorf("a removal without its version: %d %.200s", code, body)
	}
	// Somebody else moved the machine since the page was loaded.
	groups := []string{"a101"}
	if _, err := w.fleet.EditMachine(w.ctx, id, 0, fleet.MachineOrder{Groups: &groups}); err != nil {
		t.Fatal(err)
	}
	if code, body, _ := w.ask(fleet.RoleOperator, "/groups/a101/seat", form); code != http.StatusOK || !strings.Contains(body, "somebody else") {
		t.Errorf("a machine that was moved meanwhile: %d %.200s", code, body)
	}
	// What the fleet tells people at a terminal is not told at a form.
	line := fleet.Line
	if _, err := w.fleet.NewGroup(w.ctx, fleet.GroupOrder{Name: "L7", Kind: &line}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.fleet.GroupMachines(w.ctx, "L7", []string{"A101-01"}, true); err != nil {
		t.Fatal(err)
	}
	form = url.Values{"version": {"999999"}, "kind": {"room"}, "rows": {"1"}, "columns": {"1"}, "limit": {"0"}, "uplink_limit": {"0"}}
	if _, body, _ := w.ask(fleet.RoleOperator, "/groups/l7/edit", form); !strings.Contains(body, "group L7 was changed by somebody else meanwhile; look again<") {
		t.Errorf("an edit by an old page: %.400s", body)
	}
	g, err := w.fleet.Group("L7")
	if err != nil {
		t.Fatal(err)
	}
	form.Set("version", fmt.Sprint(g.Version))
	if _, body, _ := w.ask(fleet.RoleOperator, "/groups/l7/edit", form); !strings.Contains(body, `id="wrong-kind">a machine stands in one room`) || !strings.Contains(body, "take them out of one of the two<") {
		t.Errorf("a line whose machines stand in a room already becomes a room: %.400s", body)
	}
	if w.seatIn("pc-9") != "a101" || w.seatIn("A101-01") != "a101,l7 1.1" {
		t.Error("what was refused was done")
	}
}
