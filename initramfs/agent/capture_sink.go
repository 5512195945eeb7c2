package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/intake"
)

// sink is the appliance's repository as a capture sees it (intake.Sink): over HTTPS, with uploads beside the reading, and
// through restarts of the appliance, after which it begins anew and sends only what did not arrive. Safe for concurrent use.
type sink struct {
	c      *capturing
	client *client
	ctx    context.Context // of uploads, which outlive the call that began them; ends with Close
	cancel context.CancelFunc

	beginning sync.Mutex // held while a session begins

	mu        sync.Mutex // guards everything below
	id        string     // of the session, "" before the first
	sessions  int        // begun so far
	published *intake.Published
	pending   map[images.TileKey]struct{} // tiles in batches that the appliance has not taken yet
	err       error                       // the first of an upload; what comes later is refused with it

	filling sync.Mutex  // held by Put and Commit
	batch   *batch      // being filled; nil if none; guarded by filling
	free    chan *batch // that are in nobody's hands
	uploads sync.WaitGroup
}

var _ intake.Sink = (*sink)(nil)

// connections is how many requests travel at once: uploads, and a question of each core that reads.
const connections = 16

func newSink(ctx context.Context, c *capturing) *sink {
	c.a.client.mu.Lock()
	defer c.a.client.mu.Unlock()
	t := c.a.client.http.Transport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = 0 // each request has its own: a commit takes minutes
	t.MaxIdleConnsPerHost, t.ExpectContinueTimeout = connections, tilesTimeout/2
	own := &client{fingerprint: c.a.client.fingerprint, key: c.a.client.key, appliances: slices.Clone(c.a.client.appliances),
		http: &http.Client{Transport: asking{t}}, clockSet: c.a.client.clockSet}
	s := &sink{c: c, client: own, pending: map[images.TileKey]struct{}{}, free: make(chan *batch, batches)}
	s.ctx, s.cancel = context.WithCancel(ctx)
	for range batches {
		s.free <- new(batch)
	}
	return s
}

// asking waits for the appliance's word before it sends a long body (RFC 9110 §10.1.1): the appliance takes few at a
// time, and a capture that it does not know it refuses without any.
type asking struct{ *http.Transport }

// longBody is what is sent without asking, in bytes.
const longBody = 256 << 10

func (a asking) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.ContentLength > longBody {
		r = r.Clone(r.Context())
		r.Header.Set("Expect", "100-continue")
	}
	return a.Transport.RoundTrip(r)
}

// Times that one attempt at a request may take.
const (
	askTimeout    = time.Minute
	tilesTimeout  = 5 * time.Minute // others' uploads may come first
	commitTimeout = time.Hour       // 2 TiB of hashes travel, and are hashed
)

// maxFailed is how often the appliance may say that it could not do its part before the capture fails: some two minutes of
// storage that is away. An appliance that does not answer at all is waited for.
const maxFailed = 50

// codeInternal is the appliance's word for a failure of its own.
const codeInternal = "internal"

// begin begins a session, unless another one than old has begun meanwhile.
func (s *sink) begin(ctx context.Context, old string) error {
	s.beginning.Lock()
	defer s.beginning.Unlock()
	if s.session() != old {
		return nil
	}
	body, err := json.Marshal(job.CaptureBegin{Job: s.c.j.ID, Epoch: s.c.j.Epoch})
	if err != nil {
		return err
	}
	var answer job.CaptureSession
	_, err = s.send(ctx, "begin the capture", http.MethodPost, job.PathCaptures, "application/json", askTimeout, body, &answer)
	if err != nil {
		return err
	}
	if answer.ID == "" && answer.Published == nil {
		return &Failure{Code: "appliance-error", Sentence: "the appliance began a capture without a name; give it and its initramfs the same version"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.id, s.published = answer.ID, answer.Published
	s.sessions++
	return nil
}

// session returns the ID of the present session.
func (s *sink) session() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// errAnew says that the session had expired and another one has begun: what was asked is to be asked again.
var errAnew = errors.New("the capture began anew")

// ask sends one request about the session.
func (s *sink) ask(ctx context.Context, what, path, contentType string, timeout time.Duration, body []byte) ([]byte, error) {
	if err := s.c.gate(ctx); err != nil {
		return nil, err
	}
	id := s.session()
	answer, err := s.send(ctx, what, http.MethodPost, job.PathCaptures+"/"+id+path, contentType, timeout, body, nil)
	if p := refused(err); p != nil && p.Code == job.CodeCaptureExpired {
		s.c.a.log.Debug("the appliance was restarted; the capture goes on with what it has")
		if err := s.begin(ctx, id); err != nil {
			return nil, err
		}
		return nil, errAnew
	}
	return answer, err
}

// send sends one request until the appliance answers it. Refusals that no later request changes come back as failures,
// those about the session as they are. into, where not nil, takes a JSON answer.
func (s *sink) send(ctx context.Context, what, method, path, contentType string, timeout time.Duration, body []byte, into any) (answer []byte, err error) {
	var final error
	failed := 0 // answers that say that the appliance could not
	err = s.c.a.retry(ctx, what, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		_, b, _, err := s.client.do(ctx, method, path, contentType, body, maxAnswer)
		if p := (*problem)(nil); errors.As(err, &p) {
			if p.Code == codeInternal {
				failed++
			}
			if p.Code == job.CodeRepositoryFull || failed == maxFailed {
				final = err
				return nil
			}
		}
		answer = b
		if err == nil && into != nil {
			err = json.Unmarshal(b, into)
		}
		return err
	})
	if err == nil {
		err = final
	}
	p := (*problem)(nil)
	if !errors.As(err, &p) {
		return answer, err
	}
	switch p.Code {
	case job.CodeCaptureExpired:
		return nil, err
	case job.CodeTilesMissing:
		return nil, fmt.Errorf("%w: %s", intake.ErrMissing, p.Error())
	}
	if f := s.c.over(p); f != nil {
		return nil, f
	}
	return nil, &Failure{Code: p.Code, Sentence: "the appliance does not take the capture: " + p.Error(), Err: err}
}

// Have implements intake.Sink. Tiles on their way count as had.
func (s *sink) Have(ctx context.Context, keys []images.TileKey) ([]bool, error) {
	for {
		list, err := s.has(ctx, keys)
		if errors.Is(err, errAnew) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, k := range keys {
			if _, ok := s.pending[k]; ok {
				list[i] = true
			}
		}
		return list, s.err
	}
}

// has asks the appliance once.
func (s *sink) has(ctx context.Context, keys []images.TileKey) ([]bool, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	answer, err := s.ask(ctx, "say what it has", job.PathCaptureHave, "application/octet-stream", askTimeout, intake.EncodeKeys(keys))
	if err != nil {
		return nil, err
	}
	return intake.DecodeBits(answer, len(keys))
}

// Commit implements intake.Sink. The last tiles have arrived before the description is sent.
func (s *sink) Commit(ctx context.Context, spec *intake.Spec) (*intake.Published, error) {
	if err := s.flush(); err != nil {
		return nil, err
	}
	s.c.enter(job.PhaseCommit, "image "+s.c.j.Capture.Name)
	body, err := spec.Encode()
	if err != nil {
		return nil, err
	}
	kept := 1 // sessions up to this one have been told of every tile
	for {
		s.mu.Lock()
		number, done := s.sessions, s.published
		s.mu.Unlock()
		if done != nil {
			return done, nil
		}
		if number > kept {
			kept = number
			if err := s.pin(ctx, spec); errors.Is(err, errAnew) {
				continue
			} else if err != nil {
				return nil, err
			}
		}
		answer, err := s.ask(ctx, "publish the image", job.PathCaptureCommit, "application/cbor", commitTimeout, body)
		if errors.Is(err, errAnew) {
			continue
		}
		if err != nil {
			return nil, err
		}
		p := new(intake.Published)
		if err := json.Unmarshal(answer, p); err != nil {
			return nil, fmt.Errorf("answer of the appliance to the commit: %w", err)
		}
		return p, nil
	}
}

// pin asks for every tile of an image, so that a session that began late keeps them too.
func (s *sink) pin(ctx context.Context, spec *intake.Spec) error {
	for i := range spec.Partitions {
		p := &spec.Partitions[i]
		m, err := images.DecodeMap(p.Map)
		if err != nil {
			return err
		}
		last := images.TileCount(p.Length) - 1
		tail := int32(images.TileLength)
		if m.State(last) == images.TileData {
			tail = int32(p.Length - last*images.TileLength)
		}
		for b := p.Tiles; len(b) > 0; {
			n := min(len(b)/len(images.Digest{}), intake.MaxHave)
			keys := make([]images.TileKey, n)
			for k := range keys {
				keys[k] = images.TileKey{Hash: images.Digest(b[:32]), Length: images.TileLength}
				if b = b[32:]; len(b) == 0 {
					keys[k].Length = tail
				}
			}
			list, err := s.has(ctx, keys)
			if err != nil {
				return err
			}
			if slices.Contains(list, false) {
				return fmt.Errorf("%w since the appliance was restarted", intake.ErrMissing)
			}
		}
	}
	return nil
}

// Close implements intake.Sink: it ends the uploads and gives the session up.
func (s *sink) Close() error {
	s.cancel()
	s.uploads.Wait()
	if id := s.session(); id != "" {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, _, _, _ = s.client.do(ctx, http.MethodDelete, job.PathCaptures+"/"+id, "", nil, maxAnswer) // it would expire
	}
	s.client.http.CloseIdleConnections()
	return nil
}
