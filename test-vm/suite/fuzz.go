package main

import (
	"os"
	"os/exec"
	"strings"
)

// fuzz returns a step of 30 s for each fuzz target of the packages, or none outside the full run: `go test` runs their
// seeds anyway.
func fuzz(full bool, packages ...string) []step {
	if !full {
		return nil
	}
	var steps []step
	for _, p := range packages {
		list := exec.Command("go", "test", "-list", "^Fuzz", p)
		list.Stderr = os.Stderr
		out, err := list.Output()
		if err != nil {
			// The step fails again, visibly, when it runs.
			steps = append(steps, run("go", "test", "-list", "^Fuzz", p))
			continue
		}
		for _, name := range strings.Fields(string(out)) {
			if strings.HasPrefix(name, "Fuzz") {
				steps = append(steps, run("go", "test", "-run", "^$", "-fuzz", "^"+name+"$", "-fuzztime", "30s", p))
			}
		}
	}
	return steps
}
