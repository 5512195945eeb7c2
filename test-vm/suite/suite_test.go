package main

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestASuiteThatFailsOrHangsFailsTheRun(t *testing.T) {
	ok := suite{name: "ok", budget: time.Minute, steps: []step{run("true")}}
	bad := suite{name: "bad", budget: time.Minute, steps: []step{run("false"), run("true")}}
	hang := suite{name: "hang", budget: 50 * time.Millisecond, steps: []step{run("sleep", "600")}}
	for _, c := range []struct {
		name string
		list []suite
		only []string
		want int
	}{
		{"all pass", []suite{ok}, nil, 0},
		{"one fails", []suite{ok, bad}, nil, 1},
		{"only the passing one is asked for", []suite{ok, bad}, []string{"ok"}, 0},
		{"a hanging step is ended", []suite{hang, ok}, nil, 1},
		{"an unknown name", []suite{ok}, []string{"none"}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			if got := runAll(context.Background(), c.list, c.only, false); got != c.want {
				t.Errorf("exit code %d, want %d", got, c.want)
			}
			if time.Since(start) > time.Minute {
				t.Error("the deadline did not end the step")
			}
		})
	}
}

func TestASuiteEndsAtTwiceItsBudget(t *testing.T) {
	for name, c := range map[string]struct {
		budget time.Duration
		sleep  string
		full   bool
		ends   bool
	}{"over": {2 * time.Second, "2.1", false, false}, "hangs": {100 * time.Millisecond, "600", false, true}, "long counts": {100 * time.Millisecond, "0.3", true, false}} {
		s := suite{name: name, budget: c.budget, steps: []step{run("sleep", c.sleep)}}
		if took, err := s.run(context.Background(), c.full); (err != nil) != c.ends || took < s.budget {
			t.Errorf("%s: ended after %s with %v", name, took, err)
		}
	}
}

func TestEverySuiteHasABudgetAndSteps(t *testing.T) {
	for _, s := range suites(false) {
		if s.budget <= 0 || len(s.steps) == 0 {
			t.Errorf("suite %s: budget %s, %d steps", s.name, s.budget, len(s.steps))
		}
	}
}

func TestEveryPackageWithTestsIsInASuite(t *testing.T) {
	listed := func(patterns ...string) []string {
		t.Helper()
		cmd := exec.Command("go", append([]string{"list", "-e", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}"}, patterns...)...)
		cmd.Dir = "../.."
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		return strings.Fields(string(out))
	}
	var patterns []string
	for _, s := range suites(false) {
		for _, st := range s.steps {
			if slices.Equal(st.args[:2], []string{"go", "test"}) {
				patterns = append(patterns, slices.DeleteFunc(slices.Clone(st.args[2:]), func(a string) bool { return !strings.HasPrefix(a, "./") })...)
			}
		}
	}
	tested := listed(patterns...)
	for _, p := range listed("./...") {
		if !slices.Contains(tested, p) {
			t.Errorf("no suite runs the tests of %s", p)
		}
	}
}
