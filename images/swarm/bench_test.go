package swarm

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkOneToOne is an appliance and one machine on loopback, TLS and all, storage in memory.
func BenchmarkOneToOne(b *testing.B) {
	for _, pieceLength := range []int{256 << 10, 1 << 20, 4 << 20} {
		b.Run(fmt.Sprintf("piece=%dKiB", pieceLength>>10), func(b *testing.B) {
			s, c := newSite(b), newContent(256*mib, pieceLength)
			b.SetBytes(c.dataLength())
			for b.Loop() {
				b.StopTimer()
				a, m := s.appliance(c, fullStore(c), nil), s.run(c, emptyStore(c), nil)
				b.StartTimer()
				meet(a, m)
				wait(b, m, time.Minute)
				b.StopTimer()
				a.stop()
				m.stop()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkRoom is an appliance and several machines that begin together.
func BenchmarkRoom(b *testing.B) {
	for _, machines := range []int{3, 8} {
		for _, pieceLength := range []int{256 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("machines=%d/piece=%dKiB", machines, pieceLength>>10), func(b *testing.B) {
				s, c := newSite(b), newContent(128*mib, pieceLength)
				b.SetBytes(c.dataLength() * int64(machines))
				copies, wasted := 0.0, 0.0
				for b.Loop() {
					b.StopTimer()
					a := s.appliance(c, fullStore(c), nil)
					peers := []*peer{a}
					for range machines {
						peers = append(peers, s.run(c, emptyStore(c), nil))
					}
					b.StartTimer()
					meet(peers...)
					for _, m := range peers[1:] {
						wait(b, m, time.Minute)
					}
					b.StopTimer()
					copies += float64(a.Stats().ToPeers) / float64(c.dataLength())
					for _, m := range peers[1:] {
						wasted += float64(m.Stats().Wasted) / float64(c.dataLength())
					}
					for _, p := range peers {
						p.stop()
					}
					b.StartTimer()
				}
				b.ReportMetric(copies/float64(b.N), "server-copies")
				b.ReportMetric(wasted/float64(b.N), "wasted-copies")
			})
		}
	}
}
