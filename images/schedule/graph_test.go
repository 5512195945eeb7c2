package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// checkRegular fails unless every machine has exactly the degree that the doc promises, each neighbour once, both ways,
// and everyone is reached from everyone.
func checkRegular(t interface{ Fatalf(string, ...any) }, g *Graph, members []ID, degree int) {
	want := min(degree, len(members)-1)
	edges := map[ID][]ID{}
	for _, id := range members {
		list := g.Neighbours(id)
		edges[id] = list
		if len(list) != want {
			t.Fatalf("%d of %d machines has %d neighbours, want %d", id, len(members), len(list), want)
		}
		seen := map[ID]bool{id: true}
		for _, o := range list {
			if seen[o] {
				t.Fatalf("%d is twice, or its own, neighbour of %d", o, id)
			}
			seen[o] = true
		}
	}
	for id, list := range edges {
		for _, o := range list {
			if !slices.Contains(edges[o], id) {
				t.Fatalf("%d has neighbour %d, which does not know it", id, o)
			}
		}
	}
	if len(members) > 0 {
		reached, queue := map[ID]bool{members[0]: true}, []ID{members[0]}
		for len(queue) > 0 {
			id := queue[0]
			queue = queue[1:]
			for _, o := range edges[id] {
				if !reached[o] {
					reached[o], queue = true, append(queue, o)
				}
			}
		}
		if len(reached) != len(members) {
			t.Fatalf("%d of %d machines are reached", len(reached), len(members))
		}
	}
}

func TestGraphStaysRegular(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		degree := 2 * rapid.IntRange(1, 8).Draw(t, "half the degree")
		g := NewGraph(degree, newRandom(rapid.Uint64().Draw(t, "seed")), nil)
		var members []ID
		next := ID(0)
		grow := rapid.IntRange(0, 60).Draw(t, "machines at first")
		for step := range grow + rapid.IntRange(0, 120).Draw(t, "steps") {
			if step < grow || len(members) == 0 || rapid.Bool().Draw(t, "join") {
				next++
				g.Join(next)
				g.Join(next) // again
				members = append(members, next)
			} else {
				i := rapid.IntRange(0, len(members)-1).Draw(t, "who leaves")
				g.Leave(members[i])
				g.Leave(members[i])
				members = slices.Delete(members, i, i+1)
			}
			if g.Len() != len(members) {
				t.Fatalf("%d machines, want %d", g.Len(), len(members))
			}
			if step >= grow-1 {
				checkRegular(t, g, members, degree)
			}
		}
	})
}

func TestGraphAtEverySizeUpAndDown(t *testing.T) {
	for _, degree := range []int{2, 4, 8, 16} {
		for seed := range uint64(20) {
			g := NewGraph(degree, newRandom(seed), nil)
			var members []ID
			for id := range ID(3 * degree) {
				g.Join(id)
				members = append(members, id)
				checkRegular(t, g, members, degree)
			}
			for len(members) > 0 {
				i := g.random.IntN(len(members))
				g.Leave(members[i])
				members = slices.Delete(members, i, i+1)
				checkRegular(t, g, members, degree)
			}
		}
	}
}

func TestGraphIsTheSameBySeed(t *testing.T) {
	build := func(seed uint64) string {
		g := NewGraph(Degree, newRandom(seed), nil)
		for id := range ID(200) {
			g.Join(id)
			if id%3 == 2 {
				g.Leave(id / 2)
			}
		}
		all := ""
		for id := range ID(200) {
			all += fmt.Sprint(g.Neighbours(id))
		}
		return all
	}
	if build(1) != build(1) {
		t.Error("the same calls gave two graphs")
	}
	if build(1) == build(2) {
		t.Error("the seed does not matter")
	}
}

// One join or leave disturbs few: at most two machines of each circle, and four where an edge has to move.
func TestGraphChangesLittle(t *testing.T) {
	const n = 1000
	g := NewGraph(Degree, newRandom(1), nil)
	for id := range ID(n) {
		g.Join(id)
	}
	all := func() map[ID][]ID {
		m := map[ID][]ID{}
		for id := range ID(2 * n) {
			list := g.Neighbours(id)
			slices.Sort(list)
			m[id] = list
		}
		return m
	}
	before := all()
	for i := range ID(n / 2) {
		if i%2 == 0 {
			g.Join(n + i)
		} else {
			g.Leave(i)
		}
		after := all()
		changed := 0
		for id := range after {
			if !slices.Equal(before[id], after[id]) {
				changed++
			}
		}
		if changed > 1+4*Degree/2 {
			t.Fatalf("%d machines have other neighbours after one change", changed)
		}
		before = after
	}
}

func TestGraphAvoidsWhatIsNotAllowed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		modulus := ID(rapid.IntRange(2, 7).Draw(t, "modulus"))
		allowed := func(a, b ID) bool { return (a+b)%modulus != 0 }
		g := NewGraph(Degree, newRandom(rapid.Uint64().Draw(t, "seed")), allowed)
		n := ID(rapid.IntRange(1, 300).Draw(t, "machines"))
		edges := 0
		for id := range n {
			g.Join(id)
		}
		for id := ID(0); id < n; id += 3 {
			g.Leave(id)
		}
		for id := range n {
			for _, o := range g.Neighbours(id) {
				edges++
				if !allowed(id, o) {
					t.Fatalf("%d and %d are neighbours", id, o)
				}
			}
		}
		// With modulus 3 those who stay are two halves of which none is allowed the other: each circle crosses twice.
		got, crossing := float64(edges)/float64(max(g.Len(), 1)*Degree), 2/float64(max(g.Len(), 1))
		if g.Len() > 100 && modulus > 2 && got < 0.98-crossing {
			t.Fatalf("%.3f of the edges are left where enough pairs are allowed", got)
		}
	})
}

func BenchmarkGraphJoinLeave(b *testing.B) {
	for _, n := range []int{100, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			g := NewGraph(Degree, newRandom(1), nil)
			for id := range ID(n) {
				g.Join(id)
			}
			id := ID(n)
			for b.Loop() {
				g.Join(id)
				g.Leave(id - ID(n))
				id++
			}
		})
	}
}
