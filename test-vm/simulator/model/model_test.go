package model

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// room returns machines on 100 Mbit/s with so many pieces of 256 KiB.
func room(peers, pieces int) Config {
	return Config{Peers: peers, Rate: 100e6, Length: int64(pieces) * 256 << 10, PieceLength: 256 << 10, Seed: 1}
}

func run(t *testing.T, c Config) Result {
	t.Helper()
	r, err := Run(c)
	if err != nil {
		t.Fatal(err)
	}
	if r.Unfinished > 0 {
		t.Fatalf("%d machines are not done", r.Unfinished)
	}
	t.Logf("efficiency %.3f, first %v, last %v, sent %.2f, wasted %.4f, up %.2f, others %v", r.Efficiency, r.First.Round(time.Millisecond),
		r.Last.Round(time.Millisecond), r.Sent, r.Wasted, r.Up, r.LongestOther.Round(time.Millisecond))
	return r
}

func atLeast(t *testing.T, what string, got, want float64) {
	t.Helper()
	if got < want {
		t.Errorf("%s %.3f, want at least %.3f", what, got, want)
	}
}

func atMost(t *testing.T, what string, got, want float64) {
	t.Helper()
	if got > want {
		t.Errorf("%s %.3f, want at most %.3f", what, got, want)
	}
}

func TestSameSeedSameResult(t *testing.T) {
	c := room(30, 128)
	c.Churn, c.Reboot, c.Slow, c.Late, c.LateAt, c.Ports, c.Uplink = 0.1, time.Second, 2, 2, 2*time.Second, 10, 100e6
	one, two := run(t, c), run(t, c)
	one.Took, two.Took = 0, 0
	if one != two {
		t.Errorf("two runs differ:\n%+v\n%+v", one, two)
	}
	c.Seed++
	if other := run(t, c); other.Events == one.Events && other.Last == one.Last {
		t.Error("another seed gives the same run")
	}
}

// Every run ends with check; here it has to find what is wrong.
func TestBooksAreChecked(t *testing.T) {
	for what, damage := range map[string]func(m *model){
		"bytes out of nothing": func(m *model) { m.peers[3].received++ },
		"bytes that vanish":    func(m *model) { m.delivered++ },
		"a cable over its rate": func(m *model) {
			m.peers[2].up.carried += m.Length
		},
		"a switch over its rate": func(m *model) { m.exchanges[1].down.carried += m.Length },
		"a piece not received":   func(m *model) { m.peers[4].have.Remove(5) },
	} {
		c := room(6, 64)
		c.Ports, c.Uplink = 3, 100e6
		m, err := newModel(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.run(); err != nil {
			t.Fatal(err)
		}
		if err := m.check(); err != nil {
			t.Fatalf("before %s: %v", what, err)
		}
		if damage(m); m.check() == nil {
			t.Errorf("%s: not found", what)
		}
	}
}

func TestQueueKeepsOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var q queue
	now, want := int64(0), []int64(nil)
	for range 20000 {
		if random.IntN(3) > 0 || len(want) == 0 {
			at := now + random.Int64N(1<<(1+random.IntN(36)))
			q.push(event{at: at, x: int32(len(want))})
			i, _ := slices.BinarySearch(want, at)
			want = slices.Insert(want, i, at)
			continue
		}
		e, ok := q.pop()
		if !ok || e.at != want[0] {
			t.Fatalf("event at %d, want %d", e.at, want[0])
		}
		now, want = e.at, want[1:]
	}
	var last event
	for e, ok := q.pop(); ok; e, ok = q.pop() {
		if !last.before(&e) {
			t.Fatal("out of order")
		}
		last = e
	}
}

// One machine and nobody else: the time is that of the cable, and of the first request and the last check.
func TestOneMachineTakesWhatItsCableGives(t *testing.T) {
	r := run(t, room(1, 400))
	atLeast(t, "efficiency", r.Efficiency, 0.94)
	atMost(t, "efficiency", r.Efficiency, 0.945)
	atMost(t, "images sent", r.Sent, 1)
}

func TestRoomsFinishAtLineRate(t *testing.T) {
	for peers, least := range map[int]float64{8: 0.91, 16: 0.90, 64: 0.87} {
		r := run(t, room(peers, 1024))
		atLeast(t, "efficiency", r.Efficiency, least)
		atMost(t, "images sent", r.Sent, 1.1)
		atMost(t, "images wasted", r.Wasted, 0.001)
	}
}

func TestThreeSwitches(t *testing.T) {
	c := room(15, 1024)
	c.Ports, c.Uplink = 5, 100e6
	r := run(t, c)
	atLeast(t, "efficiency", r.Efficiency, 0.88)
	atMost(t, "images up", r.Up, 1.1)
	atMost(t, "images down", r.Down, 1.1)
}

func TestWhoStaysCompletesWhateverOthersDo(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		least  float64
		others int
	}{
		"churn":         {func(c *Config) { c.Churn, c.Reboot = 0.2, 2*time.Second }, 0.80, 1},
		"churn, gone":   {func(c *Config) { c.Churn = 0.2 }, 0.80, 0},
		"slow":          {func(c *Config) { c.Slow = 1 }, 0.84, 1},
		"late":          {func(c *Config) { c.Late, c.LateAt = 2, 6*time.Second }, 0.84, 2},
		"liar":          {func(c *Config) { c.Liars = 1 }, 0.84, 1},
		"killed seeder": {func(c *Config) { c.Seeders, c.KillSeeder = 2, 5*time.Second }, 0.80, 0},
		"switches": {func(c *Config) {
			c.Ports, c.Uplink, c.Churn, c.Reboot = 8, 100e6, 0.1, 2*time.Second
		}, 0.50, 1},
	} {
		t.Run(name, func(t *testing.T) {
			config := room(24, 512)
			c.change(&config)
			r := run(t, config)
			atLeast(t, "efficiency", r.Efficiency, c.least)
			if r.Others < c.others {
				t.Errorf("%d machines came later, want %d", r.Others, c.others)
			}
		})
	}
}

func TestWithoutSeederThereIsNoEnd(t *testing.T) {
	c := room(4, 64)
	c.KillSeeder = 500 * time.Millisecond
	if _, err := Run(c); err == nil || !strings.Contains(err.Error(), "4 machines lack something") {
		t.Errorf("error %v", err)
	}
	for _, wrong := range []Config{{}, {Peers: 1, Rate: 1e6}, {Peers: 1, Length: 1}} {
		if _, err := Run(wrong); err == nil {
			t.Errorf("%+v passes", wrong)
		}
	}
}

// The goals for large rooms: 60 GB, 1 Gbit/s, 48-port switches with 10 Gbit uplinks, 1 % churn.
func TestLargeRooms(t *testing.T) {
	if os.Getenv("SEEDBED_FULL") == "" {
		t.Skip("takes minutes: SEEDBED_FULL=1")
	}
	for _, c := range []struct {
		peers int
		least float64
	}{{1000, 0.92}, {10000, 0.85}} {
		config := Large(c.peers)
		if c.peers > 1000 { // for speed
			config.PieceLength, config.Memory, config.Bursts = 16<<20, 1<<30, 1
		}
		r := run(t, config)
		atLeast(t, "efficiency", r.Efficiency, c.least)
	}
}
