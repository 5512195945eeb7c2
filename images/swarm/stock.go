package swarm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"seedbed/images"
	"seedbed/images/peerwire"
	"seedbed/images/schedule"
)

// Open makes a swarm an open one: plain TCP without TLS, in which anybody takes part who knows its name, stock BitTorrent
// clients too. They get the partitions' bytes in blocks (BEP 3), free and zero tiles as zeros, and give them; Seedbed's
// own peers speak sb_tile among each other as everywhere.
type Open struct {
	// V1 is the SHA-1 of the hybrid torrent's info dictionary, whose SHA-256 is Config.InfoHash. Connections are
	// accepted under both (BEP 52, "upgrade path"), and made under V1, which every client knows.
	V1 [20]byte
	// Plain is the SHA-1 of a v1 dictionary of the same pieces, for clients that do not read hybrid ones. Zero: there is
	// none. A peer that is dialled is greeted by V1 and Plain in turn.
	Plain [20]byte
	// Info and PlainInfo are the dictionaries, given to clients that began with a magnet link (BEP 9); nil: not given.
	Info, PlainInfo []byte
	// Hashes returns what a hash request of BEP 52 asks for; ok is false where it is not there. It must not block; nil refuses
	// all.
	Hashes func(root images.Digest, layer, index, count, proof uint32) (list []images.Digest, ok bool)
}

// Whole is the shape of an open swarm's content as stock peers see it: with the bytes that do not travel otherwise.
type Whole interface {
	Pieces
	// PieceLength is the length of every piece in bytes; behind a partition's end a pad file fills it up.
	PieceLength() int64
	// Tiles is how many tiles the piece has, whatever they hold.
	Tiles(piece int) int
}

// check returns what is wrong with the configuration of an open swarm.
func (o *Open) check(c *Config) error {
	if o == nil {
		return nil
	}
	switch _, whole := c.Pieces.(Whole); {
	case c.TLS != nil:
		return errors.New("swarm: an open swarm has no TLS")
	case !whole:
		return errors.New("swarm: the Pieces of an open swarm have to be Whole")
	case c.Part:
		return errors.New("swarm: in an open swarm nobody can say that it wants a part of the content")
	}
	return nil
}

// names returns the names under which handshakes come.
func (o *Open) names(h images.InfoHash) [][20]byte {
	list := [][20]byte{o.V1, h.Wire()}
	if o.Plain != [20]byte{} {
		list = append(list, o.Plain)
	}
	return list
}

// infoOf returns the info dictionary under a name.
func (o *Open) infoOf(name [20]byte) []byte {
	if name == o.Plain {
		return o.PlainInfo
	}
	return o.Info
}

// stock is what the swarm knows of a peer that does not speak sb_tile. Owned by the swarm's goroutine.
type stock struct {
	queue   []peerwire.Span            // blocks to be requested
	pending map[peerwire.Span]struct{} // requested
	filling map[[2]int]*filling        // by piece and tile
	depth   int                        // how many may be pending
}

// filling is a tile of which blocks came.
type filling struct {
	raw  []byte
	left int // blocks to come
}

// Numbers of an open swarm's messages.
const (
	// blockLength is the length of a request in bytes: no stock client answers longer ones.
	blockLength = 16 << 10
	// stockDepth is how many requests are out on a link at most: 2 MiB, and no client of today refuses so many.
	stockDepth = 128
	// stockSilence is after how long without a byte a link to a stock peer is closed: they send a keep-alive every two
	// minutes (BEP 3, "keepalives").
	stockSilence = 150 * time.Second
	// metadataKind is the number under which we want ut_metadata messages.
	metadataKind = 2
)

// fromSeeds reports whether a link of an open swarm is to an appliance: it says so by where it was dialled.
func (s *Swarm) fromSeeds(dialled netip.AddrPort) bool { return slices.Contains(s.cfg.Seeds, dialled) }

// openBits is what a peer of an open swarm announces first: who hands out leaves out what it hands out.
func (st *state) openBits() peerwire.Bitfield {
	n := st.cfg.Pieces.Count()
	bits := slices.Clone(st.have)
	if st.hand != nil {
		for i := range st.data.All() {
			bits.Remove(i)
		}
	}
	return peerwire.Bitfield{Bits: bits.Bitfield(n)}
}

// introduce adds to our extended handshake what stock peers ask for.
func (o *Open) introduce(l *link, h *peerwire.ExtendedHandshake) {
	if o == nil {
		return
	}
	h.Requests = maxBlocks
	if info := o.infoOf(l.name); len(info) > 0 {
		h.Metadata, h.MetadataSize = metadataKind, len(info)
	}
}

// becomeStock notes that a peer does not speak sb_tile.
func (st *state) becomeStock(l *link) {
	if l.stock != nil || l.Ready {
		return
	}
	l.stock = &stock{pending: map[peerwire.Span]struct{}{}, filling: map[[2]int]*filling{}, depth: stockDepth}
	st.cfg.Log.Debug("a stock client", "peer", l.remote)
	st.welcome(l)
}

// greetStock takes the extended handshake of a peer that may not speak sb_tile; false says that it does.
func (st *state) greetStock(l *link, h peerwire.ExtendedHandshake) bool {
	if st.cfg.Open == nil || h.Tile != 0 {
		return false
	}
	l.metadata = h.Metadata
	st.becomeStock(l)
	st.reachable(l, h.Port)
	if l.stock != nil && h.Requests > 0 {
		l.stock.depth = min(stockDepth, h.Requests)
	}
	return true
}

// announcedAgain takes a bitfield in the middle of a session: libtorrent sends one when it got the info dictionary.
func (st *state) announcedAgain(l *link, has schedule.Set) error {
	for i := range has.All() {
		st.pull.Have(l.Source, i, st.have.Has(i))
	}
	st.guestHas(l, has)
	st.remind(l)
	st.feed(l)
	return nil
}

// guestHas tells the hand-out what a stock peer has, which may say so after it said what it is.
func (st *state) guestHas(l *link, has schedule.Set) {
	if st.hand == nil || l.stock == nil {
		return
	}
	for i := range has.All() {
		st.hand.Have(l.id, i, st.now)
	}
	st.show()
}

// remind tells a stock peer again that we lack something: libtorrent forgets what it heard before it had the info dictionary.
func (st *state) remind(l *link) {
	if l.stock != nil && l.Choking && st.pull.Lacking() > 0 {
		st.send(l, peerwire.NotInterested)
		st.send(l, peerwire.Interested)
	}
}

// given is told when a stock peer was sent all of a piece.
type given struct {
	l     *link
	piece int
}

// gave counts a piece that was sent whole as held: stock peers say so late, some only once a second, and some not at all to
// whom they have it from.
func (st *state) gave(e given) {
	if st.hand != nil && st.all[e.l.id] != nil {
		st.hand.Have(e.l.id, e.piece, st.now)
		st.show()
	}
}

// receiveStock deals with messages that only stock peers send; handled is false for all others.
func (st *state) receiveStock(l *link, message peerwire.Message) (handled bool, err error) {
	if st.cfg.Open == nil {
		return false, nil
	}
	switch m := message.(type) {
	case peerwire.Span:
		switch st.becomeStock(l); {
		case l.stock == nil:
			return false, nil
		case m.ID == peerwire.IDRequest:
			return true, st.receiveBlockRequest(l, m)
		case m.ID == peerwire.IDCancel:
			if l.out.cancelBlock(m) {
				return true, st.rejectBlock(l, m)
			}
		case m.ID == peerwire.IDReject:
			st.receiveBlockReject(l, m)
		}
		return true, nil
	case peerwire.Block:
		return true, st.receiveBlock(l, m)
	case peerwire.Extended:
		if m.Kind == metadataKind {
			return true, st.receiveMetadata(l, m.Payload)
		}
	case peerwire.Unknown:
		return st.receiveHashRequest(l, m)
	}
	return false, nil
}

// receiveMetadata gives a piece of the info dictionary.
func (st *state) receiveMetadata(l *link, payload []byte) error {
	piece, ok, err := peerwire.DecodeMetadataRequest(payload)
	if err != nil || !ok || l.metadata == 0 {
		return err
	}
	info := st.cfg.Open.infoOf(l.name)
	if l.out.full() {
		info = nil // refused
	}
	st.send(l, peerwire.Extended{Kind: l.metadata, Payload: peerwire.MetadataReply(info, piece)})
	return l.out.replied()
}

// Messages of BEP 52 about hashes. All begin with the root of a file, then layer, index, count, proof layers.
const (
	idHashRequest  peerwire.ID = 21
	idHashes       peerwire.ID = 22
	idHashReject   peerwire.ID = 23
	hashHeadLength             = 32 + 4*4
)

// receiveHashRequest gives hashes of the piece layers to a client that has the info dictionary alone; others are refused.
func (st *state) receiveHashRequest(l *link, m peerwire.Unknown) (handled bool, err error) {
	if m.ID != idHashRequest || len(m.Payload) != hashHeadLength {
		return false, nil
	}
	word := func(i int) uint32 { return binary.BigEndian.Uint32(m.Payload[32+4*i:]) }
	answer := peerwire.Unknown{ID: idHashReject, Payload: m.Payload}
	if h := st.cfg.Open.Hashes; h != nil && word(2) <= maxHashes && !l.out.full() {
		if list, ok := h(images.Digest(m.Payload[:32]), word(0), word(1), word(2), word(3)); ok {
			answer.ID = idHashes
			for _, d := range list {
				answer.Payload = append(answer.Payload, d[:]...)
			}
		}
	}
	st.send(l, answer)
	return true, l.out.replied()
}

// maxHashes is how many hashes go in one message; libtorrent asks for 512.
const maxHashes = 4096

// rejectBlock refuses a request, where the peer knows refusals (BEP 6); others wait for nothing.
func (st *state) rejectBlock(l *link, m peerwire.Span) error {
	if !l.fast {
		return nil
	}
	m.ID = peerwire.IDReject
	st.send(l, m)
	return l.out.replied()
}

// receiveBlockRequest queues a block for a stock peer, or refuses it.
func (st *state) receiveBlockRequest(l *link, m peerwire.Span) error {
	whole := st.cfg.Pieces.(Whole)
	if int64(m.Piece) >= int64(whole.Count()) || int64(m.Begin)+int64(m.Length) > whole.PieceLength() {
		return fmt.Errorf("request of %d bytes at %d of piece %d", m.Length, m.Begin, m.Piece)
	}
	if !st.have.Has(int(m.Piece)) || !l.out.serveBlock(m) {
		return st.rejectBlock(l, m)
	}
	return nil
}
