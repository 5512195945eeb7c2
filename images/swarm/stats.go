package swarm

import (
	"sync/atomic"
	"time"
)

// Stats are a peer's counters since New, and where it stands now.
type Stats struct {
	// Encoded bytes of tiles, and of their hashes: received from seeders of appliances, received from other machines, sent.
	FromAppliance int64
	FromPeers     int64
	// FromUpstream are those of FromPeers that came from another group, see SetNeighbours.
	FromUpstream int64
	// FromSeeds are those of FromPeers that came from seed nodes, by the role in their certificates.
	FromSeeds int64
	ToPeers   int64
	// Wasted are bytes of the first two that were of no use: twice, too late, or wrong.
	Wasted int64
	// Total and Held are bytes of decoded data tiles: of the content, and of those that are right and stored.
	Total int64
	Held  int64
	// Resumed are bytes of Held that were there at the start.
	Resumed int64
	// Written are decoded bytes given to the storage in WriteTime.
	Written   int64
	WriteTime time.Duration
	// Pieces and PiecesHeld count pieces; those without data are held from the start.
	Pieces     int
	PiecesHeld int
	// Peers are the open links; Seeders those to an appliance.
	Peers   int
	Seeders int
	// Lacking counts the linked peers that lack a piece, and NeededByOthers says whether one of them lacks a piece
	// that this peer holds.
	Lacking        int
	NeededByOthers bool
	// Damaged counts tiles and hashes that an appliance sent wrong: its copy of the image needs a look.
	Damaged int
	// Tiles came from others and were compared with their hashes, WrongTiles of them were other than these.
	Tiles, WrongTiles int64
	// Transports count the links of each endpoint, in the order of Endpoints.
	Transports []TransportStats
	// MemoryBytes are the encoded tiles held in memory now, PeakMemoryBytes the most so far.
	MemoryBytes     int64
	PeakMemoryBytes int64
}

// counters are written by links, workers and the owner of the swarm, and read by anyone.
type counters struct {
	fromAppliance, fromPeers, toPeers, wasted atomic.Int64
	fromUpstream, fromSeeds                   atomic.Int64
	tiles, wrongTiles                         atomic.Int64
	held, resumed, total                      atomic.Int64
	written, writeNanos                       atomic.Int64
	pieces, piecesHeld                        atomic.Int64
	peers, seeders, lacking                   atomic.Int64
	damaged                                   atomic.Int64
	needed                                    atomic.Bool
}

// Stats returns the counters. Safe for concurrent use, before, during and after Run.
func (s *Swarm) Stats() Stats {
	c := &s.count
	memory, peak := s.memory.use()
	return Stats{
		FromUpstream: c.fromUpstream.Load(), FromSeeds: c.fromSeeds.Load(), Tiles: c.tiles.Load(), WrongTiles: c.wrongTiles.Load(),
		FromAppliance: c.fromAppliance.Load(), FromPeers: c.fromPeers.Load(), ToPeers: c.toPeers.Load(),
		Wasted: c.wasted.Load(), Total: c.total.Load(), Held: c.held.Load(), Resumed: c.resumed.Load(),
		Written: c.written.Load(), WriteTime: time.Duration(c.writeNanos.Load()),
		Pieces: int(c.pieces.Load()), PiecesHeld: int(c.piecesHeld.Load()),
		Peers: int(c.peers.Load()), Seeders: int(c.seeders.Load()),
		Lacking: int(c.lacking.Load()), NeededByOthers: c.needed.Load(),
		Damaged:     int(c.damaged.Load()),
		Transports:  s.net.stats(),
		MemoryBytes: memory, PeakMemoryBytes: peak,
	}
}
