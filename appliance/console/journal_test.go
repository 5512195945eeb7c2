package console

import (
	"encoding/csv"
	"strings"
	"testing"

	"seedbed/appliance/fleet"
	"seedbed/appliance/journal"
)

// download is what a link leads to, as the browser asks for it with who is logged in.
type download struct {
	Status              int
	Kind, Name, Content string
}

// fetched follows the link that a selector finds, without leaving the page.
func (b *tab) fetched(selector string) download {
	b.t.Helper()
	return eval[download](b, `(async () => { const r = await fetch(document.querySelector(`+"`"+selector+"`"+`).href);
		return {Status: r.status, Kind: r.headers.get("Content-Type"), Name: r.headers.get("Content-Disposition"), Content: await r.text()}; })()`)
}

// TestJournalsAreDownloadedFromTheirPages by a viewer too.
func TestJournalsAreDownloadedFromTheirPages(t *testing.T) {
	w := newWorld(t)
	id := w.machine("one", true)
	for language, says := range map[string]string{"en": "Journal (CSV)", "zh": "日志（CSV）"} {
		b := w.open(t, how{Role: fleet.RoleViewer, Language: language, Width: 390}, "/machines/"+id)
		b.says("#jobs", says)
		b.fits()
		got := b.fetched(`#jobs a[href$="/journal"]`)
		table, err := csv.NewReader(strings.NewReader(got.Content)).ReadAll()
		if err != nil || got.Status != 200 || got.Kind != journal.Kind || !strings.Contains(got.Name, id) || len(table) == 0 || len(table[0]) != len(journal.Columns) || table[0][1] != "machine" {
			t.Errorf("%+v, %v", got, err)
		}
	}
}
