//go:build !linux

package swarm

import (
	"errors"
	"syscall"
)

func (t Transport) checkSystem() error {
	switch {
	case t.DSCP != 0:
		return errors.New("swarm: packets are marked (DSCP) on Linux only; leave the mark at 0")
	case t.Congestion != "":
		return errors.New("swarm: the congestion control can be chosen on Linux only; leave it empty")
	case len(t.Interfaces) > 0:
		return errors.New("swarm: interfaces can be chosen on Linux only; leave the list empty")
	}
	return nil
}

func (t Transport) prepare(string, syscall.RawConn) error { return nil }

func congestionOf(syscall.RawConn) string { return "" }
