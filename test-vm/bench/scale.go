package main

import (
	"context"
	"os"
	"os/exec"
)

// benchScale runs the benchmarks of the repository over 10 TiB of synthetic tiles, which belong to its package since they
// make packs without their content.
func benchScale(ctx context.Context, _ settings) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "Scale", "-benchtime", "1x", "-timeout", "1h", "./images/repository")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
