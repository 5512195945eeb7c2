package console

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestAPartThatCannotBeMadeIsLogged, once for each who looks, and the page says so in its place.
func TestAPartThatCannotBeMadeIsLogged(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	v := &visit{Request: httptest.NewRequest(http.MethodGet, w.url+"/machines/m1", nil), look: w.inner.looks["zh"], log: slog.New(slog.NewTextHandler(&log, nil))}
	for range 3 {
		p := v.part("machine", "state", "", "state", "no machine")
		if p.ID != "state" || !strings.Contains(p.HTML, `<div id="state">`) || !strings.Contains(p.HTML, "无法显示") {
			t.Errorf("%+v", p)
		}
	}
	if said := log.String(); strings.Count(said, "level=ERROR") != 1 || !strings.Contains(said, "page=machine part=state path=/machines/m1 err=") {
		t.Errorf("the log says %q", said)
	}
}
