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
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

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
	// ID is the appliance's, unlike that of any other of the site; empty is "appliance".
	ID        string
	Records   Records
	Authority Authority
	Library   Library
	// Admit is AdmitAsk if empty.
	Admit Admit
	// Self is what this appliance says of itself to the others of its site; nil says nothing. ID and Version are not read.
	Self *Appliance
	// Appliances are the base URLs by which agents reach the site: "https://10.77.0.1:443".
	Appliances []string
	// Seeds are the addresses of the appliances' seeders.
	Seeds []netip.AddrPort
	// Transport is how machines use the network for content.
	Transport job.Transport
	// Wake sends the packet that wakes a machine to the networks with these broadcast addresses; none are all that the appliance
	// is in. nil is an appliance that wakes nobody.
	Wake func(mac net.HardwareAddr, to []netip.Addr) error
	// MayReach reports whether a machine with these names (see Fleet.Names), at this address, may be told of a seeder before
	// it announced; nil means that each may be told of all. It must not call the fleet.
	MayReach func(names []string, at netip.Addr, seeder netip.AddrPort) bool
	// Tell returns what else this appliance tells the others of its site every few seconds, as JSON, and Hear is given what one of
	// them told, on one goroutine; nil is nothing.
	Tell func() []byte
	Hear func(doc []byte)
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
	// Needed returns the length in bytes of the smallest disk that holds an image and its table; nil is the end of its partitions.
	Needed func(ctx context.Context, image *Image) (int64, error)
	// Weigh returns what a machine that holds the image from, zero for none, has to fetch of each partition of another one, in the
	// order of its manifest; nil counts all data, whatever a machine holds.
	Weigh func(ctx context.Context, from, to images.Digest) ([]Weight, error)
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
	// started is when this appliance began, by its clock.
	started time.Time

	asking sync.Mutex // guards asked and atWork
	asked  []*asked
	atWork bool

	// writing is held across changes and their transaction, and while others' changes are taken over: one after the other.
	writing sync.Mutex
	strays  strays
	office  atomic.Pointer[Office] // as this appliance saw it last

	mu       sync.RWMutex      // guards what follows; held for moments, never during I/O
	number   int64             // of the last commit that is in state
	state    records           // pointers are to records that are never changed
	open     map[string]*Job   // the jobs of state that have not ended
	todo     map[string][]*Job // the same by machine
	live     map[string]live   // last report by job ID
	hints    map[string][]byte // last bitmap of held pieces that was reported, by ID of an open job
	sights   map[string]sight  // how far machines are on their way, by MAC
	revision int64             // raised with every change of what the queue decides by
	claims   map[string]int    // agents that ask for a job, by machine
	// strangers are those of claims whose machine nobody had admitted when they began.
	strangers int
	changed   chan struct{}         // closed and replaced at every change
	keys      map[string]string     // session ID by public key
	traits    traits                // of the machines of state
	crowd     crowd                 // of those that no person admitted
	beat      int64                 // of what the other appliances are told
	peers     map[string]*neighbour // the other appliances, by ID
	screens   map[string]screen     // what machines' screens say, by ID
	seen      map[string]time.Time  // last time that anything was heard of a machine, by ID

	deciding sync.Mutex
	turns    *turns // what the queue decided last

	guesses guesses
	tellers *tellers
	looking sync.Mutex // guards looked, and is held while this appliance looks
	looked  time.Time  // for a stranger's sake, by the host's clock

	needs map[images.InfoHash]need // swarms that guests need
	nodes map[string]*node         // seed nodes by ID of the guest

	accused  map[string]*accused // peers that others barred, by who they are and the image
	accusers map[string]int      // of how many each session said so
	barred   map[string][]string // what is said against machines, by job; the lists are never changed

	traffic    Traffic // of the machines that report here
	maxPending int     // constant, but in tests
}

// records are the durable records by ID.
type records struct {
	machines    map[string]*Machine
	jobs        map[string]*Job
	deployments map[string]*Deployment
	sessions    map[string]*Session
	tokens      map[string]*Token
	others      map[Key]Record // of all other kinds
}

func newRecords() records {
	return records{map[string]*Machine{}, map[string]*Job{}, map[string]*Deployment{}, map[string]*Session{}, map[string]*Token{}, map[Key]Record{}}
}

// live is the last report of a job.
type live struct {
	report  job.Report
	at      time.Time
	reports int64     // that came to this appliance itself; 0 of what another one told
	back    time.Time // last one of a machine that is there again, while its job waits for a place
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
	if config.ID == "" {
		config.ID = "appliance"
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
		config: config, log: config.Log, now: config.Now, changed: make(chan struct{}), open: map[string]*Job{}, todo: map[string][]*Job{},
		live: map[string]live{}, hints: map[string][]byte{}, sights: map[string]sight{}, keys: map[string]string{}, traits: traits{}, seen: map[string]time.Time{}, screens: map[string]screen{},
		state: newRecords(), needs: map[images.InfoHash]need{}, nodes: map[string]*node{}, peers: map[string]*neighbour{}, claims: map[string]int{},
		accused: map[string]*accused{}, accusers: map[string]int{}, barred: map[string][]string{}, maxPending: maxGreeted,
		tellers: newTellers(), strays: newStrays(),
	}
	f.started = f.now()
	f.office.Store(&Office{})
	if !config.Records.Shared() { // nobody else could be in office
		if err := f.attendOffice(ctx, new(watch)); err != nil {
			return nil, fmt.Errorf("take over the records: %w", err)
		}
	}
	snap, err := config.Records.Load(ctx, f.now().Add(-jobHistory))
	if err != nil {
		return nil, fmt.Errorf("load the records: %w", err)
	}
	f.number = snap.Number
	f.apply(snap.Put, nil)
	if err := sameSite(f.state.others[identityKey], config.Authority.Fingerprint()); err != nil {
		return nil, err
	}
	for _, j := range f.state.jobs {
		// An agent that was at work before the appliance stopped has the full time to report again.
		f.live[j.ID] = live{report: j.Last, at: f.now()}
	}
	f.recall(ctx)
	return f, nil
}

// Run schedules the site, or stands by where another appliance does, until ctx is done.
func (f *Fleet) Run(ctx context.Context) error {
	if err := f.claimRecords(ctx); err != nil {
		return err
	}
	if err := f.appear(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.keepOffice(ctx) })
	g.Go(func() error { return f.tidyAlways(ctx) })
	g.Go(func() error { return f.retainAlways(ctx) })
	if f.config.Records.Shared() {
		g.Go(func() error { return f.follow(ctx) })
		g.Go(func() error { return f.attend(ctx) })
	} else {
		g.Go(func() error { return f.remember(ctx) })
	}
	return g.Wait()
}

// tidyAlways expires claims and forgets old boots until ctx is done.
func (f *Fleet) tidyAlways(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var o outage
	forgot := f.now().Add(forgetFirst - forgetEvery)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		o.note(ctx, f.log, slog.LevelError, "records cannot be written", "records can be written again", f.tidy(ctx))
		if now := f.now(); now.Sub(forgot) > forgetEvery {
			forgot = now
			f.forgetOld(now)
		}
	}
}

// retainAlways deletes what was kept long enough until ctx is done. A lot of it takes long: what tidies each second does not wait for it.
func (f *Fleet) retainAlways(ctx context.Context) error {
	wait := time.NewTimer(forgetFirst)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wait.C:
		}
		if err := f.retain(ctx); err != nil && ctx.Err() == nil {
			f.log.Error("what was kept long enough cannot be deleted", "err", err)
		}
		wait.Reset(forgetEvery)
	}
}

// Changed returns a channel that is closed at the next change of a record.
func (f *Fleet) Changed() <-chan struct{} {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.changed
}

// Written returns the number of the last commit that this appliance knows of, its own or another's: while it stays the same so do all
// records, events and jobs that have ended included. Safe for concurrent use.
func (f *Fleet) Written() int64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.number
}

// apply makes what was committed visible. The caller holds mu and writing, or is New.
func (f *Fleet) apply(put []Record, remove []Key) {
	for _, r := range put {
		switch r := r.(type) {
		case *Machine:
			f.traits.put(r.ID, f.state.machines[r.ID], r)
			f.crowd.move(f.state.machines[r.ID], r)
			f.state.machines[r.ID] = r
		case *Job:
			f.applyJob(r)
		case *Deployment:
			f.state.deployments[r.ID] = r
		case *Session:
			f.state.sessions[r.ID] = r
			if r.Key != "" {
				f.keys[r.Key] = r.ID
			}
		case *Token:
			f.state.tokens[r.ID] = r
		default:
			f.state.others[r.Ref()] = r
		}
	}
	for _, k := range remove {
		switch k.Kind {
		case KindMachine:
			f.traits.put(k.ID, f.state.machines[k.ID], nil)
			f.crowd.move(f.state.machines[k.ID], nil)
			delete(f.state.machines, k.ID)
			delete(f.seen, k.ID)
			delete(f.screens, k.ID)
		case KindJob:
			f.forgetJob(k.ID)
		case KindDeployment:
			delete(f.state.deployments, k.ID)
		case KindSession:
			if s := f.state.sessions[k.ID]; s != nil && f.keys[s.Key] == k.ID {
				delete(f.keys, s.Key)
			}
			delete(f.state.sessions, k.ID)
		case KindToken:
			delete(f.state.tokens, k.ID)
		default:
			delete(f.state.others, k)
		}
	}
}

// applyJob makes a job visible. The caller holds mu and writing, or is New.
func (f *Fleet) applyJob(j *Job) {
	had := f.open[j.ID]
	if had != nil {
		f.undo(had)
	}
	if j.State.Ended() {
		f.state.jobs[j.ID] = j
		delete(f.hints, j.ID)
		return
	}
	if j.atWork() && (had == nil || !had.atWork() || had.Epoch != j.Epoch) {
		// It began just now, perhaps at another appliance: the machine has the full time to report, by this appliance's clock.
		f.live[j.ID] = live{report: j.Last, at: f.now(), reports: f.live[j.ID].reports}
	}
	f.state.jobs[j.ID], f.open[j.ID] = j, j
	f.todo[j.Machine] = append(f.todo[j.Machine], j)
}

// undo takes a job from those that have not ended. The caller holds mu and writing, or is New.
func (f *Fleet) undo(j *Job) {
	delete(f.open, j.ID)
	list := slices.DeleteFunc(f.todo[j.Machine], func(o *Job) bool { return o.ID == j.ID })
	if f.todo[j.Machine] = list; len(list) == 0 {
		delete(f.todo, j.Machine)
	}
}

// forgetJob takes a job out of the memory. The caller holds mu and writing.
func (f *Fleet) forgetJob(id string) {
	if j := f.open[id]; j != nil {
		f.undo(j)
	}
	delete(f.state.jobs, id)
	delete(f.hints, id)
	delete(f.live, id)
	delete(f.barred, id)
}

// forgetOld takes the jobs out of the memory that ended longer ago than jobHistory. Those of an open deployment to all
// machines stay: they say which machines had it.
func (f *Fleet) forgetOld(now time.Time) {
	f.writing.Lock()
	defer f.writing.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, j := range f.state.jobs {
		if !j.State.Ended() || now.Sub(j.Ended) < jobHistory {
			continue
		}
		if dep := f.state.deployments[j.Deployment]; dep == nil || !dep.All || dep.Closed {
			f.forgetJob(id)
		}
	}
}

// forgetEvery is how often old jobs are looked for, forgetFirst when after the start: an appliance that is often started looks too.
const (
	forgetEvery = time.Hour
	forgetFirst = 5 * time.Minute
)

// get returns a record, or nil.
func (s *records) get(k Key) Record {
	switch k.Kind {
	case KindMachine:
		return orNil(s.machines[k.ID])
	case KindJob:
		return orNil(s.jobs[k.ID])
	case KindDeployment:
		return orNil(s.deployments[k.ID])
	case KindSession:
		return orNil(s.sessions[k.ID])
	case KindToken:
		return orNil(s.tokens[k.ID])
	}
	return s.others[k]
}

func orNil[T any, R interface {
	*T
	Record
}](r R) Record {
	if r == nil {
		return nil
	}
	return r
}

// newID returns 12 random hexadecimal digits.
func newID() string {
	var b [6]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
