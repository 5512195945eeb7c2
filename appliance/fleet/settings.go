package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"seedbed/appliance/queue"
)

// Settings are what an administrator sets for the whole site.
type Settings struct {
	Version int64 `json:"version"`
	// Limit is how many machines of the site are at work at once; 0 is no limit.
	Limit int `json:"limit,omitempty"`
	// TimeZone is that of windows that name none: "Europe/Berlin"; empty is that of the appliance's host.
	TimeZone string `json:"time_zone,omitempty"`
	// Retries is how often a job that failed is tried again by itself.
	Retries int `json:"retries"`
	// KeepEvents and KeepJobs are for how many days events, and jobs that have ended with their receipts, are kept; KeepForever has no end.
	KeepEvents int `json:"keep_events_days"`
	KeepJobs   int `json:"keep_jobs_days"`
	Thresholds
	Channels
}

func (s *Settings) Ref() Key     { return Key{KindSettings, "site"} }
func (s *Settings) Row() *int64  { return &s.Version }
func (s *Settings) Shelf() Shelf { return Shelf{} }
func (s *Settings) copy() Record {
	own := *s
	own.Mute, own.MailTo = slices.Clone(s.Mute), slices.Clone(s.MailTo)
	return &own
}

// UnmarshalJSON implements json.Unmarshaler. What is not said is as it is until somebody sets it: records of earlier versions of the
// program know no thresholds.
func (s *Settings) UnmarshalJSON(b []byte) error {
	type plain Settings
	own := plain(defaultSettings)
	if err := json.Unmarshal(b, &own); err != nil {
		return err
	}
	*s = Settings(own)
	return nil
}

// Hidden returns the settings without what is secret in them, for those who are no administrators.
func (s Settings) Hidden() Settings {
	s.Webhook = hideURL(s.Webhook)
	return s
}

// defaultSettings hold until somebody sets others.
var defaultSettings = Settings{Retries: 2, KeepEvents: defaultKeep, KeepJobs: defaultKeep, Thresholds: Thresholds{
	SlowRate: 10e6, SlowShare: 0.25, SlowFor: Duration(30 * time.Second), Silence: Duration(120 * time.Second),
	ErrorShare: 0.05, ErrorTiles: 100, FreeShare: 0.05, FreeBytes: 10e9, CertificateDays: 14, CoolDown: Duration(15 * time.Minute),
}, Channels: Channels{MailTLS: MailSTARTTLS}}

// SettingsOrder asks for other settings: nil fields stay.
type SettingsOrder struct {
	Limit    *int    `json:"limit,omitempty"`
	TimeZone *string `json:"time_zone,omitempty"`
	Retries  *int    `json:"retries,omitempty"`

	KeepEvents *int `json:"keep_events_days,omitempty"`
	KeepJobs   *int `json:"keep_jobs_days,omitempty"`

	SlowRate        *float64     `json:"slow_rate,omitempty"`
	SlowShare       *float64     `json:"slow_share,omitempty"`
	SlowFor         *Duration    `json:"slow_for,omitempty"`
	Silence         *Duration    `json:"silence,omitempty"`
	ErrorShare      *float64     `json:"error_share,omitempty"`
	ErrorTiles      *int64       `json:"error_tiles,omitempty"`
	FreeShare       *float64     `json:"free_share,omitempty"`
	FreeBytes       *int64       `json:"free_bytes,omitempty"`
	CertificateDays *int         `json:"certificate_days,omitempty"`
	CoolDown        *Duration    `json:"cool_down,omitempty"`
	Mute            *[]AlertRule `json:"mute,omitempty"`

	MailServer *string   `json:"mail_server,omitempty"`
	MailTLS    *MailTLS  `json:"mail_tls,omitempty"`
	MailUser   *string   `json:"mail_user,omitempty"`
	MailFrom   *string   `json:"mail_from,omitempty"`
	MailTo     *[]string `json:"mail_to,omitempty"`
	Webhook    *string   `json:"webhook,omitempty"`
}

// Settings returns what is set for the whole site.
func (f *Fleet) Settings() Settings {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return *f.state.settings()
}

// EditSettings changes the settings. version is that of the record it was decided by; 0 is any. A Refusal names the setting that is
// wrong, as Field.
func (f *Fleet) EditSettings(ctx context.Context, version int64, o SettingsOrder) (*Settings, error) {
	if err := may(ctx, RoleAdmin, "change the settings"); err != nil {
		return nil, err
	}
	var made Settings
	err := f.change(ctx, func(d *draft) error {
		have := lookup[*Settings](d, KindSettings, "site")
		if have == nil {
			set := defaultSettings
			have = &set
		}
		if d.changed(have, version) {
			return refuse(CodeChanged, "the settings were changed by somebody else meanwhile; look again")
		}
		own := edit(d, have)
		was := *own
		o.apply(own)
		if wrong := own.wrong(); len(wrong) > 0 {
			return &Refusal{Code: CodeInvalid, Detail: wrong[0].Text}
		}
		text := "the settings of the site were changed" + differences(was.Hidden(), own.Hidden())
		if was.Webhook != own.Webhook && hideURL(was.Webhook) == hideURL(own.Webhook) {
			text += "; the webhook's path is another one"
		}
		d.event(by(ctx, Event{Kind: "settings.changed", Text: text}))
		made = *own
		made.Version++
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &made, nil
}

// apply sets what an order says.
func (o SettingsOrder) apply(s *Settings) {
	set(&s.Limit, o.Limit)
	set(&s.TimeZone, o.TimeZone)
	set(&s.Retries, o.Retries)
	set(&s.KeepEvents, o.KeepEvents)
	set(&s.KeepJobs, o.KeepJobs)
	set(&s.SlowRate, o.SlowRate)
	set(&s.SlowShare, o.SlowShare)
	set(&s.SlowFor, o.SlowFor)
	set(&s.Silence, o.Silence)
	set(&s.ErrorShare, o.ErrorShare)
	set(&s.ErrorTiles, o.ErrorTiles)
	set(&s.FreeShare, o.FreeShare)
	set(&s.FreeBytes, o.FreeBytes)
	set(&s.CertificateDays, o.CertificateDays)
	set(&s.CoolDown, o.CoolDown)
	set(&s.Mute, o.Mute)
	set(&s.MailServer, o.MailServer)
	set(&s.MailTLS, o.MailTLS)
	set(&s.MailUser, o.MailUser)
	set(&s.MailFrom, o.MailFrom)
	set(&s.MailTo, o.MailTo)
	set(&s.Webhook, o.Webhook)
}

// set sets a field if there is something to set it to.
func set[T any](field, to *T) {
	if to != nil {
		*field = *to
	}
}

// WrongSetting says what is wrong with one setting; Field is its key: "mail_server". Range is what a number may be, nil is no number:
// Text speaks of it in the units of the API, a form in its own.
type WrongSetting struct {
	Field, Text string
	Range       *Range
}

// Range is what a number of the settings may be, in the units of the API; lengths of time are in seconds.
type Range struct {
	Least, Most  float64 // Most is +Inf where there is no bound
	Above, Below bool    // Least itself, or Most itself, may not be
}

// holds reports whether a value is in the range.
func (r Range) holds(v float64) bool {
	return v >= r.Least && v <= r.Most && !(r.Above && v == r.Least) && !(r.Below && v == r.Most)
}

// CheckSettings returns what an order would be refused for, each at its setting, so that a form can say all at once; none is nothing.
// It changes nothing.
func (f *Fleet) CheckSettings(o SettingsOrder) []WrongSetting {
	s := f.Settings()
	o.apply(&s)
	return s.wrong()
}

// wrong returns what is wrong with the settings.
func (s *Settings) wrong() []WrongSetting {
	var w wrongs
	w.in(Range{Least: 0, Most: math.Inf(1)}, float64(s.Limit), "limit", "the limit of the site is a number from 0, not %d", s.Limit)
	w.in(Range{Least: 0, Most: maxRetries}, float64(s.Retries), "retries", "a job is tried again 0 to %d times, not %d", maxRetries, s.Retries)
	if s.TimeZone != "" {
		_, err := queue.Zone(s.TimeZone)
		w.unless(err == nil, "time_zone", "there is no time zone %q; they are named as in Europe/Berlin", s.TimeZone)
	}
	s.checkKept(&w)
	s.Thresholds.check(&w)
	s.Channels.check(&w)
	return w
}

// wrongs collects what is wrong.
type wrongs []WrongSetting

// unless says what is wrong with a setting, unless it is right.
func (w *wrongs) unless(right bool, field, format string, a ...any) {
	if !right {
		*w = append(*w, WrongSetting{Field: field, Text: fmt.Sprintf(format, a...)})
	}
}

// in says what is wrong with a number, unless it is in its range.
func (w *wrongs) in(r Range, value float64, field, format string, a ...any) {
	if !r.holds(value) {
		*w = append(*w, WrongSetting{field, fmt.Sprintf(format, a...), &r})
	}
}

// settings returns what is set. The caller holds mu, or writing.
func (s *records) settings() *Settings {
	if have, ok := s.others[Key{KindSettings, "site"}]; ok {
		return have.(*Settings)
	}
	return &defaultSettings
}

// Zone is the time zone of windows that name none, and in which people of the site are told times.
func (s *Settings) Zone() *time.Location {
	if s.TimeZone != "" {
		if zone, err := queue.Zone(s.TimeZone); err == nil {
			return zone
		}
	}
	return time.Local
}
