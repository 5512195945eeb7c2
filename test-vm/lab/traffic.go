package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
)

// Traffic counts bytes on a network interface, with the frames' headers, and packets.
type Traffic struct {
	Sent, Received               int64
	SentPackets, ReceivedPackets int64
}

// Headers are the bytes of a packet of TCP that are no content: Ethernet 14 (IEEE 802.3), IPv4 20 (RFC 791), TCP 20 (RFC 9293) with 12
// of time stamps (RFC 7323).
const Headers = 14 + 20 + 32

// Content is what a machine received of connections since an earlier count.
func (t Traffic) Content(before Traffic) int64 {
	return t.Received - before.Received - Headers*(t.ReceivedPackets-before.ReceivedPackets)
}

// Traffic returns what the appliance's interface sent and received so far. What machines send each other passes the
// switch only.
func (l *Lab) Traffic(ctx context.Context) (Traffic, error) {
	return counters(ctx, l.Namespace(), Interface)
}

// Traffic returns what the machine sent and received so far, however often it was switched on. The switch's end of its cable counts.
func (m *Machine) Traffic(ctx context.Context) (Traffic, error) {
	t, err := counters(ctx, m.lab.switchNS(), m.tap)
	return Traffic{Sent: t.Received, Received: t.Sent, SentPackets: t.ReceivedPackets, ReceivedPackets: t.SentPackets}, err
}

// counters reads those of an interface.
func counters(ctx context.Context, space, name string) (Traffic, error) {
	out, err := exec.CommandContext(ctx, "ip", "-n", space, "-s", "-j", "link", "show", "dev", name).Output()
	if err != nil {
		return Traffic{}, fmt.Errorf("counters of interface %s: %w", name, err)
	}
	var links []struct {
		Stats struct {
			RX, TX struct{ Bytes, Packets int64 }
		} `json:"stats64"`
	}
	if err := json.Unmarshal(out, &links); err != nil {
		return Traffic{}, fmt.Errorf("counters of interface %s: %w", name, err)
	}
	if len(links) != 1 {
		return Traffic{}, fmt.Errorf("counters of interface %s: %d interfaces are called so", name, len(links))
	}
	rx, tx := links[0].Stats.RX, links[0].Stats.TX
	return Traffic{tx.Bytes, rx.Bytes, tx.Packets, rx.Packets}, nil
}
