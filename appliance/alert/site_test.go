package alert

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/monitor"
	"seedbed/appliance/site"
	"seedbed/appliance/store"
	"seedbed/test-vm/mailserver"
	"seedbed/test-vm/postgres"
)

// town is a site whose appliances share a PostgreSQL database, a clock, and a repository that is nearly full or not.
type town struct {
	*testing.T
	location string
	identity *site.Site
	ahead    atomic.Int64 // nanoseconds that its clock is ahead of the host's
	alive    int          // appliances
	full     atomic.Bool
	hook     *receiver
	mail     *mailserver.Server
	secrets  Secrets
}

func (o *town) now() time.Time         { return time.Now().Add(time.Duration(o.ahead.Load())) }
func (o *town) passes(d time.Duration) { o.ahead.Add(int64(d)) }

// receiver is a service that webhooks are posted to. It takes a message by answering 200 to it.
type receiver struct {
	url   string
	mu    sync.Mutex // guards what follows
	taken []string   // subjects, or texts of test messages
	// busy has it answer nothing until who posts is gone; begun are the posts that it did not answer.
	busy  bool
	begun int
}

func newReceiver(t *testing.T) *receiver {
	h := new(receiver)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var said Payload
		if b, err := io.ReadAll(r.Body); err != nil || json.Unmarshal(b, &said) != nil {
			t.Errorf("a message cannot be read: %v", err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.busy {
			h.begun++
			h.mu.Unlock()
			<-r.Context().Done()
			h.mu.Lock()
			return
		}
		for _, a := range said.Raised {
			h.taken = append(h.taken, "raised "+string(a.Rule))
		}
		for _, a := range said.Recovered {
			h.taken = append(h.taken, "recovered "+string(a.Rule))
		}
	}))
	t.Cleanup(s.Close)
	h.url = s.URL
	return h
}

func (h *receiver) got() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string{}, h.taken...)
}

func (h *receiver) set(busy bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy = busy
}

// hangs reports whether posts were begun that nobody answered.
func (h *receiver) hangs() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.begun > 0
}

func newTown(t *testing.T) *town {
	o := &town{T: t, location: postgres.Start(t).Database(), hook: newReceiver(t), mail: mailserver.New(t)}
	o.mail.Start()
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(mailserver.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.secrets = Secrets{MailPassword: password, CA: o.mail.CA}
	var err error
	if o.identity, err = site.Open(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	return o
}

// office is one appliance of the site as far as alerts go.
type office struct {
	*fleet.Fleet
	town  *town
	store *store.Store
	stop  context.CancelFunc
	ended sync.WaitGroup
	gone  bool
}

func (o *town) open(id string) *office {
	o.Helper()
	a := &office{town: o}
	var err error
	if a.store, err = store.Open(o.Context(), o.location); err != nil {
		o.Fatal(err)
	}
	if a.Fleet, err = fleet.New(o.Context(), fleet.Config{ID: id, Records: a.store, Authority: o.identity, Now: o.now}); err != nil {
		o.Fatal(err)
	}
	judge := New(Config{Fleet: a.Fleet, Picture: func() *monitor.Picture { return &monitor.Picture{At: o.now()} }, Site: o.site, Secrets: o.secrets, Now: o.now})
	o.alive++
	var ctx context.Context
	ctx, a.stop = context.WithCancel(o.Context())
	for _, run := range []func(context.Context) error{a.Run, judge.Run} {
		a.ended.Go(func() {
			if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				o.Error(err)
			}
		})
	}
	o.Cleanup(a.kill)
	return a
}

// kill ends the appliance: nothing of what it was about to do is done, and its office is left as it is.
func (a *office) kill() {
	if a.gone {
		return
	}
	a.gone = true
	a.town.alive--
	a.stop()
	a.ended.Wait()
	a.store.Close()
}

func (o *town) site(context.Context) Site {
	if o.full.Load() {
		return Site{Free: 1e9, Total: 1e12}
	}
	return Site{Free: 9e11, Total: 1e12}
}

// until waits for a condition. Where one appliance is there alone the clock goes faster meanwhile: two would take the other's beats, which
// come by the host's clock, for those of one that stands still.
func (o *town) until(what string, is func() bool) {
	o.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			o.Fatalf("still not: %s; the webhook took %q, the mail server %d", what, o.hook.got(), len(o.mail.Mails()))
		}
		if o.alive == 1 {
			o.passes(500 * time.Millisecond)
		}
	}
}

// raised reports whether an appliance knows of an open alert.
func (a *office) raised() bool {
	list := a.Alerts()
	return len(list) > 0 && list[0].Open()
}

// told waits until webhook and mail server have taken so many messages, the last of which says something, and looks that no more come
// while the clock goes on.
func (o *town) told(n int, last string, by *office) {
	o.Helper()
	o.until(last, func() bool { return len(o.hook.got()) >= n && len(o.mail.Mails()) >= n })
	o.until("what was sent is known to be", func() bool {
		for _, m := range by.Messages() {
			if m.Waiting() {
				return false
			}
		}
		return true
	})
	looks := time.Now().Add(2 * lookEvery)
	o.until("some looks have passed", func() bool { return time.Now().After(looks) })
	got := o.hook.got()
	if mails := o.mail.Mails(); len(got) != n || got[len(got)-1] != last || len(mails) != n {
		o.Errorf("the webhook took %q and the mail server %d messages, want %d of each, the last %q", got, len(mails), n, last)
	}
}

// takesOver waits until an appliance has the office of one that is gone.
func (a *office) takesOver() {
	a.town.Helper()
	a.town.until("the other takes over", a.InOffice)
}

// TestEachBreachIsToldOnceWhoeverIsInOffice: of two appliances on one PostgreSQL the one in office is killed between a breach and its
// message, and the one after it while it sends the notice of the end. A webhook and a mail server take one message about each. With
// SEEDBED_FULL=1 a breach follows that was told before its appliance is killed.
func TestEachBreachIsToldOnceWhoeverIsInOffice(t *testing.T) {
	o := newTown(t)
	one := o.open("one")
	o.until("one is in office", one.InOffice)
	admin := fleet.As(t.Context(), fleet.Actor{Name: "anna", Role: fleet.RoleAdmin})
	tls, to, second := fleet.MailTLS("starttls"), []string{"anna@" + mailserver.Domain}, fleet.Duration(5*time.Second)
	user, from := mailserver.User, "seedbed@"+mailserver.Domain
	if _, err := one.EditSettings(admin, 0, fleet.SettingsOrder{Webhook: &o.hook.url, MailServer: &o.mail.Plain, MailTLS: &tls, MailUser: &user, MailFrom: &from, MailTo: &to,
		SlowFor: &second, Silence: &second, CoolDown: new(fleet.Duration)}); err != nil {
		t.Fatal(err)
	}
	two := o.open("two")

	// The one in office raises the alert and is killed before it writes a message.
	o.full.Store(true)
	o.until("the alert is raised", two.raised)
	one.kill()
	if n := len(o.hook.got()) + len(two.Messages()); n != 0 {
		t.Fatalf("%d messages were written before the kill", n)
	}
	two.takesOver()
	o.told(1, "raised space", two)

	// The breach ends; the one in office is killed while it posts the notice.
	o.hook.set(true)
	o.full.Store(false)
	o.until("it posts the notice", o.hook.hangs)
	one = o.open("one")
	two.kill()
	o.hook.set(false)
	one.takesOver()
	o.told(2, "recovered space", one)
	if list := one.Alerts(); len(list) != 1 || list[0].Open() || list[0].Told.IsZero() || list[0].ToldEnd.IsZero() {
		t.Errorf("%+v", list)
	}
	if os.Getenv("SEEDBED_FULL") == "" {
		return
	}

	// The next breach is told by the one that took over; who takes over from that says nothing anew.
	o.full.Store(true)
	o.told(3, "raised space", one)
	two = o.open("two")
	one.kill()
	two.takesOver()
	o.told(3, "raised space", two)
	for _, m := range two.Messages() {
		if m.Sent.IsZero() || m.Error != "" {
			t.Errorf("%+v", m)
		}
	}
	if list := two.Alerts(); len(list) != 2 || !list[0].Open() || list[0].Told.IsZero() || list[1].Open() || list[1].ToldEnd.IsZero() {
		t.Errorf("%+v", list)
	}
}
