// Package doctor says what is wrong on the host of an appliance: findings, and who holds what an appliance needs there.
package doctor

import (
	"fmt"
	"time"
)

// Verdict is how bad a finding is.
type Verdict string

const (
	OK      Verdict = "ok"
	Warning Verdict = "warning" // something to look at; the appliance does its work
	Wrong   Verdict = "wrong"   // the appliance does not do its work, or not all of it
)

// rank orders verdicts.
var rank = map[Verdict]int{OK: 0, Warning: 1, Wrong: 2}

// Finding is what one check found.
type Finding struct {
	Check   string  `json:"check"` // a short fixed word: "port"
	Verdict Verdict `json:"verdict"`
	Text    string  `json:"text"`             // what is found, and where
	Remedy  string  `json:"remedy,omitempty"` // what to do, where something is not as it should be
}

// Report is all that was found.
type Report struct {
	At       time.Time `json:"at"`
	Host     string    `json:"host"`    // where it was looked
	Program  string    `json:"program"` // version of the program that looked
	Verdict  Verdict   `json:"verdict"` // the worst of all
	Findings []Finding `json:"findings"`
}

// Add adds findings.
func (r *Report) Add(list ...Finding) {
	if r.Verdict == "" {
		r.Verdict = OK
	}
	for _, f := range list {
		if rank[f.Verdict] > rank[r.Verdict] {
			r.Verdict = f.Verdict
		}
	}
	r.Findings = append(r.Findings, list...)
}

// Count returns how many findings have a verdict.
func (r *Report) Count(v Verdict) (n int) {
	for _, f := range r.Findings {
		if f.Verdict == v {
			n++
		}
	}
	return n
}

// Notes collects the findings of a check. Owned by one goroutine.
type Notes struct {
	Check string
	List  []Finding
}

// OK notes that something is as it should be.
func (n *Notes) OK(format string, a ...any) { n.note(OK, "", format, a...) }

// Warning notes something to look at, and what to do.
func (n *Notes) Warning(remedy, format string, a ...any) { n.note(Warning, remedy, format, a...) }

// Wrong notes what keeps the appliance from its work, and what to do.
func (n *Notes) Wrong(remedy, format string, a ...any) { n.note(Wrong, remedy, format, a...) }

func (n *Notes) note(v Verdict, remedy, format string, a ...any) {
	n.List = append(n.List, Finding{n.Check, v, fmt.Sprintf(format, a...), remedy})
}
