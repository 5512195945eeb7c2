package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"seedbed/appliance/api"
)

// Kinds of events about images.
const (
	eventDamaged = "image.damaged"
	eventHealed  = "image.healed"
	eventPruned  = "repository.pruned"
	eventUpkeep  = "repository.upkeep-failed"
)

// schedule prunes the repository and verifies its images while the appliance runs. What it finds becomes events.
type schedule struct {
	lib  api.Images
	note func(ctx context.Context, kind, text string) error
	log  *slog.Logger
	path string // of the file that says when images were verified

	first      time.Duration // wait after the start: machines that boot come first
	pruneEvery time.Duration // 0: never
	// verifyRate bounds what verification reads, in bytes a second; 0: it does not verify. An image is verified once in
	// verifyEvery; lookEvery is how often it is looked whether one is due.
	verifyRate  int64
	verifyEvery time.Duration
	lookEvery   time.Duration
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
			s.verify(ctx)
			verify = time.After(s.lookEvery)
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

// verify verifies the images that are due, those first that were not for the longest time.
func (s *schedule) verify(ctx context.Context) {
	list, err := s.lib.List(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.tell(ctx, eventUpkeep, fmt.Sprintf("the images could not be listed to verify them: %v", err))
		}
		return
	}
	last := s.read()
	known := map[string]time.Time{}
	for _, i := range list {
		known[i.Name+":"+i.Version] = last[i.Name+":"+i.Version]
	}
	for {
		ref, oldest := "", time.Now().Add(-s.verifyEvery)
		for r, at := range known {
			if at.Before(oldest) {
				ref, oldest = r, at
			}
		}
		if ref == "" {
			return
		}
		r, err := s.lib.Verify(ctx, api.VerifyOrder{Image: ref, BytesPerSecond: s.verifyRate, Heal: true}, nil)
		if ctx.Err() != nil {
			return
		}
		known[ref] = time.Now()
		switch {
		case err != nil && isRefusal(err): // it was removed, or another process heals: next time
		case err != nil:
			s.tell(ctx, eventUpkeep, fmt.Sprintf("image %s could not be verified: %v", ref, err))
		default:
			s.report(ctx, r)
		}
		if err := s.write(known); err != nil {
			s.log.Error("the time of a verification is not kept", "err", err)
		}
	}
}

// report makes events of what verification found.
func (s *schedule) report(ctx context.Context, r *api.VerifyReport) {
	for _, i := range r.Images {
		var left, healed []string
		for _, d := range i.Damage {
			if d.Healed {
				healed = append(healed, d.Text)
			} else {
				left = append(left, d.Text)
			}
		}
		if len(healed) > 0 {
			s.tell(ctx, eventHealed, fmt.Sprintf("%s was damaged and is replaced by a right copy", some(healed, 0)))
		}
		if len(left) > 0 {
			s.tell(ctx, eventDamaged, fmt.Sprintf("%s; `seedbed image verify %s --heal-from DISK` takes it from a disk that holds the image", some(left, i.More), i.Image))
		}
	}
}

// some joins the first sentences and counts the others.
func some(list []string, more int) string {
	const shown = 3
	if n := len(list); n > shown {
		list, more = list[:shown], more+n-shown
	}
	s := strings.Join(list, "; ")
	if more > 0 {
		s += fmt.Sprintf("; and %d more", more)
	}
	return s
}

// read returns when each image was verified; what cannot be read was never.
func (s *schedule) read() (last map[string]time.Time) {
	b, err := os.ReadFile(s.path)
	if err == nil {
		err = json.Unmarshal(b, &last)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("the times of verifications are lost; images are verified again", "err", err)
	}
	return last
}

// write keeps when each image was verified. It may be lost: then images are verified once more.
func (s *schedule) write(last map[string]time.Time) error {
	b, err := json.Marshal(last)
	if err != nil {
		return err
	}
	part := s.path + ".part"
	if err := os.WriteFile(part, b, 0o600); err != nil {
		return err
	}
	return os.Rename(part, s.path)
}

// openSchedule adds the upkeep of the repository to what runs.
func (a *appliance) openSchedule() {
	s := &schedule{
		lib: a.lib, note: a.fleet.Note, log: a.log, path: filepath.Join(a.config.Data, "verified.json"), first: time.Hour,
		pruneEvery: a.config.PruneEvery, verifyRate: a.config.VerifyRate, verifyEvery: 7 * 24 * time.Hour, lookEvery: time.Hour,
	}
	a.parts = append(a.parts, s.Run)
}
