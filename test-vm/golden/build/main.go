// Command build makes the golden images of the virtual lab under build/golden, or says that they are there.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"seedbed/test-vm/golden"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run builds the named kinds of image, all of them without a name.
func run(ctx context.Context, kinds []string) error {
	if len(kinds) == 0 {
		kinds = []string{string(golden.Debian), string(golden.Mini)}
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	for _, kind := range kinds {
		image, err := golden.Build(ctx, golden.Kind(kind), golden.Config{Log: log})
		if err != nil {
			return err
		}
		fmt.Println(image)
	}
	return nil
}
