package upload

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/intake"
)

// Codes of refusals, beside those of packages job and fleet.
const (
	CodeTileWrong   = "tile-wrong"   // a tile is not what its key names
	CodeSpecWrong   = "spec-wrong"   // a description contradicts itself
	CodeVersionBusy = "version-busy" // another capture makes the version now: ask again
)

// Slot waits until a body of tiles may be read, and returns what to call when it has been dealt with.
func (u *Uploads) Slot(ctx context.Context, c fleet.Caller, id string) (release func(), err error) {
	s, done, err := u.use(c, id)
	if err != nil {
		return nil, err
	}
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots; done() }, nil
	case <-ctx.Done():
		done()
		return nil, ctx.Err()
	}
}

// working calls fn with the session's sink.
func (u *Uploads) working(c fleet.Caller, id string, fn func(intake.Sink) error) error {
	s, done, err := u.use(c, id)
	if err != nil {
		return err
	}
	defer done()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.sink == nil {
		return expired()
	}
	return refusal(fn(s.sink))
}

// Have reports for each key whether the repository holds that tile, and keeps those that it holds.
func (u *Uploads) Have(ctx context.Context, c fleet.Caller, id string, keys []images.TileKey) (list []bool, err error) {
	return list, u.working(c, id, func(sink intake.Sink) error {
		list, err = sink.Have(ctx, keys)
		return err
	})
}

// Put decodes and hashes every tile, stores them and returns when they are durable. Where one is wrong none is stored.
func (u *Uploads) Put(ctx context.Context, c fleet.Caller, id string, tiles []intake.Tile) error {
	return u.working(c, id, func(sink intake.Sink) error {
		buf := make([]byte, 0, images.TileLength)
		var err error
		for i, t := range tiles {
			if buf, err = t.Check(buf); err != nil {
				return &fleet.Refusal{Code: CodeTileWrong, Detail: fmt.Sprintf("tile %d of the upload: %v; if it comes again, check the "+
					"machine's memory", i, err)}
			}
		}
		u.storing.Lock()
		err = sink.Put(ctx, tiles)
		u.storing.Unlock()
		if err != nil {
			return err
		}
		return u.config.Sync()
	})
}

func expired() error {
	return &fleet.Refusal{Code: job.CodeCaptureExpired, Detail: "the appliance does not know this capture; begin it again: what has arrived is kept"}
}

// refusal gives the errors of a repository that a machine or a person can act on their code; the others are the
// appliance's own.
func refusal(err error) error {
	code := ""
	switch {
	case err == nil:
		return nil
	case errors.Is(err, intake.ErrExpired):
		return expired()
	case errors.Is(err, intake.ErrMissing):
		code = job.CodeTilesMissing
	case errors.Is(err, intake.ErrFull), errors.Is(err, syscall.ENOSPC):
		code = job.CodeRepositoryFull
	case errors.Is(err, intake.ErrBusy):
		code = CodeVersionBusy
	case errors.Is(err, intake.ErrVersionExists):
		code = fleet.CodeVersionExists
	default:
		return err
	}
	return &fleet.Refusal{Code: code, Detail: err.Error()}
}
