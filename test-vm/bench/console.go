package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/test-vm/agents"
)

// Targets of the console's bench, on two cores that appliance, agents and browser share.
const (
	consoleTick = 50 * time.Millisecond // of the page's main thread, per tick, in 99 of 100 ticks
	// consoleCores is the appliance's CPU time over time with two who look at the rooms: the fleet's target.
	consoleCores = fleetCores
)

// The rooms of the console's bench: 25 of 40 seats.
const consoleRows, consoleColumns = 5, 8

const (
	consoleUser     = "bench"
	consolePassword = "a room of one thousand machines"
)

// benchConsole has a browser show the rooms of a thousand machines that report once a second, and looks at what a tick costs the page,
// the wire and the appliance.
func benchConsole(ctx context.Context, s settings) (err error) {
	folder, err := os.MkdirTemp(s.scratch, "seedbed-consolebench-")
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
	f, runErr := crowd.console(ctx)
	if err := errors.Join(runErr, crowd.close()); err != nil {
		return err
	}
	f.print(s.fleet)
	return f.check()
}

// consoleFigures are what came out.
type consoleFigures struct {
	looked
	cores  float64 // of the appliance while the browser looked
	memory int64   // most resident bytes of the appliance
}

func (f *consoleFigures) print(s fleetSettings) {
	fmt.Printf("%d machines, each reports once a second; a browser of 1920 x 1080 shows their rooms for %.0f s\n", s.agents, f.Ended.Sub(f.Began).Seconds())
	for _, v := range f.Views {
		if slices.Sort(v.Ticks); len(v.Ticks) == 0 {
			fmt.Printf("%s: no ticks were seen\n", v.What)
			continue
		}
		fmt.Printf("%s: %d ticks with changes, each takes the page %.1f ms (median), %.1f ms (99 %%), %.1f ms at worst; of that script %.1f, layout %.1f, style %.1f on average\n",
			v.What, len(v.Ticks), 1e3*quantile(v.Ticks, 0.5), 1e3*quantile(v.Ticks, 0.99), 1e3*v.Ticks[len(v.Ticks)-1], 1e3*v.Script, 1e3*v.Layout, 1e3*v.Style)
	}
	fmt.Printf("events: %.0f kB a second on the wire to each who looks, in %.1f messages\n", f.Bytes/1e3, f.Messages)
	fmt.Printf("appliance, with two who look: %.2f core, %.0f MB at its most\n", f.cores, float64(f.memory)/1e6)
}

func (f *consoleFigures) check() error {
	var errs []error
	v := f.Views[0] // the other one is told, and has no target
	if len(v.Ticks) < 20 {
		errs = append(errs, fmt.Errorf("%s: %d ticks were seen", v.What, len(v.Ticks)))
	}
	if quantile(v.Ticks, 0.99) > consoleTick.Seconds() {
		errs = append(errs, fmt.Errorf("a tick in 100 takes the page %.0f ms or more, the target is %v", 1e3*quantile(v.Ticks, 0.99), consoleTick))
	}
	if f.cores > consoleCores {
		errs = append(errs, fmt.Errorf("the appliance takes %.2f core, the target is %.2f", f.cores, consoleCores))
	}
	if f.memory > fleetMemory {
		errs = append(errs, fmt.Errorf("the appliance takes %d MB, the target is %d MB", f.memory>>20, int64(fleetMemory)>>20))
	}
	return errors.Join(errs...)
}

// console has the browser look while the room is imaged.
func (c *crowd) console(ctx context.Context) (*consoleFigures, error) {
	if err := c.rooms(ctx); err != nil {
		return nil, fmt.Errorf("%w: %s", err, c.lastLines())
	}
	working, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer func() { stop(); beside.Wait() }()
	meter := &meter{pid: c.serve.Process.Pid}
	metering := make(chan struct{})
	beside.Go(func() { defer close(metering); meter.run(working) })
	beside.Go(func() { c.crowdUntil(working) })
	if err := c.atWork(ctx); err != nil {
		return nil, err
	}
	f := &consoleFigures{}
	if err := c.look(ctx, &f.looked); err != nil {
		return nil, fmt.Errorf("%w; the appliance: %s", err, c.lastLines())
	}
	var err error
	if f.memory, err = meter.peak(); err != nil {
		return nil, err
	}
	stop()
	<-metering
	f.cores = meter.between(f.Began, f.Ended)
	return f, nil
}

// rooms makes the image, the rooms with their machines, the deployment and the user.
func (c *crowd) rooms(ctx context.Context) error {
	table, rooms := agents.RoomTable(c.fleet.agents, consoleRows, consoleColumns)
	for _, name := range rooms {
		o := fleet.GroupOrder{Name: name, Kind: new(fleet.Room), Rows: new(consoleRows), Columns: new(consoleColumns)}
		if _, err := c.operator.NewGroup(ctx, o); err != nil {
			return err
		}
	}
	if err := c.image(ctx); err != nil {
		return err
	}
	if _, err := c.operator.ImportMachines(ctx, strings.NewReader(table), false); err != nil {
		return err
	}
	if _, err := c.operator.NewUser(ctx, fleet.UserOrder{Name: consoleUser, Role: new(fleet.RoleOperator), Password: new(consolePassword)}); err != nil {
		return err
	}
	_, err := c.operator.Deploy(ctx, api.Order{All: true, Order: fleet.Order{Image: "bench", Retries: new(0)}})
	return err
}

// badly is how some of the machines get on: a room is never all green.
func badly(count int) map[int]agents.Behaviour {
	list := map[int]agents.Behaviour{}
	for i := 0; i < count; i += 50 {
		list[i] = agents.Behaviour{Rate: 4e6, Mbit: 100}
		list[i+7] = agents.Behaviour{SilentAfter: 20 * time.Second}
		list[i+13] = agents.Behaviour{FailAfter: 25 * time.Second, Code: "write-error"}
	}
	return list
}

// crowdUntil runs the process of the agents until ctx is done.
func (c *crowd) crowdUntil(ctx context.Context) {
	err := c.child(ctx, crowdArg, agents.Config{
		Appliance: netip.MustParseAddr(crowdAppliance), First: netip.MustParseAddr(crowdFirst), Count: c.fleet.agents, Ramp: c.fleet.ramp,
		Content: 10 * time.Minute, Verify: time.Minute, Firmware: time.Second, Behave: badly(c.fleet.agents),
	}, nil)
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "bench: agents:", err)
	}
}

// child runs this program as another process in the namespace: in goes to its standard input, out comes from its output.
func (c *crowd) child(ctx context.Context, arg string, in, out any) error {
	order, err := json.Marshal(in)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", c.space, self, arg)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(order), os.Stderr
	b, err := cmd.Output()
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(b, out)
}

// atWork waits until nearly all machines are in the transfer.
func (c *crowd) atWork(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.fleet.ramp+3*time.Minute)
	defer cancel()
	for {
		jobs, err := c.operator.Jobs(ctx, api.JobQuery{})
		if err != nil {
			return fmt.Errorf("wait until the machines are at work: %w", err)
		}
		n := 0
		for _, j := range jobs {
			if j.Held > 0 {
				n++
			}
		}
		if n >= c.fleet.agents*9/10 {
			return nil
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return fmt.Errorf("%d of %d machines are at work: %s", n, c.fleet.agents, c.lastLines())
		}
	}
}

// look has a browser look at the rooms.
func (c *crowd) look(ctx context.Context, l *looked) error {
	ctx, cancel := context.WithTimeout(ctx, 2*c.fleet.content+2*time.Minute)
	defer cancel()
	return c.child(ctx, lookArg, lookOrder{URL: "https://" + crowdAppliance, User: consoleUser, Password: consolePassword, For: c.fleet.content}, l)
}

// between returns the cores that were taken from one time to another.
func (m *meter) between(from, to time.Time) float64 {
	var first, last *look
	for i := range m.looks {
		if l := &m.looks[i]; l.at.After(from) && l.at.Before(to) {
			if first == nil {
				first = l
			}
			last = l
		}
	}
	if first == nil || last == first {
		return 0
	}
	return (last.cpu - first.cpu) / last.at.Sub(first.at).Seconds()
}
