// Build makes what machines load from the network: boot files from signed Debian packages, and the initramfs with the
// agent.
//
//	go run ./initramfs/build assets      vmlinuz, iPXE, shim and GRUB into the boot directory
//	go run ./initramfs/build initramfs   the initramfs: agent, kernel modules, firmware
//
// Downloads are kept by version in $SEEDBED_CACHE (default: seedbed/ in the user's cache folder); a second run needs no
// network. See README.md of the folder above.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

const usage = `usage: build [flags] assets|initramfs

  assets     fetch vmlinuz, iPXE, shim and GRUB from Debian and put them into the boot directory
  initramfs  build initramfs.cpio.zst there: the agent, kernel modules, firmware

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], slog.New(slog.NewTextHandler(os.Stderr, nil)))
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, log *slog.Logger) error {
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), usage); flags.PrintDefaults() }
	out := flags.String("out", "build/boot", "boot directory to write")
	renew := flags.Bool("renew", false, "assets: ask the mirror for newer packages even if a full set is cached")
	agent := flags.String("agent", "./initramfs", "initramfs: Go package of the agent")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		flags.Usage()
		return flag.ErrHelp
	}
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	r := &recipe{cache: filepath.Join(cache, "assets"), out: *out, renew: *renew, agent: *agent, log: log}
	unlock, err := lock(r.cache)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	switch flags.Arg(0) {
	case "assets":
		return r.assets(ctx)
	case "initramfs":
		return r.initramfs(ctx)
	}
	flags.Usage()
	return flag.ErrHelp
}
