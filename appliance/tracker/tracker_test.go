package tracker

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"seedbed/images"
	"seedbed/images/announce"
	"seedbed/images/swarm"
	"seedbed/images/trust/trusttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	debian  = images.InfoHash(images.Sum([]byte("debian")))
	windows = images.InfoHash(images.Sum([]byte("windows")))
	seed    = netip.MustParseAddrPort("192.0.2.1:6881")
)

// client returns an announce client whose certificate carries the URIs, and a server that runs the tracker for it.
func client(t *testing.T, tr *Tracker, uris ...string) *announce.Client {
	t.Helper()
	site := trusttest.New(t)
	pool := x509.NewCertPool()
	pool.AddCert(site.Certificate)
	server := httptest.NewUnstartedServer(tr)
	server.TLS = &tls.Config{ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
	server.StartTLS()
	t.Cleanup(server.Close)
	h := server.Client()
	if len(uris) > 0 {
		h.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{site.Issue(t, nil, uris...)}
	}
	return &announce.Client{URL: server.URL + "/announce", HTTP: h}
}

func request(h images.InfoHash, n byte, left int64, event announce.Event) announce.Request {
	return announce.Request{InfoHash: h.Wire(), PeerID: [20]byte{n}, Port: 7000 + uint16(n), Left: left, Event: event}
}

func TestMachinesHearOfEachOther(t *testing.T) {
	tr := New(Config{})
	tr.AddSeed(debian, seed)
	tr.AddSeed(debian, seed)
	c := client(t, tr, swarm.InfoHashURI(debian))
	for n, want := range []string{
		"[192.0.2.1:6881]", "[192.0.2.1:6881 127.0.0.1:7000]", "[192.0.2.1:6881 127.0.0.1:7000 127.0.0.1:7001]",
	} {
		got, err := c.Announce(t.Context(), request(debian, byte(n), 100, announce.Started))
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(got.Peers[1:], netip.AddrPort.Compare)
		if fmt.Sprint(got.Peers) != want || got.Interval != time.Second || got.Leechers != n+1 || got.Seeds != 1 {
			t.Errorf("machine %d is told %+v, want %s", n, got, want)
		}
	}
	if got, err := c.Announce(t.Context(), request(debian, 1, 0, announce.Stopped)); err != nil || len(got.Peers) != 0 {
		t.Errorf("at the end: %+v, %v", got, err)
	}
	c.Announce(t.Context(), request(debian, 2, 0, announce.Completed))
	got, err := c.Announce(t.Context(), request(debian, 3, 0, announce.Started))
	if err != nil || fmt.Sprint(got.Peers) != "[192.0.2.1:6881 127.0.0.1:7000 127.0.0.1:7002]" {
		t.Errorf("a machine that holds everything serves its neighbours, and is told %+v, %v", got, err)
	}
	if complete, lacking := tr.Machines(debian); complete != 2 || lacking != 1 {
		t.Errorf("%d complete, %d lacking", complete, lacking)
	}
	tr.RemoveSeed(debian, seed)
	if got, _ := c.Announce(t.Context(), request(debian, 3, 0, announce.Regular)); slices.Contains(got.Peers, seed) {
		t.Error("told of a seeder that is gone")
	}
}

func TestStrangersAreRefused(t *testing.T) {
	tr := New(Config{})
	for name, c := range map[string]*announce.Client{
		"without certificate":           client(t, tr),
		"for another swarm":             client(t, tr, swarm.InfoHashURI(windows)),
		"for no swarm":                  client(t, tr, "urn:seedbed:machine:1"),
		"with a hash that is cut short": client(t, tr, swarm.InfoHashURI(debian)[:60]),
	} {
		if _, err := c.Announce(t.Context(), request(debian, 1, 1, announce.Started)); !errors.Is(err, announce.ErrRefused) {
			t.Errorf("a machine %s: %v", name, err)
		}
	}
	if complete, lacking := tr.Machines(debian); complete+lacking != 0 {
		t.Error("a stranger was noted")
	}
	c := client(t, tr, swarm.InfoHashURI(debian))
	for _, path := range []string{"?info_hash=x", "?" + strings.Replace(request(debian, 1, 1, "").Query(), "port=7001", "port=0", 1)} {
		answer, err := c.HTTP.Get(c.URL + path)
		if err != nil || answer.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %v, %v", path, answer.Status, err)
		}
		answer.Body.Close()
	}
	answer, err := c.HTTP.Post(c.URL, "text/plain", nil)
	if err != nil || answer.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %v, %v", answer.Status, err)
	}
	answer.Body.Close()
}

// A machine is forgotten after three of the intervals that it was told: 5 s and less while others come and go, else 15 s.
func TestSilentMachinesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(Config{})
		address := func(n byte) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, n}), 6881)
		}
		note := func(n byte) announce.Response {
			answer, ok := tr.note(address(n), identity{}, request(debian, n, 1, announce.Started), time.Now())
			if !ok {
				t.Fatal("no answer")
			}
			return answer
		}
		for round := range 5 {
			for n := range byte(6) {
				wait := 5 * time.Second
				if round == 0 || round == 1 && n < 5 { // hears of others for the first time
					wait = time.Second
				}
				if got := note(n); got.Interval != wait && round < 4 {
					t.Errorf("round %d: machine %d is asked to come again after %v, want %v", round, n, got.Interval, wait)
				}
			}
			time.Sleep(4 * time.Second)
		}
		for n := range byte(6) {
			if got := note(n); got.Interval != 15*time.Second || len(got.Peers) != 5 {
				t.Errorf("told %+v in a room where nothing changes", got)
			}
		}
		time.Sleep(40 * time.Second)
		// The machine booted again: another ID at the same address, or another port under the same ID.
		tr.note(address(0), identity{}, request(debian, 77, 1, announce.Started), time.Now())
		tr.note(netip.AddrPortFrom(address(1).Addr(), 7000), identity{}, request(debian, 1, 1, announce.Started), time.Now())
		if _, lacking := tr.Machines(debian); lacking != 6 {
			t.Errorf("%d machines", lacking)
		}
		time.Sleep(10 * time.Second)
		if _, lacking := tr.Machines(debian); lacking != 2 {
			t.Errorf("%d machines after the others were silent for 50 s", lacking)
		}
		time.Sleep(10 * time.Second)
		if _, lacking := tr.Machines(debian); lacking != 0 {
			t.Errorf("%d machines of two that were told 5 s, 20 s later", lacking)
		}
	})
}

func TestTrackerIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(Config{})
		var r announce.Request
		for i := range maxSwarms {
			r.InfoHash = [20]byte{byte(i), byte(i >> 8)}
			if _, ok := tr.note(seed, identity{}, r, time.Now()); !ok {
				t.Fatal("full too early")
			}
		}
		if _, ok := tr.note(seed, identity{}, request(debian, 1, 1, announce.Started), time.Now()); ok {
			t.Error("one swarm more")
		}
		tr.AddSeed(debian, seed) // finds no place; must not fall over
		time.Sleep(time.Minute)
		if _, ok := tr.note(seed, identity{}, request(debian, 1, 1, announce.Started), time.Now()); !ok {
			t.Error("no place though all others are gone")
		}
	})
}
