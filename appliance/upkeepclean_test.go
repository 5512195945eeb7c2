package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"seedbed/appliance/fleet"
	"seedbed/images"
)

// TestImageThatKeepsMachinesCleanIsInUse: without it they would boot as people left them.
func TestImageThatKeepsMachinesCleanIsInUse(t *testing.T) {
	one, two := images.Sum([]byte("one")), images.Sum([]byte("two"))
	resolve := func(_ context.Context, ref string) (images.Digest, error) {
		if ref != "debian" {
			return images.Digest{}, errors.New("no image is named " + ref)
		}
		return two, nil
	}
	holds := func(d images.Digest, groups ...string) fleet.Machine {
		return fleet.Machine{Groups: groups, Deployed: &fleet.Deployed{Image: d}}
	}
	for name, c := range map[string]struct {
		policy   *fleet.KeepClean
		machines []fleet.Machine
		used     bool
	}{
		"no policy":              {nil, []fleet.Machine{holds(one, "lab")}, false},
		"what machines hold":     {&fleet.KeepClean{}, []fleet.Machine{holds(two, "lab"), holds(one, "lab")}, true},
		"what others hold":       {&fleet.KeepClean{}, []fleet.Machine{holds(one, "hall"), holds(two, "lab"), {Groups: []string{"lab"}}}, false},
		"by another image":       {&fleet.KeepClean{Image: "debian"}, []fleet.Machine{holds(one, "lab")}, false},
		"by one that is gone":    {&fleet.KeepClean{Image: "gone"}, nil, false},
		"of which one is merged": {&fleet.KeepClean{}, []fleet.Machine{{Groups: []string{"lab"}, Deployed: &fleet.Deployed{Image: one}, MergedInto: "x"}}, false},
	} {
		by := cleanedBy(t.Context(), one, []fleet.Group{{ID: "lab", Name: "Lab", KeepClean: c.policy}}, c.machines, resolve)
		if (by != "") != c.used || c.used && !strings.Contains(by, "group Lab") {
			t.Errorf("%s: %q", name, by)
		}
	}
	if by := cleanedBy(t.Context(), two, []fleet.Group{{Name: "Lab", KeepClean: &fleet.KeepClean{Image: "debian"}}}, nil, resolve); by == "" {
		t.Error("the policy's own image is in no use")
	}
}
