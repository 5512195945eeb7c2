package main

import (
	"net/netip"
	"slices"
)

// mayReach is fleet.Config.MayReach; the tracker is opened before anybody claims.
func (a *appliance) mayReach(names []string, at netip.Addr, seeder netip.AddrPort) bool {
	if seeder == a.seeder() || slices.Contains(a.fleet.OtherSeeders(), seeder) {
		return a.tracker.MayReachAppliance(names, at)
	}
	return a.tracker.MayReachSeedNode(names, at, seeder.Addr())
}

// openTopology makes SIGHUP read the policy file again. One that cannot be used changes nothing.
func (a *appliance) openTopology() {
	if a.config.Topology != "" {
		a.reloads = append(a.reloads, a.reloadTopology)
	}
}

func (a *appliance) reloadTopology() {
	p, err := readTopology(a.config.Topology)
	if err != nil {
		a.log.Error("topology not read again, the one before counts on", "file", a.config.Topology, "err", err)
		return
	}
	a.tracker.SetPolicy(p)
	a.log.Info("topology read again", "file", a.config.Topology, "groups", len(p.Groups))
}
