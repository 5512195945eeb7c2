package announce

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRequestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Request{
			Port: uint16(rapid.IntRange(1, 65535).Draw(t, "port")), Left: rapid.Int64Range(0, 1<<62).Draw(t, "left"),
			Uploaded: rapid.Int64Range(0, 1<<62).Draw(t, "up"), Downloaded: rapid.Int64Range(0, 1<<62).Draw(t, "down"),
			Event: rapid.SampledFrom([]Event{Regular, Started, Completed, Stopped}).Draw(t, "event"),
			Want:  rapid.IntRange(0, 1000).Draw(t, "want"),
		}
		copy(r.InfoHash[:], rapid.SliceOfN(rapid.Byte(), 20, 20).Draw(t, "hash"))
		copy(r.PeerID[:], rapid.SliceOfN(rapid.Byte(), 20, 20).Draw(t, "id"))
		if got, err := ParseRequest(r.Query()); err != nil || got != r {
			t.Fatalf("%+v, %v, want %+v", got, err, r)
		}
	})
}

const twenty = "%00%01%02%03%04%05%06%07%08%09%0a%0b%0c%0d%0e%0f%10%11%12%13"

func TestParseRequestRefuses(t *testing.T) {
	good := "info_hash=" + twenty + "&peer_id=" + twenty + "&port=1"
	if _, err := ParseRequest(good); err != nil {
		t.Fatal(err)
	}
	for _, q := range []string{
		"", "%zz", "info_hash=" + twenty, strings.Replace(good, "%13", "", 1), strings.Replace(good, "peer_id", "peer", 1),
		strings.Replace(good, "port=1", "port=0", 1), strings.Replace(good, "port=1", "port=65536", 1),
		strings.Replace(good, "port=1", "port=x", 1), good + "&left=-1", good + "&uploaded=9223372036854775808",
		"info_hash=aa&peer_id=" + twenty + "&port=1", good + "&numwant=9999999999",
	} {
		if r, err := ParseRequest(q); err == nil {
			t.Errorf("%q reads as %+v", q, r)
		}
	}
	if r, err := ParseRequest(good + "&event=paused"); err != nil || r.Event != Regular {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestResponse(t *testing.T) {
	r := Response{Interval: 15 * time.Second, Seeds: 1, Leechers: 2, Peers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:6881")}}
	b := r.Encode()
	if string(b) != "d8:completei1e10:incompletei2e8:intervali15e5:peers6:\xc0\x00\x02\x01\x1a\xe1e" {
		t.Errorf("%q", b)
	}
	if got, err := DecodeResponse(b); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%+v, %v", got, err)
	}
	r.Peers = []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:6881")}
	if got, err := DecodeResponse(r.Encode()); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%+v, %v", got, err)
	}
	r = Response{Failure: "no"}
	if got, err := DecodeResponse(r.Encode()); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, s := range []string{
		"", "le", "de", "d8:intervali-1ee", "d8:intervali100000ee", "d8:intervali1e5:peers5:12345e", "d8:intervali1e5:peersi1ee",
		"d8:intervali1e6:peers66:123456e", "d8:intervali1e5:peersleee",
	} {
		if got, err := DecodeResponse([]byte(s)); err == nil {
			t.Errorf("%q reads as %+v", s, got)
		}
	}
}

// curl, as any HTTP client, sends our query as we wrote it.
func TestCurlCarriesTheQuery(t *testing.T) {
	want := Request{InfoHash: [20]byte{0: 0, 1: '&', 2: '%', 3: '+', 4: ' ', 5: 0xff, 19: '#'}, PeerID: [20]byte{1}, Port: 6881}
	seen := make(chan Request, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, err := ParseRequest(r.URL.RawQuery)
		if err != nil {
			t.Error(err)
		}
		seen <- got
		w.Write(Response{Interval: time.Second}.Encode())
	}))
	defer server.Close()
	out, err := exec.Command("curl", "-sS", "--noproxy", "*", server.URL+"/announce?"+want.Query()).CombinedOutput()
	if err != nil {
		t.Fatalf("curl (Debian package curl): %v\n%s", err, out)
	}
	if got := <-seen; got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if _, err := DecodeResponse(out); err != nil {
		t.Error(err)
	}
}

func TestAnnounce(t *testing.T) {
	var answer atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(answer.Load().([]any)[0].(int))
		w.Write(answer.Load().([]any)[1].([]byte))
	}))
	c := &Client{URL: server.URL + "/announce?site=1", HTTP: server.Client()}
	answer.Store([]any{200, Response{Interval: time.Minute, Peers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1")}}.Encode()})
	if got, err := c.Announce(t.Context(), Request{Port: 1}); err != nil || len(got.Peers) != 1 || got.Interval != time.Minute {
		t.Errorf("%+v, %v", got, err)
	}
	answer.Store([]any{403, Response{Failure: "not invited"}.Encode()})
	if _, err := c.Announce(t.Context(), Request{Port: 1}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "not invited") {
		t.Errorf("%v", err)
	}
	for _, broken := range [][]any{{500, []byte("oh")}, {200, []byte("<html>")}, {200, make([]byte, MaxResponse+1)}} {
		answer.Store(broken)
		if _, err := c.Announce(t.Context(), Request{Port: 1}); err == nil || errors.Is(err, ErrRefused) {
			t.Errorf("%v", err)
		}
	}
	server.Close()
	if _, err := c.Announce(t.Context(), Request{Port: 1}); err == nil {
		t.Error("no error without a tracker")
	}
}

// tracker is an http.RoundTripper that records events and can be down.
type tracker struct {
	down   atomic.Bool
	events chan Event
}

func (s *tracker) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.down.Load() {
		return nil, errors.New("connection refused")
	}
	got, err := ParseRequest(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	s.events <- got.Event
	w := httptest.NewRecorder()
	w.Write(Response{Interval: 15 * time.Second, Peers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1")}}.Encode())
	return w.Result(), nil
}

func TestRunSurvivesATrackerThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &tracker{events: make(chan Event, 10)}
		tr.down.Store(true)
		c := &Client{URL: "http://192.0.2.9/announce", HTTP: &http.Client{Transport: tr}}
		ctx, cancel := context.WithCancel(t.Context())
		var left atomic.Int64
		left.Store(5)
		found, ended := make(chan int, 10), make(chan struct{})
		go func() {
			defer close(ended)
			c.Run(ctx, func() Request { return Request{Port: 1, Left: left.Load()} }, func(a []netip.AddrPort) { found <- len(a) })
		}()
		time.Sleep(time.Minute)
		tr.down.Store(false)
		begin := time.Now()
		if e := <-tr.events; e != Started || time.Since(begin) > lastRetry {
			t.Errorf("%q after %v", e, time.Since(begin))
		}
		begin = time.Now()
		if e := <-tr.events; e != Regular || time.Since(begin) != 15*time.Second {
			t.Errorf("%q after %v", e, time.Since(begin))
		}
		left.Store(0)
		if e := <-tr.events; e != Completed {
			t.Errorf("%q", e)
		}
		if e := <-tr.events; e != Regular {
			t.Errorf("%q", e)
		}
		cancel()
		<-ended
		if e := <-tr.events; e != Stopped || len(found) != 4 {
			t.Errorf("%q, %d answers", e, len(found))
		}
	})
}

func FuzzDecodeResponse(f *testing.F) {
	f.Add(Response{Interval: time.Second, Peers: []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:6881")}}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := DecodeResponse(b); err == nil && r.Failure == "" {
			if _, err := DecodeResponse(r.Encode()); err != nil {
				t.Errorf("%+v: %v", r, err)
			}
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	f.Add("info_hash=" + twenty + "&peer_id=" + twenty + "&port=1")
	f.Fuzz(func(t *testing.T, q string) {
		if r, err := ParseRequest(q); err == nil {
			if again, err := ParseRequest(r.Query()); err != nil || again != r {
				t.Errorf("%+v and %+v, %v", r, again, err)
			}
		}
	})
}
