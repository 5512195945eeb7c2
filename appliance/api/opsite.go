package api

import (
	"context"
	"strconv"

	"seedbed/appliance/fleet"
)

// EventQuery says which events are asked for; empty fields ask for all.
type EventQuery struct {
	Machine    string `query:"machine" maxLength:"128"`
	Job        string `query:"job" maxLength:"64"`
	Deployment string `query:"deployment" maxLength:"64"`
	Kind       string `query:"kind" maxLength:"64" doc:"A kind, or the beginning of several with a dot at its end: machine."`
	Actor      string `query:"actor" maxLength:"64" doc:"Who did it."`
	After      int64  `query:"after" minimum:"0" doc:"Only events with a higher ID."`
	Before     int64  `query:"before" minimum:"0" doc:"Only events with a lower ID: the last ones before it."`
	Limit      int    `query:"limit" minimum:"1" maximum:"10000" default:"1000"`
	Cursor     string `query:"cursor" maxLength:"20" doc:"What the page before said as next."`
}

// addSite adds what is of the whole site.
func (o *Operators) addSite() {
	f := o.fleet
	add(o, "GET", "/events", "listEvents", "List what happened, oldest first", func(ctx context.Context, in *EventQuery) (*paged[fleet.Event], error) {
		q := fleet.EventQuery{After: in.After, Before: in.Before, Machine: in.Machine, Job: in.Job, Deployment: in.Deployment, Kind: in.Kind, Actor: in.Actor, Limit: in.Limit}
		if in.Machine != "" {
			if m, err := f.Machine(in.Machine); err == nil { // one that was removed has events too, by its ID
				q.Machine = m.ID
			}
		}
		if in.Cursor != "" {
			after, err := strconv.ParseInt(in.Cursor, 10, 64)
			if err != nil || after < 0 {
				return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: "the cursor is none that this appliance gave; begin with the first page"}
			}
			q.After = after
		}
		list, err := f.Events(ctx, q)
		if err != nil {
			return nil, err
		}
		p := &paged[fleet.Event]{Page[fleet.Event]{Items: append([]fleet.Event{}, list...)}}
		if len(list) == in.Limit && in.Before == 0 {
			p.Body.Next = strconv.FormatInt(list[len(list)-1].ID, 10)
		}
		return p, nil
	})
	settings := func(ctx context.Context, s *fleet.Settings, err error) (*versioned[*fleet.Settings], error) {
		if err != nil {
			return nil, err
		}
		if fleet.May(ctx, fleet.RoleAdmin, "see the URL of the webhook") != nil {
			hidden := s.Hidden()
			s = &hidden
		}
		return &versioned[*fleet.Settings]{etag(s.Version), s}, nil
	}
	add(o, "GET", "/settings", "getSettings", "Show what is set for the whole site", func(ctx context.Context, _ *struct{}) (*versioned[*fleet.Settings], error) {
		s := f.Settings()
		return settings(ctx, &s, nil)
	})
	add(o, "PATCH", "/settings", "editSettings", "Change what is set for the whole site", func(ctx context.Context, in *struct {
		Match
		Body fleet.SettingsOrder
	}) (*versioned[*fleet.Settings], error) {
		version, err := in.wanted(func() (int64, error) { return f.Settings().Version, nil })
		if err != nil {
			return nil, err
		}
		s, err := f.EditSettings(ctx, version, in.Body)
		return settings(ctx, s, err)
	}, matched)
	add(o, "GET", "/appliances", "listAppliances", "List the appliances of the site", func(_ context.Context, in *Cut) (*paged[fleet.ApplianceView], error) {
		return page(f.Appliances(), *in, func(a fleet.ApplianceView) string { return a.ID })
	})
	o.addLive()
}
