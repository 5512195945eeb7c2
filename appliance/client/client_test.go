package client

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"seedbed/appliance/api"
)

// serve answers on a local socket and returns a client of it.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	c := Local(path)
	t.Cleanup(c.Close)
	return c
}

// TestAnApplianceThatDoesNotAnswerIsNotRunning, whatever it does instead: who waits for jobs asks again.
func TestAnApplianceThatDoesNotAnswerIsNotRunning(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"it stands still": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"it stands still in the middle of an answer": func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte(`{"items":[`))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
		"it is killed": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"it is killed in the middle of an answer": func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"items":[`))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			answerTimeout, liveTimeout = 100*time.Millisecond, 100*time.Millisecond
			defer func() { answerTimeout, liveTimeout = time.Minute, time.Minute }()
			c := serve(t, h)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if _, err := c.Jobs(ctx, api.JobQuery{}); !errors.Is(err, ErrNotRunning) {
				t.Errorf("jobs: %v", err)
			}
			if err := c.Live(ctx, 0, func(Change) error { return nil }); !errors.Is(err, ErrNotRunning) {
				t.Errorf("live: %v", err)
			}
		})
	}
}

// TestACallerThatGoesIsNoApplianceThatDoesNotAnswer: who interrupts a command is not told to start an appliance.
func TestACallerThatGoesIsNoApplianceThatDoesNotAnswer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) { cancel(); <-r.Context().Done() })
	if _, err := c.Jobs(ctx, api.JobQuery{}); !errors.Is(err, context.Canceled) || errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
}
