package upload

import (
	"context"
	"errors"
	"fmt"

	"seedbed/appliance/fleet"
	"seedbed/images/intake"
)

// Commit publishes the image of a capture and ends its job. Asked again it answers the same, since an answer may be
// lost. It goes on when the caller is gone. Errors that are refusals have published nothing.
func (u *Uploads) Commit(ctx context.Context, c fleet.Caller, id string, spec *intake.Spec) (*intake.Published, error) {
	s, done, err := u.use(c, id)
	if err != nil {
		return nil, err
	}
	defer done()
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx = context.WithoutCancel(ctx)
	for s.published == nil {
		if s.sink == nil {
			return nil, expired()
		}
		p, err := u.publish(ctx, c, s, spec)
		if errors.Is(err, intake.ErrVersionExists) {
			err = u.reopen(ctx, c, s)
		}
		if err != nil {
			return nil, refusal(err)
		}
		s.published = p
	}
	if err := u.config.Fleet.Captured(ctx, s.job, s.published); err != nil {
		return nil, err
	}
	if err := s.close(); err != nil {
		u.config.Log.Warn("capture not closed", "job", s.job, "err", err)
	}
	return s.published, nil
}

// publish makes the image under the job's present version, once the records say that it will.
func (u *Uploads) publish(ctx context.Context, c fleet.Caller, s *session, spec *intake.Spec) (*intake.Published, error) {
	j, err := u.config.Fleet.Capturing(c, s.job, s.epoch)
	if err != nil {
		return nil, err
	}
	m, _, err := intake.Assemble(spec, j.Capture.Name, j.Capture.Version)
	if err != nil {
		return nil, &fleet.Refusal{Code: CodeSpecWrong, Detail: fmt.Sprintf("the description of the image is wrong: %v", err)}
	}
	_, digest, err := m.Encode()
	if err != nil {
		return nil, &fleet.Refusal{Code: CodeSpecWrong, Detail: fmt.Sprintf("the description of the image is wrong: %v", err)}
	}
	if _, err := u.config.Fleet.Intend(ctx, c, s.job, s.epoch, digest); err != nil {
		return nil, err
	}
	// The image may get another time than was meant, and so another digest, where a leftover of it is being removed.
	return s.sink.Commit(ctx, spec)
}

// reopen gives a session whose version was taken meanwhile another one, if its job allows that. The caller holds s.mu.
func (u *Uploads) reopen(ctx context.Context, c fleet.Caller, s *session) error {
	j, err := u.config.Fleet.Renumber(ctx, c, s.job, s.epoch)
	if err != nil {
		return err
	}
	sink, err := u.open(ctx, c, j)
	if err != nil {
		return err
	}
	if err := s.close(); err != nil {
		u.config.Log.Warn("capture not closed", "job", s.job, "err", err)
	}
	s.sink = sink
	return nil
}
