//go:build linux

package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"seedbed/appliance/alert"
	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
)

// What cannot be looked at is as it was: an alert does not end by it.
func TestWhatCannotBeLookedAtIsAsItWas(t *testing.T) {
	var f facts
	var broken error
	var free int64 = 5
	list := map[string]fleet.Event{api.EventDamaged: {ID: 7, At: time.Now(), Text: "debian:1 is damaged"}}
	look := func() alert.Site {
		return f.look(t.Context(), func() (int64, int64, error) { return free, 100, broken }, func(_ context.Context, q fleet.EventQuery) ([]fleet.Event, error) {
			if e, ok := list[q.Kind]; ok && broken == nil {
				return []fleet.Event{e}, nil
			}
			return nil, broken
		})
	}
	check := func(free int64, damage string) {
		t.Helper()
		if s := look(); s.Free != free || s.Total != 100 || s.Damage != damage {
			t.Errorf("%+v", s)
		}
	}
	check(5, "debian:1 is damaged")
	broken, free = errors.New("the disk does not answer"), 0
	list[api.EventWhole] = fleet.Event{ID: 8, At: time.Now()}
	check(5, "debian:1 is damaged")
	broken, free = nil, 50
	check(50, "")
}
