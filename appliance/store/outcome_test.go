package store_test

import (
	"bytes"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/test-vm/postgres"
)

// What a road does with the next commit.
const (
	passes        = iota
	loses         // the commit does not arrive
	losesAnswer   // it arrives, and its answer does not
	delaysAndLose // it arrives after the connection of who asked has broken
	holds         // it does not arrive, and the server does not learn that nobody is there any more
)

// road is a way to a PostgreSQL server on which a commit can get lost.
type road struct {
	t        *testing.T
	location string
	next     atomic.Int32
}

func newRoad(t *testing.T, location string) *road {
	t.Helper()
	u, err := url.Parse(location)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	server := filepath.Join(query.Get("host"), ".s.PGSQL.5432")
	dir, err := os.MkdirTemp("/tmp", "seedbed-road-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	query.Set("host", dir)
	u.RawQuery = query.Encode()
	r := &road{t: t, location: u.String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.carry(c, server)
		}
	}()
	return r
}

// carry copies between a client and the server until either ends.
func (r *road) carry(c net.Conn, server string) {
	defer c.Close()
	s, err := net.Dial("unix", server)
	if err != nil {
		return
	}
	defer s.Close()
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, err := s.Read(b)
			if err != nil {
				c.Close()
				return
			}
			c.Write(b[:n])
		}
	}()
	b := make([]byte, 64<<10)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if bytes.Contains(b[:n], []byte("commit\x00")) {
			switch r.next.Swap(passes) {
			case loses:
				return
			case holds:
				c.Close()
				<-r.t.Context().Done()
				return
			case losesAnswer:
				c.Close()
				s.Write(b[:n])
				return
			case delaysAndLose:
				c.Close()
				time.Sleep(300 * time.Millisecond) // the one who asked looks meanwhile
				s.Write(b[:n])
				s.Read(b)
				return
			}
		}
		if _, err := s.Write(b[:n]); err != nil {
			return
		}
	}
}

// TestWhatBecameOfACommitIsFoundOut breaks the connection at the commit: what is durable is said to be done, else nothing is written.
func TestWhatBecameOfACommitIsFoundOut(t *testing.T) {
	server := postgres.Start(t)
	for what, c := range map[string]struct {
		next int32
		done bool
	}{
		"the commit is lost": {loses, false}, "its answer is lost": {losesAnswer, true}, "it comes late": {delaysAndLose, true},
	} {
		t.Run(what, func(t *testing.T) {
			location := server.Database()
			direct := open(t, location)
			r := newRoad(t, location)
			s := open(t, r.location)
			commit := func(base int64) (int64, error) {
				return s.Commit(t.Context(), &fleet.Change{Base: base, Put: []fleet.Record{&fleet.Machine{ID: "m1"}}, Events: []fleet.Event{{Kind: "test"}}})
			}
			r.next.Store(c.next)
			number, err := commit(0)
			if (err == nil) != c.done || errors.Is(err, fleet.ErrUnsure) || c.done && number != 1 {
				t.Fatalf("commit %d, %v", number, err)
			}
			snap, err := direct.Load(t.Context(), time.Now())
			if err != nil || (len(snap.Put) == 1) != c.done || (snap.Number == 1) != c.done {
				t.Fatalf("the records hold %+v, %v", snap, err)
			}
			if c.done {
				return
			}
			if number, err := commit(0); err != nil || number != 1 {
				t.Fatalf("again: commit %d, %v", number, err)
			}
			if list, err := direct.Events(t.Context(), fleet.EventQuery{}); err != nil || len(list) != 1 {
				t.Fatalf("%d events, %v", len(list), err)
			}
		})
	}
}

// TestOneWhoStandsStillInATransactionIsDropped: it would hold the row that all commits of the site need.
func TestOneWhoStandsStillInATransactionIsDropped(t *testing.T) {
	location := postgres.Start(t).Database()
	r := newRoad(t, location)
	still, other := open(t, r.location), open(t, location)
	r.next.Store(holds)
	lost := make(chan error, 1)
	go func() {
		_, err := still.Commit(t.Context(), &fleet.Change{Events: []fleet.Event{{Kind: "test"}}})
		lost <- err
	}()
	for r.next.Load() == holds { // until it stands still
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	if _, err := other.Seize(t.Context(), "other", fleet.Office{Epoch: 1}); err != nil || time.Since(began) > 8*time.Second {
		t.Errorf("the other took over after %v: %v", time.Since(began), err)
	}
	if _, err := other.Commit(t.Context(), &fleet.Change{Events: []fleet.Event{{Kind: "test"}}}); err != nil {
		t.Error(err)
	}
	if err := <-lost; err == nil || errors.Is(err, fleet.ErrUnsure) {
		t.Errorf("what did not arrive: %v", err)
	}
}
