// Package model simulates a swarm: the policy of package schedule, driven as the engine drives it, over modelled computers,
// cables and switches. The same Config gives the same Result.
package model

import (
	"fmt"
	"math/rand/v2"
	"time"

	"seedbed/images"
	"seedbed/images/schedule"
)

// Config describes a room and what happens there. Peers, Rate and Length are needed; other fields have defaults where
// their comment says so. Rates are in bits a second as printed on a cable, lengths in bytes.
type Config struct {
	Peers  int
	Rate   float64
	Length int64 // of the image's data
	// PieceLength is chosen by images.PieceLengthFor where it is 0.
	PieceLength int64
	// Seeders hand out together; 0 is one. SeederRate is the rate of each; 0 is Rate.
	Seeders    int
	SeederRate float64
	// LastSeederRate is that of the last one, of several; 0 is SeederRate.
	LastSeederRate float64
	// Ports is how many machines are on one switch; 0 is all. Each switch has a cable of Uplink to one in the middle. The
	// seeders are on the first.
	Ports  int
	Uplink float64
	// Fanout is how many groups fetch from each, by pins: 1 is a chain. 0 leaves it to the topology: a mesh if Uplink carries
	// two images and more, else a chain.
	Fanout int
	// Images is what the policy says of the switches' cables; 0 is Uplink over Rate.
	Images int
	// Connections of one machine at most; 0 is the policy's default.
	Connections int

	// Churn is the share of machines that lose their power at a random moment of the ideal time, and come back Reboot later with
	// an empty disk (0: not).
	Churn  float64
	Reboot time.Duration
	// Slow machines have SlowRate. Late machines come at LateAt, evenly spread up to then.
	Slow     int
	SlowRate float64
	Late     int
	LateAt   time.Duration
	// Liars give away bursts of which the share Lies is wrong; 0 is 0.005, one of a hundred tiles of two bursts.
	Liars int
	Lies  float64
	// KillSeeder is when the first seeder loses its power; 0 is never.
	KillSeeder time.Duration

	Seed uint64

	Machine
}

// Machine holds the constants of the model that no policy chooses. Zero values are replaced by those named here.
type Machine struct {
	// Payload is the share of a cable's rate that is content: 0.945. A plain forwarding chain over TCP reaches that in the
	// network namespaces of the bench: 1,448 bytes of 1,514, acknowledgements, TLS records.
	Payload float64
	// Delay is from one machine to another over idle cables and a switch: 100 us, of the order of
	// an interrupt and a switch; 1 ms changes nothing, as pieces take 20 ms and more.
	Delay time.Duration
	// CheckRate is how fast one worker decodes, hashes and writes, in bytes a second: 500e6, a core with SHA-NI at 1.8 GB/s,
	// zstd at 0.9 and a copy. There are Workers: 4, as in the engine.
	CheckRate float64
	Workers   int
	// HostRate is for machines that are processes of one host: how many bytes a second its processors receive, check and pass
	// on for all of them together; 0 is no limit. The bench measured 8 CPU seconds per GiB, so two cores have 268e6.
	HostRate float64
	// Memory bounds what a machine holds, as MemoryBytes of the engine: 128 MiB, as the agent's.
	Memory int64
	// Bursts is how many parts of a piece travel by themselves: 4 to 16 of 32 KiB and more, 2 beyond 128 machines. 1 to 16
	// give the same efficiency within 0.01. InFlight is how many may be on their way on one connection: 3, of the order of what
	// eight connections find room for in a shaper's queue of 40 ms; 2 to 8 give the same within 0.005. SendBuffer is how many bytes a socket holds that are not
	// delivered, twice what is in flight as Linux has it, up to tcp_wmem's 4 MiB.
	Bursts     int
	InFlight   int
	SendBuffer int64
}

// Result is what happened.
type Result struct {
	Pieces      int
	PieceLength int64
	// Stayed is how many machines were there from the first moment to the last. First and Last are when they finished.
	Stayed      int
	First, Last time.Duration
	// Others is how many came later, LongestOther the longest that one of them took.
	Others       int
	LongestOther time.Duration
	// Unfinished machines live and lack something.
	Unfinished int
	// Efficiency is (image / Rate) / Last: 0.945 is the ceiling if that is Payload.
	Efficiency float64
	// LastSent is what the last of several seeders sent of that. In images: what the seeders sent, what machines received in vain on average, and what went over the busiest switch's
	// cable up and down.
	Sent, LastSent, Wasted, Up, Down float64
	Events                           uint64
	Took                             time.Duration // of this computer's time
}

// model is a simulation that runs. Owned by one goroutine.
type model struct {
	Config
	queue     queue
	now       int64 // nanoseconds since the start
	events    uint64
	random    *rand.Rand
	pieces    int
	peers     []*peer // seeders first
	flows     []*flow
	exchanges []exchange
	host      pipe // the processors, if all machines run on one
	topology  *schedule.Topology
	untracked bool // the tracker is gone
	script    []func()
	lacking   int // machines that live and lack something, or come later
	delivered int64
	err       error // what the policy did wrong; ends the run

	delay          int64
	posts          []posted
	freePosts      []int32
	freeAssemblies []*assembly
}

// start is the time of the first event: any fixed one.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (m *model) time() time.Time { return start.Add(time.Duration(m.now)) }

func (m *model) at(at int64, k kind, x, y int32) { m.queue.push(event{at: at, kind: k, x: x, y: y}) }

// later runs something at a time.
func (m *model) later(at time.Duration, f func()) {
	m.script = append(m.script, f)
	m.at(int64(at), scripted, int32(len(m.script)-1), 0)
}

// Run simulates a deployment until every machine that lives holds everything. An error says what is wrong with the Config, or
// that there is no end.
func Run(c Config) (Result, error) {
	m, err := newModel(c)
	if err != nil {
		return Result{}, err
	}
	began := time.Now()
	if err = m.run(); err == nil {
		err = m.check()
	}
	r := m.result()
	r.Took = time.Since(began)
	return r, err
}

func newModel(c Config) (m *model, err error) {
	if c.Peers < 1 || c.Rate <= 0 || c.Length <= 0 {
		return nil, fmt.Errorf("%d peers, %.0f bit/s, %d bytes: each has to be above zero", c.Peers, c.Rate, c.Length)
	}
	c = c.withDefaults()
	m = &model{Config: c, pieces: int((c.Length + c.PieceLength - 1) / c.PieceLength), random: rand.New(rand.NewPCG(c.Seed, 0))}
	m.delay, m.host.rate = int64(c.Delay), c.HostRate
	if m.topology, err = m.newTopology(); err != nil {
		return nil, err
	}
	for range (c.Peers+c.Ports-1)/c.Ports + 1 {
		rate := c.Uplink / 8 * c.Payload
		m.exchanges = append(m.exchanges, exchange{pipe{rate: rate}, pipe{rate: rate}})
	}
	all := schedule.NewSet(m.pieces)
	for i := range m.pieces {
		all.Add(i)
	}
	for i := range c.Seeders {
		rate := c.SeederRate
		if i > 0 && i == c.Seeders-1 {
			rate = c.LastSeederRate
		}
		p := m.newPeer(rate, 0, all)
		p.hand = schedule.NewHandout(all, m.pieces, isolatedTime)
		p.hand.Name, p.byPeer = p.name(), map[*peer]*link{}
		m.powerOn(p)
	}
	ideal := time.Duration(float64(c.Length) / (c.Rate / 8) * 1e9)
	for i := range c.Peers {
		rate := c.Rate
		if i >= c.Peers-c.Late-c.Slow && i < c.Peers-c.Late {
			rate = c.SlowRate
		}
		p := m.newPeer(rate, i/c.Ports, schedule.NewSet(m.pieces))
		m.lacking++
		if late := i - (c.Peers - c.Late); late >= 0 {
			m.later(c.LateAt*time.Duration(late+1)/time.Duration(c.Late), func() { m.powerOn(p) })
			continue
		}
		p.lies = i < c.Liars
		p.stayed = rate == c.Rate && !p.lies
		m.powerOn(p)
	}
	m.scriptTroubles(ideal)
	return m, nil
}

// newPeer returns a computer that is switched off.
func (m *model) newPeer(rate float64, group int, has schedule.Set) *peer {
	p := &peer{m: m, index: int32(len(m.peers)), group: group, workers: make([]int64, m.Workers), barred: map[*peer]bool{}}
	p.up.rate, p.down.rate = rate/8*m.Payload, rate/8*m.Payload
	p.have = has
	m.peers = append(m.peers, p)
	return p
}

// powerOn starts a computer.
func (m *model) powerOn(p *peer) {
	random := rand.New(rand.NewPCG(m.Seed, uint64(len(m.script))<<32|uint64(p.index)+1))
	p.alive, p.started, p.rated = true, m.now, m.now
	p.announced = m.now - m.random.Int64N(int64(announceTime))
	p.pull = schedule.NewPuller(p.have, schedule.NewSet(m.pieces), m.pieces, random)
	m.at(m.now+m.random.Int64N(int64(tickTime)), ticked, p.index, 0)
	if p.hand != nil {
		for _, o := range m.peers[:p.index] {
			m.connect(p, o)
		}
		return
	}
	m.topology.Join(schedule.ID(p.index), schedule.Who{Address: address(p.group, 0)}, false)
	m.later(time.Duration(m.now), func() { m.announce(p) })
}

// powerOff ends a computer without a word.
func (m *model) powerOff(p *peer) {
	p.alive, p.stayed = false, false
	if p.finished == 0 && p.hand == nil {
		m.lacking--
	}
	for _, l := range p.links {
		l.out.closed, l.gone = true, true
	}
	p.links, p.assemblies, p.coming, p.mail, p.firstMail, p.reserved = nil, nil, nil, nil, 0, 0
	m.later(time.Duration(m.now)+forgetTime, func() { m.topology.Leave(schedule.ID(p.index)) })
}

// crash ends a process: its computer closes the connections, and who was linked knows at once.
func (m *model) crash(p *peer) {
	for len(p.links) > 0 {
		p.drop(p.links[0])
	}
	m.powerOff(p)
}

// scriptTroubles plans what goes wrong.
func (m *model) scriptTroubles(ideal time.Duration) {
	for range int(m.Churn*float64(m.Peers) + 0.5) {
		p := m.peers[m.Seeders+m.random.IntN(m.Peers)]
		m.later(time.Duration(m.random.Int64N(int64(ideal))), func() {
			if !p.alive {
				return
			}
			m.powerOff(p)
			if m.Reboot == 0 {
				return
			}
			again := m.newPeer(m.Rate, p.group, schedule.NewSet(m.pieces))
			m.lacking++
			m.later(time.Duration(m.now)+m.Reboot, func() { m.powerOn(again) })
		})
	}
	if m.KillSeeder > 0 {
		m.later(m.KillSeeder, func() { m.powerOff(m.peers[0]) })
	}
}

// endless is how many times the ideal time a deployment may take.
const endless = 50

func (m *model) run() error {
	limit := int64(endless * float64(m.Length) / (m.Rate / 8) * 1e9)
	for m.lacking > 0 {
		e, ok := m.queue.pop()
		if !ok || e.at > limit {
			return fmt.Errorf("%d machines lack something after %v", m.lacking, time.Duration(m.now).Round(time.Second))
		}
		if m.step(e); m.err != nil {
			return m.err
		}
	}
	return nil
}

// step lets one event happen.
func (m *model) step(e event) {
	m.now = e.at
	m.events++
	switch e.kind {
	case sent:
		m.onSent(m.peers[e.x], m.flows[e.y])
	case crossed:
		m.onCrossed(m.flows[e.x], e.y)
	case arrived:
		m.onArrived(m.flows[e.x])
	case handled:
		m.onHandled(m.flows[e.x])
	case told:
		m.onTold(e.x)
	case checked:
		m.onChecked(m.peers[e.x], e.y)
	case ticked:
		m.onTick(m.peers[e.x])
	case scripted:
		m.script[e.x]()
	}
}

// finished notes that a machine holds everything.
func (m *model) finished(*peer) { m.lacking-- }

func (m *model) newAssembly(piece int32) *assembly {
	a := &assembly{}
	if n := len(m.freeAssemblies); n > 0 {
		a = m.freeAssemblies[n-1]
		m.freeAssemblies = m.freeAssemblies[:n-1]
	}
	bursts := (m.pieceLength(int(piece)) + m.burst() - 1) / m.burst()
	*a = assembly{piece: piece, asked: a.asked[:0], need: 1<<bursts - 1, reserved: m.pieceLength(int(piece))}
	return a
}

func (m *model) burst() int64 { return m.PieceLength / int64(m.Bursts) }

func (m *model) pieceLength(piece int) int64 {
	return min(m.PieceLength, m.Length-int64(piece)*m.PieceLength)
}

func (m *model) burstLength(piece, index int) int64 {
	return min(m.burst(), m.pieceLength(piece)-int64(index)*m.burst())
}

func (m *model) lengthOf(piece int32, bursts uint64) (n int64) {
	for i := range m.Bursts {
		if bursts>>i&1 == 1 {
			n += m.burstLength(int(piece), i)
		}
	}
	return n
}

// check compares what the books say: bytes do not vanish, and no cable carried more than its rate allows.
func (m *model) check() error {
	var received, got int64
	for _, p := range m.peers {
		received += p.received
		got = p.wasted
		for piece := range p.have.All() {
			got += m.pieceLength(piece)
		}
		for _, a := range p.assemblies {
			got += m.lengthOf(a.piece, a.got)
		}
		if p.hand == nil && p.alive && got != p.received {
			return fmt.Errorf("peer %d received %d bytes and has %d", p.index, p.received, got)
		}
		for _, pipe := range []*pipe{&p.up.pipe, &p.down} {
			if err := m.checkPipe(pipe); err != nil {
				return fmt.Errorf("peer %d: %w", p.index, err)
			}
		}
	}
	if received != m.delivered {
		return fmt.Errorf("%d bytes delivered, %d received", m.delivered, received)
	}
	for i := range m.exchanges {
		for _, pipe := range []*pipe{&m.exchanges[i].up, &m.exchanges[i].down} {
			if err := m.checkPipe(pipe); err != nil {
				return fmt.Errorf("switch %d: %w", i, err)
			}
		}
	}
	return nil
}

func (m *model) checkPipe(p *pipe) error {
	until := max(m.now, p.busy)
	if most := float64(until) / 1e9 * p.rate; float64(p.carried) > most*1.000001+float64(m.burst()) {
		return fmt.Errorf("a cable carried %d bytes in %v, at most %.0f fit", p.carried, time.Duration(until), most)
	}
	return nil
}

func (m *model) result() Result {
	image := float64(m.Length)
	r := Result{Pieces: m.pieces, PieceLength: m.PieceLength, Events: m.events}
	for _, p := range m.peers {
		if p.hand != nil {
			r.LastSent = float64(p.up.carried) / image
			r.Sent += r.LastSent
			continue
		}
		r.Wasted += float64(p.wasted) / image / float64(m.Peers)
		took := time.Duration(p.finished - p.started)
		switch {
		case !p.alive:
		case p.finished == 0:
			r.Unfinished++
		case p.stayed:
			r.Stayed++
			if r.First == 0 || took < r.First {
				r.First = took
			}
			r.Last = max(r.Last, took)
		default:
			r.Others++
			r.LongestOther = max(r.LongestOther, took)
		}
	}
	for _, x := range m.exchanges {
		r.Up, r.Down = max(r.Up, float64(x.up.carried)/image), max(r.Down, float64(x.down.carried)/image)
	}
	if r.Last > 0 {
		r.Efficiency = image / (m.Rate / 8) / r.Last.Seconds()
	}
	return r
}

// withDefaults fills in what zero means.
func (c Config) withDefaults() Config {
	if c.PieceLength == 0 {
		c.PieceLength = images.PieceLengthFor(c.Length, c.Length)
	}
	c.Seeders = max(c.Seeders, 1)
	orRate(&c.SeederRate, c.Rate)
	orRate(&c.LastSeederRate, c.SeederRate)
	orRate(&c.SlowRate, c.Rate/10)
	orRate(&c.Lies, 0.005)
	if c.Ports == 0 {
		c.Ports = c.Peers
	}
	orRate(&c.Uplink, c.Rate*float64(c.Ports)*1000)
	c.Machine = c.Machine.withDefaults(c)
	return c
}

func orRate(f *float64, value float64) {
	if *f == 0 {
		*f = value
	}
}

func (k Machine) withDefaults(c Config) Machine {
	orRate(&k.Payload, 0.945)
	orRate(&k.CheckRate, 500e6)
	if k.Delay == 0 {
		k.Delay = 100 * time.Microsecond
	}
	if k.Workers == 0 {
		k.Workers = 4
	}
	if k.Memory == 0 {
		k.Memory = 128 << 20
	}
	if k.Bursts == 0 {
		k.Bursts = 2
		if c.Peers <= 128 {
			k.Bursts = int(min(max(c.PieceLength/(32<<10), 4), 16))
		}
	}
	if k.InFlight == 0 {
		k.InFlight = 3
	}
	if k.SendBuffer == 0 {
		k.SendBuffer = min(2*int64(k.InFlight)*c.PieceLength/int64(k.Bursts), 4<<20)
	}
	return k
}

// Large is a hall: 60 GB, 1 Gbit/s, 48-port switches with uplinks of 10 Gbit/s, and 1 % of the machines crash.
func Large(peers int) Config {
	return Config{Peers: peers, Rate: 1e9, Length: 60e9, Ports: 47, Uplink: 10e9, Churn: 0.01, Reboot: time.Minute, Seed: 1}
}
