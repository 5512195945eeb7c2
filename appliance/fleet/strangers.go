package fleet

import (
	"encoding/hex"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"seedbed/appliance/job"
	"seedbed/images"
)

// Bounds of what machines tell of themselves and ask for, at one appliance. An agent tells its inventory at its start, after each job
// and, while nobody has admitted it, after each claim, which takes 20 s: no honest one does so more than once a second.
const (
	tellBurst = 30 // of one network card, and then one each tellEvery
	tellEvery = time.Second
	// Of one machine, reports that change the records: a job has some fourteen such changes, from its claim to its end.
	changeBurst = 300
	changeEvery = time.Second
	// maxTellers bounds the network cards, and the machines, that are remembered; some of them are forgotten then.
	maxTellers = 20000
	// Of all machines that no person admitted: inventories that change the records, and so many a second then.
	strangersBurst = 2000
	strangersRate  = 50
	// maxClaims are those of one machine that wait at once: those of a boot that is gone end within 20 s. maxStrangeClaims are
	// those of all machines that nobody admitted.
	maxClaims        = 4
	maxStrangeClaims = 5000
)

// MaxStrangeInventory bounds the inventory of a machine that no person admitted, in bytes of JSON: some 250 disks.
const MaxStrangeInventory = 64 << 10

// tellers bounds how often machines tell what they are. Safe for concurrent use.
type tellers struct {
	mu        sync.Mutex
	by        map[string]*rate.Limiter // by MAC of the boot
	changes   map[string]*rate.Limiter // of jobs by reports, by machine
	strangers *rate.Limiter
	sights    *rate.Limiter // of machines that were never seen before
}

func newTellers() *tellers {
	return &tellers{by: map[string]*rate.Limiter{}, changes: map[string]*rate.Limiter{}, strangers: rate.NewLimiter(strangersRate, strangersBurst), sights: rate.NewLimiter(sightsRate, sightsBurst)}
}

// may reports whether the machine that booted from this network card may tell its inventory now.
func (t *tellers) may(mac string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return one(t.by, mac, tellEvery, tellBurst).AllowN(now, 1)
}

// mayChange reports whether a machine's report may change the records now.
func (t *tellers) mayChange(machine string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return one(t.changes, machine, changeEvery, changeBurst).AllowN(now, 1)
}

// one returns the bucket of a name, which is made where it is missing.
func one(by map[string]*rate.Limiter, name string, every time.Duration, burst int) *rate.Limiter {
	l := by[name]
	if l == nil {
		if len(by) >= maxTellers {
			for other := range by { // some tenth, so that this is rare
				if delete(by, other); len(by) < maxTellers*9/10 {
					break
				}
			}
		}
		l = rate.NewLimiter(rate.Every(every), burst)
		by[name] = l
	}
	return l
}

// Stranger reports whether no person has admitted the machine whose network card the caller booted from.
func (f *Fleet) Stranger(c Caller) bool {
	if c.session.Guest != nil {
		return true
	}
	m := f.lookup(identity{macs: []string{c.session.MAC}})
	return m == nil || !m.vouched()
}

// Admitted reports whether the caller's machine may have jobs.
func (f *Fleet) Admitted(c Caller) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	m := f.state.machines[c.session.Machine]
	return m != nil && m.Admitted
}

// mayTell returns a Refusal where a machine tells its inventory too often, or one of length bytes that is too long of a stranger.
func (f *Fleet) mayTell(c Caller, length int) error {
	now := f.now()
	switch {
	case !f.Stranger(c):
		return nil
	case length > MaxStrangeInventory:
		return refuse(CodeInvalid, "the inventory of %s has %d bytes, and one of a machine that no person admitted has at most %d; admit it first by that address "+
			"(`seedbed machine admit %s`)", c.session.MAC, length, MaxStrangeInventory, c.session.MAC)
	case !f.tellers.strangers.AllowN(now, 1):
		return refuse(CodeTooMany, "too many machines that no person admitted tell what they are; ask again in a moment")
	}
	return nil
}

// sumOf names what an inventory says, encoded as JSON.
func sumOf(encoded []byte) string {
	sum := images.Sum(encoded)
	return hex.EncodeToString(sum[:16])
}

// told returns the answer to an inventory that the caller's boot told before, as nothing has to be written for it.
func (f *Fleet) told(c Caller, sum string) (answer job.Admission, known bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	s := f.state.sessions[c.session.ID]
	if s == nil || s.Revoked || s.Told != sum {
		return answer, false
	}
	m := f.state.machines[s.Machine]
	if m == nil || m.MergedInto != "" || m.Crowded { // there may be room for it now
		return answer, false
	}
	return m.admission(), true
}

func (m *Machine) admission() job.Admission {
	return job.Admission{Machine: m.ID, Name: m.Name, Admitted: m.Admitted, Code: m.Code}
}

// crowded returns a Refusal where too many claims of a machine, or of strangers, wait already. The caller holds mu.
func (f *Fleet) crowded(machine string, strange bool) error {
	switch {
	case f.claims[machine] >= maxClaims:
		return refuse(CodeTooMany, "%d questions of machine %s for a job wait already; ask again in a moment", f.claims[machine], machine)
	case strange && f.strangers >= maxStrangeClaims:
		return refuse(CodeTooMany, "%d machines that nobody admitted ask for jobs already; admit them, or look for a strange device on the boot network", f.strangers)
	}
	return nil
}
