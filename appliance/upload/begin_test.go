package upload

import (
	"context"
	"errors"
	"testing"
	"time"

	"seedbed/appliance/job"
	"seedbed/images/intake"
)

// slow is a sink whose Commit waits until proceed is closed.
type slow struct {
	intake.Sink
	began, proceed chan struct{}
}

func (s slow) Commit(ctx context.Context, spec *intake.Spec) (*intake.Published, error) {
	close(s.began)
	<-s.proceed
	return s.Sink.Commit(ctx, spec)
}

func TestMachineThatRestartsWhileItsImageIsPublishedMakesNoSecondOne(t *testing.T) {
	for _, version := range []string{"", "golden"} {
		b := newBed(t)
		r := record(t, 2)
		s := slow{began: make(chan struct{}), proceed: make(chan struct{})}
		b.wrap = func(own intake.Sink) intake.Sink { s.Sink = own; return s }
		order := b.order(macA, "debian", version)
		m := b.boot(macA)
		id := b.begin(m)
		b.send(m, id, r)
		first := make(chan *intake.Published, 1)
		go func() {
			p, err := b.Commit(context.Background(), m.Caller, id, r.spec)
			if err != nil {
				t.Error(err)
			}
			first <- p
		}()
		<-s.began
		b.wrap = func(own intake.Sink) intake.Sink { return own }
		again := b.boot(macA) // the machine's power was cut
		begun := make(chan job.CaptureSession, 1)
		go func() {
			s, err := b.Begin(context.Background(), again.Caller, job.CaptureBegin{Job: again.job.ID, Epoch: again.job.Epoch})
			if err != nil {
				t.Errorf("begun again: %v", err)
			}
			begun <- s
		}()
		b.awaitNoSession()
		limit, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if _, err := b.Begin(limit, again.Caller, job.CaptureBegin{Job: again.job.ID, Epoch: again.job.Epoch}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a beginning that cannot be yet: %v", err)
		}
		cancel()
		b.order(macB, "other", "")
		b.begin(b.boot(macB)) // others do not wait for it
		close(s.proceed)
		p, answer := <-first, <-begun
		if p == nil || answer.Published == nil || *answer.Published != *p {
			t.Errorf("published %+v, and the machine that began again is told of %+v", p, answer)
		}
		if j := b.state(order.ID); j.State != job.Succeeded || j.ImageName != order.ImageName {
			t.Errorf("job %+v", j)
		}
		if list, err := b.repo.Images(t.Context()); err != nil || len(list) != 1 {
			t.Errorf("images %+v, %v", list, err)
		}
	}
}

// awaitNoSession waits until a beginning has taken the place of the one session.
func (b *bed) awaitNoSession() {
	b.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		b.Uploads.mu.Lock()
		n := len(b.sessions)
		b.Uploads.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(end) {
			b.t.Fatal("the session is still there")
		}
	}
}
