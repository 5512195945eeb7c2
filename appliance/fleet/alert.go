package fleet

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// AlertRule names what an alert is about.
type AlertRule string

const (
	RuleSlow        AlertRule = "slow"        // a machine is below the threshold, or far below its room
	RuleSilent      AlertRule = "silent"      // a machine at work says nothing
	RuleFailed      AlertRule = "failed"      // the job of a machine failed
	RuleErrors      AlertRule = "errors"      // too many tiles that a machine gets fail their hash
	RuleSpace       AlertRule = "space"       // the repository's file system is nearly full
	RuleCertificate AlertRule = "certificate" // a certificate ends soon
	RuleDamage      AlertRule = "damage"      // the repository has damaged images
)

// AlertRules are all there are.
var AlertRules = []AlertRule{RuleSlow, RuleSilent, RuleFailed, RuleErrors, RuleSpace, RuleCertificate, RuleDamage}

// OfMachine reports whether the rule is about how a machine gets on: of these one holds at a time.
func (r AlertRule) OfMachine() bool { return r == RuleSlow || r == RuleSilent || r == RuleFailed }

// Breach is a rule that something is beyond.
type Breach struct {
	Rule    AlertRule `json:"rule"`
	Subject string    `json:"subject"`           // what it is about: the ID of a machine, "repository", the name of a certificate
	Machine string    `json:"machine,omitempty"` // ID, "" where it is about none
	Name    string    `json:"name"`              // of the subject, for people
	Text    string    `json:"text"`              // what happened: a sentence without its full stop
	Cause   string    `json:"cause,omitempty"`   // why, if that is known
	Advice  string    `json:"advice"`            // what to do
}

// Alert is a breach in the course of time: one for each rule and subject at a time.
type Alert struct {
	ID      string `json:"id"`
	Version int64  `json:"version"`
	Breach
	Since time.Time `json:"since"`
	// Ended is when the breach was over, zero while it lasts; Outcome says how it ended.
	Ended   time.Time `json:"ended,omitzero"`
	Outcome string    `json:"outcome,omitempty"`
	// Told and ToldEnd are when messages about its beginning and its end were written, zero where none was.
	Told    time.Time `json:"told,omitzero"`
	ToldEnd time.Time `json:"told_end,omitzero"`
}

// Open reports whether the breach lasts.
func (a *Alert) Open() bool { return a.Ended.IsZero() }

func (a *Alert) Ref() Key     { return Key{KindAlert, a.ID} }
func (a *Alert) Row() *int64  { return &a.Version }
func (a *Alert) Shelf() Shelf { return Shelf{Owner: a.Machine} }
func (a *Alert) copy() Record { own := *a; return &own }

// maxAlerts is how many alerts that are over are kept, at most for jobHistory.
const maxAlerts = 2000

// Alerts returns the alerts: those that are open first, each part with the latest first.
func (f *Fleet) Alerts() []Alert {
	f.mu.RLock()
	defer f.mu.RUnlock()
	list := []Alert{}
	for _, a := range ofKind[*Alert](&f.state, KindAlert) {
		list = append(list, *a)
	}
	slices.SortFunc(list, func(a, b Alert) int {
		if a.Open() != b.Open() {
			if a.Open() {
				return -1
			}
			return 1
		}
		return cmp.Or(b.Ended.Compare(a.Ended), b.Since.Compare(a.Since), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// Judgement is what the rules come to at a moment.
type Judgement struct {
	// Raise are breaches that began; one whose alert is open already changes nothing.
	Raise []Breach
	// End has the outcome of alerts whose breach is over, by ID.
	End map[string]string
	// Messages are to be sent. Told are the IDs of the alerts whose beginning they tell, or that are told in no message, ToldEnd those
	// whose end.
	Messages      []Message
	Told, ToldEnd []string
}

// Judge enters what the rules come to. Where another appliance schedules the site it changes nothing.
func (f *Fleet) Judge(ctx context.Context, j Judgement) error {
	return f.schedule(ctx, func(d *draft) error {
		now := d.f.now().UTC()
		have := othersOf[*Alert](d, KindAlert)
		for _, b := range j.Raise {
			if slices.ContainsFunc(have, func(a *Alert) bool { return a.Open() && a.Rule == b.Rule && a.Subject == b.Subject }) {
				continue
			}
			a := &Alert{ID: newID(), Breach: b, Since: now}
			d.add(a)
			have = append(have, a)
			d.event(Event{Kind: "alert.raised", Machine: b.Machine, Text: withCause(b)})
		}
		for id, outcome := range j.End {
			if a := lookup[*Alert](d, KindAlert, id); a != nil && a.Open() {
				own := edit(d, a)
				own.Ended, own.Outcome = now, outcome
				d.event(Event{Kind: "alert.recovered", Machine: a.Machine, Text: "over: " + a.Text + "; " + outcome})
			}
		}
		if toldBefore(d, j) { // by another appliance, or by a change whose answer was lost
			return nil
		}
		for _, id := range j.Told {
			if a := lookup[*Alert](d, KindAlert, id); a != nil {
				edit(d, a).Told = now
			}
		}
		for _, id := range j.ToldEnd {
			if a := lookup[*Alert](d, KindAlert, id); a != nil {
				edit(d, a).ToldEnd = now
			}
		}
		for _, m := range j.Messages {
			own := m
			own.ID, own.Version, own.Created, own.Next = newID(), 0, now, now
			d.add(&own)
		}
		d.forgetAlerts(now)
		return nil
	})
}

// toldBefore reports whether all that a judgement's messages are about was told before.
func toldBefore(d *draft, j Judgement) bool {
	if len(j.Messages) == 0 || len(j.Told)+len(j.ToldEnd) == 0 {
		return false
	}
	before := func(id string, at func(*Alert) time.Time) bool {
		a := lookup[*Alert](d, KindAlert, id)
		return a == nil || !at(a).IsZero()
	}
	return !slices.ContainsFunc(j.Told, func(id string) bool { return !before(id, func(a *Alert) time.Time { return a.Told }) }) &&
		!slices.ContainsFunc(j.ToldEnd, func(id string) bool { return !before(id, func(a *Alert) time.Time { return a.ToldEnd }) })
}

// withCause says what happened, and why if that is known.
func withCause(b Breach) string {
	if b.Cause == "" {
		return b.Text
	}
	return b.Text + ": " + b.Cause
}

// forgetAlerts removes what is old, or too much.
func (d *draft) forgetAlerts(now time.Time) {
	var over []*Alert
	for _, a := range othersOf[*Alert](d, KindAlert) {
		if !a.Open() {
			over = append(over, a)
		}
	}
	slices.SortFunc(over, func(a, b *Alert) int { return b.Ended.Compare(a.Ended) })
	for i, a := range over {
		if i >= maxAlerts || now.Sub(a.Ended) > jobHistory {
			d.remove(a.Ref())
		}
	}
	var settled []*Message
	for _, m := range othersOf[*Message](d, KindMessage) {
		if !m.Waiting() {
			settled = append(settled, m)
		}
	}
	slices.SortFunc(settled, func(a, b *Message) int { return b.Created.Compare(a.Created) })
	for i, m := range settled {
		if i >= maxMessages || now.Sub(m.Created) > jobHistory {
			d.remove(m.Ref())
		}
	}
}
