package console

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"seedbed/appliance/fleet"
)

// A hand at the page, as a person has one: it goes to what is seen at a place, not to an element that was looked up a moment ago and that
// a live update may have replaced since. Each of its methods waits for what it needs, and fails the test with what was in the way.

// handWaits is how long a hand waits for what it needs.
const handWaits = 20 * time.Second

// reach is a script's function that gives the first visible element of a selector, or says why nobody can use it.
const reach = `const reach = (selector) => {
	const all = [...document.querySelectorAll(selector)];
	if (all.length === 0) return [null, "it is not there"];
	const e = all.find(e => e.checkVisibility({visibilityProperty: true}) && e.getBoundingClientRect().width > 0 && e.getBoundingClientRect().height > 0);
	if (!e) return [null, "it is not visible"];
	if (e.matches(":disabled")) return [null, "it is disabled"];
	if (e.closest("[inert]")) return [null, "it is inert"];
	const modal = document.querySelector("dialog:modal");
	if (modal && !modal.contains(e)) return [null, "a dialog is open over it"];
	return [e, ""];
};`

// aim finds where to press an element: its middle, in sight, where nothing else is, and where it stays for two frames. The page notes in
// hand.missed whether the next press is at another element.
const aim = `(async () => { ` + reach + `
	const selector = %q;
	const [e, why] = reach(selector);
	if (!e) return {X: 0, Y: 0, Why: why};
	const frame = () => new Promise(done => { requestAnimationFrame(done); setTimeout(done, 200); });
	const middle = () => { const r = e.getClientRects()[0] ?? e.getBoundingClientRect(); return {X: r.left + r.width / 2, Y: r.top + r.height / 2}; };
	const hits = (at) => { const top = document.elementFromPoint(at.X, at.Y); return [top && (e.contains(top) || top.closest("label")?.control === e), top]; };
	if (!hits(middle())[0]) e.scrollIntoView({block: "center", inline: "center", behavior: "instant"});
	const before = middle();
	await frame(); await frame();
	const at = middle();
	if (!e.isConnected || document.querySelector(selector) === null) return {...at, Why: "it is replaced"};
	if (Math.abs(at.X - before.X) > 1 || Math.abs(at.Y - before.Y) > 1) return {...at, Why: "it moves"};
	const [hit, top] = hits(at);
	if (!hit) return {...at, Why: top ? "it is covered by " + top.outerHTML.slice(0, 120) : "it is out of sight"};
	window.hand = {missed: false};
	const hand = window.hand;
	document.addEventListener("pointerdown", (p) => { hand.missed = !(e.contains(p.target) || p.target.closest("label")?.control === e); }, {capture: true, once: true});
	return {...at, Why: ""};
})()`

// target is where something is to be pressed, or why it cannot be.
type target struct {
	X, Y float64
	Why  string
}

// within tries until there is nothing in the way, and fails the test with what was in the way at last.
func (b *tab) within(what, selector string, try func() (why string, err error)) {
	b.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.After(handWaits)
	for {
		why, err := try()
		if err == nil && why == "" {
			return
		}
		if err != nil {
			why = err.Error()
		}
		select {
		case <-tick.C:
		case <-end:
			b.t.Fatalf("%s cannot be %s: %s\n%s", selector, what, why, b.seen())
		}
	}
}

// click presses the first visible element of a selector with the mouse.
func (b *tab) click(selector string) {
	b.t.Helper()
	b.within("clicked", selector, func() (string, error) {
		at, err := chromedp.Run(b.ctx, chromedp.Evaluate[target](fmt.Sprintf(aim, selector), chromedp.EvalAwaitPromise))
		if err != nil || at.Why != "" {
			return at.Why, err
		}
		b.do(chromedp.MouseClickXY(at.X, at.Y))
		missed, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("!!window.hand?.missed"))
		if err == nil && missed {
			return "something else came under the pointer", nil
		}
		return "", nil // an error is of a page that is going: the click had its effect
	})
}

// visible waits until an element of a selector is seen and can be used.
func (b *tab) visible(selector string) {
	b.t.Helper()
	b.within("used", selector, func() (string, error) {
		return chromedp.Run(b.ctx, chromedp.Evaluate[string](fmt.Sprintf(`(() => { %s return reach(%q)[1]; })()`, reach, selector)))
	})
}

// focus gives an element of a selector the focus.
func (b *tab) focus(selector string) {
	b.t.Helper()
	b.within("given the focus", selector, func() (string, error) {
		return chromedp.Run(b.ctx, chromedp.Evaluate[string](fmt.Sprintf(`(() => { %s const [e, why] = reach(%q); if (!e) return why; e.focus(); return document.activeElement === e ? "" : "it takes no focus"; })()`, reach, selector)))
	})
}

// typed types a text into a field, in the place of what is in it; "" empties it.
func (b *tab) typed(selector, text string) {
	b.t.Helper()
	b.focus(selector)
	eval[bool](b, `(document.activeElement.select(), true)`)
	if text == "" {
		b.press(kb.Delete)
	} else {
		b.press(text)
	}
	b.until(fmt.Sprintf(`document.querySelector(%q)?.value === %q`, selector, text))
}

// choose takes an entry of a list by its value.
func (b *tab) choose(selector, value string) {
	b.t.Helper()
	b.within("chosen from", selector, func() (string, error) {
		return chromedp.Run(b.ctx, chromedp.Evaluate[string](fmt.Sprintf(`(() => { %s const [e, why] = reach(%q); if (!e) return why; if (![...e.options].some(o => o.value === %q)) return "it has no entry " + %[3]q;
			e.focus(); e.value = %[3]q; for (const kind of ["input", "change"]) e.dispatchEvent(new Event(kind, {bubbles: true})); return ""; })()`, reach, selector, value)))
	})
}

// upload has a field for files hold one.
func (b *tab) upload(selector, file string) {
	b.t.Helper()
	b.visible(selector)
	b.within("filled", selector, func() (string, error) {
		return "", chromedp.Do(b.ctx, chromedp.SetUploadFiles(selector, []string{file}))
	})
}

// press types keys into what has the focus; package kb names those without a character.
func (b *tab) press(keys string, options ...chromedp.KeyOption) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(keys, options...))
}

// TestAHandReachesOnlyWhatAPersonReaches: what is missing, unseen, disabled, covered or in motion is not pressed, and the hand says so.
func TestAHandReachesOnlyWhatAPersonReaches(t *testing.T) {
	b := newWorld(t).open(t, how{Role: fleet.RoleViewer}, "/account")
	eval[bool](b, `(() => { document.getElementById("main").innerHTML = '<p></p><p><button id=free>a</button> <button id=off disabled>b</button> <button id=gone hidden>c</button> <button id=under>d</button> <button id=goes>e</button></p>'; document.querySelector("main p").style.height = "3000px";
		const over = document.createElement("div"), under = document.getElementById("under"), goes = document.getElementById("goes");
		under.style.position = "relative"; Object.assign(over.style, {position: "absolute", inset: 0}); over.id = "over"; under.before(over); over.parentElement.style.position = "relative"; Object.assign(over.style, {left: under.offsetLeft + "px", width: under.offsetWidth + "px", zIndex: 1});
		goes.style.position = "relative"; const go = () => { goes.style.left = (parseInt(goes.style.left || 0) + 5) % 300 + "px"; requestAnimationFrame(go); }; go(); return true; })()`)
	for selector, why := range map[string]string{"#free": "", "#off": "disabled", "#gone": "not visible", "#under": "covered by <div id=\"over\"", "#goes": "moves", "#none": "not there"} {
		if got := eval[target](b, fmt.Sprintf(aim, selector)).Why; why == "" && got != "" || !strings.Contains(got, why) {
			t.Errorf("%s: %q, want %q", selector, got, why)
		}
	}
	eval[bool](b, `(document.getElementById("free").onclick = () => document.body.dataset.pressed = "1", true)`)
	b.click("#free")
	b.until(`document.body.dataset.pressed === "1"`)
}
