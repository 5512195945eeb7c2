package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// monitor sends one command to QEMU's own port (QMP) and waits for its answer.
func (b *Boot) monitor(ctx context.Context, command string, arguments map[string]any) error {
	if b.socket == "" {
		return fmt.Errorf("machine %s: it has no screen; start it with Display", b.Name)
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", b.socket)
	if err != nil {
		return fmt.Errorf("machine %s: QEMU's port: %w", b.Name, err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })
	defer stop()
	in, out := json.NewDecoder(c), json.NewEncoder(c)
	for _, order := range []map[string]any{{"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}} {
		if err := out.Encode(order); err != nil {
			return fmt.Errorf("machine %s: %s: %w", b.Name, command, err)
		}
		for {
			var answer struct {
				Return *json.RawMessage
				Error  *struct{ Desc string }
			}
			if err := in.Decode(&answer); err != nil {
				return fmt.Errorf("machine %s: %s: %w", b.Name, command, err)
			}
			if answer.Error != nil {
				return fmt.Errorf("machine %s: %s: %s", b.Name, command, answer.Error.Desc)
			}
			if answer.Return != nil {
				break
			}
			// The greeting, and events: QEMU says them when it likes.
		}
	}
	return nil
}

// monitorSocket makes a place for the port of QEMU, "" for a machine without a screen; a path of a socket has at most 107 bytes, so it is not in the lab's directory.
func (m *Machine) monitorSocket() (path string, remove func() error, err error) {
	if !m.Config.Display {
		return "", func() error { return nil }, nil
	}
	dir, err := os.MkdirTemp("", "seedbed-lab-")
	if err != nil {
		return "", nil, err
	}
	return filepath.Join(dir, "monitor"), func() error { return os.RemoveAll(dir) }, nil
}
