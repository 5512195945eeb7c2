package console

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/doctor"
	"seedbed/appliance/fleet"
)

// found is a report with findings of these verdicts.
func found(verdicts ...doctor.Verdict) *doctor.Report {
	r := &doctor.Report{At: time.Now()}
	for _, v := range verdicts {
		f := doctor.Finding{Check: "network", Verdict: v, Text: "interface eth0 has no link", Remedy: "look at its cable and at the port of the switch"}
		if v == doctor.OK {
			f = doctor.Finding{Check: "port", Verdict: v, Text: "udp 69 (TFTP): this appliance has it"}
		}
		r.Add(f)
	}
	return r
}

// TestTheWayToTheFirstDeployment goes it: each step is done when what it is about is there.
func TestTheWayToTheFirstDeployment(t *testing.T) {
	w := newWorld(t)
	images := w.shelf.list
	w.shelf.put(nil)
	b := w.open(t, how{Role: fleet.RoleOperator}, "/")
	b.until(`location.pathname === "/start"`)
	state := func(n string, word string) {
		t.Helper()
		b.says("#start-steps li:nth-child("+n+")", word)
	}
	state("1", "do this now")
	b.says("#start-machine", "waiting for the first machine")
	b.axe()
	b.picture("start-first-1280")

	b.click(`form[action="/start/check"] button`)
	b.says("#start-check", "looking")
	w.report <- found(doctor.OK, doctor.Wrong)
	b.says("#start-check", "What keeps machines from booting: 1")
	b.says("#start-check .findings", "look at its cable")
	state("1", "do this now")
	b.axe()
	b.picture("start-wrong-1280")
	w.report <- found(doctor.OK, doctor.OK)
	b.click(`form[action="/start/check"] button`)
	b.says("#start-check", "Nothing is wrong")
	state("1", "done")
	state("2", "do this now")

	w.shelf.put(images)
	w.note("image.captured", "captured debian:2 from golden")
	b.says("#start-image", "debian:2")
	state("2", "done")
	state("3", "do this now")

	id := w.machine("", false)
	m, err := w.fleet.Machine(id)
	if err != nil {
		t.Fatal(err)
	}
	b.says("#start-machine .waiting", m.Code)
	b.picture("start-machine-1280")
	b.expect("status of 404")
	b.typed("#start-code", "WRONG-CODE")
	b.click(".bycode button")
	b.says(".bycode .answer", "no machine shows the code")
	b.typed("#start-code", m.Code)
	b.click(".bycode button")
	b.says("#start-machine", "One machine is admitted")
	state("3", "done")
	state("4", "do this now")

	b.click("#start-deploy button.main")
	b.visible("dialog[open] h2")
	b.says("dialog", m.Name)
	if !w.home("/start") {
		t.Error("who logs in is not sent to the first steps")
	}
}

// home reports whether / leads to a path.
func (w *world) home(path string) bool {
	status, _, header := w.ask(fleet.RoleOperator, "/", nil)
	return status == http.StatusSeeOther && header.Get("Location") == path
}

func TestViewersAndThoseWhoHaveDeployedBeginWithTheRooms(t *testing.T) {
	w := newWorld(t)
	if _, _, header := w.ask(fleet.RoleViewer, "/", nil); header.Get("Location") != "/rooms" {
		t.Errorf("a viewer is sent to %q", header.Get("Location"))
	}
	if status, body, _ := w.ask(fleet.RoleViewer, "/start/check", map[string][]string{}); status != 403 || !strings.Contains(body, "operator") {
		t.Errorf("a viewer has the network looked at: %d %s", status, body)
	}
}

func TestSentencesOfOthersAreTranslated(t *testing.T) {
	w := newWorld(t)
	zh, en := w.inner.looks["zh"], w.inner.looks["en"]
	const refusal = "vera has the role viewer; to do this needs the role operator: ask an administrator"
	for english, want := range map[string]string{
		refusal: "vera 的角色是 viewer",
		"pc-1: job 7 (debian:2) is failed: the disk: no":           "pc-1：任务 7（debian:2）失败：the disk: no",
		"data folder /var/lib/seedbed: 3.0 GB of 40.0 GB are free": "40.0 GB 中剩余 3.0 GB",
		"API token 5 (backup) of vera was made, as viewer":         "已为 vera 创建 API 令牌 5（backup）",
	} {
		if got := zh.say(english); !strings.Contains(got, want) {
			t.Errorf("in Chinese %q is %q", english, got)
		}
	}
	for _, same := range []string{refusal, "something that nobody translated"} {
		if got := en.say(same); got != same {
			t.Errorf("in English %q is %q", same, got)
		}
	}
	if got := zh.say("something that nobody translated"); got != "something that nobody translated" {
		t.Errorf("what is not known becomes %q", got)
	}
}
