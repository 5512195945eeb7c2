package console

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"seedbed/appliance/fleet"
)

// openers are the pages that dialogs open on, each with dialogs that no page before has.
var openers = []string{"rooms", "machine", "images", "image", "users", "account", "deployment", "queue", "group", "start"}

var anyID = regexp.MustCompile(`[0-9a-f]{12}`)

// TestDialogs opens each dialog that a page's buttons open: it fits a phone and a projector, axe finds nothing in it, and it closes. Each
// run looks at those of the rooms as a phone shows them, the full one at all of them.
func TestDialogs(t *testing.T) {
	w := school(t)
	hows, names := []how{{Role: fleet.RoleAdmin, Width: 390, Theme: "light", Language: "zh"}}, openers[:1]
	if os.Getenv("SEEDBED_FULL") != "" {
		hows, names = nil, openers
		for _, width := range []int{390, 1280, 1920} {
			hows = append(hows, how{Role: fleet.RoleAdmin, Width: width, Theme: "light", Language: "en"}, how{Role: fleet.RoleAdmin, Width: width, Theme: "dark", Language: "zh"})
		}
	}
	for _, h := range hows {
		t.Run(h.String(), func(t *testing.T) {
			var seen []string
			for _, name := range names {
				seen = append(seen, dialogsOf(t, w, h, name, seen)...)
			}
			if len(seen) < 10 {
				t.Errorf("dialogs %q, want ten at least", seen)
			}
		})
	}
}

// dialogsOf looks at the dialogs of a page, but those that were seen; it returns which.
func dialogsOf(t *testing.T, w *world, h how, page string, seen []string) (opened []string) {
	b := w.open(t, h, shown(w)[page])
	var ids []string
	for _, m := range w.fleet.Machines()[:3] {
		ids = append(ids, m.ID)
	}
	for _, path := range eval[[]string](b, `[...document.querySelectorAll('[hx-target="#dialog"]')].map(e => e.getAttribute("hx-get") + (e.hasAttribute("hx-include") ? "?machines=" : ""))`) {
		kind, _, _ := strings.Cut(anyID.ReplaceAllString(path, "ID"), "?")
		if slices.Contains(seen, kind) || slices.Contains(opened, kind) || strings.HasSuffix(kind, "/rollback") { // there is nothing to take back in this school
			continue
		}
		opened = append(opened, kind)
		if strings.HasSuffix(path, "?machines=") {
			path += strings.Join(ids, ",")
			if strings.HasPrefix(kind, "/orders/capture") {
				path = kind + "?machines=" + ids[0]
			}
		}
		name := "dialog" + strings.ReplaceAll(kind, "/", "-") + "-" + h.String()
		b.dialog(path)
		b.looks(kind, name)
		if kind == "/orders/deploy" {
			b.click("#dialog button.main")
			b.until(`document.querySelector("#dialog table")`)
			b.looks("the dry run", name+"-plan")
		}
		eval[bool](b, `(document.getElementById("dialog").close(), true)`)
		b.until(`document.getElementById("dialog").childElementCount === 0`)
	}
	return opened
}

// looks judges the dialog that is open, which has a button that closes it.
func (b *tab) looks(what, picture string) {
	b.t.Helper()
	b.until(`document.querySelector("#dialog [data-close]")`)
	b.fits()
	if wide := eval[int](b, `(d => d.scrollWidth - d.clientWidth)(document.getElementById("dialog"))`); wide > 1 {
		b.t.Errorf("%s is %d pixels wider than its dialog", what, wide)
	}
	b.axe()
	b.picture(picture)
}
