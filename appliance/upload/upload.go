// Package upload takes the images that machines capture: each session of an agent is tied to its claimed job, every tile
// is checked before it is stored, and the image is published once, however often its commit is asked for.
package upload

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"sync"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images/intake"
)

// Config of Uploads. Fleet, Library, Begin and Sync are needed.
type Config struct {
	Fleet   *fleet.Fleet
	Library fleet.Library
	// Begin opens a session of the repository for one image.
	Begin func(ctx context.Context, name, version string) (intake.Sink, error)
	// Sync returns nil when every tile put before is durable.
	Sync func() error
	// Expires is after how long without a request a capture is forgotten; 0 is 10 minutes: an agent asks each second, and
	// one that is cut off for longer begins again and loses nothing.
	Expires time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Log may be nil.
	Log *slog.Logger
}

// Uploads are the captures under way. Safe for concurrent use.
type Uploads struct {
	config Config

	storing sync.Mutex // held by Put, so that the tiles of a machine lie together in their pack

	mu        sync.Mutex // guards what follows and the use of each session
	sessions  map[string]*session
	beginning map[string]chan struct{} // by job: closed when its capture has begun
}

// session is one capture of one boot of an agent.
type session struct {
	id    string
	job   string
	epoch int64
	slots chan struct{} // tile bodies that are read or stored now

	// Guarded by Uploads.mu.
	users int
	last  time.Time // end of the last request

	mu        sync.RWMutex // read-locked while sink works, locked while it is committed or closed; guards what follows
	sink      intake.Sink  // nil when closed
	published *intake.Published
}

// New returns Uploads; nothing is started.
func New(config Config) *Uploads {
	if config.Expires == 0 {
		config.Expires = 10 * time.Minute
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	return &Uploads{config: config, sessions: map[string]*session{}, beginning: map[string]chan struct{}{}}
}

// expireEvery is how often expired captures are looked for.
const expireEvery = 5 * time.Second

// Run forgets captures that are silent or whose job has ended, until ctx is done; then it closes all.
func (u *Uploads) Run(ctx context.Context) error {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			u.closeWhere(func(*session) bool { return true })
			return nil
		case <-tick.C:
			u.expire()
		}
	}
}

// expire closes the sessions that nobody uses any more.
func (u *Uploads) expire() {
	open := map[string]bool{}
	for _, id := range u.config.Fleet.OpenCaptures() {
		open[id] = true
	}
	now := u.config.Now()
	u.closeWhere(func(s *session) bool {
		silent := now.Sub(s.last)
		return s.users == 0 && (silent > u.config.Expires || !open[s.job] && silent > expireEvery)
	})
}

// closeWhere forgets the sessions that gone chooses, which is called with mu held, and closes them.
func (u *Uploads) closeWhere(gone func(*session) bool) {
	var list []*session
	u.mu.Lock()
	for id, s := range u.sessions {
		if gone(s) {
			list = append(list, s)
			delete(u.sessions, id)
		}
	}
	u.mu.Unlock()
	for _, s := range list {
		s.mu.Lock()
		err := s.close()
		s.mu.Unlock()
		if err != nil {
			u.config.Log.Warn("capture not closed", "job", s.job, "err", err)
		}
	}
}

// close gives the sink back. The caller holds s.mu.
func (s *session) close() error {
	if s.sink == nil {
		return nil
	}
	err := s.sink.Close()
	s.sink = nil
	return err
}

// slotsEach is how many tile bodies of one machine are taken at once, so that a slow machine does not keep the others out.
const slotsEach = 2

// Begin begins the capture of a claimed job, in the place of an earlier beginning. Where the job has made its image
// already, the answer says so.
func (u *Uploads) Begin(ctx context.Context, c fleet.Caller, b job.CaptureBegin) (answer job.CaptureSession, err error) {
	if _, err := u.config.Fleet.Capturing(c, b.Job, b.Epoch); err != nil {
		return answer, err
	}
	begun, err := u.alone(ctx, b.Job)
	if err != nil {
		return answer, err
	}
	defer begun()
	// An earlier beginning may be publishing its image: what came of that is known when it is closed.
	u.closeWhere(func(s *session) bool { return s.job == b.Job })
	j, err := u.config.Fleet.Capturing(c, b.Job, b.Epoch)
	if err != nil {
		return answer, err
	}
	answer.Expires = u.config.Expires
	if answer.Published, err = u.finished(ctx, j); answer.Published != nil || err != nil {
		return answer, err
	}
	sink, err := u.open(ctx, c, j)
	if err != nil {
		return answer, err
	}
	s := &session{id: newID(), job: j.ID, epoch: b.Epoch, slots: make(chan struct{}, slotsEach), last: u.config.Now(), sink: sink}
	u.mu.Lock()
	u.sessions[s.id] = s
	u.mu.Unlock()
	answer.ID = s.id
	return answer, nil
}

// alone waits until no other capture of a job begins: two would take the version from each other.
func (u *Uploads) alone(ctx context.Context, id string) (begun func(), err error) {
	for {
		u.mu.Lock()
		other := u.beginning[id]
		if other == nil {
			own := make(chan struct{})
			u.beginning[id] = own
			u.mu.Unlock()
			return func() {
				u.mu.Lock()
				delete(u.beginning, id)
				u.mu.Unlock()
				close(own)
			}, nil
		}
		u.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// finished returns the image of a job that has published it: by its record, or where the appliance was stopped before it
// could record that, by the image that it meant to publish.
func (u *Uploads) finished(ctx context.Context, j *fleet.Job) (*intake.Published, error) {
	if j.State == job.Succeeded {
		return &intake.Published{Digest: j.Image, Name: j.Capture.Name, Version: j.Capture.Version}, nil
	}
	if j.Capture.Intent.IsZero() {
		return nil, nil
	}
	image, err := u.config.Library.Image(ctx, j.ImageName)
	if r, ok := errors.AsType[*fleet.Refusal](err); ok && r.Code == fleet.CodeImageUnknown {
		return nil, nil
	}
	if err != nil || image.Digest != j.Capture.Intent {
		return nil, err
	}
	p := &intake.Published{Digest: image.Digest, Name: j.Capture.Name, Version: j.Capture.Version}
	return p, u.config.Fleet.Captured(ctx, j.ID, p)
}

// open opens a session of the repository, under the next version where the job's was taken meanwhile and is counted.
func (u *Uploads) open(ctx context.Context, c fleet.Caller, j *fleet.Job) (intake.Sink, error) {
	for {
		sink, err := u.config.Begin(ctx, j.Capture.Name, j.Capture.Version)
		if !errors.Is(err, intake.ErrVersionExists) {
			return sink, refusal(err)
		}
		if j, err = u.config.Fleet.Renumber(ctx, c, j.ID, j.Epoch); err != nil {
			return nil, err
		}
	}
}

// Close gives up a capture. One that is not there is no error.
func (u *Uploads) Close(c fleet.Caller, id string) error {
	s, done, err := u.use(c, id)
	if s == nil {
		if r, ok := errors.AsType[*fleet.Refusal](err); ok && r.Code == job.CodeCaptureExpired {
			return nil
		}
		return err
	}
	done()
	u.closeWhere(func(o *session) bool { return o == s })
	return nil
}

// use returns the caller's session and keeps it from expiring until done is called.
func (u *Uploads) use(c fleet.Caller, id string) (s *session, done func(), err error) {
	u.mu.Lock()
	s = u.sessions[id]
	if s != nil {
		s.users++
	}
	u.mu.Unlock()
	if s == nil {
		return nil, nil, expired()
	}
	done = func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		s.users--
		s.last = u.config.Now()
	}
	if _, err := u.config.Fleet.Capturing(c, s.job, s.epoch); err != nil {
		u.mu.Lock()
		s.users-- // a stranger's request keeps no session alive
		u.mu.Unlock()
		return nil, nil, err
	}
	return s, done, nil
}

// newID returns 32 random hexadecimal digits.
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
