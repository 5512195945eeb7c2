// Package boothistory keeps how machines boot in the records: what an appliance saw outlives it, and each appliance of a site shows what
// all of them saw.
package boothistory

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"seedbed/appliance/bootdoctor"
	"seedbed/appliance/fleet"
)

const (
	// keepEvery is how often boots that changed are written, all in one transaction: a boot of 40 s is written some 8 times, whatever
	// number of packets it takes. An appliance that is killed loses the steps of so long at most.
	keepEvery = 5 * time.Second
	// lastWords bounds the writing at the end of an appliance, readFor the reading for who looks at a machine.
	lastWords, readFor = 3 * time.Second, 2 * time.Second
	// goesOn is how old a boot may be that goes on after the appliance was started anew.
	goesOn = time.Hour
	// ahead is how far the clock of another appliance may be ahead. What was seen later than that was seen by a clock that was wrong: it
	// would stand as the latest boot until that time comes.
	ahead = time.Hour
	// maxSteps is how many steps of a row are read; what an appliance writes has fewer.
	maxSteps = 256
)

// Diary is what an appliance sees of machines that boot. *boot.Server implements it.
type Diary interface {
	ChangedBoots() []bootdoctor.Boot
	UnkeptBoots([]bootdoctor.Boot)
	RestoreBoots([]bootdoctor.Boot)
	Boots(mac string) []bootdoctor.Boot
}

// Records is where boots are kept. *fleet.Fleet implements it.
type Records interface {
	KeepBoots(ctx context.Context, list []fleet.SeenBoot) error
	SeenBoots(ctx context.Context, macs []string) ([]fleet.SeenBoot, error)
	OwnBoots(ctx context.Context, since time.Time) ([]fleet.SeenBoot, error)
	ApplianceName(id string) string
}

// Config of a History. Records and Self are needed.
type Config struct {
	Records Records
	// Self is the ID of this appliance.
	Self string
	// Diary is what this appliance sees; nil: it boots no machine.
	Diary Diary
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	Log *slog.Logger // nil discards
}

// History keeps and returns boots. Safe for concurrent use.
type History struct {
	config Config
	// damaged and unread are said in the log: that a row is damaged, once, and that rows cannot be read now.
	damaged, unread atomic.Bool
}

// New returns a History; it starts and reads nothing.
func New(c Config) *History {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &History{config: c}
}

// Restore has the diary take up the boots that this appliance saw before it was started anew. It is for the start, before anything is
// seen. What cannot be read is left out, and said in the log: no appliance stays away for that.
func (h *History) Restore(ctx context.Context) {
	if h.config.Diary == nil {
		return
	}
	rows, err := h.config.Records.OwnBoots(ctx, h.config.Now().Add(-goesOn))
	if err != nil {
		h.config.Log.Warn("how machines booted before the appliance was started is not known to what it sees now", "err", err)
		return
	}
	list := make([]bootdoctor.Boot, 0, len(rows))
	for i := range rows {
		if b, ok := h.decode(&rows[i]); ok {
			list = append(list, b)
		}
	}
	h.config.Diary.RestoreBoots(list)
}

// Run writes what changed until ctx is done, and once more then.
func (h *History) Run(ctx context.Context) error {
	if h.config.Diary == nil {
		return nil
	}
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
			defer cancel()
			if err := h.Keep(last); err != nil {
				h.config.Log.Warn("the last steps of machines that boot are not kept", "err", err)
			}
			return nil
		case <-tick.C:
		}
		err := h.Keep(ctx)
		switch {
		case ctx.Err() != nil:
		case err != nil && !failed:
			h.config.Log.Warn("how machines boot cannot be kept; it is tried again", "err", err)
		case err == nil && failed:
			h.config.Log.Info("how machines boot is kept again")
		}
		failed = err != nil
	}
}

// Keep writes what changed since it was called last. After an error it is written the next time.
func (h *History) Keep(ctx context.Context) error {
	boots := h.config.Diary.ChangedBoots()
	if len(boots) == 0 {
		return nil
	}
	rows := make([]fleet.SeenBoot, 0, len(boots))
	for i := range boots {
		b := &boots[i]
		doc, err := json.Marshal(b)
		if err != nil {
			return err
		}
		rows = append(rows, fleet.SeenBoot{MAC: b.MAC, Began: b.Began, Latest: b.Latest(), Doc: doc})
	}
	err := h.config.Records.KeepBoots(ctx, rows)
	if err != nil {
		h.config.Diary.UnkeptBoots(boots)
	}
	return err
}

// Of returns the boots of a machine with these cards, as the appliances of the site saw them, the latest first: those of the card that was
// seen last. Where the records cannot be read now, what this appliance itself saw is all.
func (h *History) Of(macs []string) (boots []bootdoctor.Boot) {
	ctx, cancel := context.WithTimeout(context.Background(), readFor)
	defer cancel()
	rows, err := h.config.Records.SeenBoots(ctx, macs)
	if failed := err != nil; h.unread.Swap(failed) != failed && failed {
		h.config.Log.Warn("what was seen of machines that booted cannot be read", "err", err)
	}
	for _, mac := range macs {
		if list := h.ofCard(mac, rows); len(list) > 0 && (len(boots) == 0 || list[0].Latest().After(boots[0].Latest())) {
			boots = list
		}
	}
	return boots
}

// ofCard returns the boots of one card. What this appliance has in its memory is newer than what it wrote.
func (h *History) ofCard(mac string, rows []fleet.SeenBoot) []bootdoctor.Boot {
	var list []bootdoctor.Seen
	var own []bootdoctor.Boot
	if h.config.Diary != nil {
		own = h.config.Diary.Boots(mac)
	}
	for _, b := range own {
		if !h.isToCome(b.Began) {
			list = append(list, bootdoctor.Seen{Boot: b})
		}
	}
	for i := range rows {
		r := &rows[i]
		here := r.Appliance == h.config.Self
		if r.MAC != mac || here && slices.ContainsFunc(own, func(b bootdoctor.Boot) bool { return b.Began.UnixNano() == r.Began.UnixNano() }) {
			continue
		}
		b, ok := h.decode(r)
		if !ok {
			continue
		}
		seen := bootdoctor.Seen{Boot: b}
		if !here {
			seen.Appliance = h.config.Records.ApplianceName(r.Appliance)
		}
		list = append(list, seen)
	}
	merged := bootdoctor.Merge(list)
	return merged[:min(len(merged), fleet.KeptBoots)]
}

// isToCome reports whether a boot began at a time that only a wrong clock has seen.
func (h *History) isToCome(began time.Time) bool { return began.Sub(h.config.Now()) > ahead }

// decode reads a row. Of one that is damaged, or of a version that wrote it otherwise, what can be read is taken; nothing of it is an error. One of times to come
// is left out.
func (h *History) decode(r *fleet.SeenBoot) (b bootdoctor.Boot, ok bool) {
	if h.isToCome(r.Began) {
		return b, false
	}
	if err := json.Unmarshal(r.Doc, &b); err != nil {
		if !h.damaged.Swap(true) {
			h.config.Log.Warn("a boot that was kept cannot be read and is left out; others that cannot are not told of", "mac", r.MAC, "appliance", r.Appliance, "err", err)
		}
		return b, false
	}
	b.MAC, b.Began = r.MAC, r.Began
	b.Steps = slices.DeleteFunc(b.Steps, func(s bootdoctor.Step) bool { return s.Kind == "" || s.At.IsZero() })
	b.Steps = b.Steps[:min(len(b.Steps), maxSteps)]
	for i := range b.Steps {
		s := &b.Steps[i]
		s.Count, s.Appliance = max(1, s.Count), ""
		if s.Last.Before(s.At) {
			s.Last = s.At
		}
	}
	return b, len(b.Steps) > 0
}
