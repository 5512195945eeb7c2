package console

import (
	"context"
	"errors"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
)

// ended waits until work has ended, and returns it.
func ended(t *testing.T, w *Works, kind longKind, about string) longWork {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if o, ok := w.last(kind, about); ok && !o.Ended.IsZero() {
			return o
		}
	}
	t.Fatalf("%s of %s does not end", kind, about)
	return longWork{}
}

func TestWorkTellsHowFarItIsAndCanBeCancelled(t *testing.T) {
	w := NewWorks()
	ctx := fleet.As(t.Context(), fleet.Actor{Name: "otto", Role: fleet.RoleOperator})
	told, asked := make(chan struct{}), 0
	id, err := w.begin(ctx, verifying, "debian:1", func(ctx context.Context, progress func(api.Progress)) (any, error) {
		if a, _ := fleet.ActorOf(ctx); a.Name == "otto" {
			asked++
		}
		progress(api.Progress{Done: 30, Total: 120})
		close(told)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	<-told
	if o, ok := w.last(verifying, "debian:1"); !ok || o.Share() != 0.25 || o.By != "otto" || !o.Ended.IsZero() {
		t.Errorf("under way it is %+v", o)
	}
	if _, err := w.begin(ctx, verifying, "debian:1", nil); err == nil {
		t.Error("the same is begun twice at once")
	}
	w.stop(id)
	if o := ended(t, w, verifying, "debian:1"); !o.Cancelled || !errors.Is(o.Err, context.Canceled) || asked != 1 {
		t.Errorf("after it was cancelled it is %+v, asked in otto's name %d times", o, asked)
	}
}

func TestWorkEndsWithTheAppliance(t *testing.T) {
	w := NewWorks()
	ctx, stop := context.WithCancel(t.Context())
	over := false
	if _, err := w.begin(ctx, pruning, "", func(ctx context.Context, _ func(api.Progress)) (any, error) {
		<-ctx.Done()
		over = true
		return nil, ctx.Err()
	}); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := w.Run(ctx); !errors.Is(err, context.Canceled) || !over {
		t.Errorf("Run ends by %v, the work over: %v", err, over)
	}
	if _, err := w.begin(t.Context(), pruning, "", nil); err == nil {
		t.Error("work begins in an appliance that stops")
	}
}

func TestWorkThatIsDoneIsForgotten(t *testing.T) {
	w := NewWorks()
	for range 2 * worksKept {
		if _, err := w.begin(t.Context(), verifying, "debian:1", func(context.Context, func(api.Progress)) (any, error) { return 7, nil }); err != nil {
			t.Fatal(err)
		}
		if o := ended(t, w, verifying, "debian:1"); o.Result != 7 || o.Cancelled {
			t.Fatalf("it ends as %+v", o)
		}
	}
	if n := len(w.of(verifying)); n > worksKept+1 {
		t.Errorf("%d are kept", n)
	}
}
