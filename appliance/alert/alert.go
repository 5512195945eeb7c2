// Package alert judges machines and the site by the thresholds that are set, raises alerts where something is beyond them, and tells people
// by mail and webhook.
package alert

import (
	"context"
	"log/slog"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/monitor"
)

// Times of judging. Rates and silence have thresholds of their own; these are about messages.
const (
	// lookEvery is how often the rules are looked at: a person does not need to know sooner.
	lookEvery = time.Second
	// settleFor is how long a breach has to be away before it counts as over: a rate that goes up and down over its threshold is one breach.
	settleFor = 20 * time.Second
	// gatherFor is how long a message waits for other alerts since the last one was raised, gatherMost since the first: a switch that dies takes a
	// room with it, and machines notice within seconds of each other.
	gatherFor, gatherMost = 5 * time.Second, 15 * time.Second
)

// Fleet is where alerts and messages are kept. fleet.Fleet implements it.
type Fleet interface {
	InOffice() bool
	Settings() fleet.Settings
	Alerts() []fleet.Alert
	Messages() []fleet.Message
	Judge(ctx context.Context, j fleet.Judgement) error
	TakeMessage(ctx context.Context, id string) (*fleet.Message, error)
	MessageTried(ctx context.Context, id, why string) error
	MessagesTested(ctx context.Context, text string) error
}

// Config of what judges. Fleet and Picture are needed.
type Config struct {
	Fleet   Fleet
	Picture func() *monitor.Picture
	// Site returns the facts of the site; nil is none.
	Site func(ctx context.Context) Site
	// Console is the URL of the console that messages name; "" names none.
	Console string
	Secrets Secrets
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	Log *slog.Logger // nil discards
}

// Alerts judges and tells. Run owns its memory; TestMessages is safe for concurrent use.
type Alerts struct {
	config Config
	log    *slog.Logger
	book   book
	site   Site
	asked  time.Time // when site was asked for last
}

// New returns what judges; it starts nothing.
func New(c Config) *Alerts {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Alerts{config: c, log: c.Log}
}

// siteEvery is how often the facts of the site are asked for.
const siteEvery = 10 * time.Second

// Run judges each second while this appliance schedules the site, and sends what is to be sent, until ctx is done.
func (a *Alerts) Run(ctx context.Context) error {
	sending := make(chan struct{})
	go func() {
		defer close(sending)
		a.send(ctx)
	}()
	defer func() { <-sending }()
	failing := false
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := a.look(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !failing: // said once, and not each second
			a.log.Error("alerts cannot be recorded", "err", err)
		case err == nil && failing:
			a.log.Info("alerts can be recorded again")
		}
		failing = err != nil
	}
}

// look judges once.
func (a *Alerts) look(ctx context.Context) error {
	if !a.config.Fleet.InOffice() {
		a.book = book{}
		return nil
	}
	now := a.config.Now()
	if a.config.Site != nil && now.Sub(a.asked) >= siteEvery {
		a.site, a.asked = a.config.Site(ctx), now
	}
	settings := a.config.Fleet.Settings()
	picture := a.config.Picture()
	found := Judge(Facts{Picture: picture, Site: a.site, Thresholds: settings.Thresholds, Now: now})
	j := a.book.enter(found, a.config.Fleet.Alerts(), state{now: now, settings: settings, picture: picture, console: a.config.Console})
	if j == nil {
		return nil
	}
	return a.config.Fleet.Judge(ctx, *j)
}

// Monitored are the thresholds by which machines get their words.
func Monitored(t fleet.Thresholds) monitor.Thresholds {
	return monitor.Thresholds{SlowRate: t.SlowRate, SlowShare: t.SlowShare, SlowFor: time.Duration(t.SlowFor), Silence: time.Duration(t.Silence)}
}
