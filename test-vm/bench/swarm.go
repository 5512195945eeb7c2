package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// swarmSettings are what a person may change about the swarm's benchmark.
type swarmSettings struct {
	peers    string // numbers of receivers, with commas
	mib      int64  // of the incompressible content
	oneMiB   int64  // of the content of one to one
	only     string // contenders, with commas; "" is all
	scenario string // scenarios, with commas; "" is all
	json     string // file that gets a line for each heat; "" makes none
	logs     string // folder for the logs of all processes, with links and all; "" keeps none
}

func (s *swarmSettings) flags() {
	flag.StringVar(&s.peers, "peers", "8,16", "swarm: `NUMBERS` of receivers, with commas")
	flag.Int64Var(&s.mib, "size", 256, "swarm: length of the incompressible content in `MiB`")
	flag.Int64Var(&s.oneMiB, "one", 2048, "swarm: length of the content of one to one in `MiB`")
	flag.StringVar(&s.only, "only", "", "swarm: `CONTENDERS`, with commas, in place of all")
	flag.StringVar(&s.scenario, "scenario", "", "swarm: `SCENARIOS`, with commas, in place of all")
	flag.StringVar(&s.logs, "logs", "", "swarm: keep the logs of all processes, debug lines among them, in this `FOLDER`")
	flag.StringVar(&s.json, "json", "", "swarm: append a line for each heat to this `FILE`")
}

// linkRate is that of the links, in Mbit/s.
const linkRate = 100

// scenario is one table. It returns an error if it cannot be run or a target is not reached.
type scenario struct {
	name, what string
	run        func(ctx context.Context, b *bench) error
}

var scenarios = []scenario{
	{"room", "all begin together, 100 Mbit/s each way, TLS", scenarioRoom},
	{"kept", "a room whose machines keep partitions, against one that lacks everything", scenarioKept},
	{"one", "one to one over loopback, against a copy with SHA-256", scenarioOne},
	{"system", "a tar of this host's files in an ext4 image, zstd", scenarioSystem},
	{"trouble", "one slow, one killed, one late, one that lies", scenarioTrouble},
	{"switches", "three switches in a row, a policy, a forbidden edge", scenarioSwitches},
	{"seeds", "a throttled seed node, and the appliance killed in the middle", scenarioSeeds},
	{"links", "two links on one machine; BBR and DSCP on the wire", scenarioLinks},
}

// bench is a run of scenarios.
type bench struct {
	settings
	folder string
	noise  *content // of the length asked for
	heats  int      // so far
}

// racers are the contenders in the order of the tables; ours is first.
var racers = []racer{
	{name: "seedbed", source: own("appliance"), receiver: own("peer")},
	{name: "libtorrent", source: libtorrentPeer, receiver: libtorrentPeer},
	{name: "aria2", source: own("aria2 source"), receiver: own("aria2")},
	{name: "chain", source: own("chain"), receiver: own("chain")},
	{name: "udpcast", source: udpcast, receiver: udpcast},
}

func benchSwarm(ctx context.Context, s settings) (err error) {
	if err := sweep(ctx, s.scratch); err != nil {
		return err
	}
	if err := s.swarm.check(); err != nil {
		return err
	}
	b := &bench{settings: s}
	if b.folder, err = os.MkdirTemp(s.scratch, fmt.Sprintf("seedbed-swarmbench-%d-", os.Getpid())); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.folder)) }()
	for _, sc := range scenarios {
		if !named(s.swarm.scenario, sc.name) {
			continue
		}
		fmt.Printf("\n%s: %s\n", sc.name, sc.what)
		if e := sc.run(ctx, b); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", sc.name, e))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}

// check refuses names that do not exist.
func (s swarmSettings) check() error {
	for _, name := range list(s.scenario) {
		if !slices.ContainsFunc(scenarios, func(sc scenario) bool { return sc.name == name }) {
			return fmt.Errorf("there is no scenario %q", name)
		}
	}
	for _, name := range list(s.only) {
		if !slices.ContainsFunc(racers, func(c racer) bool { return c.name == name }) {
			return fmt.Errorf("there is no contender %q", name)
		}
	}
	if s.mib < 1 || s.oneMiB < 1 {
		return errors.New("-size and -one: want 1 MiB at least")
	}
	for _, n := range list(s.peers) {
		if count, err := strconv.Atoi(n); err != nil || count < 1 || count > 64 {
			return fmt.Errorf("-peers %s: want numbers from 1 to 64", s.peers)
		}
	}
	return nil
}

// list cuts a list with commas.
func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}

// named says whether a list has the name, or is empty.
func named(names, name string) bool { return names == "" || slices.Contains(list(names), name) }

// racers are the contenders that were asked for.
func (b *bench) racers() (l []racer) {
	for _, c := range racers {
		if named(b.swarm.only, c.name) {
			l = append(l, c)
		}
	}
	return l
}

// content returns the incompressible content, made at the first call.
func (b *bench) content(ctx context.Context) (*content, error) {
	if b.noise != nil {
		return b.noise, nil
	}
	folder, err := os.MkdirTemp(b.folder, "noise-")
	if err != nil {
		return nil, err
	}
	b.noise, err = makeNoise(ctx, folder, b.swarm.mib<<20)
	return b.noise, err
}

// roomPlan is one switch with an appliance and so many receivers.
func roomPlan(receivers int) netPlan {
	p := netPlan{switches: 1}
	for range receivers + 1 {
		p.stations = append(p.stations, stationPlan{{rate: linkRate}})
	}
	return p
}

// ideal is how long a link takes for so many bytes.
func ideal(bytes int64) time.Duration {
	return time.Duration(float64(bytes) * 8 / linkRate / 1e6 * float64(time.Second))
}

// heat returns a heat over the plan, its limit ten times the ideal time.
func (b *bench) heat(c racer, of *content, plan netPlan) *heat {
	h := &heat{racer: c, content: of, plan: plan, folder: b.folder, profile: b.profile, limit: 30*time.Second + 10*ideal(of.Length)}
	if b.swarm.logs != "" {
		b.heats++
		h.logs = filepath.Join(b.swarm.logs, fmt.Sprintf("%s-%d", c.name, b.heats))
	}
	return h
}

// record appends a line of JSON.
func (b *bench) record(scenario string, s *score, more map[string]any) error {
	if b.swarm.json == "" {
		return nil
	}
	line, err := json.Marshal(struct {
		Scenario string
		More     map[string]any
		*score
	}{scenario, more, s})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(b.swarm.json, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}
