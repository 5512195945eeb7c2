// Command demo images three virtual machines over the network, from PXE to their login prompts: one with BIOS, one with
// UEFI, one with UEFI and Secure Boot, on an isolated network that has a DHCP server of its own already. It exits 1 if
// any machine did not make it.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	c := config{out: os.Stdout}
	flag.StringVar(&c.program, "program", "build/seedbed", "the appliance's program")
	flag.StringVar(&c.bootDir, "boot-dir", "build/boot", "the boot files")
	flag.StringVar(&c.dir, "dir", "build/demo", "where disks and logs go; emptied first")
	flag.DurationVar(&c.limit, "limit", 15*time.Minute, "how long the machines may take")
	flag.BoolVar(&c.hold, "hold", false, "keep network, appliance and machines until interrupted")
	verbose := flag.Bool("v", false, "log what the lab does")
	flag.Parse()
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	c.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, c)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}
