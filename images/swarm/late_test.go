package swarm

import (
	"testing"

	"seedbed/images/peerwire"
	"seedbed/images/schedule"
)

// woken reports whether the writing goroutine of an outbox was woken.
func woken(o *outbox) bool {
	select {
	case <-o.wake:
		return true
	default:
		return false
	}
}

func TestLateMessagesGoWithOthersOrSoon(t *testing.T) {
	o := newOutbox()
	o.sendLate(peerwire.Have(1), 3)
	o.sendLate(peerwire.Have(2), 3)
	if woken(o) {
		t.Error("two late messages of three hurried")
	}
	o.hurry()
	if !woken(o) {
		t.Error("nothing makes late messages go")
	}
	if b := o.takeControl(nil); len(b) != 18 {
		t.Errorf("%x", b)
	}
	if o.hurry(); woken(o) {
		t.Error("woken for nothing")
	}
	for i := range 3 {
		o.sendLate(peerwire.Have(i), 3)
	}
	if !woken(o) {
		t.Error("late messages without bound")
	}
	o.takeControl(nil)
	o.sendLate(peerwire.Have(3), 3)
	if o.send(peerwire.Have(4)); !woken(o) || len(o.takeControl(nil)) != 18 {
		t.Error("a late message did not go with another")
	}
}

func TestWhoNeedsToHearOfAPieceAtOnce(t *testing.T) {
	const pieces = 200
	have := schedule.NewSet(pieces)
	for i := range 20 {
		have.Add(i)
	}
	peer := func(handsOut bool, has ...int) *link {
		l := &link{linkState: linkState{Source: &schedule.Source{Has: schedule.NewSet(pieces), HandsOut: handsOut}}}
		l.Ready = true
		for _, p := range has {
			l.Has.Add(p)
		}
		return l
	}
	most := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	for _, c := range []struct {
		what    string
		l       *link
		content bool
	}{
		{"one who can choose from 20 pieces", peer(false), true},
		{"one who has it", peer(false, append(most, 19)...), true},
		{"one who can choose from 7 pieces", peer(false, most...), false},
		{"who showed it", peer(true, 19), false},
		{"who hands out and did not show it", peer(true, 18), true},
	} {
		if c.l.content(have, 19) != c.content {
			t.Errorf("%s: content is %v", c.what, !c.content)
		}
	}
	l := peer(false)
	if l.stock = new(stock); l.content(have, 19) {
		t.Error("a stock peer waits")
	}
}
