package fleet_test

import (
	"strings"
	"testing"

	"seedbed/appliance/fleet"
)

// TestEventsSayWhatWasChanged of a group and of the settings: that a room's disks are overwritten at each boot, above all.
func TestEventsSayWhatWasChanged(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	ctx := as(t, "otto", fleet.RoleOperator)
	room, limit, none, clean, notes, image := fleet.Room, 3, 0, true, strings.Repeat("n", 1000), "debian"
	if _, err := r.NewGroup(ctx, fleet.GroupOrder{Name: "Lab", Kind: &room, Limit: &limit}); err != nil {
		t.Fatal(err)
	}
	for _, o := range []fleet.GroupOrder{{KeepClean: &clean, CleanImage: &image, Notes: &notes}, {Limit: &none}, {Limit: &none}} {
		if _, err := r.EditGroup(ctx, "lab", 0, o); err != nil {
			t.Fatal(err)
		}
	}
	zone := "Europe/Berlin"
	if _, err := r.EditSettings(as(t, "anna", fleet.RoleAdmin), 0, fleet.SettingsOrder{Limit: &limit, TimeZone: &zone}); err != nil {
		t.Fatal(err)
	}
	list, err := r.Events(t.Context(), fleet.EventQuery{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`otto: group Lab was made: kind "room", limit 3`, `otto: group Lab was changed: keep_clean {"image":"debian"}, notes`, "otto: group Lab was changed: limit none",
		"otto: group Lab was changed", `anna: the settings of the site were changed: limit 3, time_zone "Europe/Berlin"`}
	for i, e := range list {
		if said := e.Actor + ": " + e.Text; i >= len(want) || said != want[i] {
			t.Errorf("event %d: %s", i, said)
		}
	}
	if len(list) != len(want) {
		t.Errorf("%d events, want %d", len(list), len(want))
	}
}
