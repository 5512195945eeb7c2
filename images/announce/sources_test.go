package announce

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSourcesRequestReadsAsWritten(t *testing.T) {
	want := SourcesRequest{InfoHash: [20]byte{0, '&', '%', 0xff}, Port: 6881, Held: true, Length: 1 << 40,
		Failed: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[2001:db8::1]:6881")}}
	got, err := ParseSourcesRequest(want.Query())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	many := SourcesRequest{}
	for port := range uint16(MaxFailed + 3) {
		many.Failed = append(many.Failed, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port))
	}
	if got, err = ParseSourcesRequest(many.Query()); err != nil || !slices.Equal(got.Failed, many.Failed[3:]) {
		t.Errorf("of many that failed %v are told: %v", got.Failed, err)
	}
	for name, query := range map[string]string{
		"no infohash":     "port=1&length=1",
		"a short one":     "info_hash=abc&port=1&length=1",
		"no port":         "info_hash=aaaaaaaaaaaaaaaaaaaa&length=1",
		"a large port":    "info_hash=aaaaaaaaaaaaaaaaaaaa&port=65536&length=1",
		"no length":       "info_hash=aaaaaaaaaaaaaaaaaaaa&port=1",
		"less than none":  "info_hash=aaaaaaaaaaaaaaaaaaaa&port=1&length=-1",
		"no address":      "info_hash=aaaaaaaaaaaaaaaaaaaa&port=1&length=1&failed=here",
		"a zone":          "info_hash=aaaaaaaaaaaaaaaaaaaa&port=1&length=1&failed=[fe80::1%25eth0]:1",
		"many that fail":  "info_hash=aaaaaaaaaaaaaaaaaaaa&port=1&length=1" + strings.Repeat("&failed=192.0.2.1:1", MaxFailed+1),
		"what is no text": "%zz",
	} {
		if got, err := ParseSourcesRequest(query); err == nil {
			t.Errorf("%s reads as %+v", name, got)
		}
	}
}

func TestSourcesAreAskedForUntilThereAreSome(t *testing.T) {
	var asked []SourcesRequest
	answers := []Response{{Interval: time.Second}, {Interval: time.Second}, {Peers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1")}}, {}, {Failure: "not invited"}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/announce"+SourcesPath {
			t.Errorf("asked at %s", r.URL.Path)
		}
		q, err := ParseSourcesRequest(r.URL.RawQuery)
		if err != nil {
			t.Error(err)
		}
		asked = append(asked, q)
		w.Write(answers[0].Encode())
		answers = answers[1:]
	}))
	defer server.Close()
	c := &Client{URL: server.URL + "/announce", HTTP: server.Client()}
	failed := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:9")}
	list, err := c.Sources(t.Context(), SourcesRequest{Port: 1, Failed: failed})
	if err != nil || len(list) != 1 || len(asked) != 3 || len(asked[0].Failed) != 1 || len(asked[1].Failed) != 0 {
		t.Errorf("%v, %v; asked %+v", list, err, asked)
	}
	if list, err := c.Sources(t.Context(), SourcesRequest{Port: 1}); err != nil || len(list) != 0 {
		t.Errorf("nobody is to be asked: %v, %v", list, err)
	}
	if _, err := c.Sources(t.Context(), SourcesRequest{Port: 1}); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
}

func FuzzSourcesRequest(f *testing.F) {
	f.Add(SourcesRequest{Port: 6881, Length: 5, Failed: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1")}}.Query())
	f.Fuzz(func(t *testing.T, query string) {
		q, err := ParseSourcesRequest(query)
		if err != nil {
			return
		}
		if again, err := ParseSourcesRequest(q.Query()); err != nil || !reflect.DeepEqual(again, q) {
			t.Errorf("%q reads as %+v, and that as %+v: %v", query, q, again, err)
		}
	})
}
