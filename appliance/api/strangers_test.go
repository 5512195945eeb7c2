package api_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images/announce"
)

// trickle sends a body that never ends, and returns the status of the answer, 0 where there is none.
func (g *agent) trickle(ctx context.Context, path string) int {
	body, w := io.Pipe()
	defer w.Close()
	go w.Write([]byte("{"))
	req, err := http.NewRequestWithContext(ctx, "POST", g.a.url+path, body)
	if err != nil {
		g.a.t.Error(err)
		return 0
	}
	resp, err := g.client.Do(req)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestABodyThatNeverEndsIsNotWaitedFor, over either version of HTTP: strangers would hold connections and memory.
func TestABodyThatNeverEndsIsNotWaitedFor(t *testing.T) {
	t.Cleanup(api.SetBodyGrace(50 * time.Millisecond))
	a := start(t, fleet.AdmitAuto)
	for _, two := range []bool{true, false} {
		g := a.newAgent(mac)
		if !two {
			transport := g.client.Transport.(*http.Transport)
			transport.ForceAttemptHTTP2, transport.TLSClientConfig.NextProtos = false, []string{"http/1.1"}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if status := g.trickle(ctx, job.PathHello); status != http.StatusRequestTimeout { // an agent asks again after no other one below 500
			t.Errorf("HTTP/2 %t: the answer to a hello that never ends is %d, %v", two, status, ctx.Err())
		}
		cancel()
		g.hello() // who is slow once is let in later
	}
}

// TestMachinesWithoutAJobTakeNoRoomForOldTables from one that has one.
func TestMachinesWithoutAJobTakeNoRoomForOldTables(t *testing.T) {
	a := start(t, fleet.AdmitAsk)
	stranger := a.newAgent("52:54:00:77:00:66")
	stranger.hello()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 9 {
		if status := stranger.trickle(ctx, job.PathFrame); status != http.StatusNotFound {
			t.Fatalf("a machine without a job that sends an old table: %d", status)
		}
	}
}

// TestOneBootHasFewRequestsUnderWay, so that a machine, which may be one that nobody admitted, takes little memory however many it begins.
func TestOneBootHasFewRequestsUnderWay(t *testing.T) {
	a := start(t, fleet.AdmitAsk)
	g, other := a.newAgent("52:54:00:77:00:66"), a.newAgent(mac)
	g.hello()
	other.hello()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for range api.RequestsAtOnce {
		all.Go(func() { g.trickle(ctx, job.PathInventory) })
	}
	says := func(g *agent) int {
		status, _, _ := g.do("POST", job.PathReport, job.Report{Job: "none", State: job.Running}, nil)
		return status
	}
	until := func(want int) {
		deadline := time.Now().Add(10 * time.Second)
		for got := says(g); got != want; got = says(g) {
			if time.Now().After(deadline) {
				t.Fatalf("one request more: %d, want %d", got, want)
			}
			time.Sleep(time.Millisecond)
		}
	}
	until(http.StatusTooManyRequests)
	if got := says(other); got != http.StatusNotFound {
		t.Errorf("another machine: %d", got)
	}
	cancel()
	all.Wait()
	until(http.StatusNotFound)
}

// TestMachinesThatAreNotAdmittedSayLittleOfWork: they have none.
func TestMachinesThatAreNotAdmittedSayLittleOfWork(t *testing.T) {
	a := start(t, fleet.AdmitAsk)
	g := a.newAgent(mac)
	g.hello()
	var me job.Admission
	g.must(200, "POST", job.PathInventory, job.Inventory{Serial: "SN1"}, &me)
	report := job.Report{Job: "none", State: job.Running, Log: strings.Repeat("x", 20<<10)}
	for _, want := range []string{"too-large", fleet.CodeJobUnknown} {
		if _, p, _ := g.do("POST", job.PathReport, report, nil); p.Code != want {
			t.Errorf("a report of 20 KB: %+v, want %s", p, want)
		}
		if _, err := a.operator.Admit(t.Context(), me.Machine); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWhoWasShutOutIsNamedNoPeers though the certificate is good for hours.
func TestWhoWasShutOutIsNamedNoPeers(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	g := a.newAgent(mac)
	cert, err := x509.ParseCertificate(g.hello().Certificate)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	tracker := api.Announces(a.fleet, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	announces := func() *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", job.PathAnnounce+"?"+announce.Request{Port: 1, Left: 1}.Query(), nil)
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}}
		w := httptest.NewRecorder()
		tracker.ServeHTTP(w, r)
		return w
	}
	if announces(); asked != 1 {
		t.Fatal("a machine is not let through to the tracker")
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.MarshalPKIXPublicKey(&other.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	g.must(http.StatusForbidden, "POST", job.PathHello, job.Hello{Token: g.boot.Token, MAC: g.boot.MAC, PublicKey: pub}, nil)
	answer := announces()
	if said, err := announce.DecodeResponse(answer.Body.Bytes()); asked != 1 || answer.Code != http.StatusForbidden || err != nil || !strings.Contains(said.Failure, "revoked") {
		t.Errorf("a boot that was shut out announces: %d, %+v, %v; the tracker was asked %d times", answer.Code, said, err, asked)
	}
}
