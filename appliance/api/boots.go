package api

import (
	"context"
	"fmt"
	"time"

	"seedbed/appliance/bootdoctor"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// Boots returns the boots of a machine with these cards as the appliances of the site saw them, the latest first; nil where none did.
type Boots func(macs []string) []bootdoctor.Boot

// MachineBoot is how a machine boots: what was seen, and what the boot doctor says of it.
type MachineBoot struct {
	Machine string             `json:"machine" doc:"ID"`
	Name    string             `json:"name"`
	Verdict bootdoctor.Verdict `json:"verdict"`
	Now     *BootCourse        `json:"now,omitempty" doc:"Its present boot, as the appliances of the site saw it: a step that another one saw names that."`
	Last    *BootCourse        `json:"last,omitempty" doc:"The boot before."`
	Earlier []*BootCourse      `json:"earlier,omitempty" doc:"The boots before that, the latest first."`
}

// BootCourse is one boot.
type BootCourse struct {
	bootdoctor.Boot
	Steps []BootStep `json:"steps"`
}

// BootStep is one step of a boot.
type BootStep struct {
	bootdoctor.Step
	Text  string   `json:"text"`
	After Duration `json:"after" doc:"Since the boot began."`
	Took  Duration `json:"took" doc:"From its begin to its end, or to the last of its repeats."`
	Wait  Duration `json:"wait" doc:"From its end to the next step; 0 of the last one."`
}

// BootOf says how a machine boots. boots may be nil: this appliance boots nobody. The error is one of Machine.
func BootOf(f *fleet.Fleet, boots Boots, name string, now time.Time) (*MachineBoot, error) {
	m, err := f.Machine(name)
	if err != nil {
		return nil, err
	}
	in := bootdoctor.Input{Now: now, Name: m.Name, Admitted: m.Admitted, Code: m.Code, Heard: m.LastSeen, Inventory: m.Inventory}
	var seen []bootdoctor.Boot
	if boots != nil {
		seen = boots(m.MACs)
	}
	if len(seen) > 0 {
		in.Boot = seen[0]
	}
	if len(seen) > 1 {
		in.Last = seen[1]
	}
	hello, left, told := f.Greeted(m.ID)
	if in.Hello, in.Left = hello, left; told {
		in.Told = hello
	}
	if m.Boot != nil {
		in.Override = string(m.Boot.To)
	}
	var work *fleet.JobView
	if m.JobID != "" {
		if work, err = f.Job(m.JobID); err == nil {
			in.Work = workOf(work)
		}
	}
	answer := &MachineBoot{Machine: m.ID, Name: m.Name, Verdict: bootdoctor.Judge(in)}
	if len(in.Last.Steps) > 0 {
		answer.Last = course(in.Last, in.Boot.Began, hello, told, nil)
	}
	for i := 2; i < len(seen); i++ {
		answer.Earlier = append(answer.Earlier, course(seen[i], seen[i-1].Began, time.Time{}, false, nil))
	}
	answer.Now = course(in.Boot, time.Time{}, hello, told, work)
	return answer, nil
}

func workOf(j *fleet.JobView) *bootdoctor.Work {
	return &bootdoctor.Work{ID: j.ID, Kind: j.Kind, State: j.State, Phase: j.Phase, Code: j.Code, Reason: j.Reason, Peers: j.Peers, Warnings: j.Warnings, Reported: j.Reported}
}

// course adds to a boot what the fleet knows of its agent, and counts durations. end is when the boot after it began; nil is no boot.
func course(b bootdoctor.Boot, end, hello time.Time, told bool, j *fleet.JobView) *BootCourse {
	if b.Began.IsZero() && !hello.IsZero() && end.IsZero() {
		b.Began = hello // its packets were seen by none, or are deleted
		if j != nil && !j.BootSeen.IsZero() && j.HelloAt.Equal(hello) {
			b.Began = j.BootSeen
		}
	}
	if b.Began.IsZero() {
		return nil
	}
	step := func(at time.Time, kind bootdoctor.Kind, note string) {
		if !at.Before(b.Began) && (end.IsZero() || at.Before(end)) {
			b.Steps = append(b.Steps, bootdoctor.Step{At: at, Last: at, Count: 1, Kind: kind, By: bootdoctor.ByAgent, Note: note})
		}
	}
	if !hello.IsZero() {
		step(hello, bootdoctor.Hello, "")
		if told {
			step(hello, bootdoctor.Inventory, "")
		}
	}
	if j != nil && !j.Claimed.IsZero() && j.Claimed.After(hello) {
		step(j.Claimed, bootdoctor.Job, jobNote(j))
	}
	c := &BootCourse{Boot: b, Steps: []BootStep{}}
	for i, s := range b.Steps {
		v := BootStep{Step: s, Text: s.String(), After: Duration(s.At.Sub(b.Began)), Took: Duration(s.Last.Sub(s.At))}
		if i+1 < len(b.Steps) {
			v.Wait = Duration(max(0, b.Steps[i+1].At.Sub(s.Last)))
		}
		c.Steps = append(c.Steps, v)
	}
	return c
}

func jobNote(j *fleet.JobView) string {
	if j.Kind == job.Deploy || j.Kind == job.Capture {
		return fmt.Sprintf("%s, %s %s", j.ID, j.Kind, j.ImageName)
	}
	return fmt.Sprintf("%s, %s", j.ID, j.Kind)
}

func (o *Operators) addBoots(boots Boots) {
	o.boots = boots
	add(o, "GET", "/machines/{name}/boot", "getMachineBoot", "Say how a machine boots, where that stopped, and what to do", func(_ context.Context, in *Named) (*answer[*MachineBoot], error) {
		return body(o.MachineBoot(in.Name))
	})
}

// MachineBoot says how a machine boots, see BootOf.
func (o *Operators) MachineBoot(name string) (*MachineBoot, error) {
	return BootOf(o.fleet, o.boots, name, time.Now().UTC())
}
