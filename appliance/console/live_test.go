package console

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/monitor"
)

// counted has the page count how often the element with an ID is put in anew or changes.
func (b *tab) counted(id string) {
	b.t.Helper()
	eval[bool](b, `(() => { window.fresh = 0; const id = "`+id+`"; new MutationObserver(l => l.forEach(m => { if ([...m.addedNodes].some(n => n.id === id) || (m.target.closest ? m.target : m.target.parentElement)?.closest("#" + id)) window.fresh++; })).observe(document.getElementById("main"), {childList: true, characterData: true, subtree: true}); return true; })()`)
}

// steady waits for as long as several live updates take, and fails the test if the counted element was put in anew.
func (b *tab) steady(what string) {
	b.t.Helper()
	time.Sleep(4 * liveEvery)
	if n := eval[int](b, "window.fresh"); n != 0 {
		b.t.Errorf("%s: the part was put in anew %d times", what, n)
	}
}

// TestAPartThatChangesAllTheTimeIsUsed: a button is pressed slowly in it, its answer is read, and it is as new afterwards.
func TestAPartThatChangesAllTheTimeIsUsed(t *testing.T) {
	w, _, id := inTheMiddle(t)
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for i := 1; ; i++ {
			w.change(func(p *monitor.Picture) {
				c := *p.Deployments[id]
				c.LastAt = time.Now().Add(time.Duration(i) * 7 * time.Minute)
				p.Deployments[id] = &c
			})
			select {
			case <-tick.C:
			case <-end:
				return
			}
		}
	}()
	defer func() { close(end); <-ended }()
	b := w.open(t, how{Role: fleet.RoleOperator}, "/deployments/"+id)
	b.until(`document.documentElement.dataset.heard === "1"`)
	b.counted("head")
	b.until(`window.fresh > 1`) // it does change

	type point struct{ X, Y float64 }
	at := eval[point](b, `(() => { const r = document.getElementById("do-pause").getBoundingClientRect(); return {X: r.left + r.width / 2, Y: r.top + r.height / 2}; })()`)
	mouse := func(kind input.DispatchMouseEventType, buttons int64) {
		b.call(chromedp.Call(b.ctx, input.DispatchMouseEvent, input.DispatchMouseEventParams{Type: kind, X: at.X, Y: at.Y, Button: input.MouseButtonLeft, Buttons: buttons, ClickCount: 1}))
	}
	mouse("mouseMoved", 0)
	mouse("mousePressed", 1)
	eval[bool](b, `(window.fresh = 0, true)`)
	b.steady("a button that is held")
	mouse("mouseReleased", 0)
	b.says(".message.done", "jobs were paused")
	b.says("#head", "The deployment is paused")

	// A refusal stays to be read, and then the part is as it is.
	b.until(`document.documentElement.dataset.heard === "1"`)
	if _, err := w.fleet.OperateDeployment(w.ctx, id, fleet.ResumeAll); err != nil {
		t.Fatal(err)
	}
	b.until(`document.getElementById("do-pause")`)
	b.counted("head")
	b.expect("status of 412")
	eval[bool](b, `(() => { const f = document.getElementById("do-pause").form; f.elements.version.value = "1"; f.requestSubmit(); return true; })()`)
	b.says("#head .answer", "changed")
	eval[bool](b, `(window.fresh = 0, true)`)
	b.steady("a refusal")
	b.until(`window.fresh > 0 && !document.querySelector("#head .answer").innerText`)

	// The focus and what is open stay.
	b.focus("#do-cancel")
	eval[bool](b, `(window.fresh = 0, window.held = document.activeElement, true)`)
	b.until(`window.fresh > 1`)
	if !eval[bool](b, `document.activeElement === window.held`) {
		t.Error("a button that has the focus is another one after figures beside it changed")
	}
}

// TestACodeIsTypedWhileMachinesCome: what is typed stays, Enter sends it, and the list is as it is when the field is left.
func TestACodeIsTypedWhileMachinesCome(t *testing.T) {
	w := newWorld(t)
	first := w.machine("", false)
	b := w.open(t, how{Role: fleet.RoleOperator}, "/start")
	b.until(`document.documentElement.dataset.heard === "1" && document.querySelector("form.bycode input")`)
	part := eval[string](b, `document.querySelector("form.bycode").parentElement.closest("[id]").id`)
	b.counted(part)
	b.focus("form.bycode input:not([type=hidden])")
	var last string
	for _, key := range []string{"N", "O", "N", "E"} {
		b.press(key)
		last = w.machine("", false)
		time.Sleep(liveEvery)
	}
	b.steady("a field in which somebody types")
	b.expect("status of 404")
	b.press(kb.Enter)
	b.says("form.bycode .answer", "NONE")
	eval[bool](b, `(window.fresh = 0, true)`)
	b.steady("what was typed and its refusal")
	if typed := eval[string](b, `document.querySelector("form.bycode input:not([type=hidden])").value`); typed != "NONE" {
		t.Errorf("the field has %q", typed)
	}
	eval[bool](b, `(document.activeElement.blur(), true)`)
	m, err := w.fleet.Machine(last)
	if err != nil {
		t.Fatal(err)
	}
	b.says("#"+part, m.Code) // nothing was lost
	if m, _ = w.fleet.Machine(first); m.Admitted {
		t.Error("a machine was admitted by no code")
	}
}

// TestAPageGoesOnWhenRecordsFailForAMoment: only what is gone ends it.
func TestAPageGoesOnWhenRecordsFailForAMoment(t *testing.T) {
	w := newWorld(t)
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	r := httptest.NewRequest(http.MethodGet, w.url+"/live", nil).WithContext(ctx)
	r.RemoteAddr = "127.0.0.1:40000"
	r.AddCookie(&http.Cookie{Name: api.CookieName, Value: w.as(fleet.RoleViewer).Cookie})
	asked, out := 0, httptest.NewRecorder()
	actor, csrf, err := w.inner.Operators.Person(r)
	if err != nil {
		t.Fatal(err)
	}
	w.inner.follow(out, &visit{Request: r, w: out, Actor: actor, CSRF: csrf, look: w.inner.looks["en"]}, &page{name: "test", live: func(*console, *visit) (*live, error) {
		asked++
		switch asked {
		case 1, 2:
			return nil, errors.New("the records are busy")
		case 3:
			return &live{parts: []part{{ID: "x", HTML: "<p id=x>now</p>"}}}, nil
		}
		return nil, &fleet.Refusal{Code: fleet.CodeMachineUnknown, Detail: "it is gone"}
	}})
	if said := out.Body.String(); !strings.HasPrefix(said, "event: parts") || !strings.Contains(said, "event: ended") || asked != 4 {
		t.Errorf("asked %d times: %s", asked, said)
	}
}

// TestAPageEndsWhereTheRoleChanged: what a role showed is not shown to another one.
func TestAPageEndsWhereTheRoleChanged(t *testing.T) {
	w := newWorld(t)
	r := httptest.NewRequest(http.MethodGet, w.url+"/live", nil)
	r.RemoteAddr = "127.0.0.1:40000"
	r.AddCookie(&http.Cookie{Name: api.CookieName, Value: w.as(fleet.RoleViewer).Cookie})
	actor, csrf, err := w.inner.Operators.Person(r)
	if err != nil {
		t.Fatal(err)
	}
	actor.Role = fleet.RoleAdmin // that it had when the page was opened
	out := httptest.NewRecorder()
	w.inner.follow(out, &visit{Request: r, w: out, Actor: actor, CSRF: csrf, look: w.inner.looks["en"]}, &page{name: "test", live: func(*console, *visit) (*live, error) {
		t.Error("the page is asked for what another role sees")
		return &live{}, nil
	}})
	if said := out.Body.String(); !strings.HasPrefix(said, "event: ended") {
		t.Errorf("the page is told %q", said)
	}
}

// TestAPageThatEndsKeepsWhatWasTyped: who types loads it again by a link.
func TestAPageThatEndsKeepsWhatWasTyped(t *testing.T) {
	w := newWorld(t)
	id := w.machine("one", true)
	b := w.open(t, how{Role: fleet.RoleOperator}, "/machines/"+id)
	b.until(`document.documentElement.dataset.heard === "1"`)
	b.typed(`#edit [name="notes"]`, "by the door")
	if err := w.fleet.RemoveMachine(w.ctx, id); err != nil {
		t.Fatal(err)
	}
	b.says("#lost a", "Load the page again")
	if typed := eval[string](b, `document.querySelector('#edit [name="notes"]').value`); typed != "by the door" {
		t.Errorf("what was typed is %q", typed)
	}
	b.expect("status of 404")
	b.click("#lost a")
	b.says("h1", "Not done")
}

// TestADialogThatIsRefusedIsClosed: it says why, has a name, and gives the focus back.
func TestADialogThatIsRefusedIsClosed(t *testing.T) {
	w := newWorld(t)
	b := w.open(t, how{Role: fleet.RoleOperator}, "/machines/"+w.machine("one", true))
	b.expect("status of 400")
	eval[bool](b, `(document.getElementById("machines").value = "none", true)`)
	b.click(`button[hx-get="/orders/deploy"]`)
	b.says("#dialog .message.refused", "No machine is chosen")
	b.axe()
	if name := eval[string](b, `document.getElementById("dialog").getAttribute("aria-label")`); name != "Not done" {
		t.Errorf("the dialog is named %q", name)
	}
	b.press(kb.Enter) // Close has the focus
	b.until(`!document.getElementById("dialog").open && document.activeElement.getAttribute("hx-get") === "/orders/deploy"`)
}

// TestNothingIsPutInAnewThatIsAsItWas: a page that was just loaded is sent all of its parts, and again when it listens anew; what somebody
// points at or reads there stays the same element.
func TestNothingIsPutInAnewThatIsAsItWas(t *testing.T) {
	w := school(t)
	var tabs []*tab
	for name, path := range shown(w) {
		if p := w.inner.pageNamed(name); p.live == nil {
			continue
		}
		b := w.open(t, how{Role: fleet.RoleAdmin}, "/settings")
		if _, err := chromedp.Call(b.ctx, cdppage.AddScriptToEvaluateOnNewDocument, cdppage.AddScriptToEvaluateOnNewDocumentParams{Source: `document.addEventListener("DOMContentLoaded", () => { window.fresh = []; new MutationObserver(l => l.forEach(m => m.addedNodes.forEach(n => n.id && window.fresh.push(n.id)))).observe(document.getElementById("main"), {childList: true, subtree: true}); });`}); err != nil {
			t.Fatal(err)
		}
		b.load(path)
		tabs = append(tabs, b)
	}
	for _, b := range tabs {
		b.until(`document.documentElement.dataset.heard === "1"`)
	}
	time.Sleep(2 * liveEvery) // as long as another update takes
	for _, b := range tabs {
		if fresh := eval[[]string](b, "window.fresh"); len(fresh) > 0 {
			t.Errorf("%s puts in anew: %v", eval[string](b, "location.pathname"), fresh)
		}
	}
}
