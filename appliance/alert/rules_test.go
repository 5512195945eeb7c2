package alert_test

import (
	"strings"
	"testing"
	"time"

	"seedbed/appliance/alert"
	"seedbed/appliance/fleet"
	"seedbed/appliance/monitor"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

var standard = fleet.Thresholds{
	SlowRate: 10e6, SlowShare: 0.25, SlowFor: fleet.Duration(30 * time.Second), Silence: fleet.Duration(120 * time.Second), ErrorShare: 0.05, ErrorTiles: 100,
	FreeShare: 0.05, FreeBytes: 10e9, CertificateDays: 14, CoolDown: fleet.Duration(15 * time.Minute),
}

// picture has machines in these states.
func picture(machines ...monitor.Progress) *monitor.Picture {
	p := &monitor.Picture{At: noon, Machines: map[string]*monitor.Progress{}}
	for _, m := range machines {
		p.Machines[m.Machine] = &m
	}
	return p
}

func machine(word monitor.Word) monitor.Progress {
	return monitor.Progress{Machine: "m1", Name: "pc-01", Job: "j1", Word: word}
}

func TestRules(t *testing.T) {
	day := 24 * time.Hour
	with := func(change func(*monitor.Progress)) *monitor.Picture {
		m := machine(monitor.Normal)
		change(&m)
		return picture(m)
	}
	certificate := func(left time.Duration) alert.Site {
		return alert.Site{Certificates: []alert.Certificate{{Name: "the certificate of --tls-cert", Expires: noon.Add(left), Renew: "renew it"}}}
	}
	for what, c := range map[string]struct {
		picture *monitor.Picture
		site    alert.Site
		change  func(*fleet.Thresholds)
		want    string // RULE SUBJECT: text of it, "" is nothing
	}{
		"normal":                           {picture: picture(machine(monitor.Normal))},
		"a machine that a limit holds":     {picture: with(func(m *monitor.Progress) { m.Cause = monitor.CauseCap; m.Rate = 1e6 })},
		"waiting, paused, cancelled, idle": {picture: picture(machine(monitor.Waiting), monitor.Progress{Machine: "b", Word: monitor.Paused}, monitor.Progress{Machine: "c", Word: monitor.Cancelled}, monitor.Progress{Machine: "d", Word: monitor.Idle}, monitor.Progress{Machine: "e", Word: monitor.Done})},
		"slow": {picture: with(func(m *monitor.Progress) {
			m.Word, m.Judged, m.Cause = monitor.Slow, 3.21e6, monitor.CauseLink
			m.Why = "its network card has negotiated 100 Mbit/s"
		}),
			want: "slow m1: pc-01 is slow: 3.2 MB/s over the last 30 s; it should be 10 MB/s, and 25 % of its room's median|its network card has negotiated 100 Mbit/s|look at its cable"},
		"slow by a hair":                     {picture: with(func(m *monitor.Progress) { m.Word, m.Judged = monitor.Slow, 9.98e6 }), want: "slow m1: pc-01 is slow: 9.9 MB/s over the last 30 s; it should be 10 MB/s, and 25 % of its room's median||"},
		"slow by a byte below 100 MB/s":      {picture: with(func(m *monitor.Progress) { m.Word, m.Judged = monitor.Slow, 100e6-1 }), change: func(t *fleet.Thresholds) { t.SlowRate = 100e6 }, want: "slow m1: pc-01 is slow: 99.9 MB/s over the last 30 s; it should be 100 MB/s||"},
		"slow by little below 12.34 MB/s":    {picture: with(func(m *monitor.Progress) { m.Word, m.Judged = monitor.Slow, 12.339e6 }), change: func(t *fleet.Thresholds) { t.SlowRate = 12.34e6 }, want: "slow m1: pc-01 is slow: 12.3 MB/s over the last 30 s; it should be 12.34 MB/s||"},
		"slow by a byte below 1 MB/s":        {picture: with(func(m *monitor.Progress) { m.Word, m.Judged = monitor.Slow, 1e6-1 }), change: func(t *fleet.Thresholds) { t.SlowRate = 1e6 }, want: "slow m1: pc-01 is slow: 999.9 kB/s over the last 30 s; it should be 1 MB/s||"},
		"silent":                             {picture: picture(machine(monitor.Silent)), want: "silent m1: pc-01 is at work and has said nothing for 2 min||switched on"},
		"failed":                             {picture: with(func(m *monitor.Progress) { m.Word, m.Why = monitor.Failed, "the disk is too small" }), want: "failed m1: the job of pc-01 failed|the disk is too small|seedbed job retry j1"},
		"wrong tiles, 5 %":                   {picture: with(func(m *monitor.Progress) { m.Tiles, m.WrongTiles = 1000, 50 })},
		"wrong tiles, more than 5 %":         {picture: with(func(m *monitor.Progress) { m.Tiles, m.WrongTiles = 1000, 51 }), want: "errors m1: 5 % of what pc-01 got in the last minute was wrong: 51 of 1000 tiles failed their hash||memory"},
		"wrong tiles, of 99":                 {picture: with(func(m *monitor.Progress) { m.Tiles, m.WrongTiles = 99, 99 })},
		"wrong tiles, of 100":                {picture: with(func(m *monitor.Progress) { m.Tiles, m.WrongTiles = 100, 6 }), want: "errors m1: 6 %||"},
		"room enough":                        {site: alert.Site{Free: 10e9, Total: 100e9}},
		"less than the bytes":                {site: alert.Site{Free: 9e9, Total: 100e9}, want: "space repository: the repository has 9 GB free of 100 GB; at least 10 GB are wanted||prune"},
		"less than the share":                {site: alert.Site{Free: 49e9, Total: 1e12}, want: "space repository: the repository has 49 GB free of 1 TB; at least 50 GB||"},
		"room that nobody knows":             {site: alert.Site{}},
		"room that nobody asks for":          {site: alert.Site{Free: 1, Total: 100e9}, change: func(t *fleet.Thresholds) { t.FreeBytes, t.FreeShare = 0, 0 }},
		"a certificate with 15 days":         {site: certificate(15 * day)},
		"a certificate with 13 days":         {site: certificate(13*day + time.Hour), want: "certificate the certificate of --tls-cert: the certificate of --tls-cert ends on 2026-12-06, in 13 days||renew it"},
		"a certificate that ended":           {site: certificate(-day), want: "certificate the certificate of --tls-cert: the certificate of --tls-cert ended on 2026-11-22||renew it"},
		"damage":                             {site: alert.Site{Damage: "image debian:1, partition 2, 4096 bytes"}, want: "damage repository: images in the repository are damaged|image debian:1, partition 2, 4096 bytes|heal-from"},
		"slow by a threshold of 20 MB/s for": {picture: with(func(m *monitor.Progress) { m.Word, m.Judged = monitor.Slow, 15e6 }), change: func(t *fleet.Thresholds) { t.SlowRate = 20e6 }, want: "slow m1: pc-01 is slow: 15 MB/s over the last 30 s; it should be 20 MB/s||"},
	} {
		thresholds := standard
		if c.change != nil {
			c.change(&thresholds)
		}
		found := alert.Judge(alert.Facts{Picture: c.picture, Site: c.site, Thresholds: thresholds, Now: noon})
		if c.want == "" {
			if len(found) > 0 {
				t.Errorf("%s: %+v", what, found)
			}
			continue
		}
		if len(found) != 1 {
			t.Errorf("%s: %+v", what, found)
			continue
		}
		b, want := found[0], strings.Split(c.want, "|")
		if said := string(b.Rule) + " " + b.Subject + ": " + b.Text; !strings.HasPrefix(said, want[0]) || b.Cause != want[1] || !strings.Contains(b.Advice, want[2]) || b.Advice == "" || b.Name == "" {
			t.Errorf("%s: %s|%s|%s, want %s", what, said, b.Cause, b.Advice, c.want)
		}
	}
}

// Two rules may hold for one machine: it is slow since what it gets is wrong.
func TestAMachineThatIsSlowAndGetsWrongData(t *testing.T) {
	m := machine(monitor.Slow)
	m.Tiles, m.WrongTiles = 200, 100
	found := alert.Judge(alert.Facts{Picture: picture(m), Thresholds: standard, Now: noon})
	if len(found) != 2 || found[0].Rule != fleet.RuleSlow || found[1].Rule != fleet.RuleErrors {
		t.Errorf("%+v", found)
	}
}
