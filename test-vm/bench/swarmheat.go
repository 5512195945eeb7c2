package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// racer is a way to bring the content from the first station to all others.
type racer struct {
	name string
	// source and receiver return what runs at a station.
	source, receiver func(o actorOrder) ([]string, error)
	// engine is what is asked of our engine at all stations.
	engine engineOrder
}

// own runs this program in a role.
func own(role string) func(o actorOrder) ([]string, error) {
	return func(o actorOrder) ([]string, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		o.Role = role
		order, err := json.Marshal(o)
		return []string{self, actorArg, string(order)}, err
	}
}

// heat is one racer's run over one network.
type heat struct {
	racer   racer
	content *content
	plan    netPlan
	folder  string // of the disks, and of the logs
	// engine has what is asked of single stations instead, by index.
	engine map[int]engineOrder
	// seeds are stations that have the content, beside the first.
	seeds map[int]bool
	// late stations are started by watch only.
	late map[int]bool
	// policy, if not nil, makes the tracker's policy file.
	policy func(n *network) string
	// before and after, if not nil, are called when all are ready, and when all are done.
	before, after func() error
	// watch, if not nil, is called with every share of the content that a station tells of, one call at a time.
	watch func(h *heat, station int, share float64)
	limit time.Duration
	// logs is a new folder for logs with debug lines, which stay; "" is folder, without them.
	logs string
	// profile is a folder for CPU profiles of our engine; "" makes none.
	profile string

	net       *network
	processes []*process
	start     time.Time
	reports   chan report
}

// process is one running station.
type process struct {
	cmd    *exec.Cmd
	input  io.WriteCloser
	log    string // file
	killed bool   // on purpose
	began  time.Time

	ready, finished bool
	end             actorEvent
	ended           bool
	// at99 and done are seconds from the start of the heat.
	at99, done float64
}

// report is an event of a station; gone says that its output ended.
type report struct {
	station int
	event   actorEvent
	gone    bool
}

// score is the result of a heat.
type score struct {
	Contender   string
	Finish      []float64 // seconds from the start of the heat, by station; 0 for the source and for who did not finish
	At99        []float64 // when 99 % was held
	Began       []float64 // when the station was started
	Sent        int64     // bytes that left the source's interfaces
	CPU, Source float64   // seconds of all processes, and of the source alone
	// Memory and SourceMemory are the most resident bytes of the largest receiver and of the source.
	Memory, SourceMemory int64
	Wasted               int64
	Busy                 float64 // share of the cores' time that was used, by whatever
	stats                []actorStats
}

// run builds the network, races and takes everything away again.
func (h *heat) run(ctx context.Context) (s *score, err error) {
	if h.net, err = h.plan.build(ctx); err != nil {
		return nil, err
	}
	defer func() {
		h.stopAll()
		h.removeDisks()
		err = errors.Join(err, h.net.close())
	}()
	if err := h.prepare(ctx); err != nil {
		return nil, err
	}
	if h.before != nil {
		if err := h.before(); err != nil {
			return nil, err
		}
	}
	before, err := h.net.sent(ctx, 0)
	if err != nil {
		return nil, err
	}
	idle, all := cpuTimes()
	h.start = time.Now()
	for i := range h.processes {
		if !h.late[i] {
			h.begin(i)
		}
	}
	if err := h.await(ctx, h.limit, "all have everything", func() bool {
		for i, p := range h.processes {
			if i > 0 && !h.seeds[i] && !p.killed && p.done == 0 {
				return false
			}
		}
		return true
	}); err != nil {
		return nil, err
	}
	after, err := h.net.sent(ctx, 0)
	if err != nil {
		return nil, err
	}
	idle2, all2 := cpuTimes()
	if h.after != nil {
		if err := h.after(); err != nil {
			return nil, err
		}
	}
	h.stopAll()
	s = &score{Contender: h.racer.name, Sent: after - before, Busy: 1 - (idle2-idle)/max(all2-all, 1)}
	return s, h.collect(s)
}

// collect takes the results of processes that have ended, and compares their disks.
func (h *heat) collect(s *score) error {
	for i, p := range h.processes {
		s.Finish, s.At99, s.Began = append(s.Finish, p.done), append(s.At99, p.at99), append(s.Began, p.began.Sub(h.start).Seconds())
		s.stats = append(s.stats, p.end.Stats)
		s.CPU += p.end.CPU
		if !p.killed && (p.end.Event != "end" || p.end.Error != "") {
			return fmt.Errorf("%s: station %d did not end as it was told to: %s", h.racer.name, i, p.end.Error)
		}
		if i == 0 {
			s.Source, s.SourceMemory = p.end.CPU, p.end.Memory
			continue
		}
		s.Memory, s.Wasted = max(s.Memory, p.end.Memory), s.Wasted+p.end.Stats.Wasted
		if p.killed || h.seeds[i] {
			continue
		}
		if err := h.content.compare(h.disk(i)); err != nil {
			return err
		}
	}
	return nil
}

func (h *heat) disk(i int) string { return filepath.Join(h.folder, fmt.Sprintf("station-%d.img", i)) }

func (h *heat) removeDisks() {
	for i := range h.processes {
		os.Remove(h.disk(i))
	}
}

// prepare starts a process at each station and returns when all are ready.
func (h *heat) prepare(ctx context.Context) error {
	h.reports = make(chan report)
	o := actorOrder{Content: *h.content, Debug: h.logs != ""}
	if h.logs != "" {
		if err := os.MkdirAll(h.logs, 0o755); err != nil {
			return err
		}
	}
	for _, s := range h.net.stations {
		o.Addresses = append(o.Addresses, s.addresses[0].String())
	}
	for _, more := range h.net.stations[0].addresses[1:] {
		o.More = append(o.More, more.String())
	}
	if h.policy != nil {
		o.Policy = h.policy(h.net)
	}
	for i := range h.net.stations {
		o.Own, o.Disk, o.Engine = i, h.disk(i), h.racer.engine
		if special, ok := h.engine[i]; ok {
			o.Engine = special
		}
		if h.profile != "" {
			o.Profile = filepath.Join(h.profile, fmt.Sprintf("%s-%d.prof", h.racer.name, i))
		}
		if i > 0 && !h.seeds[i] {
			if err := truncate(o.Disk, h.content.Length); err != nil {
				return err
			}
		}
		if err := h.launch(i, o); err != nil {
			return err
		}
	}
	return h.await(ctx, time.Minute, "all are ready", func() bool {
		for _, p := range h.processes {
			if !p.ready {
				return false
			}
		}
		return true
	})
}

func (h *heat) launch(i int, o actorOrder) (err error) {
	command := h.racer.receiver
	if i == 0 {
		command = h.racer.source
	}
	args, err := command(o)
	if err != nil {
		return err
	}
	p := &process{log: filepath.Join(h.folder, fmt.Sprintf("station-%d.log", i))}
	if h.logs != "" {
		p.log = filepath.Join(h.logs, filepath.Base(p.log))
	}
	log, err := os.Create(p.log)
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd = exec.Command("ip", append([]string{"netns", "exec", h.net.stations[i].namespace}, args...)...)
	p.cmd.Stderr = log
	// A group of their own: an interrupt from the keyboard reaches the bench alone, which then ends them.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if p.input, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	h.processes = append(h.processes, p)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var e actorEvent
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				h.reports <- report{station: i, event: e}
			}
		}
		h.reports <- report{station: i, gone: true}
	}()
	return nil
}

// begin starts a station's part.
func (h *heat) begin(i int) {
	p := h.processes[i]
	p.began = time.Now()
	io.WriteString(p.input, "start\n") // one that is gone is seen by its output
}

// kill ends a station as a power cut does its process.
func (h *heat) kill(i int) {
	h.processes[i].killed = true
	syscall.Kill(-h.processes[i].cmd.Process.Pid, syscall.SIGKILL)
}

// await takes reports until the condition holds.
func (h *heat) await(ctx context.Context, limit time.Duration, what string, condition func() bool) error {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for !condition() {
		select {
		case r := <-h.reports:
			if err := h.take(r); err != nil {
				return err
			}
		case <-timeout.C:
			return fmt.Errorf("%s: not in %v: %s", h.racer.name, limit, h.standings(what))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (h *heat) standings(what string) string {
	var b strings.Builder
	b.WriteString(what)
	for i, p := range h.processes {
		fmt.Fprintf(&b, "; station %d: ready %v, done %.1f", i, p.ready, p.done)
	}
	return b.String()
}

// take handles one report. A process that ends unasked is an error.
func (h *heat) take(r report) error {
	p := h.processes[r.station]
	since := r.event.At - float64(h.start.UnixNano())/1e9
	switch {
	case r.gone:
		p.ended = true
		if !p.killed && !p.finished {
			log, _ := os.ReadFile(p.log)
			return fmt.Errorf("%s: station %d ended: %s\n%s", h.racer.name, r.station, p.end.Error, log[max(0, len(log)-2000):])
		}
	case r.event.Event == "ready":
		p.ready = true
	case r.event.Event == "share":
		if r.event.Share >= 0.99 && p.at99 == 0 {
			p.at99 = since
		}
		if h.watch != nil {
			h.watch(h, r.station, r.event.Share)
		}
	case r.event.Event == "done":
		p.done = since
	case r.event.Event == "end":
		p.end = r.event
	}
	return nil
}

// stopAll ends all processes and waits for them; those that do not listen are killed.
func (h *heat) stopAll() {
	for _, p := range h.processes {
		p.finished = true
		io.WriteString(p.input, "stop\n")
		p.input.Close()
	}
	timeout := time.After(10 * time.Second)
	for h.running() {
		select {
		case r := <-h.reports:
			h.take(r)
		case <-timeout:
			for _, p := range h.processes {
				if !p.ended {
					syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
				}
			}
		}
	}
	for _, p := range h.processes {
		p.cmd.Wait() // how it ended was said by its events
	}
}

func (h *heat) running() bool {
	for _, p := range h.processes {
		if !p.ended {
			return true
		}
	}
	return false
}

// last returns when the last of the stations was done, and the longest that one of them took for its last hundredth, seconds.
func (s *score) last(stations func(i int) bool) (done, tail float64) {
	for i, f := range s.Finish {
		if i == 0 || f == 0 || !stations(i) {
			continue
		}
		done = max(done, f)
		if s.At99[i] > 0 {
			tail = max(tail, f-s.At99[i])
		}
	}
	return done, tail
}

// cpuTimes returns how long the cores were idle, and how long they were there, in ticks.
func cpuTimes() (idle, all float64) {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(b), "\n")
	for i, word := range strings.Fields(line)[1:] {
		var n float64
		fmt.Sscan(word, &n)
		all += n
		if i == 3 || i == 4 { // idle and iowait, proc_stat(5)
			idle += n
		}
	}
	return idle, all
}
