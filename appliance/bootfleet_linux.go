package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"

	"seedbed/appliance/boot"
	"seedbed/appliance/boothistory"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// bootFleet is the fleet as the boot path asks it.
type bootFleet struct {
	fleet *fleet.Fleet
	log   *slog.Logger
	told  *atomic.Int64 // Unix seconds when a machine that was not recorded was logged last
}

// Sighted implements boot.Fleet.
func (b bootFleet) Sighted(ctx context.Context, s boot.Sighting) {
	firmware := ""
	switch {
	case s.Stage != boot.StageDHCP:
	case s.Arch == boot.ArchBIOS:
		firmware = "bios"
	case s.Arch.UEFI():
		firmware = "uefi"
	}
	err := b.fleet.Sighted(ctx, fleet.Sighting{
		MAC: s.MAC.String(), UUID: s.UUID, Addr: s.Addr, Stage: string(s.Stage), Firmware: firmware, Loader: string(s.Loader), Note: s.Note,
	})
	_, refused := errors.AsType[*fleet.Refusal](err)
	switch {
	case refused && !seldom(b.told): // it comes again, and so do all others of a flood
	case refused:
		b.log.Warn("a machine that was seen is not recorded; others are told of once a minute", "mac", s.MAC.String(), "err", err)
	case err != nil:
		b.log.Error("a machine that was seen could not be recorded", "mac", s.MAC.String(), "err", err)
	}
}

// NextBoot implements boot.Fleet.
func (b bootFleet) NextBoot(ctx context.Context, mac boot.MAC, uuid string) (boot.Assignment, error) {
	a := b.fleet.NextBoot(ctx, mac.String(), uuid)
	next := boot.Assignment{
		Run: boot.RunLocal, Known: a.Known, SecureBoot: a.SecureBoot, Loader: boot.Loader(a.Loader),
		BIOSDrive: a.BIOSDrive, ESPVolumeID: a.ESPVolumeID, ESPPartition: a.ESPPartition,
	}
	if a.Agent {
		next.Run = boot.RunAgent
	}
	return next, nil
}

// BootToken implements boot.Fleet.
func (b bootFleet) BootToken(ctx context.Context, mac boot.MAC, addr netip.Addr) (job.Boot, error) {
	return b.fleet.BootToken(ctx, mac.String(), addr)
}

// openHistory makes what keeps how machines boot; where the appliance boots none it shows what the others of its site saw.
func (a *appliance) openHistory(ctx context.Context) {
	c := boothistory.Config{Records: a.fleet, Self: a.id, Log: a.log}
	if a.boot != nil {
		c.Diary = a.boot
	}
	a.history = boothistory.New(c)
	a.history.Restore(ctx)
	a.parts = append(a.parts, a.history.Run)
}
