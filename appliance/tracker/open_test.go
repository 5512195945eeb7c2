package tracker

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"seedbed/images/announce"
	"seedbed/images/bencode"
	"seedbed/images/swarm"
)

var debianV1, debianPlain = [20]byte{'v', '1'}, [20]byte{'p', 'l'}

// plain returns a client of the tracker over plain HTTP.
func plain(t *testing.T, tr *Tracker) *announce.Client {
	t.Helper()
	server := httptest.NewServer(tr)
	t.Cleanup(server.Close)
	return &announce.Client{URL: server.URL + "/announce"}
}

// TestOpenSwarmsTakeAnybodyUnderBothNames has stock clients that know the v1 name or the v2 name, and a machine that comes
// over TLS with no certificate for the swarm, in one swarm.
func TestOpenSwarmsTakeAnybodyUnderBothNames(t *testing.T) {
	tr := New(Config{})
	tr.AddSeed(debian, seed)
	c := plain(t, tr)
	v1 := request(debian, 1, 100, announce.Started)
	v1.InfoHash = debianV1
	for _, r := range []announce.Request{v1, request(debian, 2, 100, announce.Started)} {
		if _, err := c.Announce(t.Context(), r); !errors.Is(err, announce.ErrRefused) {
			t.Errorf("a closed swarm over plain HTTP: %v", err)
		}
	}
	tr.Open(debian, debianV1, debianPlain)
	tr.Open(debian, debianV1, debianPlain)
	machine := client(t, tr, swarm.InfoHashURI(windows))
	for _, c := range []struct {
		client *announce.Client
		r      announce.Request
		told   string
	}{
		{c, v1, "[192.0.2.1:6881]"},
		{c, request(debian, 1, 100, announce.Regular), "[192.0.2.1:6881]"},
		{machine, request(debian, 2, 0, announce.Started), "[192.0.2.1:6881 127.0.0.1:7001]"},
	} {
		got, err := c.client.Announce(t.Context(), c.r)
		if err != nil || fmt.Sprint(got.Peers) != c.told {
			t.Errorf("peer %d is told %v, %v; want %s", c.r.PeerID[0], got.Peers, err, c.told)
		}
	}
	if complete, lacking := tr.Machines(debian); complete != 1 || lacking != 1 {
		t.Errorf("%d complete, %d lacking", complete, lacking)
	}
	if _, err := c.Announce(t.Context(), request(windows, 1, 1, announce.Started)); !errors.Is(err, announce.ErrRefused) {
		t.Errorf("another swarm over plain HTTP: %v", err)
	}
	tr.Close(debian)
	if _, err := c.Announce(t.Context(), v1); !errors.Is(err, announce.ErrRefused) {
		t.Errorf("after the swarm was closed: %v", err)
	}
	if complete, lacking := tr.Machines(debian); complete+lacking != 0 {
		t.Error("the peers of a closed swarm are still known")
	}
}

func TestPeersComeAsDictionariesWhereAskedFor(t *testing.T) {
	tr := New(Config{})
	tr.Open(debian, debianV1, debianPlain)
	tr.AddSeed(debian, seed)
	c := plain(t, tr)
	if _, err := c.Announce(t.Context(), request(debian, 1, 100, announce.Started)); err != nil {
		t.Fatal(err)
	}
	answer, err := http.Get(c.URL + "?" + request(debian, 2, 100, announce.Started).Query() + "&compact=0")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	// The query carries compact=1 too; the first counts.
	body, _ := io.ReadAll(answer.Body)
	if v, err := bencode.Decode(body); err != nil || len(v.(map[string]any)["peers"].(string)) != 12 {
		t.Errorf("compact: %q, %v", body, err)
	}
	answer, err = http.Get(c.URL + "?compact=0&" + request(debian, 2, 100, announce.Started).Query())
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, _ = io.ReadAll(answer.Body)
	v, err := bencode.Decode(body)
	if err != nil {
		t.Fatal(err)
	}
	id := [20]byte{1}
	want := []any{map[string]any{"ip": "192.0.2.1", "port": int64(6881)}, map[string]any{"ip": "127.0.0.1", "port": int64(7001), "peer id": string(id[:])}}
	if got := v.(map[string]any)["peers"]; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("peers are %q, want %q", got, want)
	}
}

func TestPeersOfTheOtherTorrentAreNotTold(t *testing.T) {
	tr := New(Config{})
	tr.Open(debian, debianV1, debianPlain)
	c := plain(t, tr)
	for _, step := range []struct {
		n    byte
		name [20]byte
		id   string
		told string
	}{
		{1, debianV1, "-LT", "[]"}, {2, debianPlain, "-TR", "[]"}, {3, debianV1, "-SB", "[127.0.0.1:7001 127.0.0.1:7002]"},
		{4, debianPlain, "A2-", "[127.0.0.1:7002 127.0.0.1:7003]"}, {5, debian.Wire(), "-LT", "[127.0.0.1:7001 127.0.0.1:7003]"},
	} {
		r := request(debian, step.n, 1, announce.Started)
		r.InfoHash = step.name
		copy(r.PeerID[:], step.id)
		r.PeerID[19] = step.n
		got, err := c.Announce(t.Context(), r)
		slices.SortFunc(got.Peers, netip.AddrPort.Compare)
		if err != nil || fmt.Sprint(got.Peers) != step.told {
			t.Errorf("peer %d is told %v, %v; want %s", step.n, got.Peers, err, step.told)
		}
	}
}

// TestOneAddressTakesFewPlacesOfAnOpenSwarm: anybody may announce there, by any port. In a closed one the certificate says who it is.
func TestOneAddressTakesFewPlacesOfAnOpenSwarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(Config{})
		come := func(address string, n int) (ok bool) {
			r := request(debian, 0, 1, announce.Regular)
			r.PeerID = [20]byte{1, byte(n), byte(n >> 8)}
			_, ok = tr.note(netip.AddrPortFrom(netip.MustParseAddr(address), uint16(1000+n)), identity{}, r, time.Now())
			return ok
		}
		for i := range 2 * maxOpenOfOne {
			if !come("192.0.2.7", i) {
				t.Fatalf("no place for peer %d of a closed swarm", i)
			}
		}
		tr.Close(debian)
		tr.Open(debian, debianV1, debianPlain)
		for i := range maxOpenOfOne {
			if !come("192.0.2.7", i) || !come(fmt.Sprintf("2001:db8::%x", i+1), i) {
				t.Fatalf("no place for peer %d", i)
			}
		}
		tr.AddSeed(debian, seed)
		for _, address := range []string{"192.0.2.7", "2001:db8::ffff"} { // it is told of the others, who are not told of it
			a := netip.AddrPortFrom(netip.MustParseAddr(address), uint16(1000+maxOpenOfOne))
			r := request(debian, 0, 1, announce.Regular)
			r.PeerID = [20]byte{1, maxOpenOfOne}
			answer, ok := tr.note(a, identity{}, r, time.Now())
			if !ok || len(answer.Peers) < 2 || answer.Peers[0] != seed {
				t.Errorf("one more of an address, or of a network of IPv6, is told of %v", answer.Peers)
			}
			if tr.swarms[debian.Wire()].machines[a] != nil {
				t.Error("a place for one more of an address, or of a network of IPv6")
			}
		}
		if !come("192.0.2.7", 0) || !come("192.0.2.8", 0) || !come("2001:db8:0:1::1", 0) {
			t.Error("no place for one that is known, or for another address")
		}
		time.Sleep(2 * openExpiry)
		if !come("192.0.2.7", maxOpenOfOne) {
			t.Error("no place after the others were gone")
		}
	})
}

func TestStockPeersThatAnnounceSeldomAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(Config{})
		tr.Open(debian, debianV1, debianPlain)
		r := request(debian, 1, 1, announce.Started)
		tr.note(seed, identity{}, r, time.Now())
		time.Sleep(10 * time.Minute)
		if _, lacking := tr.Machines(debian); lacking != 1 {
			t.Error("forgotten after 10 minutes, two of libtorrent's intervals")
		}
		time.Sleep(10 * time.Minute)
		if _, lacking := tr.Machines(debian); lacking != 0 {
			t.Error("still known after 20 minutes of silence")
		}
	})
}
