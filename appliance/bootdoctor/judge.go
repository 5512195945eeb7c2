package bootdoctor

import (
	"strings"
	"time"

	"seedbed/appliance/job"
)

// How long a machine may take for its next step before a boot counts as stopped.
const (
	// PacketPatience is for packets of firmware, whose own waits are 4, 8, 16 and 32 s (PXE 2.1 §2.2.5).
	PacketPatience = 20 * time.Second
	// LoaderPatience is from a loader's download to its first request, ScriptPatience from there to the kernel.
	LoaderPatience = 60 * time.Second
	ScriptPatience = 30 * time.Second
	// AgentPatience is from the kernel to the agent's hello: a kernel starts in some 10 s, a switch port with spanning tree forwards after
	// 30 to 50 s (IEEE 802.1D-2004 §17.14).
	AgentPatience = 90 * time.Second
	// AgentSilence is after how long an agent of which nothing is heard counts as gone: it asks for a job every 20 s, and reports each second.
	AgentSilence = 2 * time.Minute
	// refusesWithin is how fast firmware that refused a loader goes on to its next boot entry; one in which a loader hangs says nothing.
	refusesWithin = 30 * time.Second
	// loopWithin is how soon a machine that was sent to its own disk comes again if that does not start.
	loopWithin = 3 * time.Minute
)

// Level is how bad a verdict is.
type Level string

const (
	Fine    Level = "fine"    // it is where it should be, or on its way
	Notice  Level = "notice"  // somebody has to know, or to decide
	Stopped Level = "stopped" // it does not go on by itself
)

// Verdict is what the doctor says of a machine.
type Verdict struct {
	Case  string `json:"case"`
	Level Level  `json:"level"`
	// Stopped is the step that the machine came to.
	Stopped Kind `json:"stopped,omitempty"`
	// Sentence says what happened, to what; Next what to do. Where the evidence cannot tell causes apart, Causes names each.
	Sentence string   `json:"sentence"`
	Next     string   `json:"next,omitempty"`
	Causes   []string `json:"causes,omitempty"`
	// Before says that the verdict is about the boot before the present one, which is on its way.
	Before bool `json:"before,omitempty"`
	// Facts are what stands in the place of words in braces in the texts of the Case, for other languages.
	Facts map[string]string `json:"facts,omitempty"`
	// Left is what a boot before left on the machine, nil where nothing is known.
	Left *Left `json:"left,omitempty"`
	// Step is the last step of a machine that is on its way, nil otherwise.
	Step *Step `json:"-"`
}

// Work is what a machine's job says.
type Work struct {
	ID     string
	Kind   job.Kind
	State  job.State
	Phase  job.Phase
	Code   string
	Reason string
	Peers  int
	// Warnings of its last report: WarnNoSwarm begins the one of a machine that gets nothing and reaches nobody.
	Warnings []string
	Reported time.Time // the last report
}

// Input is the evidence.
type Input struct {
	Now  time.Time
	Name string // of the machine
	// Boot is its present boot, Last the one before. One without steps was not seen.
	Boot, Last Boot
	// Hello is when its agent said hello last, Told when it told what the machine is.
	Hello, Told time.Time
	// Left is what that hello told of an earlier boot, nil is nothing.
	Left *job.Left
	// Heard is when anything was heard of it last, zero is not in this run of the appliance.
	Heard    time.Time
	Admitted bool
	Code     string // to admit it by
	// Override is what a person said that it boots: "agent", "local" or "".
	Override  string
	Inventory *job.Inventory // the last one
	Work      *Work          // its job that has not ended, else the latest; nil is none
}

// Judge says where the machine's boot stopped and why. A boot that is on its way is judged by the one before, where that stopped.
func Judge(in Input) Verdict {
	v := judge(in)
	v.Left = leftOf(&in)
	return v
}

func judge(in Input) Verdict {
	now := verdict(&view{Input: in, b: in.Boot})
	if now.Level != Fine || now.Case != caseOnTheWay || len(in.Last.Steps) == 0 {
		return now
	}
	before := &view{Input: in, b: in.Last, next: in.Boot.Began}
	before.Now, before.Work = in.Boot.Began, nil
	if before.Hello.After(in.Boot.Began) {
		before.Hello = time.Time{}
	}
	was := verdict(before)
	if was.Level != Stopped {
		return now
	}
	was.Before = true
	return was
}

func verdict(v *view) Verdict {
	for i := range Cases {
		c := &Cases[i]
		facts := c.match(v)
		if facts == nil {
			continue
		}
		facts["name"] = or(v.Name, v.b.MAC)
		out := Verdict{Case: c.Name, Level: c.Level, Stopped: c.Stopped, Sentence: Fill(c.Sentence, facts), Next: Fill(c.Next, facts), Facts: facts}
		if c.Name == caseOnTheWay {
			out.Step = &v.b.Steps[len(v.b.Steps)-1]
		}
		for _, cause := range c.Causes {
			out.Causes = append(out.Causes, Fill(cause, facts))
		}
		return out
	}
	panic("the last case fits all")
}

// view is one boot as it is judged.
type view struct {
	Input
	b    Boot
	next time.Time // when the boot after it began; zero: it is the present one
}

func (v *view) find(fits func(*Step) bool) *Step {
	for i := len(v.b.Steps) - 1; i >= 0; i-- {
		if fits(&v.b.Steps[i]) {
			return &v.b.Steps[i]
		}
	}
	return nil
}

// last returns the latest step of one of the kinds, or nil.
func (v *view) last(kinds ...Kind) *Step {
	return v.find(func(s *Step) bool {
		for _, k := range kinds {
			if s.Kind == k {
				return true
			}
		}
		return false
	})
}

func (v *view) has(kinds ...Kind) bool { return v.last(kinds...) != nil }

// greeted reports whether the agent said hello in this boot. One whose steps nobody kept counts by its hello alone.
func (v *view) greeted() bool {
	return !v.Hello.IsZero() && !v.Hello.Before(v.b.Began)
}

// gone is how long nothing was heard of an agent that said hello; 0 where it is there.
func (v *view) gone() time.Duration {
	heard := v.Hello
	if v.Heard.After(heard) {
		heard = v.Heard
	}
	if silent := v.Now.Sub(heard); v.greeted() && silent >= AgentSilence {
		return silent
	}
	return 0
}

// still reports whether nothing came for so long since a step, or since the last of all steps if there is none.
func (v *view) still(d time.Duration) bool {
	return !v.next.IsZero() || v.Now.Sub(v.b.Latest()) >= d
}

// loader returns the last loader that was fetched whole and that nothing followed, or nil.
func (v *view) loader() *Step {
	l := v.find(func(s *Step) bool { return (s.Kind == TFTP || s.Kind == HTTP) && s.Loader != "" && s.Whole() })
	after := v.last(Script, Kernel, Local, NoDisk)
	if l == nil || v.greeted() || after != nil && !after.Last.Before(l.Last) {
		return nil
	}
	return l
}

// started reports whether a loader began: it asked for a file beside itself.
func (v *view) started(s *Step) bool {
	return v.find(func(o *Step) bool {
		return (o.Kind == TFTP || o.Kind == HTTP) && o.Last.After(s.At) && o.File != s.File && (o.Loader == "" || o.By == ByGRUB)
	}) != nil
}

// goneOn is how long after a step the firmware asked anew, in this boot or by a next one; -1 is never.
func (v *view) goneOn(s *Step) time.Duration {
	for i := range v.b.Steps {
		if d := &v.b.Steps[i]; d.Kind == DHCP && d.By == ByFirmware && d.Last.After(s.Last) {
			if d.At.After(s.Last) {
				return d.At.Sub(s.Last)
			}
			return d.Last.Sub(s.Last)
		}
	}
	if v.next.After(s.Last) {
		return v.next.Sub(s.Last)
	}
	return -1
}

// refused returns a loader that the firmware fetched whole, did not start, and left at once for its next boot entry; or nil.
func (v *view) refused() *Step {
	if v.loader() == nil {
		return nil
	}
	return v.find(func(s *Step) bool {
		gone := v.goneOn(s)
		return (s.Kind == TFTP || s.Kind == HTTP) && s.By == ByFirmware && s.Loader != "" && s.Whole() && !v.started(s) && gone >= 0 && gone <= refusesWithin
	})
}

// secureBoot is what the last inventory said: "on", "off" or "".
func (v *view) secureBoot() string {
	if v.Inventory == nil {
		return ""
	}
	return v.Inventory.SecureBoot
}

// failed returns the job where it failed, or waits, with one of the codes.
func (v *view) failed(codes ...string) *Work {
	w := v.Work
	if w == nil || !v.next.IsZero() || w.State == job.Succeeded || w.State == job.Cancelled || !v.greeted() && len(v.b.Steps) > 0 {
		return nil
	}
	for _, c := range codes {
		if w.Code == c {
			return w
		}
	}
	return nil
}

// hiding returns the controller that hides disks, or nil.
func (v *view) hiding() *job.Controller {
	if v.Inventory == nil {
		return nil
	}
	for i := range v.Inventory.Controllers {
		if c := &v.Inventory.Controllers[i]; c.Hides() {
			return c
		}
	}
	return nil
}

// fixed counts the disks that could be written.
func (v *view) fixed() (n int) {
	for _, d := range v.Inventory.Disks {
		if !d.Removable && !d.ReadOnly && d.Bus != "usb" {
			n++
		}
	}
	return n
}

// fits reports whether a loader is one for the machine's firmware.
func (v *view) fits(loader string) bool {
	if loader == "undionly" {
		return !v.b.UEFI
	}
	return v.b.UEFI
}

// sentence is a text without its closing full stop.
func sentence(s string) string { return strings.TrimSuffix(strings.TrimSpace(s), ".") }
