package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Kind of a record.
type Kind string

const (
	KindMachine    Kind = "machine"
	KindJob        Kind = "job"
	KindDeployment Kind = "deployment"
	KindSession    Kind = "session"
	KindToken      Kind = "token"
	KindAppliance  Kind = "appliance"
	KindGroup      Kind = "group"
	KindSettings   Kind = "settings"
	KindUser       Kind = "user"
	KindAPIKey     Kind = "apikey"
	KindLogin      Kind = "login"
	KindIdentity   Kind = "identity"
	KindStanding   Kind = "standing"
	KindAlert      Kind = "alert"
	KindMessage    Kind = "message"
)

// Key names a record.
type Key struct {
	Kind Kind
	ID   string
}

// Record is what changes in the course of time and must survive the appliance. Once it is in a fleet it is never changed;
// a changed copy replaces it.
type Record interface {
	Ref() Key
	// Row is the version of the stored row; 0 is a record that was never stored.
	Row() *int64
	// Shelf says where queries look for the record.
	Shelf() Shelf
	// copy returns a copy that can be changed without changing the original.
	copy() Record
}

// Shelf is what queries ask for.
type Shelf struct {
	Owner  string    // ID of the record that its history is asked by: a job's machine
	Parent string    // ID of the record that it belongs to: a job's deployment
	Ended  time.Time // zero is never: such a record is loaded at the start
}

// NewRecord returns an empty record of a kind, to be decoded into.
func NewRecord(k Kind) (Record, error) {
	switch k {
	case KindMachine:
		return new(Machine), nil
	case KindJob:
		return new(Job), nil
	case KindDeployment:
		return new(Deployment), nil
	case KindSession:
		return new(Session), nil
	case KindToken:
		return new(Token), nil
	case KindAppliance:
		return new(Appliance), nil
	case KindGroup:
		return new(Group), nil
	case KindSettings:
		return new(Settings), nil
	case KindUser:
		return new(User), nil
	case KindAPIKey:
		return new(APIKey), nil
	case KindLogin:
		return new(Login), nil
	case KindIdentity:
		return new(Identity), nil
	case KindStanding:
		return new(Standing), nil
	case KindAlert:
		return new(Alert), nil
	case KindMessage:
		return new(Message), nil
	}
	return nil, fmt.Errorf("records of kind %q are not known to this version; all appliances of a site run one version", k)
}

func (m *Machine) Ref() Key    { return Key{KindMachine, m.ID} }
func (j *Job) Ref() Key        { return Key{KindJob, j.ID} }
func (d *Deployment) Ref() Key { return Key{KindDeployment, d.ID} }
func (s *Session) Ref() Key    { return Key{KindSession, s.ID} }
func (t *Token) Ref() Key      { return Key{KindToken, t.ID} }

func (m *Machine) Row() *int64    { return &m.Version }
func (j *Job) Row() *int64        { return &j.Version }
func (d *Deployment) Row() *int64 { return &d.Version }
func (s *Session) Row() *int64    { return &s.Version }
func (t *Token) Row() *int64      { return &t.Version }

func (m *Machine) Shelf() Shelf    { return Shelf{} }
func (d *Deployment) Shelf() Shelf { return Shelf{} }
func (s *Session) Shelf() Shelf    { return Shelf{Owner: s.Machine} }
func (t *Token) Shelf() Shelf      { return Shelf{} }
func (j *Job) Shelf() Shelf {
	s := Shelf{Owner: j.Machine, Parent: j.Deployment}
	if j.State.Ended() {
		s.Ended = j.Ended
	}
	return s
}

func (m *Machine) copy() Record {
	own := *m
	own.MACs, own.Groups, own.Booted = slices.Clone(m.MACs), slices.Clone(m.Groups), slices.Clone(m.Booted)
	return &own
}

func (j *Job) copy() Record        { own := *j; return &own }
func (d *Deployment) copy() Record { own := *d; return &own }
func (s *Session) copy() Record    { own := *s; return &own }
func (t *Token) copy() Record      { own := *t; return &own }

// Change is what one transaction writes.
type Change struct {
	// Base is the number of the last commit that the change was made in the knowledge of; a later one refuses it.
	Base int64
	// Epoch is the scheduler's, for what only the site's scheduler may decide; one that was fenced is refused. 0 is for
	// changes that any appliance may make.
	Epoch    int64
	Put      []Record // those of version 0 are inserted; others replace the row of that version
	Remove   []Key
	Events   []Event
	Frames   []Frame
	Receipts []Receipt
	// Unframe are the jobs whose frames are deleted.
	Unframe []string
	// Delete is what was kept long enough.
	Delete Deletion
}

// Deletion says what is deleted since it is old. Zero is nothing.
type Deletion struct {
	Jobs   []string // IDs of jobs that have ended; their receipts and frames go with them
	Events int64    // the events up to this ID
}

func (o *Deletion) empty() bool { return len(o.Jobs) == 0 && o.Events == 0 }

// empty reports whether there is nothing to be written.
func (c *Change) empty() bool {
	return len(c.Put)+len(c.Remove)+len(c.Events)+len(c.Frames)+len(c.Receipts)+len(c.Unframe) == 0 && c.Delete.empty()
}

// Snapshot is what a fleet begins with, or goes on with.
type Snapshot struct {
	Number int64 // of the last commit that is in it
	Put    []Record
	Remove []Key // of Since: what was removed
}

// Office is who schedules the site. A holder that beats is at work; others take over when Beat stands still.
type Office struct {
	Epoch  int64
	Holder string // ID of an appliance; "" if none ever held it
	Beat   int64
}

// Presence is what an appliance of a site tells the others of: it is no record, and each takes the place of the one before.
type Presence struct {
	Appliance string
	Beat      int64 // raised each time
	Doc       []byte
}

// EventQuery asks for events in ascending order of their IDs; zero fields ask for all.
type EventQuery struct {
	After      int64 // only higher IDs
	Before     int64 // only lower IDs; the answer is then the last ones before it
	Machine    string
	Job        string
	Deployment string
	Kind       string // or what is before the dot of one, with it: "machine."
	Actor      string
	Limit      int // 0 is 1000
}

// JobQuery asks for jobs that have ended, in the order of the second in which they did, the latest first, and of their IDs inside one.
type JobQuery struct {
	Machine    string
	Deployment string
	Before     time.Time // ended in an earlier second; zero is any
	// Behind is an ID: those too that ended in the second of Before and have a higher one. With the end and the ID of the last job of
	// a page it asks for what follows.
	Behind string
	Limit  int // 0 is 1000
}

// Errors of Records. Nothing was written, but for ErrUnsure.
var (
	ErrConflict = errors.New("the records were changed by another appliance")
	ErrFenced   = errors.New("another appliance schedules this site")
	// ErrUnsure is the one after which something may have been written all the same.
	ErrUnsure = errors.New("the database was lost while it wrote, and what was asked may have been done: look before you ask again")
	// ErrStale says that the changes since that number are not all kept any more; Load again.
	ErrStale = errors.New("the changes since then are not kept any more")
)

// Records keeps what must survive the appliance. Safe for concurrent use.
type Records interface {
	// Load returns all records but the jobs that ended before since. Those of an open deployment to all machines are in
	// it however old they are: they say which machines had it already.
	Load(ctx context.Context, since time.Time) (*Snapshot, error)
	// Since returns what commits after that number changed, or ErrStale.
	Since(ctx context.Context, number int64) (*Snapshot, error)
	// Commit writes all of the change or nothing and returns the commit's number; when it returns no error the change is
	// durable. It raises the version of each record in the change and sets the ID of each event.
	Commit(ctx context.Context, c *Change) (number int64, err error)
	// Shared reports whether other appliances may write these records.
	Shared() bool

	// Office returns who schedules the site. Beat says that the holder is at work, Seize makes a new holder of what was seen to
	// stand still, in a new epoch; both return ErrFenced if another one holds it now.
	Office(ctx context.Context) (Office, error)
	Beat(ctx context.Context, holder string, epoch int64) error
	Seize(ctx context.Context, holder string, seen Office) (Office, error)
	// Attend tells the other appliances that this one is there; Attendance returns what all tell.
	Attend(ctx context.Context, p Presence) error
	Attendance(ctx context.Context) ([]Presence, error)

	Events(ctx context.Context, q EventQuery) ([]Event, error)
	Jobs(ctx context.Context, q JobQuery) ([]*Job, error)
	// Receipt returns the receipt of a job, or nil.
	Receipt(ctx context.Context, job string) (*Receipt, error)
	// Frames returns what was saved for a job, oldest first.
	Frames(ctx context.Context, job string) ([]Frame, error)

	// KeepBoots writes boots as one appliance saw them, all of which are its own, outside the commits: each takes the place of what was
	// written of the same boot, and the last KeptBoots of a machine are kept. Boots returns them.
	KeepBoots(ctx context.Context, list []SeenBoot) error
	Boots(ctx context.Context, q BootQuery) ([]SeenBoot, error)
	// BootMACs are the cards of which boots are kept. ForgetBoots deletes those seen last before a time, those seen after another,
	// where zero is none, and all of some cards, and returns how many.
	BootMACs(ctx context.Context) ([]string, error)
	ForgetBoots(ctx context.Context, before, after time.Time, macs []string) (int, error)
}
