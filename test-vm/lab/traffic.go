package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
)

// Traffic counts bytes on a network interface, with the frames' headers.
type Traffic struct{ Sent, Received int64 }

// Traffic returns what the appliance's interface sent and received so far. What machines send each other passes the
// switch only.
func (l *Lab) Traffic(ctx context.Context) (Traffic, error) {
	out, err := exec.CommandContext(ctx, "ip", "-n", l.Namespace(), "-s", "-j", "link", "show", "dev", Interface).Output()
	if err != nil {
		return Traffic{}, fmt.Errorf("counters of the appliance's interface: %w", err)
	}
	var links []struct {
		Stats struct {
			RX, TX struct{ Bytes int64 }
		} `json:"stats64"`
	}
	if err := json.Unmarshal(out, &links); err != nil {
		return Traffic{}, fmt.Errorf("counters of the appliance's interface: %w", err)
	}
	if len(links) != 1 {
		return Traffic{}, fmt.Errorf("counters of the appliance's interface: %d interfaces are called %s", len(links), Interface)
	}
	return Traffic{Sent: links[0].Stats.TX.Bytes, Received: links[0].Stats.RX.Bytes}, nil
}
