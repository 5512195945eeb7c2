package agents

import (
	"context"
	"errors"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"strings"
	"time"

	"seedbed/appliance/job"
)

// Behaviour is how a machine differs from an ordinary one. The zero value does not. Rates are bytes a second, times count from the
// beginning of its transfer.
type Behaviour struct {
	// Rate is at what its disk becomes right; 0 is what Config.Content asks for.
	Rate float64
	// SlowAfter is when it goes on at SlowRate; a SlowRate of 0 is never.
	SlowAfter time.Duration
	SlowRate  float64
	// SilentAfter is when it says nothing for SilentFor, as if its cable was pulled; 0 is never. A SilentFor of 0 is for ever: the
	// machine is switched off.
	SilentAfter, SilentFor time.Duration
	// FailAfter is when its job fails with Code and Sentence; an empty Code is never.
	FailAfter      time.Duration
	Code, Sentence string

	Mbit     int     // its network card negotiated; 0 is 1000
	DiskRate float64 // of its writes; 0 is 400 MB/s
	CPU      float64 // busy share of its processors; 0 is 0.3
	Peers    int     // 0 is 12, less than 0 none
	// Wrong is the share of tiles that come wrong, Seeds the share of what others send that comes from seed nodes.
	Wrong, Seeds float64
}

// errOff is why a machine does nothing more that was switched off.
var errOff = errors.New("the machine was switched off")

// errFailed is why one does nothing more whose job failed; a person looks at its screen.
var errFailed = errors.New("the job failed")

// hardware are the machines of a site, one kind after the other.
var hardware = []struct {
	manufacturer, product string
	memory                int64
	cores                 int
	driver                string
	disk                  job.Disk
}{
	{"Dell Inc.", "OptiPlex 7010", 16 << 30, 8, "e1000e", job.Disk{Name: "nvme0n1", Model: "PM991a NVMe 512GB", Length: 512110190592, Bus: "nvme"}},
	{"LENOVO", "ThinkCentre M70q Gen 3", 16 << 30, 12, "igc", job.Disk{Name: "nvme0n1", Model: "WDC PC SN530 512GB", Length: 512110190592, Bus: "nvme"}},
	{"HP", "ProDesk 400 G6 SFF", 8 << 30, 6, "r8169", job.Disk{Name: "sda", Model: "ST1000DM010-2EP102", Length: 1000204886016, Bus: "sata", Rotational: true}},
	{"FUJITSU", "ESPRIMO D958", 8 << 30, 6, "e1000e", job.Disk{Name: "sda", Model: "MTFDDAK256TBN", Length: 256060514304, Bus: "sata"}},
}

// inventory is what the machine says it is: rooms of twenty have the same hardware.
func (m *machine) inventory() job.Inventory {
	h, id := hardware[m.index/20%len(hardware)], fmt.Sprintf("%04X", m.index)
	disk := h.disk
	disk.Serial, disk.SectorLength = m.serial(), 512
	return job.Inventory{
		UUID: "6f1d3c52-8f4a-4c1e-9b0a-5254a6c0" + strings.ToLower(id), Manufacturer: h.manufacturer, Product: h.product, Serial: "SN-A6-" + id, Firmware: "bios",
		MemoryBytes: h.memory, Cores: h.cores, LinkWait: 2 * time.Second, Disks: []job.Disk{disk},
		NICs: []job.NIC{{Name: "eth0", MAC: m.story.MAC, Driver: h.driver, Mbit: orElse(m.is.Mbit, 1000), Addr: m.own.String()}},
	}
}

// disk is the machine's disk.
func (m *machine) disk() job.Disk { return m.inventory().Disks[0] }

// serial is the number of its disk.
func (m *machine) serial() string { return fmt.Sprintf("DISK-A6-%04X", m.index) }

func orElse[T comparable](v, other T) T {
	var zero T
	if v == zero {
		return other
	}
	return v
}

// transfer is the swarm, without its content, at the machine's rate.
func (m *machine) transfer(ctx context.Context) error {
	usual := orElse(m.is.Rate, total/(m.Content.Seconds()*(0.9+0.2*mathrand.Float64())))
	if err := m.enter(ctx, job.PhaseContent); err != nil {
		return err
	}
	m.did("job.phase content")
	began, last, bitmap := time.Now(), time.Now(), time.Now()
	for held := 0.0; held < total; {
		rate := usual
		since := time.Since(began)
		switch {
		case m.is.Code != "" && since >= m.is.FailAfter:
			return m.fail(ctx)
		case m.is.SilentAfter > 0 && since >= m.is.SilentAfter:
			if m.is.SilentFor == 0 {
				return errOff
			}
			if err := pause(ctx, m.is.SilentAfter+m.is.SilentFor-since); err != nil {
				return err
			}
			m.is.SilentAfter, last = 0, time.Now()
		case m.is.SlowRate > 0 && since >= m.is.SlowAfter:
			rate = m.is.SlowRate
		}
		due := min(time.Until(m.next), time.Duration((total-held)/rate*float64(time.Second)))
		if err := pause(ctx, max(min(due, m.changes(since)), 0)); err != nil {
			return err
		}
		now := time.Now()
		held = min(total, held+rate*now.Sub(last).Seconds())
		last = now
		if held < total && now.Before(m.next) {
			continue // the rate changes between two reports
		}
		m.holds(held, now.Sub(bitmap) > bitmapEvery)
		if m.said.Bitmap != nil {
			bitmap = now
		}
		if err := m.report(ctx); err != nil {
			return err
		}
	}
	return nil
}

// changes is how long after this much of the transfer it changes how it gets on.
func (m *machine) changes(since time.Duration) time.Duration {
	soonest := time.Duration(math.MaxInt64)
	for _, at := range []time.Duration{m.is.FailAfter, m.is.SilentAfter, m.is.SlowAfter} {
		if at > since {
			soonest = min(soonest, at-since)
		}
	}
	return soonest
}

// holds has the next report say that so much is right on the disk.
func (m *machine) holds(bytes float64, bitmap bool) {
	held, s := int64(bytes), &m.said
	wire := held / 2 // it travels compressed
	s.Held, s.Written, s.WriteNanos = held, held, int64(bytes/orElse(m.is.DiskRate, 400e6)*1e9)
	s.FromAppliance, s.ToPeers, s.Peers, s.CPU = held/900, wire, max(0, orElse(m.is.Peers, 12)), orElse(m.is.CPU, 0.3)
	s.FromSeeds = int64(m.is.Seeds * float64(wire))
	s.FromPeers = wire - s.FromSeeds
	s.Tiles = held >> 16
	s.WrongTiles = int64(m.is.Wrong * float64(s.Tiles))
	m.held.Store(held)
	if bitmap {
		s.Bitmap = make([]byte, 5000/8) // of 4 MiB
		for i := range s.Bitmap {
			s.Bitmap[i] = byte(mathrand.Uint32())
		}
	}
}

// fail reports that the job failed.
func (m *machine) fail(ctx context.Context) error {
	m.said.State, m.said.Code = job.Failed, m.is.Code
	m.said.Reason = orElse(m.is.Sentence, "disk "+m.said.Disk+" took no more writes. Replace it and deploy again")
	m.said.Log = "seedbed: phase content disk " + m.said.Disk + "\nseedbed: " + m.said.Reason
	if err := m.report(ctx); err != nil {
		return err
	}
	m.did("job.failed")
	return errFailed
}
