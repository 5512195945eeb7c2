package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"seedbed/initramfs/agent"
	"seedbed/initramfs/network"
)

// mountAll mounts what the kernel shows of itself and of the devices.
func mountAll() (err error) {
	for _, m := range []struct{ kind, at string }{
		{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"},
	} {
		if e := os.MkdirAll(m.at, 0o755); e != nil {
			err = errors.Join(err, e)
			continue
		}
		if e := unix.Mount(m.kind, m.at, m.kind, unix.MS_NOSUID, ""); e != nil && !errors.Is(e, unix.EBUSY) {
			err = errors.Join(err, fmt.Errorf("mount %s: %w", m.at, e))
		}
	}
	// A machine that cannot go on boots anew; what the kernel has to say beyond warnings is for its own log.
	writeSysctl("/proc/sys/kernel/panic", "30")
	writeSysctl("/proc/sys/kernel/printk", "4")
	network.Tune()
	return err
}

// mountEFIVariables mounts the firmware's variables, where there are any.
func mountEFIVariables() {
	const at = "/sys/firmware/efi/efivars"
	if _, err := os.Stat(at); err == nil {
		_ = unix.Mount("efivarfs", at, "efivarfs", unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, "") // no variables then
	}
}

func writeSysctl(file, value string) {
	_ = os.WriteFile(file, []byte(value), 0o644) // a default is no harm
}

// openScreen opens the consoles of the kernel's command line: the serial line gets lines, the screen the board too.
func openScreen() *agent.Screen {
	var lines, displays []*os.File
	for _, name := range consoleNames() {
		f, err := os.OpenFile("/dev/"+name, os.O_WRONLY|unix.O_NOCTTY, 0)
		switch {
		case err != nil:
		case isDisplay(f):
			displays = append(displays, f)
		default:
			lines = append(lines, f)
		}
	}
	var outs []io.Writer
	for _, f := range lines {
		outs = append(outs, f)
	}
	if len(lines)+len(displays) == 0 {
		outs = append(outs, os.Stderr)
	}
	screen := agent.NewScreen(outs...)
	for _, f := range displays {
		screen.AddDisplay(f, func() (columns, rows int) { return sizeOf(f) })
	}
	return screen
}

// isDisplay reports whether a console is a screen: only those of the kernel's virtual terminals have a mode (ioctl_console(2)).
func isDisplay(f *os.File) bool {
	const kdGetMode = 0x4b3b // KDGETMODE, linux/kd.h
	_, err := unix.IoctlGetInt(int(f.Fd()), kdGetMode)
	return err == nil
}

// sizeOf returns the size of a console in cells, 0 where it is not known.
func sizeOf(f *os.File) (columns, rows int) {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return int(size.Col), int(size.Row)
}

// consoleNames reads /proc/consoles: lines "ttyS0 -W- (EC p a) 4:64".
func consoleNames() (names []string) {
	f, err := os.Open("/proc/consoles")
	if err != nil {
		return nil
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, _, _ := strings.Cut(s.Text(), " "); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// order is what a person typed.
type order struct{ after string }

func (o *order) Error() string { return "a person asked for " + o.after }

// listen waits for a person to type "reboot" or "poweroff" on one of the consoles, and ends the agent then.
func listen(cancel context.CancelCauseFunc) {
	for _, name := range consoleNames() {
		f, err := os.OpenFile("/dev/"+name, os.O_RDONLY|unix.O_NOCTTY, 0)
		if err != nil {
			continue
		}
		go func() {
			for s := bufio.NewScanner(f); s.Scan(); {
				switch strings.TrimSpace(s.Text()) {
				case agent.Reboot:
					cancel(&order{agent.Reboot})
				case agent.PowerOff:
					cancel(&order{agent.PowerOff})
				}
			}
		}()
	}
}
