package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/job"
	"seedbed/initramfs/left"
)

// An agent that gets no answer by HTTPS says so where it booted from: once the patience is over, and not at each attempt.
func TestAnAgentThatGetsNoAnswerSaysSoByThePortOfTheBootFiles(t *testing.T) {
	told := make(chan url.Values, 10)
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told <- r.URL.Query()
		w.WriteHeader(http.StatusNoContent)
	}))
	defer files.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	boot := job.Boot{Appliances: []string{"https://" + nobody}, Fingerprint: [32]byte{1}, Token: "x", MAC: "52:54:00:77:00:10", Trouble: files.URL + "/boot/trouble"}
	a, err := New(Config{Boot: boot, Machine: new(computer), Screen: NewScreen(), Log: slog.New(slog.DiscardHandler), timing: timing{trouble: 50 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() {
		defer cancel()
		q := <-told
		if q.Get("code") != job.TroubleUnreachable || q.Get("mac") != boot.MAC || !strings.Contains(q.Get("text"), nobody) {
			t.Errorf("the appliance is told %v", q)
		}
	}()
	if _, err := a.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("the agent ends with %v", err)
	}
}

func TestTroublesHaveTheirWords(t *testing.T) {
	for err, want := range map[error]string{
		errors.New("i/o timeout"):                                     job.TroubleUnreachable,
		fmt.Errorf("tls: %w", ErrPin):                                 job.TroubleCertificate,
		&problem{job.Problem{Status: 403, Code: "token-used"}}:        job.TroubleRefused,
		&problem{job.Problem{Status: 503, Detail: "comes back soon"}}: job.TroubleUnreachable,
	} {
		if got := troubleCode(err); got != want {
			t.Errorf("%v is %s, want %s", err, got, want)
		}
	}
}

// A machine that reaches no seeder says which one, and why; one that reaches any says nothing.
func TestAMachineSaysThatItReachesNoSeeder(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	there := netip.MustParseAddrPort(l.Addr().String())
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	away := netip.MustParseAddrPort(gone.Addr().String())
	gone.Close()
	d := &deployment{a: &Agent{screen: NewScreen()}}
	d.j.Seeds = []netip.AddrPort{away}
	if why := d.unreached(t.Context()); !strings.HasPrefix(why, job.WarnNoSwarm+away.String()+": ") || !strings.Contains(why, "refused") {
		t.Errorf("says %q", why)
	}
	d.j.Seeds = append(d.j.Seeds, there)
	if why := d.unreached(t.Context()); why != "" {
		t.Errorf("says %q, though %s answers", why, there)
	}
	d.j.Seeds = nil
	if why := d.unreached(t.Context()); why != "" {
		t.Errorf("without seeders it says %q", why)
	}
}

// TestTheNextBootTellsWhatStoppedTheOneBefore: what stands in the firmware goes with the hello of the first boot that gets through, once.
func TestTheNextBootTellsWhatStoppedTheOneBefore(t *testing.T) {
	a := newAppliance(t)
	dir := t.TempDir()
	boot := func(b job.Boot, until func(*Screen) bool) {
		t.Helper()
		screen := NewScreen()
		agent, err := New(Config{Boot: b, Machine: newComputer(t), Screen: screen, Left: left.Open(dir), timing: timing{keep: 50 * time.Millisecond, rest: time.Millisecond, rescan: time.Hour}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		ended := make(chan struct{})
		go func() { defer close(ended); _, _ = agent.Run(ctx) }()
		for !until(screen) {
			if err := sleep(ctx, 10*time.Millisecond); err != nil {
				t.Fatalf("%v: %s", err, screen.Tail())
			}
		}
		cancel()
		<-ended
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	away := a.boot()
	away.Appliances = []string{"https://" + nobody}
	boot(away, func(s *Screen) bool { return strings.Contains(s.Tail(), "kept in the firmware") })
	if found := left.Open(dir).Found(); found == nil || found.Code != job.TroubleUnreachable || !strings.Contains(found.Text, nobody) || found.At.IsZero() {
		t.Fatalf("the firmware keeps %+v", found)
	}
	boot(a.boot(), func(s *Screen) bool { return strings.Contains(s.Tail(), "answered") })
	a.mu.Lock()
	told := a.hello.Left
	a.mu.Unlock()
	if told == nil || told.Code != job.TroubleUnreachable || !strings.Contains(told.Text, nobody) {
		t.Errorf("the hello tells %+v", told)
	}
	if found := left.Open(dir).Found(); found != nil {
		t.Errorf("after it was told the firmware keeps %+v", found)
	}
}
