// Initramfs is the agent as the first program of a machine that boots from the network: it mounts what a program needs,
// loads drivers, gets an address, and then works for the appliance that the boot file names. See README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"seedbed/appliance/job"
	"seedbed/images/swarm"
	"seedbed/initramfs/agent"
	"seedbed/initramfs/board"
	"seedbed/initramfs/identity"
	"seedbed/initramfs/left"
	"seedbed/initramfs/network"
	"seedbed/initramfs/reboot"
)

// version of the agent, which the hello tells.
const version = "1"

// restartAfter is how long an error is shown before the machine boots anew, where no job has begun: a new boot gets a
// new token, and whatever was wrong may be right by then.
const restartAfter = time.Minute

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "this program is the first one of a machine that boots from Seedbed's appliance; it does nothing here")
		os.Exit(2)
	}
	mountErr := mountAll()
	screen := openScreen()
	screen.Stand(board.Working, "starting", "")
	log := slog.New(screen.Handler())
	screen.Say("agent %s, kernel %s", version, kernelRelease())
	if mountErr != nil {
		screen.Say("%v", mountErr)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	go listen(cancel) // it ends with the machine
	after, err := run(ctx, screen, log)
	var order *order
	switch {
	case errors.As(context.Cause(ctx), &order):
		after = order.after
	case err != nil:
		screen.Alarm(fmt.Sprintf("%v. The machine restarts in %v; type \"reboot\" or \"poweroff\" and Enter to choose", err, restartAfter))
		screen.Stand(board.Failed, "stopped", fmt.Sprintf("%v. The machine restarts in %v; type \"reboot\" or \"poweroff\" and Enter to choose.", err, restartAfter))
		after = agent.Reboot
		timer := time.NewTimer(restartAfter)
		select {
		case <-timer.C:
		case <-ctx.Done():
			if errors.As(context.Cause(ctx), &order) {
				after = order.after
			}
		}
	}
	if after == agent.Stay {
		screen.Say("done; the machine stays on. Type \"reboot\" or \"poweroff\" and Enter")
		screen.Stand(board.Done, "done", "The job is done, and the machine stays on; you may switch it off. Type \"reboot\" or \"poweroff\" and Enter.")
		<-ctx.Done()
		if errors.As(context.Cause(ctx), &order) {
			after = order.after
		}
	}
	end(after, screen, log)
}

// end restarts the machine or switches it off; should that fail, it stays with the reason on its screen.
func end(after string, screen *agent.Screen, log *slog.Logger) {
	screen.Say("%s now", after)
	word := "restarting"
	if after == agent.PowerOff {
		word = "switching off"
	}
	screen.Stand(board.Done, word, "")
	screen.Close(2 * time.Second)
	var err error
	if after == agent.PowerOff {
		err = reboot.PowerOff(log)
	} else {
		err = reboot.Restart(log)
	}
	fmt.Fprintln(os.Stderr, "seedbed:", err)
	select {}
}

// run boots the agent and lets it work. Everything that it started has ended when it returns.
func run(ctx context.Context, screen *agent.Screen, log *slog.Logger) (after string, err error) {
	boot, err := readBoot(job.BootFile)
	if err != nil {
		return "", err
	}
	screen.Show(func(b *board.Board) { b.About = boot.MAC })
	began := time.Now()
	modules, err := openModules("/", kernelRelease())
	if err != nil {
		return "", fmt.Errorf("kernel modules: %w", err)
	}
	loaded := modules.coldPlug(log)
	modules.load(log, "sd_mod", "edd", "efivarfs") // nothing names these by a device
	mountEFIVariables()
	kept := left.Open(left.Folder)
	screen.Say("%d drivers loaded in %v", loaded, time.Since(began).Round(100*time.Millisecond))

	ctx, cancel := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	net := network.New(network.Config{BootMAC: boot.MAC, Log: log})
	g.Go(func() error { return net.Run(ctx) })
	g.Go(func() error {
		defer cancel()
		var err error
		after, err = work(ctx, screen, log, boot, modules, net, kept)
		return err
	})
	err = g.Wait()
	return after, err
}

// work waits for the network and runs the agent.
func work(ctx context.Context, screen *agent.Screen, log *slog.Logger, boot job.Boot, modules *modules, net *network.Network, kept *left.Store) (string, error) {
	lease, err := waitForNetwork(ctx, screen, net, kept, func() { modules.coldPlug(log) })
	if err != nil {
		return "", err
	}
	screen.Say("network: %s has %s, %v after its link came up", lease.NIC, lease.Prefix, lease.Wait.Round(10*time.Millisecond))
	screen.Show(func(b *board.Board) { b.About, b.Message = boot.MAC+", "+lease.Prefix.Addr().String(), "" })
	hardware := newHardware("/", modules, net, lease, log)
	memory := hardware.Inventory().MemoryBytes
	debug.SetMemoryLimit(memory * 2 / 5) // the kernel needs the rest for what waits to be written
	a, err := agent.New(agent.Config{Boot: boot, Machine: hardware, Screen: screen, Log: log, Version: version, Left: kept,
		MemoryBytes: swarm.MemoryBudget(identity.MemoryAvailable("/")), LoadModule: func(name string) { modules.load(log, name) }})
	if err != nil {
		return "", err
	}
	return a.Run(ctx)
}

// plugEvery is how often new devices are looked for while there is no address: a hub shows its ports a second after its
// controller's driver was loaded, and the adapter that the machine booted from may hang on one.
const plugEvery = time.Second

// networkPatience is how long a machine may be without an address before it leaves the reason for its next boot: a switch port with
// spanning tree forwards after 30 to 50 s (IEEE 802.1D-2004 §17.14).
const networkPatience = time.Minute

// waitForNetwork returns when the machine has an address, and says meanwhile what it waits for. It calls plug every
// second, on the caller's goroutine, to load the drivers of devices that showed up.
func waitForNetwork(ctx context.Context, screen *agent.Screen, net *network.Network, kept *left.Store, plug func()) (network.Lease, error) {
	type answer struct {
		lease network.Lease
		err   error
	}
	got := make(chan answer, 1)
	go func() {
		l, err := net.Wait(ctx)
		got <- answer{l, err}
	}()
	began := time.Now()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	look := time.NewTicker(plugEvery)
	defer look.Stop()
	for {
		select {
		case a := <-got:
			return a.lease, a.err
		case <-look.C:
			plug()
		case <-tick.C:
			code, status := net.Status()
			screen.SayOnce("network", "waiting for the network: %s", status)
			screen.Stand(board.Waiting, "no network", "Waiting for the network: "+status)
			if unbound := network.Unbound("/"); len(unbound) > 0 {
				screen.SayOnce("drivers", "no driver took these network cards (PCI vendor:device): %s", strings.Join(unbound, ", "))
				code, status = withUnbound(code, status, unbound, net.HasBootCard())
			}
			if time.Since(began) > networkPatience {
				agent.Leave(kept, screen, code, status)
			}
		}
	}
}

// withUnbound says why there is no network where no driver took some cards, see network.Status. Where the card that the machine booted
// from is there, the others do not matter: they are mostly for wireless networks.
func withUnbound(code, status string, unbound []string, hasBootCard bool) (string, string) {
	if hasBootCard || code == job.LeftNoAddress {
		return code, status
	}
	return job.LeftNoDriver, "no driver took " + strings.Join(unbound, ", ") + " (PCI vendor:device); " + status
}

// readBoot reads what the boot script told.
func readBoot(file string) (b job.Boot, err error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return b, fmt.Errorf("the boot script gave no boot file: %w; boot this machine by the appliance's own boot script", err)
	}
	if err := json.Unmarshal(raw, &b); err != nil {
		return b, fmt.Errorf("boot file %s: %w", file, err)
	}
	return b, nil
}

// kernelRelease returns "6.12.117+deb13-amd64".
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
