// Command suite runs the project's test suites one after the other, each within a budget of minutes, and prints what
// each took. It exits 1 if a suite failed. A suite that went over its budget says so: how busy the machine is is not the tests' doing.
//
//	go run ./test-vm/suite            every suite of `make test`
//	go run ./test-vm/suite -full      the long counts too
//	go run ./test-vm/suite images     only the named suites
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A suite is a list of commands that share one budget.
type suite struct {
	name   string
	budget time.Duration
	// needs says that nothing after this suite makes sense if it fails.
	needs bool
	steps []step
}

type step struct {
	env  []string
	args []string
}

func run(args ...string) step { return step{args: args} }

type result struct {
	suite suite
	took  time.Duration
	err   error
}

func main() {
	full := flag.Bool("full", false, "run the long counts too; nothing ends a step that hangs")
	flag.Parse()
	if *full {
		os.Setenv("SEEDBED_FULL", "1") // tests that have long counts read it
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(runAll(ctx, suites(*full), flag.Args(), *full))
}

func runAll(ctx context.Context, list []suite, names []string, full bool) int {
	for _, n := range names {
		if !slices.ContainsFunc(list, func(s suite) bool { return s.name == n }) {
			fmt.Fprintf(os.Stderr, "suite: no suite is named %q\n", n)
			return 2
		}
	}
	var results []result
	for _, s := range list {
		if len(names) > 0 && !slices.Contains(names, s.name) {
			continue
		}
		r := result{suite: s}
		r.took, r.err = s.run(ctx, full)
		results = append(results, r)
		if r.err != nil && s.needs || ctx.Err() != nil {
			break
		}
	}
	return summary(results)
}

// run runs the steps until one fails. Twice the budget ends a step that hangs, so that a deadlock does not eat the time of the suites
// behind it, and all of them end within twice the sum of the budgets.
func (s suite) run(ctx context.Context, full bool) (time.Duration, error) {
	start := time.Now()
	if !full {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 2*s.budget)
		defer cancel()
	}
	for _, st := range s.steps {
		fmt.Printf("\n=== %s: %s\n", s.name, strings.Join(st.args, " "))
		cmd := exec.CommandContext(ctx, st.args[0], st.args[1:]...)
		cmd.Env = append(os.Environ(), st.env...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		// A group of its own: an interrupt or the deadline reaches the whole tree, and it may clean up.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
		cmd.WaitDelay = 30 * time.Second
		if err := cmd.Run(); err != nil {
			return time.Since(start), fmt.Errorf("%s: %w", strings.Join(st.args, " "), err)
		}
	}
	return time.Since(start), nil
}

func summary(results []result) int {
	code, passed := 0, 0
	fmt.Printf("\n%-18s %8s %8s  %s\n", "suite", "minutes", "budget", "")
	for _, r := range results {
		verdict := "passed"
		if r.err != nil {
			verdict, code = "FAILED: "+r.err.Error(), 1
		} else {
			passed++
			if r.took > r.suite.budget {
				verdict = "passed, OVER ITS BUDGET"
			}
		}
		fmt.Printf("%-18s %8.1f %8.0f  %s\n", r.suite.name, r.took.Minutes(), r.suite.budget.Minutes(), verdict)
	}
	fmt.Printf("suites: %d passed, %d failed\n", passed, len(results)-passed)
	return code
}
