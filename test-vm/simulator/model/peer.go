package model

import (
	"fmt"
	"slices"

	"seedbed/images/schedule"
)

// peer is a machine, or a seeder that hands out. It does what the engine does in images/swarm with the same Puller and
// Handout, bursts taking the place of tiles.
type peer struct {
	m         *model
	down      pipe
	mail      []mail // in the queue of down
	firstMail int
	index     int32
	alive     bool
	stayed    bool // was there from the first moment, and did not crash
	group     int
	have      schedule.Set
	pull      *schedule.Puller
	hand      *schedule.Handout // of seeders
	links     []*link           // in the order in which they came
	up        uplink

	told       bool // by the tracker, of others
	lies       bool
	barred     map[*peer]bool  // who lied
	byPeer     map[*peer]*link // of seeders
	coming     []int32         // pieces of assemblies
	assemblies []*assembly
	reserved   int64
	workers    []int64 // when each is free

	started, finished int64 // finished is 0 before
	received, wasted  int64 // bytes
	bySeeder          int64 // bytes of received
	sentBefore        int64
	sentRate          float64
	retried           int64
	announced         int64
	rated, ratedAt    int64 // when rate was last asked for, and received then
}

// link is a connection as the peer at one end knows it.
type link struct {
	peer, other *peer
	*schedule.Source
	asked      int64 // when the last request went
	received   int64 // when the last byte came
	out        flow  // what this end sends
	gone       bool
	waitMemory bool
	asks       []*assembly // of which something is outstanding
	far        *link
}

// assembly is a piece on its way in.
type assembly struct {
	piece     int32
	need, got uint64 // bursts
	wrong     []lie
	asked     []outstanding
	checking  bool
	reserved  int64
	// from hands the piece out, told were told of it ahead, and waiting asked since.
	from    *link
	told    []*link
	waiting []waiting
}

// lie is a burst of got that is wrong.
type lie struct {
	from *link
	bit  uint64
}

// outstanding are the bursts that one link was asked for and has not sent.
type outstanding struct {
	link   *link
	bursts uint64
}

func (p *peer) name() string { return fmt.Sprintf("%08d", p.index) }

// number names the other end to a Handout.
func (l *link) number() int { return int(l.other.index) + 1 }

func (p *peer) linkTo(o *peer) *link {
	if p.hand != nil {
		return p.byPeer[o]
	}
	for _, l := range p.links {
		if l.other == o {
			return l
		}
	}
	return nil
}

func (p *peer) assembly(piece int32) *assembly {
	if i := slices.Index(p.coming, piece); i >= 0 {
		return p.assemblies[i]
	}
	return nil
}
