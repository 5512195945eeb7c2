package peerwire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"seedbed/images"
	"seedbed/images/tile"
)

func setOf(tiles ...int) (s images.TileSet) {
	for _, i := range tiles {
		s.Add(i)
	}
	return s
}

var messages = []struct {
	m    Message
	want string
}{
	{KeepAlive{}, "00000000"},
	{Choke, "0000000100"},
	{Unchoke, "0000000101"},
	{Interested, "0000000102"},
	{NotInterested, "0000000103"},
	{Have(258), "000000050400000102"},
	{Bitfield{[]byte{0x80, 0x01}}, "00000003058001"},
	{Span{IDRequest, 1, 2, 16384}, "0000000d06000000010000000200004000"},
	{Block{1, 2, []byte("x")}, "0000000a07000000010000000278"},
	{Span{IDCancel, 1, 2, 1}, "0000000d08000000010000000200000001"},
	{Indexed{IDSuggest, 3}, "000000050d00000003"},
	{HaveAll, "000000010e"},
	{HaveNone, "000000010f"},
	{Span{IDReject, 1, 2, 3}, "0000000d10000000010000000200000003"},
	{Indexed{IDAllowedFast, 3}, "000000051100000003"},
	{Extended{3, []byte("abc")}, "000000051403616263"},
	{Unknown{9, []byte{0x1a, 0xe1}}, "00000003091ae1"},
}

func TestMessages(t *testing.T) {
	var stream []byte
	for _, c := range messages {
		got := Append(nil, c.m)
		if hex.EncodeToString(got) != c.want {
			t.Errorf("%#v encodes to %x, want %s", c.m, got, c.want)
		}
		stream = append(stream, got...)
	}
	r := NewReader(bytes.NewReader(stream))
	for _, c := range messages {
		if got, err := r.Next(); err != nil || !reflect.DeepEqual(got, c.m) {
			t.Errorf("read %#v, %v, want %#v", got, err, c.m)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestReaderRefuses(t *testing.T) {
	for _, s := range []string{
		"\x00\x00", "\x00\x00\x00\x05\x04", "\xff\xff\xff\xff\x00", "\x00\x04\x00\x01", "\x00\x00\x00\x02\x00\x00",
		"\x00\x00\x00\x04\x04\x00\x00\x00", "\x00\x00\x00\x01\x14", "\x00\x00\x00\x09\x07\x00\x00\x00\x00\x00\x00\x00\x00",
		"\x00\x00\x00\x0d\x06\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "\x00\x00\x00\x0d\x06\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01",
	} {
		if m, err := NewReader(strings.NewReader(s)).Next(); err == nil {
			t.Errorf("%q reads as %#v", s, m)
		} else if errors.Is(err, io.EOF) {
			t.Errorf("%q: a message that is cut off reads as the end", s)
		}
	}
	r := NewReader(strings.NewReader("\x00\x00\x00\x05\x04\x00\x00\x00\x00"))
	r.Limit = 4
	if _, err := r.Next(); err == nil {
		t.Error("the limit does not bind")
	}
}

func TestHandshake(t *testing.T) {
	h := Handshake{Reserved: Features(), InfoHash: [20]byte{1, 19: 2}, PeerID: [20]byte{3, 19: 4}}
	b := h.Append(nil)
	if len(b) != HandshakeLength || hex.EncodeToString(b[20:28]) != "0000000000100014" {
		t.Errorf("%x", b)
	}
	got, err := ReadHandshake(bytes.NewReader(b))
	if err != nil || got != h || !got.Extended() || !got.Fast() {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := ReadHandshake(bytes.NewReader(b[:67])); err == nil {
		t.Error("67 bytes pass")
	}
	b[3] ^= 1
	if _, err := ReadHandshake(bytes.NewReader(b)); !errors.Is(err, ErrProtocol) {
		t.Errorf("another protocol: %v", err)
	}
}

func TestExtendedHandshake(t *testing.T) {
	h := ExtendedHandshake{Tile: 7, Version: "Seedbed", Port: 6881}
	m := h.Message()
	if m.Kind != 0 || string(m.Payload) != "d1:md7:sb_tilei7ee1:pi6881e1:v7:Seedbede" {
		t.Errorf("%d %s", m.Kind, m.Payload)
	}
	if got, err := DecodeExtendedHandshake(m.Payload); err != nil || got != h {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := DecodeExtendedHandshake([]byte("d1:md6:ut_pexi1ee1:pi6881e4:reqqi500e1:v18:libtorrent/2.0.8.0e")); err != nil || got.Tile != 0 || got.Port != 6881 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, s := range []string{"", "le", "i1e", "d1:md7:sb_tilei256eee", "d1:md7:sb_tilei-1eee", "d1:pi65536ee", "de "} {
		if got, err := DecodeExtendedHandshake([]byte(s)); err == nil {
			t.Errorf("%q reads as %+v", s, got)
		}
	}
	long, err := DecodeExtendedHandshake([]byte("d1:v100:" + strings.Repeat("v", 100) + "e"))
	if err != nil || len(long.Version) != maxVersion {
		t.Errorf("version of %d bytes, %v", len(long.Version), err)
	}
}

var tileMessages = []struct {
	m    TileMessage
	want string
}{
	{Version{TileVersion, true}, "00000101"},
	{Hashes{5, []images.Digest{{1}, {2}}}, "010000000501" + strings.Repeat("00", 31) + "02" + strings.Repeat("00", 31)},
	{HaveTiles{5, setOf(0, 9)}, "0200000005028040"},
	{Request{5, true, setOf()}, "03000000050100"},
	{Request{5, false, setOf(255)}, "03000000050020" + strings.Repeat("00", 31) + "01"},
	{Tiles{5, []IndexedTile{
		{0, tile.Encoded{Codec: tile.Stored, Length: 2, Bytes: []byte("ab")}},
		{7, tile.Encoded{Codec: tile.Zstd, Length: 65536, Bytes: []byte("z")}},
	}}, "0400000005" + "00000000000200000002" + "6162" + "07020001000000000001" + "7a"},
	{Reject{5, setOf(1)}, "05000000050140"},
	{Cancel{5, setOf(1)}, "06000000050140"},
	{Shown{5, [20]byte{1, 19: 2}}, "070000000501" + strings.Repeat("00", 18) + "02"},
	{TakenBack{5}, "0800000005"},
	{Holds{[]byte{0x80}}, "0980"},
	{Wants{[]byte{0x40}}, "0a40"},
}

func TestTileMessages(t *testing.T) {
	for _, c := range tileMessages {
		b := AppendTile(nil, 9, c.m)
		if got := hex.EncodeToString(b[6:]); got != c.want || b[4] != byte(IDExtended) || b[5] != 9 {
			t.Errorf("%#v encodes to %x, want %s", c.m, b, c.want)
		}
		if got, err := DecodeTile(b[6:]); err != nil || !reflect.DeepEqual(got, c.m) {
			t.Errorf("read %#v, %v, want %#v", got, err, c.m)
		}
	}
	if m, err := DecodeTile([]byte{200, 1, 2}); m != nil || err != nil {
		t.Errorf("a later kind: %v, %v", m, err)
	}
}

func TestDecodeTileRefuses(t *testing.T) {
	for _, s := range []string{
		"", "00", "000001", "00000102", "0000010100", "01", "0100000005", "010000000501", "02000000", "0200000005", "020000000501",
		"02000000050100", "020000000521", "0280000005" + "0180", "0300000005", "030000000502", "03000000050100" + "ff", "0400000005",
		"04000000050000000000020000000261", "0400000005" + "00000000000000000000", "0400000005" + "00030000000200000002" + "6162",
		"0400000005" + "00000001000100000001" + "61", "0400000005" + "00010000000200000003" + "616263",
		"0400000005" + "00010000000200000002" + "6162", "0400000005" + "00000000000300000002" + "6162",
		"0400000005" + "01000000000100000001" + "61" + "01000000000100000001" + "61",
		"0400000005" + "000000000001ffffffff" + "61", "01" + "00000005" + strings.Repeat("00", 32*257),
		"0700000005" + strings.Repeat("00", 19), "0700000005" + strings.Repeat("00", 21), "08000000", "080000000500",
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := DecodeTile(b); err == nil {
			t.Errorf("%s reads as %#v", s, m)
		}
	}
}

// Tiles that are sent from where they lie make the same message, behind what goes ahead.
func TestTilesInParts(t *testing.T) {
	for _, lengths := range [][]int{{1}, {longTile - 1}, {longTile}, {5, longTile}, {longTile, 5}, {longTile, longTile + 1}, {1, 2, longTile, 3, 4, longTile, 5}} {
		for _, ahead := range []string{"", "what goes ahead"} {
			m := Tiles{Piece: 7}
			for i, n := range lengths {
				m.Tiles = append(m.Tiles, IndexedTile{i, tile.Encoded{Length: int32(n), Bytes: bytes.Repeat([]byte{byte(i + 1)}, n)}})
			}
			want := AppendTile([]byte(ahead), 3, m)
			buf, parts := AppendTiles([]byte(ahead), 3, m)
			if got := bytes.Join(parts, nil); !bytes.Equal(got, want) {
				t.Errorf("tiles of %v bytes behind %q: %d bytes in %d parts, want %d", lengths, ahead, len(got), len(parts), len(want))
			}
			for _, e := range m.Tiles {
				if len(e.Bytes) >= longTile {
					want = bytes.Replace(want, e.Bytes, nil, 1)
				}
			}
			if !bytes.Equal(buf, want) {
				t.Errorf("tiles of %v bytes: %d bytes copied, want %d", lengths, len(buf), len(want))
			}
		}
	}
}

// A message as long as a sender makes it passes the reader.
func TestLongestTiles(t *testing.T) {
	m, length := Tiles{Piece: 1}, 0
	for i := 0; length < TilesTarget; i++ {
		n := images.TileLength
		if i == 0 {
			n = 1 // so that the last tile begins just below the target
		}
		m.Tiles = append(m.Tiles, IndexedTile{i, tile.Encoded{Length: int32(n), Bytes: make([]byte, n)}})
		length += n + TileOverhead
	}
	b := AppendTile(nil, 1, m)
	if len(b)-4 > MaxMessageLength {
		t.Fatalf("%d bytes", len(b))
	}
	if _, err := NewReader(bytes.NewReader(b)).Next(); err != nil {
		t.Error(err)
	}
}

// seed is a libtorrent session that seeds a v2 torrent of one file; it prints the port and the InfoHash.
const seed = `
import libtorrent as lt, sys, tempfile, os, time
d = tempfile.mkdtemp()
open(d + "/p0001", "wb").write(bytes(range(256)) * 2048)
fs = lt.file_storage()
lt.add_files(fs, d + "/p0001")
t = lt.create_torrent(fs, 262144, lt.create_torrent.v2_only)
lt.set_piece_hashes(t, d)
ti = lt.torrent_info(lt.bdecode(lt.bencode(t.generate())))
s = lt.session({"listen_interfaces": "127.0.0.1:0", "enable_dht": False, "enable_lsd": False, "enable_upnp": False,
    "enable_natpmp": False, "out_enc_policy": 2, "in_enc_policy": 2})
p = lt.add_torrent_params()
p.ti, p.save_path, p.flags = ti, d, lt.torrent_flags.seed_mode
h = s.add_torrent(p)
while s.listen_port() == 0 or not h.status().is_seeding:
    time.sleep(0.05)
print(s.listen_port(), ti.info_hashes().v2, flush=True)
sys.stdin.read()
os.remove(d + "/p0001"), os.rmdir(d)
`

// greet exchanges handshakes. libtorrent calls a torrent seeding a moment before it takes connections for it, and closes
// those that come in between: it is asked again until deadline.
func greet(address string, h images.InfoHash, deadline time.Time) (net.Conn, Handshake, error) {
	hello := Handshake{Reserved: Features(), InfoHash: h.Wire(), PeerID: [20]byte{'-', 'S', 'B'}}.Append(nil)
	hello = Append(hello, HaveNone)
	hello = Append(hello, ExtendedHandshake{Tile: 1, Version: "Seedbed"}.Message())
	hello = Append(hello, Interested)
	for {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return nil, Handshake{}, err
		}
		conn.SetDeadline(deadline)
		theirs := Handshake{}
		if _, err = conn.Write(hello); err == nil {
			theirs, err = ReadHandshake(conn)
		}
		if err == nil {
			return conn, theirs, nil
		}
		conn.Close()
		if time.Now().After(deadline) {
			return nil, Handshake{}, fmt.Errorf("libtorrent gives no handshake: %w", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A real peer understands our handshakes, and we its messages: it gives us its first block.
func TestLibtorrentIsUnderstood(t *testing.T) {
	cmd := exec.Command("/usr/bin/python3", "-c", seed)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	stdin, _ := cmd.StdinPipe()
	stdout, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatalf("/usr/bin/python3 with libtorrent (Debian package python3-libtorrent): %v", err)
	}
	defer cmd.Wait()
	defer stdin.Close()
	var port, hash string
	if _, err := fmt.Fscan(stdout, &port, &hash); err != nil {
		stdin.Close()
		cmd.Wait()
		t.Fatalf("/usr/bin/python3 with libtorrent (Debian package python3-libtorrent): %v\n%s", err, &complaint)
	}
	h, err := images.ParseInfoHash(hash)
	if err != nil {
		t.Fatal(err)
	}
	conn, theirs, err := greet("127.0.0.1:"+port, h, time.Now().Add(20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if theirs.InfoHash != h.Wire() || !theirs.Extended() || !theirs.Fast() {
		t.Fatalf("%+v", theirs)
	}
	all := false
	for r := NewReader(conn); ; {
		m, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case Extended:
			if x, err := DecodeExtendedHandshake(m.Payload); m.Kind == 0 && (err != nil || !strings.HasPrefix(x.Version, "libtorrent/")) {
				t.Errorf("%+v, %v", x, err)
			}
		case Bare:
			all = all || m == HaveAll
			if m == Unchoke {
				conn.Write(Append(nil, Span{IDRequest, 1, 16384, 16384}))
			}
		case Block:
			want := []byte("\x00\x01\x02\x03")
			if m.Piece != 1 || m.Begin != 16384 || len(m.Data) != 16384 || !bytes.HasPrefix(m.Data, want) || !all {
				t.Errorf("block of piece %d at %d, %d bytes; have-all %v", m.Piece, m.Begin, len(m.Data), all)
			}
			return
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, c := range messages {
		f.Add(Append(nil, c.m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, again := NewReader(bytes.NewReader(b)), []byte(nil)
		for {
			m, err := r.Next()
			if err != nil {
				break
			}
			again = Append(again, m)
		}
		if !bytes.HasPrefix(b, again) {
			t.Errorf("%x reads as %x", b, again)
		}
	})
}

func FuzzDecodeTile(f *testing.F) {
	for _, c := range tileMessages {
		f.Add(AppendTile(nil, 1, c.m)[6:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeTile(b)
		if err != nil || m == nil {
			return
		}
		if again := AppendTile(nil, 1, m)[6:]; !bytes.Equal(again, b) {
			t.Errorf("%x reads as %#v, which is %x", b, m, again)
		}
	})
}

func FuzzExtendedHandshake(f *testing.F) {
	f.Add(ExtendedHandshake{Tile: 1, Version: "Seedbed", Port: 6881}.Message().Payload)
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := DecodeExtendedHandshake(b); err == nil {
			if again, err := DecodeExtendedHandshake(h.Message().Payload); err != nil || again != h {
				t.Errorf("%+v and %+v, %v", h, again, err)
			}
		}
	})
}

func FuzzReadHandshake(f *testing.F) {
	f.Add(Handshake{Reserved: Features(), InfoHash: [20]byte{1}, PeerID: [20]byte{2}}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := ReadHandshake(bytes.NewReader(b)); err == nil {
			if again := h.Append(nil); !bytes.Equal(again, b[:HandshakeLength]) {
				t.Errorf("%x reads as %x", b, again)
			}
		}
	})
}

func FuzzDecodeMetadataRequest(f *testing.F) {
	f.Add([]byte("d8:msg_typei0e5:piecei2ee"))
	f.Add(MetadataReply(make([]byte, 100), 0))
	info := make([]byte, 3*MetadataPieceLength+1)
	f.Fuzz(func(t *testing.T, b []byte) {
		piece, ok, err := DecodeMetadataRequest(b)
		if err != nil || !ok {
			return
		}
		if reply := MetadataReply(info, piece); len(reply) > MetadataPieceLength+100 {
			t.Errorf("%q is answered by %d bytes", b, len(reply))
		}
	})
}
