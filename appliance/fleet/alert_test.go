package fleet_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/fleet"
)

var slow = fleet.Breach{Rule: fleet.RuleSlow, Subject: "m", Machine: "m", Name: "pc-1", Text: "pc-1 is slow", Cause: "its link", Advice: "look at its cable"}

func (r *room) judge(j fleet.Judgement) {
	r.t.Helper()
	if err := r.Judge(r.t.Context(), j); err != nil {
		r.t.Fatal(err)
	}
}

// texts are the events of these kinds, oldest first.
func (r *room) texts(kind string) (list []string) {
	r.t.Helper()
	events, err := r.Events(r.t.Context(), fleet.EventQuery{Kind: kind})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range events {
		list = append(list, e.Text)
	}
	return list
}

func TestAlertsAndMessagesAreKept(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	r.judge(fleet.Judgement{Raise: []fleet.Breach{slow, slow}})
	r.judge(fleet.Judgement{Raise: []fleet.Breach{slow}})
	r.kill()
	list := r.Alerts()
	if len(list) != 1 || !list[0].Open() || !list[0].Told.IsZero() || list[0].Text != slow.Text {
		t.Fatalf("%+v", list)
	}
	id := list[0].ID
	r.clock.add(time.Minute)
	r.judge(fleet.Judgement{Told: []string{id}, Messages: []fleet.Message{{Channel: fleet.ChannelMail, Subject: "pc-1 is slow", Text: "x"}}})
	r.judge(fleet.Judgement{Told: []string{id}, Messages: []fleet.Message{{Channel: fleet.ChannelMail, Subject: "pc-1 is slow", Text: "x"}}})
	if n := len(r.Messages()); n != 1 {
		t.Errorf("what was told before is told again: %d messages", n)
	}
	r.judge(fleet.Judgement{End: map[string]string{id: "it goes on", "none": "x"}, ToldEnd: []string{id}})
	r.kill()
	list = r.Alerts()
	if len(list) != 1 || list[0].Open() || list[0].Outcome != "it goes on" || list[0].Told.IsZero() || list[0].ToldEnd.IsZero() {
		t.Errorf("%+v", list)
	}
	r.judge(fleet.Judgement{Raise: []fleet.Breach{slow}}) // another breach
	if list = r.Alerts(); len(list) != 2 || !list[0].Open() || list[1].Open() {
		t.Errorf("%+v", list)
	}
	if got := r.texts("alert."); !slices.Equal(got, []string{"pc-1 is slow: its link", "over: pc-1 is slow; it goes on", "pc-1 is slow: its link"}) {
		t.Errorf("%q", got)
	}
	r.clock.add(31 * 24 * time.Hour)
	r.judge(fleet.Judgement{Raise: []fleet.Breach{{Rule: fleet.RuleSpace, Subject: "repository", Text: "full"}}})
	if list = r.Alerts(); len(list) != 2 || !list[0].Open() || !list[1].Open() {
		t.Errorf("what is over for a month is kept: %+v", list)
	}
}

func TestAMessageIsTriedUntilItIsTaken(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	r.judge(fleet.Judgement{Messages: []fleet.Message{{Channel: fleet.ChannelMail, Subject: "pc-1 is slow", Text: "x"}}})
	take := func() *fleet.Message {
		t.Helper()
		m, err := r.TakeMessage(t.Context(), r.Messages()[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	tried := func(why string) fleet.Message {
		t.Helper()
		if err := r.MessageTried(t.Context(), r.Messages()[0].ID, why); err != nil {
			t.Fatal(err)
		}
		return r.Messages()[0]
	}
	var waits []time.Duration
	for range 10 {
		m := take()
		if m == nil {
			t.Fatal("it is not due")
		}
		if again := take(); again != nil {
			t.Fatalf("it is taken twice: %+v", again)
		}
		left := tried("nothing answers")
		wait := left.Next.Sub(r.clock.now())
		waits = append(waits, wait)
		r.clock.add(wait - time.Second)
		if early := take(); early != nil {
			t.Fatalf("it is taken early: %+v", early)
		}
		r.clock.add(time.Second)
	}
	if waits[0] != 10*time.Second || waits[1] != 20*time.Second || waits[9] != time.Hour {
		t.Errorf("%v", waits)
	}
	r.kill()
	if m := r.Messages()[0]; !m.Waiting() || m.Error != "nothing answers" || m.Attempts != 10 {
		t.Errorf("%+v", m)
	}
	if got := r.texts("message."); !slices.Equal(got, []string{`the message "pc-1 is slow" could not be sent and is kept: nothing answers`}) {
		t.Errorf("%q", got)
	}
	take()
	if m := tried(""); m.Waiting() || m.Error != "" || m.Sent.IsZero() {
		t.Errorf("%+v", m)
	}
	r.clock.add(time.Hour)
	if m := take(); m != nil {
		t.Errorf("what was sent is sent again: %+v", m)
	}
}

func TestAMessageIsGivenUpAfterAWeek(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	r.judge(fleet.Judgement{Messages: []fleet.Message{{Channel: fleet.ChannelWebhook, Subject: "s", Payload: []byte(`{}`)}}})
	r.clock.add(8 * 24 * time.Hour)
	id := r.Messages()[0].ID
	if m, err := r.TakeMessage(t.Context(), id); m == nil || err != nil {
		t.Fatal(m, err)
	}
	if err := r.MessageTried(t.Context(), id, "nothing answers"); err != nil {
		t.Fatal(err)
	}
	if m := r.Messages()[0]; m.Waiting() || m.GivenUp.IsZero() || m.Error != "nothing answers" {
		t.Errorf("%+v", m)
	}
	if got := r.texts("message.given-up"); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

func TestSettingsThatCannotBeAreRefused(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	admin := as(t, "anna", fleet.RoleAdmin)
	long := fleet.Duration(48 * time.Hour)
	second := fleet.Duration(time.Second)
	server := fleet.SettingsOrder{MailServer: ptr("mail.example:587"), MailFrom: ptr("seedbed@example.org"), MailTo: ptr([]string{"anna@example.org"})}
	with := func(change func(*fleet.SettingsOrder)) fleet.SettingsOrder { o := server; change(&o); return o }
	for field, list := range map[string][]fleet.SettingsOrder{
		"limit":            {{Limit: ptr(-1)}},
		"retries":          {{Retries: ptr(1000)}},
		"time_zone":        {{TimeZone: ptr("Berlin")}},
		"slow_rate":        {{SlowRate: ptr(0.0)}, {SlowRate: ptr(-1.0)}},
		"slow_share":       {{SlowShare: ptr(1.1)}},
		"slow_for":         {{SlowFor: &second}, {SlowFor: &long}},
		"silence":          {{Silence: &second}, {Silence: &long}},
		"error_share":      {{ErrorShare: ptr(0.0)}},
		"error_tiles":      {{ErrorTiles: ptr(int64(0))}},
		"free_share":       {{FreeShare: ptr(1.0)}},
		"free_bytes":       {{FreeBytes: ptr(int64(-1))}},
		"certificate_days": {{CertificateDays: ptr(-1)}},
		"cool_down":        {{CoolDown: ptr(fleet.Duration(-1))}},
		"mute":             {{Mute: &[]fleet.AlertRule{"everything"}}},
		"mail_tls":         {{MailTLS: ptr(fleet.MailTLS("ssl"))}, with(func(o *fleet.SettingsOrder) { o.MailUser, o.MailTLS = ptr("anna"), ptr(fleet.MailPlain) })},
		"mail_server":      {with(func(o *fleet.SettingsOrder) { o.MailServer = ptr("mail.example") }), with(func(o *fleet.SettingsOrder) { o.MailServer = ptr("mail.example:0") })},
		"mail_from":        {with(func(o *fleet.SettingsOrder) { o.MailFrom = nil }), {MailFrom: ptr("anna")}, {MailFrom: ptr("a@b.c\r\nBcc: x@y.z")}},
		"mail_to":          {with(func(o *fleet.SettingsOrder) { o.MailTo = nil }), {MailTo: &[]string{"Anna <anna@example.org>"}}, {MailTo: ptr(make([]string, 21))}},
		"webhook":          {{Webhook: ptr("ftp://x/")}, {Webhook: ptr("https://anna:secret@hooks.example/x")}, {Webhook: ptr("hooks.example/x")}},
	} {
		for _, o := range list {
			wrong := r.CheckSettings(o)
			if len(wrong) == 0 || wrong[0].Field != field || len(wrong[0].Text) < 20 {
				t.Errorf("%s: %+v", field, wrong)
			}
			if _, err := r.EditSettings(admin, 0, o); err == nil || err.Error() != wrong[0].Text {
				t.Errorf("%s: %v", field, err)
			}
		}
	}
	if _, err := r.EditSettings(as(t, "otto", fleet.RoleOperator), 0, server); err == nil {
		t.Error("an operator changes where messages go")
	}
	if _, err := r.EditSettings(admin, 0, server); err != nil {
		t.Error(err)
	}
	if _, err := r.EditSettings(admin, 0, fleet.SettingsOrder{MailServer: ptr(""), MailTo: &[]string{}}); err != nil {
		t.Error(err)
	}
}

// What an earlier version of the program stored knows no thresholds: the defaults hold.
func TestSettingsOfAnEarlierVersion(t *testing.T) {
	var s fleet.Settings
	if err := s.UnmarshalJSON([]byte(`{"version":3,"limit":7,"retries":0}`)); err != nil {
		t.Fatal(err)
	}
	if s.Version != 3 || s.Limit != 7 || s.Retries != 0 || s.SlowRate != 10e6 || time.Duration(s.Silence) != 2*time.Minute || s.ErrorTiles != 100 || s.MailTLS != fleet.MailSTARTTLS {
		t.Errorf("%+v", s)
	}
	r := newRoom(t, fleet.AdmitAsk)
	if _, err := r.EditSettings(t.Context(), 0, fleet.SettingsOrder{FreeBytes: ptr(int64(0)), Mute: &[]fleet.AlertRule{fleet.RuleSlow}}); err != nil {
		t.Fatal(err)
	}
	r.kill()
	if s := r.Settings(); s.FreeBytes != 0 || s.FreeShare != 0.05 || len(s.Mute) != 1 {
		t.Errorf("%+v", s)
	}
}

// The URL of a webhook is often its secret.
func TestTheWebhookIsNotSaid(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	for _, path := range []string{"sesame", "sesame2"} {
		if _, err := r.EditSettings(as(t, "anna", fleet.RoleAdmin), 0, fleet.SettingsOrder{Webhook: ptr("https://hooks.example/" + path)}); err != nil {
			t.Fatal(err)
		}
	}
	texts := strings.Join(r.texts("settings.changed"), "\n")
	if strings.Contains(texts, "sesame") || !strings.Contains(texts, "https://hooks.example/xxxxx") || !strings.Contains(texts, "path is another one") {
		t.Error(texts)
	}
	s := r.Settings()
	if hidden := s.Hidden(); hidden.Webhook != "https://hooks.example/xxxxx" || s.Webhook != "https://hooks.example/sesame2" {
		t.Errorf("%q %q", hidden.Webhook, s.Webhook)
	}
}
