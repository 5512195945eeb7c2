package console

import (
	"fmt"
	"html/template"
	"strings"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/bootdoctor"
	"seedbed/appliance/fleet"
)

// verdictView is what the boot doctor says, in the visit's language.
type verdictView struct {
	Case, Kind, Level string // Kind is that of a message
	Sentence, Next    string
	Causes            []string
	Before            bool
	Left              *leftView
}

// leftView is what a boot before left on the machine.
type leftView struct {
	At             time.Time // zero is not known
	Sentence, Next string
}

// left returns that in the visit's language; nil where nothing was left.
func (v *visit) left(e *bootdoctor.Left) *leftView {
	if e == nil {
		return nil
	}
	view := &leftView{e.At, e.Sentence, e.Next}
	if t, known := bootdoctor.LeftTextOf(e.Code); known {
		view.Sentence, view.Next = v.said(t.Sentence, e.Facts), v.said(t.Next, e.Facts)
	}
	if v.Language() == "en" {
		view.Sentence = strings.ToUpper(view.Sentence[:1]) + view.Sentence[1:]
	}
	return view
}

// levels are what the levels of verdicts are called.
var levels = map[bootdoctor.Level]string{bootdoctor.Fine: text("All is well"), bootdoctor.Notice: text("Somebody has to know"), bootdoctor.Stopped: text("It stopped")}

// levelKinds are the messages' kinds of levels.
var levelKinds = map[bootdoctor.Level]string{bootdoctor.Fine: "done", bootdoctor.Notice: "warning", bootdoctor.Stopped: "refused"}

// Verdict returns what the doctor says.
func (v *visit) Verdict(d bootdoctor.Verdict) verdictView {
	view := verdictView{Case: d.Case, Kind: levelKinds[d.Level], Level: v.t(levels[d.Level]), Sentence: d.Sentence, Next: d.Next, Causes: d.Causes, Before: d.Before, Left: v.left(d.Left)}
	c := bootdoctor.Find(d.Case)
	if c == nil {
		return view
	}
	facts := d.Facts
	if step := facts["step"]; step != "" { // a sentence of its own
		facts = map[string]string{"name": facts["name"], "step": v.stepSaid(d)}
	}
	view.Sentence, view.Next, view.Causes = v.said(c.Sentence, facts), v.said(c.Next, facts), nil
	for _, cause := range c.Causes {
		view.Causes = append(view.Causes, v.said(cause, facts))
	}
	if v.Language() == "en" && !strings.HasPrefix(c.Sentence, "{") {
		view.Sentence = strings.ToUpper(view.Sentence[:1]) + view.Sentence[1:]
	}
	return view
}

// Commands are sentences whose commands, which stand between backquotes, are set as code.
func (*visit) Commands(sentences string) template.HTML {
	parts := strings.Split(template.HTMLEscapeString(sentences), "`")
	for i := 1; i+1 < len(parts); i += 2 {
		parts[i] = "<code>" + parts[i] + "</code>"
	}
	return template.HTML(strings.Join(parts, ""))
}

func (v *visit) stepSaid(d bootdoctor.Verdict) string {
	if d.Step == nil {
		return d.Facts["step"]
	}
	english, facts := d.Step.Said()
	return v.said(english, facts)
}

// courseView is a boot as a list with a graphic.
type courseView struct {
	*api.BootCourse
	Rows []bootStep
	// Total is how long it took up to its last step.
	Total string
}

// bootStep is a step of a boot. Begin and Length are its place in the graphic, in hundredths of the whole boot.
type bootStep struct {
	After, Took, Text, Detail string
	Bad                       bool
	Begin, Length             float64
}

// course returns a boot in the visit's language; nil for none.
func (v *visit) course(b *api.BootCourse) *courseView {
	if b == nil || len(b.Steps) == 0 {
		return nil
	}
	view := &courseView{BootCourse: b}
	whole := max(time.Second, b.Latest().Sub(b.Began))
	for _, s := range b.Steps {
		whole = max(whole, time.Duration(s.After+s.Took))
	}
	view.Total = v.tenths(whole)
	for i := range b.Steps {
		s := &b.Steps[i]
		row := bootStep{After: v.tenths(time.Duration(s.After)), Text: v.said(s.Said()), Bad: s.Problem != "" || s.Kind == bootdoctor.NoDisk || s.Kind == bootdoctor.Trouble,
			Begin: 100 * float64(s.After) / float64(whole), Length: max(0.8, 100*float64(s.Took)/float64(whole))}
		row.Begin = min(row.Begin, 100-row.Length)
		if took := time.Duration(s.Took); took >= 100*time.Millisecond {
			row.Took = v.tenths(took)
		}
		row.Detail = v.stepDetail(s)
		view.Rows = append(view.Rows, row)
	}
	return view
}

// problems are what problems of transfers are called.
var problems = map[string]string{bootdoctor.ProblemMissing: text("there is no such file here"), bootdoctor.ProblemCut: text("it ended before its end"), bootdoctor.ProblemRefused: text("it was refused")}

func (v *visit) stepDetail(s *api.BootStep) (text string) {
	add := func(more string) {
		if text != "" {
			text += ", "
		}
		text += more
	}
	if s.Count > 1 {
		add(v.t("%d times", s.Count))
	}
	switch {
	case s.Length > 0 && s.Bytes < s.Length:
		add(v.t("%s of %s", Bytes(s.Bytes), Bytes(s.Length)))
	case s.Length > 0:
		add(Bytes(s.Length))
	}
	if p := problems[s.Problem]; p != "" {
		add(v.t(p))
	}
	if s.Appliance != "" {
		add(v.t("seen by the appliance %s", s.Appliance))
	}
	return text
}

// tenths writes a duration to a tenth of a second.
func (v *visit) tenths(d time.Duration) string {
	if d >= 10*time.Minute {
		return v.look.duration(d)
	}
	return v.t("%.1f s", d.Seconds())
}

// Percent is a share in hundredths for an attribute of the graphic.
func (bootStep) Percent(f float64) string { return fmt.Sprintf("%.2f", f) }

// overrides are what a person may say that a machine boots, by the value of the form.
var overrides = []struct{ Value, Text string }{
	{string(fleet.BootByJobs), text("as its jobs say")}, {string(fleet.BootAgent), text("the agent, always")}, {string(fleet.BootAgent) + "-once", text("the agent, once")},
	{string(fleet.BootLocal), text("its own disk, always")}, {string(fleet.BootLocal) + "-once", text("its own disk, once")},
}

// Overrides are all of them, for templates.
func (machineView) Overrides() []struct{ Value, Text string } { return overrides }
