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

// TestJournalsAreDownloadedFromTheirPages by a viewer too, in both languages.
func TestJournalsAreDownloadedFromTheirPages(t *testing.T) {
	w, ids, deployment := inTheMiddle(t)
	for language, says := range map[string]string{"en": "Journal (CSV)", "zh": "记录表（CSV）"} {
		for path, rows := range map[string]int{"/machines/" + ids[0]: 1, "/deployments/" + deployment: len(ids)} {
			b := w.open(t, how{Role: fleet.RoleViewer, Language: language, Width: 390}, path)
			b.says("main", says)
			b.fits()
			got := b.fetched(`a[href$="/journal"]`)
			table, err := csv.NewReader(strings.NewReader(got.Content)).ReadAll()
			if err != nil || got.Status != 200 || got.Kind != journal.Kind || !strings.Contains(got.Name, path[strings.LastIndexByte(path, '/')+1:]) || len(table) == 0 {
				t.Errorf("%s: %+v, %v", path, got, err)
				continue
			}
			jobs := 0
			for _, cells := range table[1:] {
				if cells[8] == "" { // the row of a job has no partition
					jobs++
				}
			}
			if len(table[0]) != len(journal.Columns) || table[0][8] != "partition" || jobs != rows {
				t.Errorf("%s: %d jobs, want %d: %s", path, jobs, rows, got.Content)
			}
		}
	}
}
