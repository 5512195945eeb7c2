package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"seedbed/appliance/job"
)

// second is another appliance of the same site, with a handler of its own.
func (a *appliance) second(h http.HandlerFunc) *httptest.Server {
	pool := x509.NewCertPool()
	pool.AddCert(a.ca)
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{a.keyPair()}, MinVersion: tls.VersionTLS13, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	a.t.Cleanup(s.Close)
	return s
}

// TestApplianceThatDoesNotAnswerCostsOneRequest: the next one goes to the other at once.
func TestApplianceThatDoesNotAnswerCostsOneRequest(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		most   time.Duration
	}{
		"it stands still": {func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) // only then does the server learn that the client went away
			<-r.Context().Done()
		}, 5 * time.Second},
		"it lost its database": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, time.Second},
		"it breaks off": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				conn.Close()
			}
		}, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAppliance(t)
			boot := a.boot()
			boot.Appliances = append([]string{a.second(c.answer).URL}, boot.Appliances...)
			client, err := newClient(boot)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { client.http.CloseIdleConnections() }()
			key, err := client.publicKey()
			if err != nil {
				t.Fatal(err)
			}
			hello := func(most time.Duration) {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
				defer cancel()
				began := time.Now()
				if _, err := client.post(ctx, job.PathHello, job.Hello{Token: boot.Token, PublicKey: key}, &job.Welcome{}); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took > most {
					t.Errorf("took %v, at most %v", took, most)
				}
			}
			hello(c.most)
			hello(time.Second)
			if !slices.Contains(client.appliances, boot.Appliances[0]) {
				t.Error("the one that did not answer is forgotten")
			}
		})
	}
}

func TestShareLeavesTimeForEachAppliance(t *testing.T) {
	whole, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for left, want := range map[int]time.Duration{3: 10 * time.Second, 2: 15 * time.Second, 1: 30 * time.Second, 30: leastAttempt} {
		ctx, cancel := share(whole, left)
		end, _ := ctx.Deadline()
		if got := time.Until(end); got > want || got < want-time.Second {
			t.Errorf("%d left: %v, want %v", left, got, want)
		}
		cancel()
	}
	ctx, cancel := share(t.Context(), 2)
	defer cancel()
	if _, bounded := ctx.Deadline(); bounded {
		t.Error("a request without an end got one")
	}
}

func TestAppliancesThatComeLaterAreKnown(t *testing.T) {
	c := &client{appliances: []string{"https://a", "https://b"}, http: new(http.Client)}
	c.know([]string{"https://b", "https://c", ""})
	c.last("https://a")
	if want := []string{"https://b", "https://c", "https://a"}; !slices.Equal(c.appliances, want) {
		t.Errorf("%v, want %v", c.appliances, want)
	}
}
