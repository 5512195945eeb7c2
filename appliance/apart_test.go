//go:build linux

package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
)

// Tests here wait for other programs most of the time: so many processes run them, each in a network namespace of its own.
const atOnce = 6

// runApart runs the tests in processes with namespaces of their own, and returns the exit code. What was asked for by
// name or is no test runs in one process.
func runApart() int {
	if !flag.Parsed() {
		flag.Parse()
	}
	if isSet("run") || isSet("bench") || isSet("fuzz") || isSet("list") || isSet("coverprofile") {
		return runPrivate(os.Stdout, os.Stderr)
	}
	var out, errs bytes.Buffer
	if code := runPrivate(&out, &errs, "-test.list=."); code != 0 {
		fmt.Fprint(os.Stderr, errs.String())
		return code
	}
	var tests []string
	for _, line := range strings.Fields(out.String()) {
		if strings.HasPrefix(line, "Test") || strings.HasPrefix(line, "Example") || strings.HasPrefix(line, "Fuzz") {
			tests = append(tests, regexp.QuoteMeta(line))
		}
	}
	work := make(chan string)
	var (
		all  sync.WaitGroup
		mu   sync.Mutex // guards what follows, and the output
		exit int
	)
	for range atOnce {
		all.Go(func() {
			for name := range work {
				var out bytes.Buffer
				code := runPrivate(&out, &out, "-test.run=^"+name+"$")
				mu.Lock()
				os.Stdout.Write(out.Bytes())
				exit = max(exit, code)
				mu.Unlock()
			}
		})
	}
	for _, name := range tests {
		work <- name
	}
	close(work)
	all.Wait()
	return exit
}

// isSet reports whether a flag of the tests differs from its default.
func isSet(name string) bool {
	f := flag.Lookup("test." + name)
	return f != nil && f.Value.String() != f.DefValue
}

// runPrivate runs this program in a network namespace of its own, where all ports are free and nothing else answers.
func runPrivate(out, errs io.Writer, more ...string) int {
	cmd := exec.Command(os.Args[0], append(append(os.Args[1:len(os.Args):len(os.Args)], "-test.parallel=8"), more...)...)
	cmd.Env = append(os.Environ(), envPrivate+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, out, errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); cmd.ProcessState == nil {
		fmt.Fprintln(errs, "a network namespace is needed for these tests, which takes root:", err)
		return 1
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code
	}
	fmt.Fprintln(errs, "the tests ended by", cmd.ProcessState)
	return 1
}
