//go:build linux

package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"seedbed/appliance/alert"
)

// hook is a service that messages are posted to. It fails the first time.
type hook struct {
	url string
	mu  sync.Mutex // guards all
	all []posted
}

// posted is what was posted once.
type posted struct {
	id, signature string
	body          []byte
}

func newHook(t *testing.T) *hook {
	t.Helper()
	h := new(hook)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%v, %v", r.Header, err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.all = append(h.all, posted{r.Header.Get(alert.HeaderMessage), r.Header.Get(alert.HeaderSignature), b}); len(h.all) == 1 {
			http.Error(w, "not now", http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(s.Close)
	h.url = s.URL
	return h
}

func (h *hook) got() []posted {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all)
}
