package swarm

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"seedbed/images/peerwire"
)

// By the bucket's own clock: what passes in ten seconds is, with headers, within 5 % of the limit, and every link gets its share.
func TestLimitIsHeldAndShared(t *testing.T) {
	for _, limit := range []int64{MinLimit, 1 << 20, 12_500_000, 100 << 20, 1_000_000_000} {
		for _, links := range []int{1, 2, 7} {
			t.Run(fmt.Sprintf("%d/%d links", limit, links), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const seconds = 10
					ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
					defer cancel()
					bucket := newBucket(limit)
					passed := make([]int64, links)
					var group sync.WaitGroup
					for i := range links {
						group.Go(func() {
							p := newPacer(nil, bucket)
							for p.take(ctx, p.grain, nil) == nil && ctx.Err() == nil {
								passed[i] += int64(p.grain)
								time.Sleep(time.Duration(i) * 5 * time.Microsecond) // writes take time, and not the same
							}
						})
					}
					group.Wait()
					total, want := int64(0), int64(float64(limit*seconds)*contentShare)
					for i, n := range passed {
						total += n
						if share := want / int64(links); n < share*90/100 || n > share*110/100 {
							t.Errorf("link %d got %d bytes, its share is %d", i, n, share)
						}
					}
					if total < want*95/100 || total > want*105/100 {
						t.Errorf("%d bytes passed in %d s, the limit allows %d", total, seconds, want)
					}
				})
			})
		}
	}
}

// The narrowest of several buckets decides, and the others lose nothing by it.
func TestNarrowestLimitDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		whole := newBucket(3 << 20)
		var passed [4]int64
		var group sync.WaitGroup
		for i := range passed {
			group.Go(func() {
				p := newPacer(newBucket(1<<20), whole)
				for p.take(ctx, 10_000, nil) == nil && ctx.Err() == nil {
					passed[i] += 10_000
				}
			})
		}
		group.Wait()
		total := int64(0)
		for _, n := range passed {
			total += n
			if n > 10<<20*105/100 {
				t.Errorf("a link limited to %d bytes in 10 s got %d", 10<<20, n)
			}
		}
		if want := int64(30 << 20); total < want*95/100 || total > want*105/100 {
			t.Errorf("%d bytes, the limit allows %d", total, want)
		}
	})
}

// A wait for the limit tells all the while that the link lives, and ends with the link.
func TestWaitForTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(newBucket(MinLimit))
		calls := 0
		begin := time.Now()
		if err := p.take(t.Context(), 10*MinLimit, func() { calls++ }); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < 9500*time.Millisecond || took > 10500*time.Millisecond || calls < 9 {
			t.Errorf("ten seconds' worth took %v, with %d signs of life", took, calls)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		begin = time.Now()
		if err := p.take(ctx, 10*MinLimit, nil); err == nil || time.Since(begin) > time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
	if (pacer{}).take(t.Context(), 1<<40, nil) != nil {
		t.Error("no limit holds back")
	}
}

// On the wire, against the wall clock: no window of a second carries more than the limit, and what a machine asks for
// comes at last, over links that live.
func TestLimitsOnTheWire(t *testing.T) {
	const limit, length = 4 << 20, 20 << 20 // five seconds
	for name, set := range map[string]func(a, m *Transport){
		"upload":            func(a, _ *Transport) { a.UploadLimit = limit },
		"upload per link":   func(a, _ *Transport) { a.PeerUploadLimit = limit },
		"upload, shared":    func(a, _ *Transport) { a.Shared = NewLimits(limit, 0) },
		"download":          func(_, m *Transport) { m.DownloadLimit = limit },
		"download per link": func(_, m *Transport) { m.PeerDownloadLimit = limit },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, c := newSite(t), newContent(length, 256<<10)
			var ta, tm Transport
			set(&ta, &tm)
			heard := &listener{}
			a := s.appliance(c, fullStore(c), func(cfg *Config) { quick(cfg); cfg.Transport, cfg.Log = ta, heard.log() })
			disk := emptyStore(c)
			m := s.run(c, disk, func(cfg *Config) { quick(cfg); cfg.Transport, cfg.Log = tm, heard.log() })
			meet(a, m)
			type sample struct {
				at    time.Time
				bytes int64
			}
			// The allowance of the bucket, and what a reader or a writer counts ahead of it.
			slack := int64(limit*bucketTime.Seconds()) + 2*peerwire.MaxMessageLength
			samples := []sample{{time.Now(), 0}}
			until(t, time.Minute, "the machine has all", func() bool {
				now := sample{bytes: a.Stats().Transports[0].Sent}
				if strings.HasPrefix(name, "download") {
					now.bytes = m.Stats().Transports[0].Received
				}
				now.at = time.Now()
				for _, s := range samples {
					took := now.at.Sub(s.at)
					if most := int64(took.Seconds()*limit*1.05) + slack; took > time.Second && now.bytes-s.bytes > most {
						t.Fatalf("%d bytes in %v, at most %d are allowed", now.bytes-s.bytes, took, most)
					}
				}
				if now.at.Sub(samples[len(samples)-1].at) > 20*time.Millisecond {
					samples = append(samples, now)
				}
				stats := m.Stats()
				return stats.Total > 0 && stats.Held == stats.Total // both are zero before it runs
			})
			wait(t, m, 10*time.Second)
			equal(t, disk)
			took := time.Since(samples[0].at)
			least := time.Duration(float64(c.dataLength()-slack) / limit / 1.05 * float64(time.Second))
			t.Logf("%d bytes in %v: %.3f of the limit", c.dataLength(), took, float64(c.dataLength())/took.Seconds()/limit)
			if took < least {
				t.Errorf("%d bytes took %v, the limit asks for %v", c.dataLength(), took, least)
			}
			if gone := heard.count("link gone"); gone > 0 {
				t.Errorf("%d links were lost", gone)
			}
		})
	}
}

// Short messages overtake what waits for the limit: a machine hears of a piece at once, though tiles for it queue.
func TestShortMessagesOvertakeTiles(t *testing.T) {
	s, c := newSite(t), newContent(8<<20, 256<<10)
	from := emptyStore(c)
	seeder := s.run(c, from, func(cfg *Config) { cfg.Transport.UploadLimit = 1 << 20 })
	source := s.run(c, fullStore(c), func(cfg *Config) { cfg.ListenAddr = "" })
	source.AddPeers(seeder.addrs())
	guest := newIntruder(t, s, seeder)
	held := map[int]bool{}
	tiles, behind := 0, 0
	for len(held) < c.Count()/2 {
		switch m := guest.next().(type) {
		case peerwire.Indexed:
			if m.ID == peerwire.IDHave {
				held[int(m.Piece)] = true
				for range 2 { // more than the limit lets through
					guest.send(peerwire.AppendTile(nil, tileKind, peerwire.Request{Piece: int(m.Piece), Tiles: c.data[m.Piece]}))
				}
			}
		case peerwire.Extended:
			if m.Kind == tileKind && len(m.Payload) > 1000 {
				tiles += len(m.Payload)
				behind++
			}
		}
	}
	if int64(tiles) > c.dataLength()/4 {
		t.Errorf("half of the pieces were announced only behind %d bytes in %d messages", tiles, behind)
	}
}

func TestTransportIsChecked(t *testing.T) {
	s, c := newSite(t), newContent(1<<20, 256<<10)
	for name, tr := range map[string]Transport{
		"a limit below the lowest":   {UploadLimit: MinLimit - 1},
		"a limit below zero":         {PeerDownloadLimit: -1},
		"DSCP of seven bits":         {DSCP: 64},
		"an interface without name":  {Interfaces: []string{""}},
		"an interface twice":         {Interfaces: []string{"lo", "lo"}},
		"an interface that is not":   {Interfaces: []string{"none-such"}},
		"two owners of one listener": {Interfaces: []string{"lo"}},
	} {
		cfg := Config{Pieces: c, Storage: fullStore(c), TLS: s.tls(), Transport: tr}
		if strings.HasPrefix(name, "two") {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			cfg.Listener = l
		}
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := New(Config{Pieces: c, Storage: fullStore(c), TLS: s.tls(), Muxes: []*Mux{NewMux(l, nil)}}); err == nil {
		t.Error("listeners of interfaces that are not named: no error")
	}
}

// The hand-out is told of the narrowest limit of all links together, and of that of each.
func TestHandOutIsToldOfLimits(t *testing.T) {
	for _, c := range []struct {
		own, shared, each int64
		total             float64
	}{{0, 0, 0, 0}, {4 << 20, 0, 0, 4 << 20}, {0, 2 << 20, 1 << 20, 2 << 20}, {4 << 20, 2 << 20, 0, 2 << 20}, {1 << 20, 2 << 20, 0, 1 << 20}} {
		n := &network{transport: Transport{PeerUploadLimit: c.each}, up: newBucket(c.own)}
		if c.shared > 0 {
			n.transport.Shared = NewLimits(c.shared, 0)
		}
		total, each := n.uploadLimits()
		if low := c.total * contentShare; total < low || total > c.total || each != float64(c.each) {
			t.Errorf("%+v: %.0f and %.0f", c, total, each)
		}
	}
}
