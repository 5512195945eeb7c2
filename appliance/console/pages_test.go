package console

import (
	"os"
	"testing"

	"seedbed/appliance/fleet"
)

// shown are the pages as tests look at them: by name, the path of one in the world of a school. everyday are those that are looked at in
// each run; all of them are with SEEDBED_FULL.
func shown(w *world) map[string]string {
	machine, deployment := w.fleet.Machines()[0].ID, "none"
	if list := w.fleet.Deployments(); len(list) > 0 {
		deployment = list[0].ID
	}
	return map[string]string{
		"rooms": "/rooms", "group": "/groups/a101", "machine": "/machines/" + machine, "deployments": "/deployments", "deployment": "/deployments/" + deployment, "queue": "/queue",
		"images": "/images", "image": "/images/debian:2", "account": "/account", "events": "/events", "alerts": "/alerts", "users": "/users", "settings": "/settings", "start": "/start",
	}
}

var everyday = []string{"rooms", "machine", "deployments"}

// TestPages looks at each page as a phone, a desk and a projector show it, light and dark, in all languages.
func TestPages(t *testing.T) {
	w := school(t)
	paths := shown(w)
	names := everyday
	if os.Getenv("SEEDBED_FULL") != "" {
		names = nil
		for _, p := range pages() {
			names = append(names, p.name)
		}
	}
	for i, name := range names {
		path := paths[name]
		if path == "" {
			t.Fatalf("page %s has no path in shown", name)
		}
		for j, width := range []int{390, 1280, 1920} {
			for k, language := range languages {
				themes := []string{"light", "dark"}
				if os.Getenv("SEEDBED_FULL") == "" {
					themes = themes[(i+j+k)%2:][:1]
				}
				for _, theme := range themes {
					h := how{Role: fleet.RoleAdmin, Width: width, Theme: theme, Language: language.Code}
					t.Run(name+"-"+h.String(), func(t *testing.T) { lookAt(t, w, h, name, path) })
				}
			}
		}
	}
}

func lookAt(t *testing.T, w *world, h how, name, path string) {
	b := w.open(t, h, path)
	if eval[bool](b, `document.body.dataset.page !== "`+name+`"`) {
		t.Fatalf("%s is not page %s:\n%s", path, name, b.seen())
	}
	if eval[bool](b, `"live" in document.body.dataset`) {
		b.until(`document.documentElement.dataset.heard === "1"`)
	}
	b.fits()
	b.axe()
	b.picture(name + "-" + h.String())
}
