package main

import (
	"encoding/json"

	"seedbed/appliance/boot"
)

// told is what the appliances of a site tell each other beside what their fleets do.
type told struct {
	Boots []boot.Heard `json:"boots,omitempty"`
}

// tell implements fleet.Config.Tell.
func (a *appliance) tell() []byte {
	if a.boot == nil {
		return nil
	}
	b, err := json.Marshal(told{Boots: a.boot.Heard()})
	if err != nil {
		a.log.Error("what this appliance tells the others of its site cannot be encoded", "err", err)
		return nil
	}
	return b
}

// hear implements fleet.Config.Hear.
func (a *appliance) hear(doc []byte) {
	var t told
	if err := json.Unmarshal(doc, &t); err != nil {
		a.log.Warn("what another appliance tells cannot be read", "err", err)
		return
	}
	if a.boot != nil {
		a.boot.Learn(t.Boots)
	}
}
