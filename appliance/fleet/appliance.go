package fleet

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Appliance is one of the appliances of a site, as it says itself when it starts.
type Appliance struct {
	ID      string         `json:"id"`
	Version int64          `json:"version"`
	Name    string         `json:"name"` // of its host
	URL     string         `json:"url"`  // by which agents reach it: "https://10.77.0.1:443"
	Seeder  netip.AddrPort `json:"seeder"`
	Boot    netip.AddrPort `json:"boot,omitzero"` // where it serves boot files over HTTP; zero is nowhere
	Program string         `json:"program"`       // its version
	Started time.Time      `json:"started"`
}

func (a *Appliance) Ref() Key     { return Key{KindAppliance, a.ID} }
func (a *Appliance) Row() *int64  { return &a.Version }
func (a *Appliance) Shelf() Shelf { return Shelf{} }
func (a *Appliance) copy() Record { own := *a; return &own }

// appear records that this appliance is one of the site's.
func (f *Fleet) appear(ctx context.Context) error {
	self := f.config.Self
	if self == nil {
		return nil
	}
	return f.change(ctx, func(d *draft) error {
		have := lookup[*Appliance](d, KindAppliance, f.config.ID)
		if have == nil {
			have = &Appliance{ID: f.config.ID}
			d.event(Event{Kind: "appliance.new", Text: "appliance " + self.Name + " (" + self.URL + ") is one of the site's"})
		}
		own := edit(d, have)
		version := own.Version
		*own = *self
		own.ID, own.Version = f.config.ID, version
		return nil
	})
}

// silentAppliance is after how long without a word an appliance is not named to machines any more.
const silentAppliance = 30 * time.Second

// ApplianceView is an appliance as people and programs see it.
type ApplianceView struct {
	Appliance
	Self     bool      `json:"self"`   // the one that answers
	Schedule bool      `json:"office"` // the one that schedules the site
	Present  bool      `json:"present"`
	Heard    time.Time `json:"heard,omitzero"`
}

// Appliances returns the appliances of the site, this one first, then those that are there.
func (f *Fleet) Appliances() []ApplianceView {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.appliances()
}

// appliances is Appliances for callers that hold mu.
func (f *Fleet) appliances() (list []ApplianceView) {
	now, holder := f.now(), f.office.Load().Holder
	for k, r := range f.state.others {
		if k.Kind != KindAppliance {
			continue
		}
		v := ApplianceView{Appliance: *r.(*Appliance), Self: k.ID == f.config.ID, Schedule: k.ID == holder}
		v.Present = v.Self
		if n := f.peers[k.ID]; n != nil {
			v.Heard, v.Present = n.at, now.Sub(n.at) < silentAppliance
		}
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b ApplianceView) int {
		switch {
		case a.Self != b.Self:
			return first(a.Self)
		case a.Present != b.Present:
			return first(a.Present)
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list
}

func first(a bool) int {
	if a {
		return -1
	}
	return 1
}

// addresses returns the base URLs of the appliances that are there, this one's own first.
func (f *Fleet) addresses() []string {
	list := slices.Clone(f.config.Appliances)
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, a := range f.appliances() {
		if a.Present && !a.Self && a.URL != "" && !slices.Contains(list, a.URL) {
			list = append(list, a.URL)
		}
	}
	return list
}

// OtherBoots returns where the site's other appliances that are there serve boot files.
func (f *Fleet) OtherBoots() (list []netip.AddrPort) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, a := range f.appliances() {
		if a.Present && !a.Self && a.Boot.IsValid() {
			list = append(list, a.Boot)
		}
	}
	return list
}

// seeders returns the addresses of the seeders of the appliances that are there, this one's own first. The caller holds mu.
func (f *Fleet) seeders() []netip.AddrPort {
	list := slices.Clone(f.config.Seeds)
	for _, a := range f.appliances() {
		if a.Present && !a.Self && a.Seeder.IsValid() && !slices.Contains(list, a.Seeder) {
			list = append(list, a.Seeder)
		}
	}
	return list
}
