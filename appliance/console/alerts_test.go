package console

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"seedbed/appliance/alert"
	"seedbed/appliance/fleet"
	"seedbed/appliance/monitor"
)

// alarm raises alerts for what the picture shows, has one of them over, and leaves a message that cannot be sent and one that was.
func (w *world) alarm() {
	w.t.Helper()
	picture := w.told.Load()
	for _, m := range picture.Machines {
		switch m.Word {
		case monitor.Slow:
			m.Judged, m.Cause, m.Why = 6.2e6, monitor.CauseLink, "its network card has negotiated 100 Mbit/s; its siblings have 1000: check cable and switch port"
		case monitor.Failed:
			m.Job, m.Why = "5b24efad3322", "the disk is too small"
		}
	}
	found := alert.Judge(alert.Facts{Picture: picture, Thresholds: w.fleet.Settings().Thresholds, Now: time.Now(), Site: alert.Site{Free: 4e9, Total: 500e9}})
	check := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	check(w.fleet.Judge(w.ctx, fleet.Judgement{Raise: found, Messages: []fleet.Message{
		{Channel: fleet.ChannelMail, Subject: "Seedbed: 4 machines are slow", Text: "x"}, {Channel: fleet.ChannelWebhook, Subject: "Seedbed: A101-07 failed", Payload: []byte(`{}`)}}}))
	ends := map[string]string{}
	for _, a := range w.fleet.Alerts() {
		if a.Rule == fleet.RuleSilent && len(ends) == 0 {
			ends[a.ID] = "it goes on, at 84 MB/s"
		}
	}
	check(w.fleet.Judge(w.ctx, fleet.Judgement{End: ends}))
	for _, m := range w.fleet.Messages() {
		_, err := w.fleet.TakeMessage(w.ctx, m.ID)
		check(err)
		why := ""
		if m.Channel == fleet.ChannelMail {
			why = "mail server mail.example.org:587 is not reached: nothing answers at its port; is it running, and is the port right?"
		}
		check(w.fleet.MessageTried(w.ctx, m.ID, why))
	}
	server, from, to := "mail.example.org:587", "seedbed@example.org", []string{"anna@example.org", "otto@example.org"}
	_, err := w.fleet.EditSettings(w.ctx, 0, fleet.SettingsOrder{MailServer: &server, MailFrom: &from, MailTo: &to})
	check(err)
}

// What mail says with a command the console says with its own button, where the job can be tried again by it.
func TestAlertOfAFailedJobNamesTheButton(t *testing.T) {
	w := newWorld(t)
	ids := w.room("A101", 1, 2)
	w.deployed(ids[:1], monitor.Failed)
	breach := fleet.Breach{Rule: fleet.RuleFailed, Subject: ids[0], Machine: ids[0], Name: "pc", Text: "the job of pc failed", Advice: "read what the machine's page says, mend it, then `seedbed job retry 123`"}
	if err := w.fleet.Judge(t.Context(), fleet.Judgement{Raise: []fleet.Breach{breach}}); err != nil {
		t.Fatal(err)
	}
	if _, body, _ := w.ask(fleet.RoleViewer, "/alerts", nil); !strings.Contains(body, "press “Retry those that failed” on the page of its deployment") || strings.Contains(body, "job retry") {
		t.Errorf("the alert says %s", body)
	}
}

func TestAlertsPageShowsWhatIsOpenAndWhatWasNotSent(t *testing.T) {
	w := school(t)
	b := w.open(t, how{Role: fleet.RoleViewer}, "/alerts")
	b.says("#open", "What to do")
	b.says("#open", "its network card has negotiated 100 Mbit/s")
	b.says("#unsent", "nothing answers at its port")
	b.says("#over", "Then: it goes on, at 84 MB/s")
	b.says("#sent", "A101-07 failed")
	b.says("main", "anna@example.org, otto@example.org")
	if eval[bool](b, `!!document.querySelector("main form") || !!document.querySelector("main a[href^='/settings']")`) {
		t.Error("a viewer is shown what only an administrator may")
	}
	b.until(`document.documentElement.dataset.heard === "1"`)
	if err := w.fleet.Judge(t.Context(), fleet.Judgement{Raise: []fleet.Breach{{Rule: fleet.RuleDamage, Subject: "repository", Name: "the repository", Text: "images in the repository are damaged", Advice: "heal them"}}}); err != nil {
		t.Fatal(err)
	}
	b.says("#open", "images in the repository are damaged") // by itself

	zh := w.open(t, how{Role: fleet.RoleAdmin, Language: "zh"}, "/alerts")
	zh.says("#open", "它的网卡协商速率为 100 Mbit/s")
	zh.says("#open", "镜像库中有镜像损坏")
	zh.says("#unsent", "端口无应答")
	zh.says("#open", "请检查网线、插座和交换机端口")
	if status, body, _ := w.ask(fleet.RoleOperator, "/alerts/test", url.Values{}); status != 403 || !strings.Contains(body, "admin") {
		t.Errorf("an operator sends a test message: %d %s", status, body)
	}
}

func TestTestMessageSaysWhatTheServerSaid(t *testing.T) {
	w := newWorld(t)
	nowhere, none := "http://127.0.0.1:1/hook", ""
	if _, err := w.fleet.EditSettings(t.Context(), 0, fleet.SettingsOrder{Webhook: &nowhere, MailServer: &none}); err != nil {
		t.Fatal(err)
	}
	b := w.open(t, how{Role: fleet.RoleAdmin}, "/alerts")
	b.says("main", "127.0.0.1:1")
	b.click("main form button")
	b.says("main .message.refused", "webhook 127.0.0.1:1 is not reached: nothing answers at its port")
}

// Settings are changed by keys alone. What cannot be says so at its field, what was typed stays, and the first wrong field has the focus.
func TestSettingsAreChangedByKeysAndCheckedAtTheirFields(t *testing.T) {
	w := newWorld(t)
	b := w.open(t, how{Role: fleet.RoleAdmin}, "/settings")
	typed := func(key, text string) {
		t.Helper()
		b.focus("#set-" + key)
		eval[bool](b, fmt.Sprintf(`document.querySelector("#set-%s").select(), true`, key))
		if text == "" {
			b.press(kb.Delete)
			return
		}
		b.press(text)
	}
	typed("slow_rate", "abc")
	typed("silence", "1")
	typed("mail_server", "mail.example.org")
	b.press(kb.Enter)
	b.says("#settings .message.refused", "5 values cannot be")
	b.says("#wrong-slow_rate", "A number is wanted here.")
	b.says("#wrong-silence", "“A machine is silent after” takes 5 to 86400 seconds, not 1.")
	b.says("#wrong-mail_server", "one is written mail.example.org:587")
	b.until(`document.activeElement.id === "set-slow_rate" && document.activeElement.value === "abc"`)
	b.axe()
	if s := w.fleet.Settings(); s.Version != 0 || s.MailServer != "" {
		t.Errorf("a form that is wrong changes %+v", s)
	}
	typed("slow_rate", "12,5")
	typed("silence", "60")
	typed("mail_server", "mail.example.org:587")
	typed("mail_from", "seedbed@example.org")
	b.focus("#set-mail_to")
	b.press("anna@example.org otto@example.org")
	b.focus(`#told input[value="failed"]`)
	b.press(" ")
	b.focus("#settings .buttons button")
	b.press(kb.Enter)
	b.says("main .message.done", "The settings are changed.")
	s := w.fleet.Settings()
	if s.SlowRate != 12.5e6 || time.Duration(s.Silence) != time.Minute || s.MailServer != "mail.example.org:587" || len(s.MailTo) != 2 || len(s.Mute) != 1 || s.Mute[0] != fleet.RuleFailed ||
		s.SlowShare != 0.25 || s.FreeBytes != 10e9 || s.ErrorShare != 0.05 || s.KeepJobs != 365 || time.Duration(s.CoolDown) != 15*time.Minute {
		t.Errorf("%+v", s)
	}
	// Somebody else is faster.
	limit := 7
	if _, err := w.fleet.EditSettings(t.Context(), 0, fleet.SettingsOrder{Limit: &limit}); err != nil {
		t.Fatal(err)
	}
	typed("limit", "9")
	b.press(kb.Enter)
	b.says("#settings .message.refused", "changed by somebody else")
	if s := w.fleet.Settings(); s.Limit != 7 {
		t.Errorf("limit %d", s.Limit)
	}
}

func TestSettingsAreForAdministrators(t *testing.T) {
	w := newWorld(t)
	for _, role := range []fleet.Role{fleet.RoleViewer, fleet.RoleOperator} {
		if status, _, _ := w.ask(role, "/settings", nil); status != 403 {
			t.Errorf("%s sees the settings: %d", role, status)
		}
		if status, _, _ := w.ask(role, "/settings", url.Values{"version": {"0"}}); status != 403 {
			t.Errorf("%s changes the settings: %d", role, status)
		}
	}
	zh := w.open(t, how{Role: fleet.RoleAdmin, Language: "zh"}, "/settings")
	zh.focus("#set-limit")
	zh.press("x" + kb.Enter)
	zh.says("#wrong-limit", "此处应填数字")
}
