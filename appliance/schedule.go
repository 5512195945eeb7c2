package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"seedbed/appliance/api"
)

// Kinds of events about the upkeep of images; what verifications find is api.EventDamaged, and so on.
const (
	eventPruned = "repository.pruned"
	eventUpkeep = "repository.upkeep-failed"
)

// schedule prunes the repository and verifies its images while the appliance runs. What it finds becomes events.
type schedule struct {
	lib  api.Images
	note func(ctx context.Context, kind, text string) error
	log  *slog.Logger

	first      time.Duration // wait after the start: machines that boot come first
	pruneEvery time.Duration // 0: never
	// verifyRate bounds what verification reads, in bytes a second; 0: it does not verify. lookEvery is how often it is
	// looked whether it is this appliance's turn.
	verifyRate int64
	turns      *turns
	lookEvery  time.Duration
}

// Run works until ctx is done.
func (s *schedule) Run(ctx context.Context) error {
	if s.pruneEvery <= 0 && s.verifyRate <= 0 {
		return nil
	}
	never := make(<-chan time.Time)
	prune, verify := never, never
	if s.pruneEvery > 0 {
		prune = time.After(s.first)
	}
	if s.verifyRate > 0 {
		verify = time.After(s.first)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-prune:
			s.prune(ctx)
			prune = time.After(s.pruneEvery)
		case <-verify:
			verify = time.After(s.verify(ctx))
		}
	}
}

// tell adds an event, and a line to the log if that fails.
func (s *schedule) tell(ctx context.Context, kind, text string) {
	if err := s.note(ctx, kind, text); err != nil && ctx.Err() == nil {
		s.log.Error("event not recorded", "kind", kind, "text", text, "err", err)
	}
}

func (s *schedule) prune(ctx context.Context) {
	r, err := s.lib.Prune(ctx, api.PruneOrder{}, nil)
	switch {
	case ctx.Err() != nil:
	case err != nil && isRefusal(err): // another appliance of the site does it
		s.log.Debug("not pruned", "err", err)
	case err != nil:
		s.tell(ctx, eventUpkeep, fmt.Sprintf("the repository could not be pruned: %v", err))
	case r.Deleted.Objects > 0:
		s.tell(ctx, eventPruned, fmt.Sprintf("%s that no image used were freed", bytesText(r.Deleted.Bytes)))
	}
}

// verify verifies all images if it is this appliance's turn, and returns when to look again.
func (s *schedule) verify(ctx context.Context) (after time.Duration) {
	turn, err := s.turns.take(ctx)
	if err == nil && turn == 0 {
		return s.lookEvery
	}
	var r *api.VerifyReport
	if err == nil {
		r, err = s.lib.Verify(ctx, api.VerifyOrder{BytesPerSecond: s.verifyRate, Heal: true}, nil)
	}
	if err == nil {
		for _, e := range r.Events(true, false) {
			s.tell(ctx, e.Kind, e.Text)
		}
		err = s.turns.done(ctx, turn)
	}
	switch {
	case err == nil || ctx.Err() != nil:
		return s.lookEvery
	case isRefusal(err): // another process prunes or heals
		s.log.Debug("not verified", "err", err)
		return s.lookEvery
	}
	s.tell(ctx, eventUpkeep, fmt.Sprintf("the images could not be verified: %v", err))
	return max(s.lookEvery, s.turns.every/7)
}
