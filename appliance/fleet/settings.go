package fleet

import (
	"context"

	"seedbed/appliance/queue"
)

// SettingsOrder asks for other settings: nil fields stay.
type SettingsOrder struct {
	Limit    *int    `json:"limit,omitempty"`
	TimeZone *string `json:"time_zone,omitempty"`
	Retries  *int    `json:"retries,omitempty"`
}

// Settings returns what is set for the whole site.
func (f *Fleet) Settings() Settings {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return *f.state.settings()
}

// EditSettings changes the settings. version is that of the record it was decided by; 0 is any.
func (f *Fleet) EditSettings(ctx context.Context, version int64, o SettingsOrder) (*Settings, error) {
	if err := may(ctx, RoleAdmin, "change the settings"); err != nil {
		return nil, err
	}
	switch {
	case o.Limit != nil && *o.Limit < 0:
		return nil, refuse(CodeInvalid, "the limit of the site is a number from 0, not %d", *o.Limit)
	case o.Retries != nil && (*o.Retries < 0 || *o.Retries > maxRetries):
		return nil, refuse(CodeInvalid, "a job is tried again 0 to %d times, not %d", maxRetries, *o.Retries)
	}
	if o.TimeZone != nil && *o.TimeZone != "" {
		if _, err := queue.Zone(*o.TimeZone); err != nil {
			return nil, refuse(CodeInvalid, "there is no time zone %q; they are named as in Europe/Berlin", *o.TimeZone)
		}
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
		if o.Limit != nil {
			own.Limit = *o.Limit
		}
		if o.TimeZone != nil {
			own.TimeZone = *o.TimeZone
		}
		if o.Retries != nil {
			own.Retries = *o.Retries
		}
		d.event(by(ctx, Event{Kind: "settings.changed", Text: "the settings of the site were changed" + differences(was, *own)}))
		made = *own
		made.Version++
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &made, nil
}
