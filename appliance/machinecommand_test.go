package main

import (
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
)

func TestWhoAdmittedAMachineIsShown(t *testing.T) {
	for want, m := range map[string]fleet.Machine{
		"yes":                             {Admitted: true},
		"by itself":                       {Admitted: true, ByItself: time.Now()},
		"yes, conflict":                   {Admitted: true, Conflict: "has a card of another"},
		"code AB":                         {Code: "AB"},
		"code AB, too many by themselves": {Code: "AB", Crowded: true},
		"code AB, conflict":               {Code: "AB", Conflict: "passes for another"},
	} {
		if got := admittedText(api.Machine{MachineView: fleet.MachineView{Machine: m}}); got != want {
			t.Errorf("%+v is shown as %q, want %q", m, got, want)
		}
	}
}
