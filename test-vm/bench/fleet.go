package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"seedbed/test-vm/agents"
)

// Targets of the fleet's bench, on two cores that the agents share.
const (
	fleetCores  = 0.7                    // of the appliance, CPU time over time
	fleetMemory = 400 << 20              // of the appliance at its most, in bytes
	fleetReport = 50 * time.Millisecond  // of 99 reports in 100
	fleetQueue  = 10 * time.Millisecond  // of a decision over 5,000 jobs
	fleetTurn   = 100 * time.Millisecond // between two looks at the appliance's CPU time
)

// fleetSettings are what a person may change about the fleet's bench.
type fleetSettings struct {
	agents   int
	ramp     time.Duration
	content  time.Duration
	watchers int
	records  string
	herd     bool
}

func (s *fleetSettings) flags() {
	flag.IntVar(&s.agents, "agents", 1000, "fleet: `NUMBER` of simulated agents")
	flag.DurationVar(&s.ramp, "ramp", 30*time.Second, "fleet: in which `TIME` the machines are switched on")
	flag.DurationVar(&s.content, "content", 60*time.Second, "fleet: how much `TIME` the transfer takes each machine")
	flag.IntVar(&s.watchers, "watchers", 1, "fleet: `NUMBER` of people who watch, by server-sent events")
	flag.StringVar(&s.records, "store", "", "fleet: `LOCATION` of the records (default: SQLite in the scratch folder)")
	flag.BoolVar(&s.herd, "herd", false, "fleet: all machines wait for the same moment, and begin then; nothing is checked against targets but transitions")
}

// benchFleet has a room of simulated agents imaged by a real appliance, and looks at what that costs and whether the records tell
// all of it.
func benchFleet(ctx context.Context, s settings) (err error) {
	folder, err := os.MkdirTemp(s.scratch, "seedbed-fleetbench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	if err := tool(ctx, "golang", "go", "build", "-o", folder+"/seedbed", "./appliance"); err != nil {
		return fmt.Errorf("%w; run it in the project's folder", err)
	}
	crowd, err := openCrowd(ctx, s, folder)
	if err != nil {
		return err
	}
	f, runErr := crowd.run(ctx)
	if err := errors.Join(runErr, crowd.close()); err != nil {
		return err
	}
	if f.queue, err = queueTime(ctx); err != nil {
		return err
	}
	f.print(s.fleet)
	return f.check(s.fleet)
}

// fleetFigures are what came out.
type fleetFigures struct {
	took      time.Duration // from the first machine's switch to the last one's own disk
	appliance float64       // seconds of CPU time in that
	busiest   float64       // of the ten seconds in a row that took most, in cores
	memory    int64         // most resident bytes of the appliance
	agents    float64       // seconds of the agents' CPU time
	requests  map[string][]float64
	retries   int
	compared  *agents.Compared
	queue     time.Duration
	herd      time.Duration // from the moment for which all waited until the last one had its job
}

func (f *fleetFigures) cores() float64 { return f.appliance / f.took.Seconds() }

func (f *fleetFigures) print(s fleetSettings) {
	fmt.Printf("%d agents, switched on within %v, transfer of %v; from the first switch to the last own disk %.1f s\n", s.agents, s.ramp, s.content, f.took.Seconds())
	fmt.Printf("appliance: %.2f core (%.1f s of CPU time; %.2f in the busiest ten seconds), %.0f MB at its most\n", f.cores(), f.appliance, f.busiest, float64(f.memory)/1e6)
	fmt.Printf("agents, a process of their own: %.2f core\n", f.agents/f.took.Seconds())
	if s.herd {
		fmt.Printf("all waited for the same moment: the last one had its job %.1f s later\n", f.herd.Seconds())
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\n\trequests\ta second\tmedian ms\t99 % ms\tworst ms\t")
	for _, what := range sortedKeys(f.requests) {
		list := f.requests[what]
		fmt.Fprintf(w, "%s\t%d\t%.0f\t%.2f\t%.2f\t%.1f\t\n", what, len(list), float64(len(list))/f.took.Seconds(), 1e3*quantile(list, 0.5), 1e3*quantile(list, 0.99), 1e3*list[len(list)-1])
	}
	_ = w.Flush()
	fmt.Printf("\ntransitions: %d done, %d recorded once; %d requests were made again\n", f.compared.Done, f.compared.Recorded, f.retries)
	fmt.Printf("queue: a decision over 5,000 jobs takes %.2f ms\n", float64(f.queue.Microseconds())/1e3)
}

// check says which targets were not reached.
func (f *fleetFigures) check(s fleetSettings) error {
	var errs []error
	for i, sentence := range f.compared.Wrong {
		if i == 5 {
			errs = append(errs, fmt.Errorf("and %d more", len(f.compared.Wrong)-i))
			break
		}
		errs = append(errs, errors.New(sentence))
	}
	if f.compared.Done != f.compared.Recorded {
		errs = append(errs, fmt.Errorf("%d of %d transitions were not recorded once", f.compared.Done-f.compared.Recorded, f.compared.Done))
	}
	if s.herd {
		return errors.Join(errs...)
	}
	if f.cores() > fleetCores {
		errs = append(errs, fmt.Errorf("the appliance takes %.2f core, the target is %.2f", f.cores(), fleetCores))
	}
	if f.memory > fleetMemory {
		errs = append(errs, fmt.Errorf("the appliance takes %d MB, the target is %d MB", f.memory>>20, int64(fleetMemory)>>20))
	}
	if p := quantile(f.requests["report"], 0.99); p > fleetReport.Seconds() {
		errs = append(errs, fmt.Errorf("a report in 100 takes %.0f ms or more, the target is %v", 1e3*p, fleetReport))
	}
	if f.queue > fleetQueue {
		errs = append(errs, fmt.Errorf("the queue takes %v to decide, the target is %v", f.queue, fleetQueue))
	}
	return errors.Join(errs...)
}

// quantile returns the value below which a share of a sorted list lies.
func quantile(list []float64, share float64) float64 {
	if len(list) == 0 {
		return 0
	}
	return list[min(int(share*float64(len(list))), len(list)-1)]
}

func sortedKeys(m map[string][]float64) (keys []string) {
	for k, list := range m {
		slices.Sort(list)
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

var queueLine = regexp.MustCompile(`(?m)^BenchmarkDecide5000\S*\s+\d+\s+(\d+(?:\.\d+)?) ns/op`)

// queueTime is how long the fleet takes to decide over 5,000 jobs of its records: a benchmark of that package, whose owner it is.
func queueTime(ctx context.Context) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkDecide5000$", "-benchtime", "100x", "./appliance/fleet")
	var problem strings.Builder
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("measure the queue: %w: %s%s", err, out, problem.String())
	}
	found := queueLine.FindSubmatch(out)
	if found == nil {
		return 0, fmt.Errorf("the queue's benchmark did not run: %s", out)
	}
	nanoseconds, err := strconv.ParseFloat(string(found[1]), 64)
	return time.Duration(nanoseconds), err
}
