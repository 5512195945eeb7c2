package bencode

import (
	"bytes"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestEncode(t *testing.T) {
	for _, c := range []struct {
		v    any
		want string
	}{
		{int64(0), "i0e"}, {-3, "i-3e"}, {int64(-1 << 63), "i-9223372036854775808e"}, {"spam", "4:spam"}, {"", "0:"},
		{[]byte{0, 255}, "2:\x00\xff"}, {[]any{"spam", 42}, "l4:spami42ee"}, {[]string{"a"}, "l1:ae"}, {[]any{}, "le"},
		{map[string]any{"b": 1, "a": "x", "B": []any{}}, "d1:Ble1:a1:x1:bi1ee"},
	} {
		if got := string(Encode(c.v)); got != c.want {
			t.Errorf("Encode(%v) = %q, want %q", c.v, got, c.want)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, s := range []string{
		"", "i", "ie", "i-e", "i-0e", "i03e", "i1", "i1x", "i+1e", "i9223372036854775808e", "i-9223372036854775809e",
		"i99999999999999999999e", "4:abc", "04:abcd", "-1:a", "4", "99999999999999999999:", "9223372036854775807:", "l", "li1e",
		"d", "d1:a", "d1:ai1e", "di1ei2ee", "d1:bi1e1:ai1ee", "d1:ai1e1:ai1ee", "i1ei2e", "x", "\x00",
		strings.Repeat("l", MaxDepth+2) + strings.Repeat("e", MaxDepth+2), strings.Repeat("l", 1<<20),
	} {
		if v, err := Decode([]byte(s)); err == nil {
			t.Errorf("Decode(%.40q) = %v, want an error", s, v)
		}
	}
}

// value draws any value that Decode can return.
func value(depth int) *rapid.Generator[any] {
	kinds := []*rapid.Generator[any]{rapid.Int64().AsAny(), rapid.String().AsAny()}
	if depth > 0 {
		kinds = append(kinds, rapid.SliceOfN(value(depth-1), 0, 4).AsAny(),
			rapid.MapOfN(rapid.String(), value(depth-1), 0, 4).AsAny())
	}
	return rapid.OneOf(kinds...)
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := value(3).Draw(t, "v")
		b := Encode(v)
		got, err := Decode(b)
		if err != nil || !reflect.DeepEqual(got, v) {
			t.Fatalf("Decode(%q) = %#v, %v, want %#v", b, got, err, v)
		}
	})
}

// libtorrent decodes what Encode makes and encodes it to the same bytes.
func TestLibtorrentAgrees(t *testing.T) {
	in := Encode(map[string]any{
		"": "", "info": map[string]any{"meta version": 2, "name": "debian-lab", "piece length": 262144}, "\xff": []any{-1, "x", []any{}},
		"announce": "https://192.0.2.1/announce", "zero": 0, "min": int64(-1<<63 + 1),
	})
	cmd := exec.Command("/usr/bin/python3", "-c", "import libtorrent,sys; sys.stdout.buffer.write(libtorrent.bencode(libtorrent.bdecode(sys.stdin.buffer.read())))")
	cmd.Stdin = bytes.NewReader(in)
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("/usr/bin/python3 with libtorrent (Debian package python3-libtorrent): %v\n%s", err, &errors)
	}
	if !bytes.Equal(in, out) {
		t.Errorf("libtorrent made %q of %q", out, in)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"i-42e", "4:spam", "l4:spami42ee", "d1:Ble1:a1:x1:bi1ee", "d5:peers6:\x7f\x00\x00\x01\x1a\xe1e"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := Decode(b)
		if err != nil {
			return
		}
		if again := Encode(v); !bytes.Equal(again, b) {
			t.Errorf("%q decodes to %v, which encodes to %q", b, v, again)
		}
	})
}
