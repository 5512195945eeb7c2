package alert

import (
	"slices"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/monitor"
)

// book remembers between looks what the records do not tell. The zero value is one that begins; owned by one goroutine.
type book struct {
	since time.Time            // of the first look
	away  map[string]time.Time // since when the breach of an open alert is away, by the alert's ID
	// first and last are when alerts that a message is owed for were seen first and when the last one joined, owed how many they were.
	first, last time.Time
	owed        int
}

// state is what a look knows beside what it found.
type state struct {
	now      time.Time
	settings fleet.Settings
	picture  *monitor.Picture
	console  string
}

// enter compares what was found with the alerts that are there, and returns what is to be entered, nil for nothing.
func (b *book) enter(found []fleet.Breach, have []fleet.Alert, s state) *fleet.Judgement {
	if b.since.IsZero() {
		*b = book{since: s.now, away: map[string]time.Time{}}
	}
	var j fleet.Judgement
	for _, f := range found {
		if !slices.ContainsFunc(have, func(a fleet.Alert) bool { return a.Open() && same(&a, f) || covers(&a, f, s) }) {
			j.Raise = append(j.Raise, f)
		}
	}
	b.end(&j, found, have, s)
	b.tell(&j, have, s)
	if len(j.Raise)+len(j.End)+len(j.Told)+len(j.ToldEnd) == 0 {
		return nil
	}
	return &j
}

func same(a *fleet.Alert, f fleet.Breach) bool { return a.Rule == f.Rule && a.Subject == f.Subject }

// end ends alerts whose breach has been away for settleFor. Whoever has just begun to look knows neither rates nor who is silent: it
// waits until it could.
func (b *book) end(j *fleet.Judgement, found []fleet.Breach, have []fleet.Alert, s state) {
	t := s.settings.Thresholds
	knows := s.now.Sub(b.since) >= max(time.Duration(t.SlowFor), time.Duration(t.Silence))
	for i := range have {
		a := &have[i]
		if !a.Open() {
			continue
		}
		if !knows || slices.ContainsFunc(found, func(f fleet.Breach) bool { return same(a, f) }) {
			delete(b.away, a.ID)
			continue
		}
		if b.away[a.ID].IsZero() {
			b.away[a.ID] = s.now
		}
		if s.now.Sub(b.away[a.ID]) < settleFor && !worse(a, found) {
			continue
		}
		if j.End == nil {
			j.End = map[string]string{}
		}
		j.End[a.ID] = over(a, s.picture)
		delete(b.away, a.ID)
	}
}

// grave orders what an alert of a machine is about: of these one holds at a time, and a graver one takes the place of the others.
func grave(r fleet.AlertRule) int {
	return slices.Index([]fleet.AlertRule{fleet.RuleSlow, fleet.RuleSilent, fleet.RuleFailed}, r)
}

// worse reports whether a graver rule took the place of an alert of a machine: one that was slow is silent now.
func worse(a *fleet.Alert, found []fleet.Breach) bool {
	return a.Rule.OfMachine() && slices.ContainsFunc(found, func(f fleet.Breach) bool { return f.Subject == a.Subject && grave(f.Rule) > grave(a.Rule) })
}

// covers reports whether an alert makes a breach no news: it is graver and open, or was over so shortly before that the rate is still
// that of the silence.
func covers(a *fleet.Alert, f fleet.Breach, s state) bool {
	if !f.Rule.OfMachine() || a.Subject != f.Subject || grave(a.Rule) <= grave(f.Rule) {
		return false
	}
	return a.Open() || s.now.Sub(a.Ended) < time.Duration(s.settings.SlowFor)
}

// tell writes messages about what is to be told: once nothing was added for gatherFor, at the latest after gatherMost.
func (b *book) tell(j *fleet.Judgement, have []fleet.Alert, s state) {
	raised, ended := b.news(j, have, s)
	if len(raised)+len(ended) == 0 {
		b.owed, b.first, b.last = 0, time.Time{}, time.Time{}
		return
	}
	if n := len(raised) + len(ended); n != b.owed {
		if b.owed == 0 {
			b.first = s.now
		}
		b.owed, b.last = n, s.now
	}
	if s.now.Sub(b.last) < gatherFor && s.now.Sub(b.first) < gatherMost {
		return
	}
	for _, a := range raised {
		j.Told = append(j.Told, a.ID)
	}
	for _, a := range ended {
		j.ToldEnd = append(j.ToldEnd, a.ID)
	}
	j.Messages = messages(raised, ended, s)
	b.owed, b.first, b.last = 0, time.Time{}, time.Time{}
}

// news returns the alerts whose beginning and whose end are to be told. Without a channel nothing is; what is open when somebody sets one
// is told then.
func (b *book) news(j *fleet.Judgement, have []fleet.Alert, s state) (raised, ended []fleet.Alert) {
	if s.settings.MailServer == "" && s.settings.Webhook == "" {
		return nil, nil
	}
	coolDown := time.Duration(s.settings.CoolDown)
	for _, a := range have {
		switch {
		case slices.Contains(s.settings.Mute, a.Rule):
		case a.Open() && a.Told.IsZero():
			if _, ends := j.End[a.ID]; !ends && s.now.Sub(toldLast(&a, have)) >= coolDown {
				raised = append(raised, a)
			}
		case !a.Open() && !a.Told.IsZero() && a.ToldEnd.IsZero():
			if goesOn(&a, have) {
				j.ToldEnd = append(j.ToldEnd, a.ID) // the message about what came in its place says it
				continue
			}
			ended = append(ended, a)
		}
	}
	return raised, ended
}

// toldLast is when a message was written last about the beginning of the same thing.
func toldLast(a *fleet.Alert, have []fleet.Alert) (last time.Time) {
	for _, o := range have {
		if o.Rule == a.Rule && o.Subject == a.Subject && o.Told.After(last) {
			last = o.Told
		}
	}
	return last
}

// goesOn reports whether the machine of an alert that is over has a graver one that is open.
func goesOn(a *fleet.Alert, have []fleet.Alert) bool {
	return a.Rule.OfMachine() && slices.ContainsFunc(have, func(o fleet.Alert) bool { return o.Open() && o.Subject == a.Subject && grave(o.Rule) > grave(a.Rule) })
}
