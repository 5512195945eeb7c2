// Package reboot ends the agent's time on a machine: links down, then restart or power off.
package reboot

import (
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vishvananda/netlink"
)

// settle is how long the links are down before the machine is restarted. Debian's kernels lock up in the driver of
// virtio's NIC if reboot(2) meets it while it is up: 2 of 6 restarts without, none of 23 with 50 ms.
const settle = 50 * time.Millisecond

// Restart takes the links down and restarts the machine. It returns only if that failed.
func Restart(log *slog.Logger) error { return end(log, unix.LINUX_REBOOT_CMD_RESTART) }

// PowerOff takes the links down and switches the machine off. It returns only if that failed.
func PowerOff(log *slog.Logger) error { return end(log, unix.LINUX_REBOOT_CMD_POWER_OFF) }

func end(log *slog.Logger, command int) error {
	if err := LinksDown(); err != nil {
		log.Warn("link left up", "err", err)
	}
	unix.Sync()
	time.Sleep(settle) // the drivers tell nobody when their last poll is over
	if err := unix.Reboot(command); err != nil {
		return fmt.Errorf("restart the machine: %w; switch it off and on", err)
	}
	return nil
}

// LinksDown takes every network link but the loopback down.
func LinksDown() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if l.Attrs().Flags&unix.IFF_LOOPBACK != 0 {
			continue
		}
		if e := netlink.LinkSetDown(l); e != nil && err == nil {
			err = fmt.Errorf("take link %s down: %w", l.Attrs().Name, e)
		}
	}
	return err
}
