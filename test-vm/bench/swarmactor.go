package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/pprof"
	"sync"
	"syscall"
	"time"

	"seedbed/images/swarm"
)

// actorArg makes this program one process of a swarm, or of what a swarm is compared with.
//
// It says on standard output how far it is, an actorEvent a line, and is told "start" and "stop" on standard input, so that
// all begin at once and none counts the time to load a program. Python programs speak the same way.
const actorArg = "-actor"

// actorOrder says what the process is to do.
type actorOrder struct {
	Role    string
	Content content
	// Addresses are those of all stations; the first is that of who has the content, Own that of this process. More are
	// further addresses of the first station.
	Addresses []string
	More      []string
	Own       int
	// Disk is the file to write.
	Disk string
	// Program is what the role "program" runs.
	Program []string
	// Profile is a file for the CPU profile of our engine; "" makes none.
	Profile string
	Debug   bool // lines in the log
	// Policy is the tracker's policy file; "" is none.
	Policy string
	Engine engineOrder
}

// engineOrder has what is asked of our engine beyond the usual.
type engineOrder struct {
	// Lies is one in how many tiles a peer gives away wrong; 0 is an honest one.
	Lies int
	// Plain leaves out TLS, as in an open swarm.
	Plain bool
	// Seed makes the station a seed node, with a repository of its own.
	Seed bool
	// Part makes the station a machine that keeps partitions of its disk, which are none of the content: it says that it wants a part.
	Part bool
	// Transport is how the network is used.
	Transport swarm.Transport
}

// actorEvent is one line of a process.
type actorEvent struct {
	Event string  // "ready", "share", "done", "end"
	At    float64 // seconds since 1970
	Share float64 // of the content held, with "share"
	Error string  // with "end"
	// With "end": of the process and its children.
	CPU    float64 // seconds
	Memory int64   // most resident bytes
	Stats  actorStats
}

// actorStats are what our engine counts, in encoded bytes of tiles.
type actorStats struct {
	FromAppliance, FromPeers, ToPeers, Wasted int64
	Lies                                      int64 // tiles given away wrong
}

// actor is the child process's own view.
type actor struct {
	actorOrder
	log     *slog.Logger
	started chan struct{} // closed by "start"
	stats   actorStats

	mu    sync.Mutex // guards share and standard output
	share float64
}

// roles are what a process can be. Each runs until ctx ends, which is no error.
var roles = map[string]func(ctx context.Context, a *actor) error{
	"appliance": playAppliance, "peer": playPeer,
	"aria2 source": playTracker, "aria2": playAria2,
	"chain": playChain, "program": playProgram,
	"idle": playIdle, "copy": playCopy,
}

func actorMain(args []string) {
	a := &actor{started: make(chan struct{})}
	err := json.Unmarshal([]byte(args[0]), &a.actorOrder)
	level := slog.LevelInfo
	if a.Debug {
		level = slog.LevelDebug
	}
	a.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	play := roles[a.Role]
	if err == nil && play == nil {
		err = fmt.Errorf("there is no role %q", a.Role)
	}
	if err == nil {
		ctx, cancel := context.WithCancel(context.Background())
		go a.listen(cancel)
		err = a.profiled(func() error { return play(ctx, a) })
	}
	end := actorEvent{Event: "end", Stats: a.stats}
	if err != nil {
		end.Error = err.Error()
	}
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var used syscall.Rusage
		if syscall.Getrusage(who, &used) == nil {
			end.CPU += time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
			end.Memory = max(end.Memory, used.Maxrss<<10)
		}
	}
	a.tell(end)
	if err != nil {
		os.Exit(1)
	}
}

// profiled runs what is to be profiled where that is asked for.
func (a *actor) profiled(play func() error) error {
	if a.Profile == "" {
		return play()
	}
	f, err := os.Create(a.Profile)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return play()
}

// listen takes orders. The end of standard input is a stop: then the bench is gone.
func (a *actor) listen(stop func()) {
	defer stop()
	start := sync.OnceFunc(func() { close(a.started) })
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch lines.Text() {
		case "start":
			start()
		case "stop":
			return
		}
	}
}

// tell prints an event.
func (a *actor) tell(e actorEvent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e.At = float64(time.Now().UnixNano()) / 1e9
	json.NewEncoder(os.Stdout).Encode(e)
}

// ready waits for the start.
func (a *actor) ready(ctx context.Context) error {
	a.tell(actorEvent{Event: "ready"})
	select {
	case <-a.started:
		return nil
	case <-ctx.Done():
		return errStopped
	}
}

// errStopped says that a process was stopped before its start.
var errStopped = errors.New("stopped before the start")

// progress tells how much of the content is held, once for each hundredth.
func (a *actor) progress(share float64) {
	if int(100*share) <= int(100*a.share) {
		return
	}
	a.share = share
	a.tell(actorEvent{Event: "share", Share: share})
}

// watch tells of the share held, which it asks for often, and of the end: that complete is closed, or that the share is 1.
func (a *actor) watch(ctx context.Context, complete <-chan struct{}, held func() (share float64, err error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-complete:
			done = true
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		share, err := held()
		if err != nil {
			return err
		}
		a.progress(share)
		done = done || complete == nil && share == 1
	}
	a.tell(actorEvent{Event: "done"})
	<-ctx.Done()
	return nil
}
