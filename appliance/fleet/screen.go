package fleet

import (
	"time"

	"seedbed/appliance/job"
)

// screen is what a machine's agent told that its screen says.
type screen struct {
	said    job.Screen
	session string    // the boot that told it
	told    time.Time // when it did so last: agents tell the same again each half minute
	heard   time.Time // when that boot's agent was heard of last: it says what is new
}

// screenHolds is how long after an agent was heard of its screen is taken to say the same: it asks for a job each 20 s, and one that
// stays with a failure reports each 30 s.
const screenHolds = 90 * time.Second

// screenSays takes what a caller's screen says; nil is what it said before. The caller of it holds mu.
func (f *Fleet) screenSays(c Caller, said *job.Screen) {
	f.takeScreen(c.session.Machine, c.session.ID, said)
}

// takeScreen is that for a machine and its boot, of which also another appliance may have told. The caller holds mu.
func (f *Fleet) takeScreen(machine, session string, said *job.Screen) {
	now := f.now()
	was, known := f.screens[machine]
	switch {
	case f.state.machines[machine] == nil: // removed meanwhile
	case said != nil:
		s := *said
		for _, text := range []*string{&s.Level, &s.Word, &s.Headline, &s.Message, &s.Notice} {
			cut(text, job.MaxScreenText)
		}
		f.screens[machine] = screen{s, session, now, now}
	case known && was.session == session:
		was.heard = now
		f.screens[machine] = was
	default:
		delete(f.screens, machine)
	}
}

// screenNews returns what a machine's screen says where other appliances of the site may not know that, else nil. The caller holds mu.
func (f *Fleet) screenNews(machine string) *job.Screen {
	s, known := f.screens[machine]
	if !known || f.now().Sub(s.told) > 2*attendEvery {
		return nil
	}
	return &s.said
}

// screenOf returns what a machine's screen says, or nil where that is not known. The caller holds mu.
func (f *Fleet) screenOf(m *Machine) *job.Screen {
	s, known := f.screens[m.ID]
	if !known || f.now().Sub(s.heard) > screenHolds {
		return nil
	}
	if t, ok := f.sights[m.MAC()]; ok && t.first.After(s.heard) {
		return nil // it starts anew
	}
	return &s.said
}
