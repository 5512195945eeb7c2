package console

import (
	"cmp"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
)

// settingsPage is how the site works.
var settingsPage = &page{path: "/settings", name: "settings", nav: text("Settings"), role: fleet.RoleAdmin, data: settingsData, routes: []route{
	{pattern: "POST /settings", role: fleet.RoleAdmin, serve: editSettings},
}}

// setting is a field of the form.
type setting struct {
	Key               string  // of the fleet: "slow_rate"
	Label, Hint, Unit string  // in the language
	Kind              string  // "number", "text", "email", "url", "lines", "choice"
	Value, Wrong      string  // Wrong is a sentence, "" is nothing
	Scale             float64 // of a number: how many of the API's units one of the form's is; 1e6 for MB/s
	First             bool    // of those that are wrong
	Choices           []settingChoice
}

type settingChoice struct {
	Value, Name string
	Chosen      bool
}

// settingGroup is a part of the form.
type settingGroup struct {
	ID, Name, Text string
	Fields         []*setting
}

// settingsView is what the page shows.
type settingsView struct {
	Version int64
	Groups  []settingGroup
	Rules   []settingChoice // of which people are told
	Refused string          // why nothing was changed, "" is nothing
}

func settingsData(c *console, v *visit) (any, error) {
	s := c.Fleet.Settings()
	return v.settingsView(&s), nil
}

// settingsView is the form with what is set.
func (v *visit) settingsView(s *fleet.Settings) *settingsView {
	w := &settingsView{Version: s.Version, Groups: []settingGroup{
		{"work", v.t("Work"), "", []*setting{
			v.amount("limit", v.t("Machines at work at once"), v.t("0 is no limit."), "", float64(s.Limit)),
			v.amount("retries", v.t("Retries of a failed job"), v.t("A job that failed because of the network is tried again by itself."), "", float64(s.Retries)),
			{Key: "time_zone", Label: v.t("Time zone of maintenance windows"), Hint: v.t("As in Europe/Berlin; empty is that of the appliance."), Kind: "text", Value: s.TimeZone},
		}},
		{"thresholds", v.t("Thresholds"), v.t("Beyond them an alert is raised."), []*setting{
			v.amount("slow_rate", v.t("A machine is slow below"), "", "MB/s", s.SlowRate/1e6),
			v.amount("slow_share", v.t("A machine is slow, too, below this share of its room's median"), "", "%", 100*s.SlowShare),
			v.amount("slow_for", v.t("How long it has to be that slow"), v.t("Before the machine is shown as slow and an alert is raised."), v.t("seconds"), seconds(s.SlowFor)),
			v.amount("silence", v.t("A machine is silent after"), v.t("At work, and without a report."), v.t("seconds"), seconds(s.Silence)),
			v.amount("error_share", v.t("Share of wrong tiles"), v.t("That fail their hash within 60 s."), "%", 100*s.ErrorShare),
			v.amount("error_tiles", v.t("Judged from this many tiles on"), "", "", float64(s.ErrorTiles)),
			v.amount("free_share", v.t("Share of the repository's disk that is to be free"), "", "%", 100*s.FreeShare),
			v.amount("free_bytes", v.t("Room on it that is to be free"), v.t("The greater one of the two counts."), "GB", float64(s.FreeBytes)/1e9),
			v.amount("certificate_days", v.t("A certificate is told of before its end"), "", v.t("days"), float64(s.CertificateDays)),
			v.amount("cool_down", v.t("Time between two messages about the same"), "", v.t("minutes"), seconds(s.CoolDown)/60),
		}},
		{"mail", v.t("Mail"), v.t("The password of the mail user is in a file that seedbed serve --mail-password-file names; it is never stored here."), []*setting{
			{Key: "mail_server", Label: v.t("Mail server and port"), Hint: v.t("As in mail.example.org:587; empty sends no mail."), Kind: "text", Value: s.MailServer},
			{Key: "mail_tls", Label: v.t("Encryption"), Kind: "choice", Value: string(s.MailTLS), Choices: []settingChoice{
				{string(fleet.MailSTARTTLS), v.t("STARTTLS (port 587)"), s.MailTLS == fleet.MailSTARTTLS},
				{string(fleet.MailImplicit), v.t("TLS from the first byte on (port 465)"), s.MailTLS == fleet.MailImplicit},
				{string(fleet.MailPlain), v.t("none"), s.MailTLS == fleet.MailPlain}}},
			{Key: "mail_user", Label: v.t("Mail user"), Hint: v.t("Empty is a server that asks for none."), Kind: "text", Value: s.MailUser},
			{Key: "mail_from", Label: v.t("Mail comes from"), Kind: "email", Value: s.MailFrom},
			{Key: "mail_to", Label: v.t("Mail goes to"), Hint: v.t("One address a line."), Kind: "lines", Value: strings.Join(s.MailTo, "\n")},
		}},
		{"webhook", v.t("Webhook"), "", []*setting{
			{Key: "webhook", Label: v.t("URL"), Hint: v.t("Messages are posted there as JSON; empty posts none."), Kind: "url", Value: s.Webhook},
		}},
		{"retention", v.t("Retention"), "", []*setting{
			v.amount("keep_events_days", v.t("Events are kept for"), v.t("-1 is for ever."), v.t("days"), float64(s.KeepEvents)),
			v.amount("keep_jobs_days", v.t("Jobs and receipts are kept for"), v.t("-1 is for ever."), v.t("days"), float64(s.KeepJobs)),
		}},
	}}
	for _, r := range fleet.AlertRules {
		w.Rules = append(w.Rules, settingChoice{string(r), v.t(rules[r].name), !slices.Contains(s.Mute, r)})
	}
	return w
}

// scales are how many of the API's units one of the form's is, of fields for which these are not the same; the API's lengths of time are
// seconds here.
var scales = map[string]float64{"slow_rate": 1e6, "slow_share": 0.01, "error_share": 0.01, "free_share": 0.01, "free_bytes": 1e9, "cool_down": 60}

// amount is a field for a number.
func (v *visit) amount(key, label, hint, unit string, value float64) *setting {
	return &setting{Key: key, Label: label, Hint: hint, Unit: unit, Kind: "number", Scale: cmp.Or(scales[key], 1), Value: strconv.FormatFloat(value, 'f', -1, 64)}
}

func seconds(d fleet.Duration) float64 { return float64(d) / 1e9 }

// wrongSetting says what is wrong with a field in the words and units of the form.
func (v *visit) wrongSetting(f *setting, w fleet.WrongSetting) string {
	r := w.Range
	if r == nil || f.Kind != "number" {
		return v.sentenceOf(w.Text)
	}
	number := func(n float64) string { return strconv.FormatFloat(n/f.Scale, 'f', -1, 64) }
	amount := func(n float64) string { return strings.TrimSpace(number(n) + " " + f.Unit) }
	least, most := number(r.Least), amount(r.Most)
	switch {
	case math.IsInf(r.Most, 1) && !r.Above:
		return v.t("“%s” takes %s or more, not %s.", f.Label, amount(r.Least), f.Value)
	case r.Above:
		return v.t("“%s” takes more than %s and at most %s, not %s.", f.Label, least, most, f.Value)
	case r.Below:
		return v.t("“%s” takes at least %s and less than %s, not %s.", f.Label, least, most, f.Value)
	}
	return v.t("“%s” takes %s to %s, not %s.", f.Label, least, most, f.Value)
}

// fields are all fields of the form by their keys.
func (w *settingsView) fields() map[string]*setting {
	all := map[string]*setting{}
	for _, g := range w.Groups {
		for _, f := range g.Fields {
			all[f.Key] = f
		}
	}
	return all
}

// editSettings changes the settings. What is wrong stands at its field, and what was typed stays.
func editSettings(c *console, v *visit) (*answer, error) {
	if err := v.ParseForm(); err != nil {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: v.t("The form cannot be read; load the page again.")}
	}
	s := c.Fleet.Settings()
	view := v.settingsView(&s)
	version, err := strconv.ParseInt(v.PostForm.Get("version"), 10, 64)
	if err != nil {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: v.t("The form cannot be read; load the page again.")}
	}
	view.Version = version
	order, fields := v.settingsOrder(view), view.fields()
	for _, w := range c.Fleet.CheckSettings(order) {
		if f := fields[w.Field]; f != nil && f.Wrong == "" {
			f.Wrong = v.wrongSetting(f, w)
		}
	}
	wrong := 0
	for _, g := range view.Groups {
		for _, f := range g.Fields {
			if f.Wrong != "" {
				f.First = wrong == 0
				wrong++
			}
		}
	}
	switch {
	case wrong == 1:
		view.Refused = v.t("Nothing was changed: one value cannot be. It says why.")
	case wrong > 1:
		view.Refused = v.t("Nothing was changed: %d values cannot be. Each says why.", wrong)
	default:
		if version == 0 {
			version = fleet.Unmade
		}
		if _, err = c.Fleet.EditSettings(v.Context(), version, order); err == nil {
			return goTo("/settings", v.t("The settings are changed.")), nil
		}
		if api.StatusOf(err) == http.StatusInternalServerError {
			return nil, err
		}
		view.Refused = v.sentence(err)
	}
	if !v.htmx() {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: view.Refused}
	}
	return show("settings", "form", view), nil
}

// settingsOrder reads the form into the view, and returns what it asks for.
func (v *visit) settingsOrder(w *settingsView) (o fleet.SettingsOrder) {
	fields := w.fields()
	for _, f := range fields {
		f.Value = strings.TrimSpace(v.PostForm.Get(f.Key))
		for i := range f.Choices {
			f.Choices[i].Chosen = f.Choices[i].Value == f.Value
		}
	}
	whole := func(key string) *int64 {
		n := v.numberOf(fields[key])
		if n == nil {
			return nil
		}
		return new(int64(math.Round(*n * fields[key].Scale)))
	}
	count := func(key string) *int {
		if n := whole(key); n != nil {
			return new(int(*n))
		}
		return nil
	}
	share := func(key string) *float64 {
		if n := v.numberOf(fields[key]); n != nil {
			return new(*n * fields[key].Scale)
		}
		return nil
	}
	lapse := func(key string) *fleet.Duration {
		if n := v.numberOf(fields[key]); n != nil {
			return new(fleet.Duration(*n * fields[key].Scale * 1e9))
		}
		return nil
	}
	words := func(key string) *string { return &fields[key].Value }
	o = fleet.SettingsOrder{
		Limit: count("limit"), Retries: count("retries"), TimeZone: words("time_zone"), KeepEvents: count("keep_events_days"), KeepJobs: count("keep_jobs_days"),
		SlowRate: share("slow_rate"), SlowShare: share("slow_share"), SlowFor: lapse("slow_for"), Silence: lapse("silence"),
		ErrorShare: share("error_share"), ErrorTiles: whole("error_tiles"), FreeShare: share("free_share"), FreeBytes: whole("free_bytes"),
		CertificateDays: count("certificate_days"), CoolDown: lapse("cool_down"),
		MailServer: words("mail_server"), MailTLS: new(fleet.MailTLS(fields["mail_tls"].Value)), MailUser: words("mail_user"), MailFrom: words("mail_from"),
		MailTo: new(strings.Fields(strings.ReplaceAll(fields["mail_to"].Value, ",", " "))), Webhook: words("webhook"),
	}
	mute := []fleet.AlertRule{}
	for i, r := range fleet.AlertRules {
		if w.Rules[i].Chosen = slices.Contains(v.PostForm["told"], string(r)); !w.Rules[i].Chosen {
			mute = append(mute, r)
		}
	}
	o.Mute = &mute
	return o
}

// amountOf reads a number; what is none stands at its field.
func (v *visit) numberOf(f *setting) *float64 {
	n, err := strconv.ParseFloat(strings.ReplaceAll(f.Value, ",", "."), 64)
	if err == nil && (n != n || n > 1e15 || n < -1e15) {
		err = errors.New("too large")
	}
	if err != nil {
		f.Wrong = v.t("A number is wanted here.")
		return nil
	}
	return &n
}
