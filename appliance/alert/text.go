package alert

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"seedbed/appliance/fleet"
)

// maxTold bounds the alerts that one message tells in full; it counts the others.
const maxTold = 50

// Payload is what a webhook is sent.
type Payload struct {
	// Text says it all for people; services for chats show it.
	Text      string        `json:"text"`
	At        time.Time     `json:"at"`
	Console   string        `json:"console,omitempty"`
	Raised    []fleet.Alert `json:"raised"`
	Recovered []fleet.Alert `json:"recovered"`
	Test      bool          `json:"test,omitempty"`
}

// messages returns what is sent of these alerts, one message for each channel that is set.
func messages(raised, ended []fleet.Alert, s state) (list []fleet.Message) {
	subject, text := Subject(raised, ended), Text(raised, ended, s.console, s.settings.Zone())
	if s.settings.MailServer != "" {
		list = append(list, fleet.Message{Channel: fleet.ChannelMail, Subject: subject, Text: text})
	}
	if s.settings.Webhook != "" {
		p := Payload{Text: subject + "\n\n" + text, At: s.now.UTC(), Console: s.console, Raised: first(raised), Recovered: first(ended)}
		b, err := json.Marshal(p)
		if err != nil { // of strings and times alone
			b = nil
		}
		list = append(list, fleet.Message{Channel: fleet.ChannelWebhook, Subject: subject, Text: text, Payload: b})
	}
	return list
}

func first(list []fleet.Alert) []fleet.Alert {
	return append([]fleet.Alert{}, list[:min(len(list), maxTold)]...)
}

// what an alert says in a subject, of one and of several.
var subjects = map[fleet.AlertRule][2]string{
	fleet.RuleSlow: {"%s is slow", "%d machines are slow"}, fleet.RuleSilent: {"%s is silent", "%d machines are silent"},
	fleet.RuleFailed: {"%s failed", "%d machines failed"}, fleet.RuleErrors: {"%s gets wrong data", "%d machines get wrong data"},
	fleet.RuleSpace: {"%s is nearly full", "%d are nearly full"}, fleet.RuleCertificate: {"%s ends soon", "%d certificates end soon"},
	fleet.RuleDamage: {"%s has damaged images", "%d have damaged images"},
}

// Subject is the line by which people see what a message is about.
func Subject(raised, ended []fleet.Alert) string {
	var parts []string
	for _, rule := range fleet.AlertRules {
		of := slices.DeleteFunc(slices.Clone(raised), func(a fleet.Alert) bool { return a.Rule != rule })
		switch len(of) {
		case 0:
		case 1:
			parts = append(parts, fmt.Sprintf(subjects[rule][0], of[0].Name))
		default:
			parts = append(parts, fmt.Sprintf(subjects[rule][1], len(of)))
		}
	}
	switch len(ended) {
	case 0:
	case 1:
		parts = append(parts, "over: "+fmt.Sprintf(subjects[ended[0].Rule][0], ended[0].Name))
	default:
		parts = append(parts, fmt.Sprintf("%d alerts are over", len(ended)))
	}
	return "Seedbed: " + strings.Join(parts, "; ")
}

// Text is what a message says: what, which machine, why, what to do.
func Text(raised, ended []fleet.Alert, console string, zone *time.Location) string {
	var b strings.Builder
	for _, a := range first(raised) {
		fmt.Fprintf(&b, "%s.\n", upper(onLine(a.Text)))
		line(&b, "Cause", a.Cause)
		line(&b, "What to do", a.Advice)
		line(&b, "Since", a.Since.In(zone).Format("2006-01-02 15:04:05 MST"))
		b.WriteString("\n")
	}
	if more := len(raised) - maxTold; more > 0 {
		fmt.Fprintf(&b, "And %d more.\n\n", more)
	}
	for _, a := range first(ended) {
		fmt.Fprintf(&b, "Over: %s.\n", onLine(a.Text))
		line(&b, "Now", a.Outcome)
		line(&b, "From, to", span(a.Since.In(zone), a.Ended.In(zone)))
		b.WriteString("\n")
	}
	if more := len(ended) - maxTold; more > 0 {
		fmt.Fprintf(&b, "And %d more are over.\n\n", more)
	}
	if console != "" {
		fmt.Fprintf(&b, "All alerts: %s/alerts\n", console)
	}
	return b.String()
}

func line(b *strings.Builder, what, text string) {
	if text != "" {
		fmt.Fprintf(b, "  %s: %s\n", what, onLine(text))
	}
}

// span is from when to when something was, with the day of its end where that is another one.
func span(from, to time.Time) string {
	end := "15:04:05 MST"
	if from.Format(time.DateOnly) != to.Format(time.DateOnly) {
		end = time.DateOnly + " " + end
	}
	return from.Format(time.DateTime) + " - " + to.Format(end)
}

// onLine is a text on one line without what steers a terminal: machines say why they failed, and write no lines of messages.
func onLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}

// upper begins a sentence, unless with a name: that is as it is.
func upper(s string) string {
	if strings.HasPrefix(s, "the ") || strings.HasPrefix(s, "images ") {
		return strings.ToUpper(s[:1]) + s[1:]
	}
	return s
}
