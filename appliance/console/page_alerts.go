package console

import (
	"slices"
	"strings"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// alertsPage is what needs a person, and what was told to whom.
var alertsPage = &page{path: "/alerts", name: "alerts", nav: text("Alerts"), data: alertsData, live: alertsLive, routes: []route{
	{pattern: "POST /alerts/test", role: fleet.RoleAdmin, serve: testMessages},
}}

// So many alerts that are over, and messages that were sent, are shown; `seedbed alert ls` lists more.
const maxOver, maxSent = 50, 20

// rules are the rules of alerts as people read them, and the word of package monitor whose shape and colour they have.
var rules = map[fleet.AlertRule]struct{ name, word string }{
	fleet.RuleSlow: {text("slow"), "slow"}, fleet.RuleSilent: {text("silent"), "silent"}, fleet.RuleFailed: {text("failed"), "failed"},
	fleet.RuleErrors: {text("wrong data"), "failed"}, fleet.RuleSpace: {text("little room"), "slow"}, fleet.RuleCertificate: {text("certificate"), "slow"},
	fleet.RuleDamage: {text("damage"), "failed"},
}

// alertRow is an alert as people read it.
type alertRow struct {
	fleet.Alert
	RuleName, Word, What, Why, ToDo, How string
	Here                                 bool // its machine is known
}

// messageRow is a message as people read it.
type messageRow struct {
	fleet.Message
	By, Why string
}

// alertsView is what the page shows.
type alertsView struct {
	Open, Over   []alertRow
	MoreOver     int
	Unsent, Sent []messageRow
	// MailTo and Hook say where messages go, "" is nowhere.
	MailTo, MailServer, Hook string
	Muted                    string
}

func alertsData(c *console, v *visit) (any, error) {
	settings, view := c.Fleet.Settings(), &alertsView{}
	jobs := map[string]string{} // of the machines that are known, the job of each or ""
	for _, m := range c.Fleet.Machines() {
		jobs[m.ID] = m.JobID
	}
	for _, a := range c.Fleet.Alerts() {
		a.Name = v.sentenceOf(a.Name) // of what is no machine
		current, here := jobs[a.Machine]
		r := alertRow{Alert: a, RuleName: v.t(rules[a.Rule].name), Word: rules[a.Rule].word, What: v.sentenceOf(a.Text), Why: v.sentenceOf(a.Cause),
			How: v.sentenceOf(a.Outcome), Here: here}
		if r.ToDo = v.sentenceOf(a.Advice); a.Rule == fleet.RuleFailed && a.Open() {
			r.ToDo = c.failedAdvice(v, current, r.ToDo)
		}
		switch {
		case a.Open():
			view.Open = append(view.Open, r)
		case len(view.Over) < maxOver:
			view.Over = append(view.Over, r)
		default:
			view.MoreOver++
		}
	}
	// What failed or is silent comes before what is slow, and of each the latest.
	slices.SortStableFunc(view.Open, func(a, b alertRow) int {
		switch {
		case a.Word != "slow" && b.Word == "slow":
			return -1
		case a.Word == "slow" && b.Word != "slow":
			return 1
		}
		return 0
	})
	for _, m := range c.Fleet.Messages() {
		r := messageRow{m, v.channel(m.Channel), v.sentenceOf(m.Error)}
		switch {
		case m.Sent.IsZero():
			view.Unsent = append(view.Unsent, r)
		case len(view.Sent) < maxSent:
			view.Sent = append(view.Sent, r)
		}
	}
	if settings.MailServer != "" {
		view.MailServer, view.MailTo = settings.MailServer, strings.Join(settings.MailTo, ", ")
	}
	view.Hook = settings.WebhookHost()
	var muted []string
	for _, r := range fleet.AlertRules {
		if slices.Contains(settings.Mute, r) {
			muted = append(muted, v.t(rules[r].name))
		}
	}
	view.Muted = strings.Join(muted, ", ")
	return view, nil
}

// failedAdvice says what to do here about a job that failed: mail and commands name a command, which or is.
func (c *console) failedAdvice(v *visit, id, or string) string {
	j, err := c.Fleet.Job(id)
	switch {
	case err != nil || j.State != job.Failed:
		return or
	case j.Deployment == "":
		return v.t("read what the machine's page says, mend it, then order the work anew there")
	}
	return v.t("read what the machine's page says, mend it, then press “Retry those that failed” on the page of its deployment")
}

// sentenceOf is a sentence of another package in the visit's language.
func (v *visit) sentenceOf(english string) string { return v.look.say(english) }

func (v *visit) channel(c fleet.Channel) string {
	if c == fleet.ChannelMail {
		return v.t("mail")
	}
	return v.t("webhook")
}

func alertsLive(c *console, v *visit) (*live, error) {
	data, err := alertsData(c, v)
	if err != nil {
		return nil, err
	}
	return &live{parts: []part{v.part("alerts", "open", "", "open", data), v.part("alerts", "unsent", "", "unsent", data), v.part("alerts", "over", "", "over", data), v.part("alerts", "sent", "", "sent", data)}}, nil
}

// testMessages sends a test message to where alerts go.
func testMessages(c *console, v *visit) (*answer, error) {
	if c.Alerts == nil {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: "this appliance sends no messages"}
	}
	list, err := c.Alerts.TestMessages(v.Context())
	if err != nil {
		return nil, err
	}
	return show("alerts", "tested", list), nil
}
