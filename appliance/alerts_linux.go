package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/alert"
	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/monitor"
)

// openAlerts makes what judges machines and tells people.
func (a *appliance) openAlerts() error {
	secrets := alert.Secrets{MailPassword: a.config.MailPassword, WebhookSecret: a.config.WebhookSecret, CA: a.config.AlertCA}
	if err := secrets.Check(); err != nil {
		return err
	}
	a.monitor = monitor.New(monitor.Config{Fleet: recentFleet{a.fleet, time.Now()}, UploadLimit: a.config.Seeding.Shared.Upload(), MachineLimit: float64(a.config.Seeding.PeerUploadLimit),
		Thresholds: func() monitor.Thresholds { return alert.Monitored(a.fleet.Settings().Thresholds) }})
	a.alerts = alert.New(alert.Config{Fleet: a.fleet, Picture: a.monitor.Picture, Site: a.siteFacts, Console: a.consoleURL(), Secrets: secrets, Log: a.log})
	a.parts = append(a.parts, a.monitor.Run, a.alerts.Run)
	return nil
}

// recentFleet is the fleet without jobs that ended before this run and were followed by others.
type recentFleet struct {
	*fleet.Fleet
	began time.Time
}

// Jobs implements monitor.Fleet.
func (f recentFleet) Jobs() []fleet.JobView { return f.JobsSince(f.began) }

// consoleURL is where people reach the console: by a name of their certificate, else by the appliance's address.
func (a *appliance) consoleURL() string {
	if a.own == nil {
		return a.url()
	}
	names := a.own.config.Load().Certificates[0].Leaf.DNSNames
	named := slices.IndexFunc(names, func(name string) bool { return !strings.Contains(name, "*") })
	if named < 0 {
		return a.url()
	}
	u := "https://" + names[named]
	if port := tcpAddr(a.https).Port(); port != 443 {
		u += fmt.Sprintf(":%d", port)
	}
	return u
}

// siteFacts are what is known of the site beside its machines.
func (a *appliance) siteFacts(ctx context.Context) alert.Site {
	s := a.facts.look(ctx, a.room, a.fleet.Events)
	if a.own != nil {
		leaf := a.own.config.Load().Certificates[0].Leaf
		s.Certificates = append(s.Certificates, alert.Certificate{Name: "the certificate of --tls-cert", Expires: leaf.NotAfter,
			Renew: "renew it, put it at " + a.own.certFile + " and send SIGHUP (`systemctl reload seedbed`); browsers refuse it once it ended"})
	}
	if ends := a.lib.site.CA().NotAfter; ends.Year() < 9999 { // RFC 5280 §4.1.2.5: it never ends
		s.Certificates = append(s.Certificates, alert.Certificate{Name: "the certificate of the site", Expires: ends,
			Renew: "machines are not let in once it ended; restore the identity from a backup of a site whose certificate is good"})
	}
	return s
}

// facts are what was known last of the site: where it cannot be looked at now, nothing is said to be well again.
type facts struct{ last alert.Site }

// look returns the room of the repository and the damage of images, as they are known. One goroutine at a time may call it.
func (f *facts) look(ctx context.Context, room func() (free, total int64, err error), events func(context.Context, fleet.EventQuery) ([]fleet.Event, error)) alert.Site {
	if free, total, err := room(); err == nil {
		f.last.Free, f.last.Total = free, total
	}
	if text, err := lastDamage(ctx, events); err == nil {
		f.last.Damage = text
	}
	return f.last
}

// lastDamage is what the last verification of images found and could not heal, "" is nothing. It is read from the events: they outlive this
// program, and all appliances of the site have them.
func lastDamage(ctx context.Context, events func(context.Context, fleet.EventQuery) ([]fleet.Event, error)) (string, error) {
	last := func(kind string) (*fleet.Event, error) {
		list, err := events(ctx, fleet.EventQuery{Kind: kind, Before: math.MaxInt64, Limit: 1})
		if err != nil || len(list) == 0 {
			return nil, err
		}
		return &list[0], nil
	}
	damaged, err := last(api.EventDamaged)
	if err != nil || damaged == nil || time.Since(damaged.At) > damageIsNews {
		return "", err
	}
	whole, err := last(api.EventWhole)
	if err != nil || whole != nil && whole.ID > damaged.ID {
		return "", err
	}
	return damaged.Text, nil
}
