// Package fleet owns machines, jobs and deployments at run time: what a machine boots into, which job it gets, what its
// reports change, when it may go.
//
// All records are held in memory; what must survive goes through Records in one transaction and becomes visible only
// when that is durable. Reports of every second change memory alone: a record changes when the state or the phase of a
// job does.
package fleet

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
)

// Admit says what happens to a machine that was never seen before.
type Admit string

const (
	// AdmitAsk shows its inventory until a person admits it by the code on its screen.
	AdmitAsk Admit = "ask"
	// AdmitAuto admits every machine at first sight: for labs.
	AdmitAuto Admit = "auto"
)

// Authority issues and signs in the site's name. Safe for concurrent use.
type Authority interface {
	// Machine returns a certificate (DER) for a machine's public key (PKIX DER) that carries the URIs.
	Machine(publicKey []byte, now time.Time, uris ...string) ([]byte, error)
	// Guest returns a certificate (DER) for a guest's public key that is good until a time and for no server.
	Guest(publicKey []byte, until time.Time, uris ...string) ([]byte, error)
	Countersign(receipt []byte) []byte
	CA() *x509.Certificate
	PublicKey() ed25519.PublicKey
	Fingerprint() images.Digest
}

// Image is what the fleet knows of an image.
type Image struct {
	Digest   images.Digest
	Manifest *images.Manifest
	InfoHash images.InfoHash
}

// Name is "name:version".
func (i *Image) Name() string { return i.Manifest.Name + ":" + i.Manifest.Version }

// Library finds images. Safe for concurrent use.
type Library interface {
	// Image returns the image that ref names: name, name:version, or the beginning of a digest.
	Image(ctx context.Context, ref string) (*Image, error)
}

// Config of a fleet. Records, Authority and Library are needed.
type Config struct {
	Records   Records
	Authority Authority
	Library   Library
	// Admit is AdmitAsk if empty.
	Admit Admit
	// Appliances are the base URLs by which agents reach the site: "https://10.77.0.1:443".
	Appliances []string
	// Seeds are the addresses of the appliances' seeders.
	Seeds []netip.AddrPort
	// Transport is how machines use the network for content.
	Transport job.Transport
	// MayReach reports whether a machine with these names (see Fleet.Names), at this address, may be told of a seeder before
	// it announced; nil means that each may be told of all. It must not call the fleet.
	MayReach func(names []string, at netip.Addr, seeder netip.AddrPort) bool
	// InfoHashURI names a swarm in a certificate.
	InfoHashURI func(images.InfoHash) string
	// PartURI marks in a certificate who wants a part of the content only.
	PartURI string
	// SeedURI marks in a certificate who may hand out beside the appliance.
	SeedURI string
	// NextVersion returns the whole number after the versions of the image of that name; nil means that a capture needs a version.
	NextVersion func(ctx context.Context, name string) (string, error)
	// FreeVersion returns a Refusal unless the version can be made now; nil means that Library alone tells.
	FreeVersion func(ctx context.Context, name, version string) error
	// ClaimPoll is how long a claim waits for a job; 0 is 20 s.
	ClaimPoll time.Duration
	// ClaimExpires is after how long without a report a job goes back to Waiting; 0 is 90 s: a report is due each second,
	// and an appliance that was switched off may take a minute to come back.
	ClaimExpires time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Log may be nil.
	Log *slog.Logger
}

// Fleet is safe for concurrent use.
type Fleet struct {
	config Config
	log    *slog.Logger
	now    func() time.Time
	epoch  int64 // the scheduler's, constant with SQLite

	// writing is held across a change and its transaction: changes happen one after the other.
	writing sync.Mutex

	mu      sync.RWMutex         // guards what follows; held for moments, never during I/O
	state   records              // pointers are to records that are never changed
	open    map[string]*Job      // the jobs of state that have not ended
	live    map[string]live      // last report by job ID
	hints   map[string][]byte    // last bitmap of held pieces that was reported, by ID of an open job
	sights  map[string]sight     // how far machines are on their way, by MAC
	changed chan struct{}        // closed and replaced at every change
	keys    map[string]string    // session ID by public key
	seen    map[string]time.Time // last time that anything was heard of a machine, by ID

	needs map[images.InfoHash]need // swarms that guests need
	nodes map[string]*node         // seed nodes by ID of the guest
	warm  []warmed                 // images that all seed nodes are to hold
	drop  []images.Digest          // images of which they are to keep nothing

	accused map[string]*accused // peers that others barred, by who they are and the image
}

// records are the durable records by ID.
type records struct {
	machines    map[string]*Machine
	jobs        map[string]*Job
	deployments map[string]*Deployment
	sessions    map[string]*Session
	tokens      map[string]*Token
}

// live is the last report of a job.
type live struct {
	report job.Report
	at     time.Time
}

// jobHistory is how long a job that has ended stays in memory and in listings.
const jobHistory = 30 * 24 * time.Hour

// New loads the records. Nothing is started.
func New(ctx context.Context, config Config) (*Fleet, error) {
	if config.Admit == "" {
		config.Admit = AdmitAsk
	}
	if config.Admit != AdmitAsk && config.Admit != AdmitAuto {
		return nil, fmt.Errorf("admission %q is neither ask nor auto", config.Admit)
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.ClaimPoll == 0 {
		config.ClaimPoll = 20 * time.Second
	}
	if config.ClaimExpires == 0 {
		config.ClaimExpires = 90 * time.Second
	}
	f := &Fleet{
		config: config, log: config.Log, now: config.Now, changed: make(chan struct{}), open: map[string]*Job{},
		live: map[string]live{}, hints: map[string][]byte{}, sights: map[string]sight{}, keys: map[string]string{}, seen: map[string]time.Time{},
		state: records{map[string]*Machine{}, map[string]*Job{}, map[string]*Deployment{}, map[string]*Session{}, map[string]*Token{}},
		needs: map[images.InfoHash]need{}, nodes: map[string]*node{}, accused: map[string]*accused{},
	}
	snap, err := config.Records.Load(ctx, f.now().Add(-jobHistory))
	if err != nil {
		return nil, fmt.Errorf("load the records: %w", err)
	}
	f.epoch = snap.Epoch
	f.apply(&Change{Machines: snap.Machines, Jobs: snap.Jobs, Deployments: snap.Deployments, Sessions: snap.Sessions, Tokens: snap.Tokens})
	for _, j := range snap.Jobs {
		// An agent that was at work before the appliance stopped has the full time to report again.
		f.live[j.ID] = live{report: j.Last, at: f.now()}
	}
	return f, nil
}

// Run expires claims and forgets old boots until ctx is done.
func (f *Fleet) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := f.tidy(ctx); err != nil && ctx.Err() == nil {
			f.log.Error("records cannot be written", "err", err)
		}
	}
}

// Changed returns a channel that is closed at the next change of a record.
func (f *Fleet) Changed() <-chan struct{} {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.changed
}

// draft collects what one change writes. Its readers see what it already holds.
type draft struct {
	f *Fleet
	c Change
}

// change runs fn and writes what it put into the draft in one transaction; an error of fn, or of the transaction,
// leaves everything as it was. fn must not block on anything but memory.
func (f *Fleet) change(ctx context.Context, fn func(d *draft) error) error {
	f.writing.Lock()
	defer f.writing.Unlock()
	d := &draft{f: f, c: Change{Epoch: f.epoch}}
	if err := fn(d); err != nil {
		return err
	}
	if len(d.c.Machines)+len(d.c.Jobs)+len(d.c.Deployments)+len(d.c.Sessions)+len(d.c.Forget)+len(d.c.Events)+
		len(d.c.Frames)+len(d.c.Receipts)+len(d.c.Tokens)+len(d.c.Spent) == 0 {
		return nil
	}
	// The caller may be gone before the transaction ends; half of a change is no use to anyone else either.
	if err := f.config.Records.Commit(context.WithoutCancel(ctx), &d.c); err != nil {
		return fmt.Errorf("write the records: %w", err)
	}
	f.mu.Lock()
	f.apply(&d.c)
	close(f.changed)
	f.changed = make(chan struct{})
	f.mu.Unlock()
	for _, e := range d.c.Events {
		f.log.Info(e.Text, "event", e.Kind, "machine", e.Machine, "job", e.Job)
	}
	return nil
}

// apply makes records visible. The caller holds mu, or is New.
func (f *Fleet) apply(c *Change) {
	for _, m := range c.Machines {
		f.state.machines[m.ID] = m
	}
	for _, j := range c.Jobs {
		f.state.jobs[j.ID] = j
		if j.State.Ended() {
			delete(f.open, j.ID)
			delete(f.hints, j.ID)
		} else {
			f.open[j.ID] = j
		}
	}
	for _, d := range c.Deployments {
		f.state.deployments[d.ID] = d
	}
	for _, s := range c.Sessions {
		f.state.sessions[s.ID] = s
		if s.Key != "" {
			f.keys[s.Key] = s.ID
		}
	}
	for _, t := range c.Tokens {
		f.state.tokens[t.ID] = t
	}
	for _, id := range c.Spent {
		delete(f.state.tokens, id)
	}
	for _, id := range c.Forget {
		if s := f.state.sessions[id]; s != nil {
			delete(f.keys, s.Key)
		}
		delete(f.state.sessions, id)
	}
}

// The draft's readers hold writing and so read the maps of records without mu: only a change alters them.

func (d *draft) machine(id string) *Machine {
	for _, m := range d.c.Machines {
		if m.ID == id {
			return m
		}
	}
	return d.f.state.machines[id]
}

func (d *draft) job(id string) *Job {
	for _, j := range d.c.Jobs {
		if j.ID == id {
			return j
		}
	}
	return d.f.state.jobs[id]
}

// machines returns all machines that were not merged into another, as the draft has them.
func (d *draft) machines() (list []*Machine) {
	add := func(m *Machine) {
		if m.MergedInto == "" {
			list = append(list, m)
		}
	}
	drafted := map[string]bool{}
	for _, m := range d.c.Machines {
		drafted[m.ID] = true
		add(m)
	}
	for id, m := range d.f.state.machines {
		if !drafted[id] {
			add(m)
		}
	}
	return list
}

// jobs returns all jobs as the draft has them; openJobs leaves out those that had ended before it.
func (d *draft) jobs() []*Job     { return d.withDrafted(d.f.state.jobs) }
func (d *draft) openJobs() []*Job { return d.withDrafted(d.f.open) }

func (d *draft) withDrafted(of map[string]*Job) (list []*Job) {
	drafted := map[string]bool{}
	for _, j := range d.c.Jobs {
		drafted[j.ID] = true
		list = append(list, j)
	}
	for id, j := range of {
		if !drafted[id] {
			list = append(list, j)
		}
	}
	return list
}

// editMachine returns the draft's own copy of a machine, to be changed.
func (d *draft) editMachine(m *Machine) *Machine {
	for _, have := range d.c.Machines {
		if have.ID == m.ID {
			return have
		}
	}
	own := *m
	own.MACs = append([]string(nil), m.MACs...)
	d.c.Machines = append(d.c.Machines, &own)
	return &own
}

// editJob returns the draft's own copy of a job, to be changed.
func (d *draft) editJob(j *Job) *Job {
	for _, have := range d.c.Jobs {
		if have.ID == j.ID {
			return have
		}
	}
	own := *j
	d.c.Jobs = append(d.c.Jobs, &own)
	return &own
}

// editSession returns the draft's own copy of a session, to be changed.
func (d *draft) editSession(s *Session) *Session {
	for _, have := range d.c.Sessions {
		if have.ID == s.ID {
			return have
		}
	}
	own := *s
	d.c.Sessions = append(d.c.Sessions, &own)
	return &own
}

// event adds a dated fact.
func (d *draft) event(e Event) {
	e.At = d.f.now().UTC()
	d.c.Events = append(d.c.Events, e)
}

// newID returns 12 random hexadecimal digits.
func newID() string {
	var b [6]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
