package console

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// TestSettingsAreRefusedInTheWordsOfTheForm: what a person typed, the label and the unit beside it, and no key and unit of the API.
func TestSettingsAreRefusedInTheWordsOfTheForm(t *testing.T) {
	w := newWorld(t)
	for language, says := range map[string]map[string][2]string{ // by field: what is typed, what is said
		"en": {
			"limit": {"-1", "“Machines at work at once” takes 0 or more, not -1."}, "retries": {"101", "“Retries of a failed job” takes 0 to 100, not 101."},
			"slow_rate":  {"0", "“A machine is slow below” takes more than 0 and at most 1000000 MB/s, not 0."},
			"slow_share": {"101", "“A machine is slow, too, below this share of its room's median” takes more than 0 and at most 100 %, not 101."},
			"slow_for":   {"3", "“How long it has to be that slow” takes 5 to 600 seconds, not 3."}, "silence": {"90000", "“A machine is silent after” takes 5 to 86400 seconds, not 90000."},
			"error_share": {"0", "“Share of wrong tiles” takes more than 0 and at most 100 %, not 0."}, "error_tiles": {"0", "“Judged from this many tiles on” takes 1 or more, not 0."},
			"free_share": {"100", "“Share of the repository's disk that is to be free” takes at least 0 and less than 100 %, not 100."}, "free_bytes": {"-2", "“Room on it that is to be free” takes 0 GB or more, not -2."},
			"certificate_days": {"366", "takes 0 to 365 days, not 366."}, "cool_down": {"50000", "“Time between two messages about the same” takes 0 to 43200 minutes, not 50000."},
			"keep_events_days": {"0", "or -1, which is for ever; not 0"},
		},
		"zh": {
			"slow_rate": {"0", "“低于此速率视为缓慢”应大于 0 且不超过 1000000 MB/s，不能填 0。"}, "silence": {"1", "“多久没有报告视为无响应”应在 5 到 86400 秒 之间，不能填 1。"},
			"free_share": {"100", "不小于 0 且小于 100 %"}, "error_tiles": {"0", "不得小于 1，不能填 0。"}, "keep_jobs_days": {"0", "（永久），不能填 0"},
		},
	} {
		s := w.fleet.Settings()
		form := url.Values{}
		v := &visit{Request: httptest.NewRequest(http.MethodPost, "/settings", nil), look: w.inner.looks[language]}
		view := v.settingsView(&s)
		for key, f := range view.fields() {
			form.Set(key, f.Value)
		}
		for key, c := range says {
			form.Set(key, c[0])
		}
		v.PostForm = form
		wrong := map[string]string{}
		fields := view.fields()
		for _, x := range w.fleet.CheckSettings(v.settingsOrder(view)) {
			wrong[x.Field] = v.wrongSetting(fields[x.Field], x)
		}
		if len(wrong) != len(says) {
			t.Errorf("%s: %q", language, wrong)
		}
		for key, c := range says {
			if !strings.Contains(wrong[key], c[1]) {
				t.Errorf("%s: %s is refused by %q, want %q", language, key, wrong[key], c[1])
			}
		}
	}
}
