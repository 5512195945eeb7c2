package swarm

import (
	"bytes"
	"testing"

	"seedbed/images"
	"seedbed/images/peerwire"
	"seedbed/images/schedule"
)

// A piece that a peer lacks stays in memory as it came; the memory of one that all have is used again, and not before it is
// written.
func TestMemoryIsUsedAgainWhereNobodyWantsThePiece(t *testing.T) {
	for _, lacking := range []bool{false, true} {
		c := newContent(mib/2, mib/4)
		st, stocky, ours := newStock(t, c, 0)
		stocky.stock = nil
		if lacking {
			stocky.Has = schedule.NewSet(c.Count())
		}
		var hashes []images.Digest
		for i := range c.Data(0).All() {
			hashes = append(hashes, images.TileHash(c.tile(0, i)))
		}
		st.cfg.Storage.Learn(0, hashes)
		if !st.ask(ours, 0) {
			t.Fatal("not asked")
		}
		a, whole := st.assemblies[0], c.Data(0)
		var sent []*[]byte
		for _, span := range [][2]int{{0, 2}, {2, whole.Len()}} {
			m := c.tiles(0, span[0], span[1], false)
			memory := make([]byte, 0, longMessage)
			for i := range m.Tiles {
				from := len(memory)
				memory = append(memory, m.Tiles[i].Bytes...)
				m.Tiles[i].Bytes = memory[from:len(memory):len(memory)]
			}
			sent = append(sent, &memory)
			if err := st.receiveTiles(ours, m, &memory); err != nil {
				t.Fatal(err)
			}
		}
		late := make([]byte, longMessage)
		if err := st.receiveTiles(stocky, c.tiles(0, 0, 1, false), &late); err != nil {
			t.Fatal(err)
		}
		if len(a.memory) != len(sent) || a.memory[0] != sent[0] || a.memory[1] != sent[1] {
			t.Fatalf("lacking %v: %d of %d messages are known, or one whose tiles came too late", lacking, len(a.memory), len(sent))
		}
		v, _ := st.check(a, nil)
		if v.err != nil || !v.bad.IsEmpty() || v.badHashes {
			t.Fatalf("lacking %v: %+v", lacking, v)
		}
		st.judge(v)
		if !bytes.Equal(st.cfg.Storage.(*store).raw[:whole.Len()*images.TileLength], c.raw[:whole.Len()*images.TileLength]) {
			t.Errorf("lacking %v: something else was written", lacking)
		}
		if kept := st.memory.holds(0); kept != lacking || (a.tiles == nil) == lacking {
			t.Errorf("lacking %v: kept %v, given back %v", lacking, kept, a.tiles == nil)
		}
	}
}

func TestMemoryOfMessagesFitsThem(t *testing.T) {
	for _, n := range []int{0, 10, peerwire.TilesTarget - 1, peerwire.TilesTarget, peerwire.TilesTarget + 2*peerwire.TileOverhead + 7, longMessage, longMessage + 1, peerwire.MaxMessageLength} {
		b, of := room(n)
		again := n >= peerwire.TilesTarget && n <= longMessage
		if len(b) != n || (of != nil) != again || cap(b) > n+n/64 {
			t.Errorf("%d bytes: %d of %d, to be used again: %v", n, len(b), cap(b), of != nil)
		}
	}
}
