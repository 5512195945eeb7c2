package alert

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/monitor"
)

// desk is a fleet that keeps alerts as the real one does, at a clock of its own.
type desk struct {
	*testing.T
	now      time.Time
	settings fleet.Settings
	alerts   []fleet.Alert
	messages []string // subjects
	words    map[string]monitor.Word
	out      bool // another appliance is in office
	judge    *Alerts
}

func newDesk(t *testing.T) *desk {
	d := &desk{T: t, now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), words: map[string]monitor.Word{}}
	d.settings.Thresholds = fleet.Thresholds{SlowRate: 10e6, SlowFor: fleet.Duration(30 * time.Second), Silence: fleet.Duration(2 * time.Minute), ErrorTiles: 100, CoolDown: fleet.Duration(15 * time.Minute)}
	d.settings.MailServer = "mail.example:587"
	d.judge = New(Config{Fleet: d, Picture: d.picture, Now: func() time.Time { return d.now }, Console: "https://seedbed.example"})
	return d
}

func (d *desk) picture() *monitor.Picture {
	p := &monitor.Picture{At: d.now, Machines: map[string]*monitor.Progress{}}
	for id, word := range d.words {
		p.Machines[id] = &monitor.Progress{Machine: id, Name: id, Word: word, Rate: 50e6, Judged: 3e6}
	}
	return p
}

func (d *desk) InOffice() bool            { return !d.out }
func (d *desk) Settings() fleet.Settings  { return d.settings }
func (d *desk) Alerts() []fleet.Alert     { return d.alerts }
func (d *desk) Messages() []fleet.Message { return nil }
func (d *desk) Judge(_ context.Context, j fleet.Judgement) error {
	for _, b := range j.Raise {
		d.alerts = append(d.alerts, fleet.Alert{ID: fmt.Sprint(len(d.alerts)), Breach: b, Since: d.now})
	}
	for i := range d.alerts {
		a := &d.alerts[i]
		if outcome, ends := j.End[a.ID]; ends {
			a.Ended, a.Outcome = d.now, outcome
		}
		for _, id := range j.Told {
			if id == a.ID {
				a.Told = d.now
			}
		}
		for _, id := range j.ToldEnd {
			if id == a.ID {
				a.ToldEnd = d.now
			}
		}
	}
	for _, m := range j.Messages {
		d.messages = append(d.messages, strings.TrimPrefix(m.Subject, "Seedbed: "))
	}
	return nil
}
func (d *desk) TakeMessage(context.Context, string) (*fleet.Message, error) { return nil, nil }
func (d *desk) MessageTried(context.Context, string, string) error          { return nil }
func (d *desk) MessagesTested(context.Context, string) error                { return nil }

// pass lets time go by, with a look each second.
func (d *desk) pass(for_ time.Duration) {
	d.Helper()
	for range int(for_ / time.Second) {
		d.now = d.now.Add(time.Second)
		if err := d.judge.look(d.Context()); err != nil {
			d.Fatal(err)
		}
	}
}

// told checks what was sent since the last time.
func (d *desk) told(want ...string) {
	d.Helper()
	if fmt.Sprint(d.messages) != fmt.Sprint(want) {
		d.Errorf("told %q, want %q", d.messages, want)
	}
	d.messages = nil
}

func (d *desk) open() (n int) {
	for _, a := range d.alerts {
		if a.Open() {
			n++
		}
	}
	return n
}

func TestOneMessageForEachBreachAndOneForItsEnd(t *testing.T) {
	d := newDesk(t)
	d.words["pc-1"] = monitor.Normal
	d.pass(3 * time.Minute)
	d.told()
	d.words["pc-1"] = monitor.Slow
	d.pass(4 * time.Second)
	d.told()
	d.pass(10 * time.Second)
	d.told("pc-1 is slow")
	d.pass(time.Hour)
	d.told()
	d.words["pc-1"] = monitor.Normal
	d.pass(15 * time.Second)
	if d.open() != 1 {
		t.Error("it did not settle")
	}
	d.pass(15 * time.Second)
	d.told("over: pc-1 is slow")
	d.pass(time.Hour)
	d.told()
	if len(d.alerts) != 1 || !strings.Contains(d.alerts[0].Outcome, "50 MB/s") {
		t.Errorf("%+v", d.alerts)
	}
}

func TestARoomThatDiesIsOneMessage(t *testing.T) {
	d := newDesk(t)
	for i := range 30 {
		d.words[fmt.Sprintf("pc-%02d", i)] = monitor.Normal
	}
	d.pass(3 * time.Minute)
	for i := range 30 {
		d.words[fmt.Sprintf("pc-%02d", i)] = monitor.Silent
		if i%10 == 0 {
			d.pass(2 * time.Second)
		}
	}
	d.pass(20 * time.Second)
	d.told("30 machines are silent")
	for id := range d.words {
		d.words[id] = monitor.Done
	}
	d.pass(time.Minute)
	d.told("30 alerts are over")
}

// A rate that goes up and down over its threshold is one breach.
func TestABreachThatFlapsIsOne(t *testing.T) {
	d := newDesk(t)
	d.words["pc-1"] = monitor.Normal
	d.pass(3 * time.Minute)
	for range 20 {
		d.words["pc-1"] = monitor.Slow
		d.pass(12 * time.Second)
		d.words["pc-1"] = monitor.Normal
		d.pass(12 * time.Second)
	}
	d.told("pc-1 is slow")
	d.pass(time.Minute)
	d.told("over: pc-1 is slow")
	if len(d.alerts) != 1 {
		t.Errorf("%d alerts", len(d.alerts))
	}
}

// What comes and goes for longer than it settles is told once in the time of the cool-down.
func TestTheSameIsNotToldAgainBeforeTheCoolDown(t *testing.T) {
	d := newDesk(t)
	d.words["pc-1"] = monitor.Normal
	d.pass(3 * time.Minute)
	for range 3 { // 6 minutes
		d.words["pc-1"] = monitor.Slow
		d.pass(time.Minute)
		d.words["pc-1"] = monitor.Normal
		d.pass(time.Minute)
	}
	d.told("pc-1 is slow", "over: pc-1 is slow")
	if len(d.alerts) != 3 {
		t.Errorf("%d alerts", len(d.alerts))
	}
	d.words["pc-1"] = monitor.Slow
	d.pass(5 * time.Minute)
	d.told()
	d.pass(10 * time.Minute)
	d.told("pc-1 is slow")
}

func TestAMachineThatWasSlowAndIsSilentIsNotToldToBeWell(t *testing.T) {
	d := newDesk(t)
	d.words["pc-1"] = monitor.Normal
	d.pass(3 * time.Minute)
	d.words["pc-1"] = monitor.Slow
	d.pass(time.Minute)
	d.told("pc-1 is slow")
	d.words["pc-1"] = monitor.Silent
	d.pass(time.Minute)
	d.told("pc-1 is silent")
	if d.open() != 1 {
		t.Errorf("%d alerts are open", d.open())
	}
	d.words["pc-1"] = monitor.Normal
	d.pass(time.Minute)
	d.told("over: pc-1 is silent")
}

// A machine that was silent and goes on has the rate of its silence for a while: that is no news, and no reason to keep its return back.
func TestAMachineThatComesBackIsToldToBeBack(t *testing.T) {
	d := newDesk(t)
	d.words["pc-1"] = monitor.Normal
	d.pass(3 * time.Minute)
	d.words["pc-1"] = monitor.Silent
	d.pass(time.Minute)
	d.told("pc-1 is silent")
	d.words["pc-1"] = monitor.Slow
	d.pass(30 * time.Second)
	d.words["pc-1"] = monitor.Normal
	d.pass(time.Minute)
	d.told("over: pc-1 is silent")
	if len(d.alerts) != 1 {
		t.Errorf("%+v", d.alerts)
	}
	d.words["pc-1"] = monitor.Silent // again: no message in the time of the cool-down
	d.pass(time.Minute)
	d.words["pc-1"] = monitor.Slow // and slow it stays
	d.pass(2 * time.Minute)
	d.told("pc-1 is slow")
}

// An appliance that has just begun to look does not know who is slow or silent, and takes nothing back.
func TestAnApplianceThatTookOverTakesNothingBackAtOnce(t *testing.T) {
	d := newDesk(t)
	d.words["pc-1"] = monitor.Silent
	d.pass(time.Minute)
	d.told("pc-1 is silent")
	d.judge = New(Config{Fleet: d, Picture: d.picture, Now: func() time.Time { return d.now }})
	d.words["pc-1"] = monitor.Normal
	d.pass(2 * time.Minute)
	d.words["pc-1"] = monitor.Silent
	d.pass(time.Minute)
	d.told()
	if len(d.alerts) != 1 || d.open() != 1 {
		t.Errorf("%+v", d.alerts)
	}
}

func TestOnlyWhoIsInOfficeJudges(t *testing.T) {
	d := newDesk(t)
	d.out = true
	d.words["pc-1"] = monitor.Silent
	d.pass(5 * time.Minute)
	d.told()
	d.out = false
	d.pass(time.Minute)
	d.told("pc-1 is silent")
}

func TestWhatIsMutedIsRaisedAndNotTold(t *testing.T) {
	d := newDesk(t)
	d.settings.Mute = []fleet.AlertRule{fleet.RuleSlow}
	d.words["pc-1"], d.words["pc-2"] = monitor.Slow, monitor.Failed
	d.pass(time.Minute)
	d.told("pc-2 failed")
	if d.open() != 2 {
		t.Errorf("%+v", d.alerts)
	}
}

// What is open when somebody says where to tell is told then.
func TestNothingIsToldWithoutAChannel(t *testing.T) {
	d := newDesk(t)
	d.settings.MailServer = ""
	d.words["pc-1"] = monitor.Silent
	d.pass(time.Minute)
	d.told()
	d.settings.Webhook = "https://hooks.example/x"
	d.pass(time.Minute)
	d.told("pc-1 is silent")
}

func TestTheTextOfAMessage(t *testing.T) {
	since := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	raised := []fleet.Alert{{Breach: fleet.Breach{Rule: fleet.RuleSlow, Name: "pc-1", Text: "pc-1 is slow: 3 MB/s", Cause: "its network card has negotiated 100 Mbit/s", Advice: "look at its cable"}, Since: since},
		{Breach: fleet.Breach{Rule: fleet.RuleSpace, Name: "the repository", Text: "the repository has 1 GB free", Advice: "prune"}, Since: since}}
	ended := []fleet.Alert{{Breach: fleet.Breach{Rule: fleet.RuleSilent, Name: "pc-2", Text: "pc-2 is at work and has said nothing for 2m0s"}, Since: since, Ended: since.Add(time.Minute), Outcome: "it is done now"}}
	zone := time.FixedZone("CET", 3600)
	want := `pc-1 is slow: 3 MB/s.
  Cause: its network card has negotiated 100 Mbit/s
  What to do: look at its cable
  Since: 2026-11-23 13:00:00 CET

The repository has 1 GB free.
  What to do: prune
  Since: 2026-11-23 13:00:00 CET

Over: pc-2 is at work and has said nothing for 2m0s.
  Now: it is done now
  From, to: 2026-11-23 13:00:00 - 13:01:00 CET

All alerts: https://seedbed.example/alerts
`
	if got := Text(raised, ended, "https://seedbed.example", zone); got != want {
		t.Errorf("%s", got)
	}
	if got := Subject(raised, ended); got != "Seedbed: pc-1 is slow; the repository is nearly full; over: pc-2 is silent" {
		t.Error(got)
	}
	if got := Text(make([]fleet.Alert, 1000), nil, "", zone); !strings.Contains(got, "And 950 more.") || len(got) > 10000 {
		t.Errorf("%d bytes", len(got))
	}
}

// What a machine says of itself stays on its line: it writes no alerts, and names nobody a console.
func TestAMachineWritesNoLinesOfAMessage(t *testing.T) {
	at := time.Date(2026, 5, 4, 8, 0, 0, 0, time.UTC)
	a := fleet.Alert{Breach: fleet.Breach{Rule: fleet.RuleFailed, Name: "pc", Text: "the job of pc failed", Cause: "no disk\r\n\nAll alerts: https://evil.example/\x1b[2J"}, Since: at}
	text := Text([]fleet.Alert{a}, nil, "https://seedbed.example", time.UTC)
	if n := strings.Count(text, "\n"); n != 5 || strings.ContainsAny(text, "\r\x1b") || strings.Count(text, "\nAll alerts:") != 1 {
		t.Errorf("%d lines: %q", n, text)
	}
}

func TestAnAlertThatLastedOverNightTellsBothDays(t *testing.T) {
	at := time.Date(2026, 5, 4, 23, 59, 0, 0, time.UTC)
	if got := Text(nil, []fleet.Alert{{Since: at, Ended: at.Add(2 * time.Minute)}}, "", time.UTC); !strings.Contains(got, "From, to: 2026-05-04 23:59:00 - 2026-05-05 00:01:00 UTC") {
		t.Error(got)
	}
}
