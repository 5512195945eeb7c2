package alert

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/monitor"
)

// Facts are what the rules judge by. They have no clock and no network.
type Facts struct {
	Picture    *monitor.Picture
	Site       Site
	Thresholds fleet.Thresholds
	Now        time.Time
}

// Site is what is known of the site beside its machines. The zero value knows nothing.
type Site struct {
	// Free of Total bytes of the repository's file system; Total 0 is not known.
	Free, Total  int64
	Certificates []Certificate
	// Damage is what the last verification of the images found and could not heal: a sentence, "" is nothing.
	Damage string
}

// Certificate is one that somebody has to renew.
type Certificate struct {
	Name    string // for people: "the certificate of --tls-cert"
	Expires time.Time
	Renew   string // how: a sentence
}

// Judge returns what is beyond its threshold, machines first, in the order of their IDs.
func Judge(f Facts) []fleet.Breach {
	var list []fleet.Breach
	if f.Picture != nil {
		for _, id := range slices.Sorted(maps.Keys(f.Picture.Machines)) {
			list = append(list, ofMachine(f.Picture.Machines[id], f.Thresholds)...)
		}
	}
	return append(list, ofSite(f)...)
}

// ofMachine judges one machine.
func ofMachine(p *monitor.Progress, t fleet.Thresholds) (list []fleet.Breach) {
	b := fleet.Breach{Subject: p.Machine, Machine: p.Machine, Name: p.Name, Cause: p.Why}
	switch p.Word {
	case monitor.Slow:
		b.Rule, b.Advice = fleet.RuleSlow, slowAdvice(p.Cause)
		b.Text = fmt.Sprintf("%s is slow: %s over the last %s; it should be %s, and %s of its room's median", p.Name, rateBelow(p.Judged), lapse(t.SlowFor), rateBound(t.SlowRate), percent(t.SlowShare))
		list = append(list, b)
	case monitor.Silent:
		b.Rule, b.Cause = fleet.RuleSilent, "" // the monitor's sentence says the same
		b.Text = fmt.Sprintf("%s is at work and has said nothing for %s", p.Name, lapse(t.Silence))
		b.Advice = "look whether it is switched on and what its screen says; then its cable, its switch port and the switch; it goes on where it was once it is back"
		list = append(list, b)
	case monitor.Failed:
		b.Rule = fleet.RuleFailed
		b.Text = fmt.Sprintf("the job of %s failed", p.Name)
		b.Advice = "read what the machine's page says, mend it, then `seedbed job retry " + p.Job + "`"
		list = append(list, b)
	}
	if p.Tiles >= t.ErrorTiles && float64(p.WrongTiles) > t.ErrorShare*float64(p.Tiles) {
		b.Rule, b.Cause = fleet.RuleErrors, ""
		b.Text = fmt.Sprintf("%s of what %s got in the last minute was wrong: %d of %d tiles failed their hash", percent(float64(p.WrongTiles)/float64(p.Tiles)), p.Name, p.WrongTiles, p.Tiles)
		b.Advice = "wrong tiles are thrown away, so that its disk is right; test its memory and its network cable, and if several machines have it look at what they got it from"
		list = append(list, b)
	}
	return list
}

// slowAdvice says what to do about a cause.
func slowAdvice(c monitor.Cause) string {
	switch c {
	case monitor.CauseLink:
		return "look at its cable, its socket and its switch port: a worn cable makes a card negotiate less"
	case monitor.CauseDisk:
		return "look at the health of its disk (SMART); a disk that is near its end, or a very slow one, writes no faster"
	case monitor.CauseCPU:
		return "its processors are busy: look whether it is too hot or throttled, and at its power settings"
	case monitor.CausePeers, monitor.CauseAlone, monitor.CauseSource:
		return "look whether the switch lets machines talk to each other (client isolation, port security), and at the appliance's own link"
	}
	return "look at its cable and its switch port first, then at its disk"
}

// ofSite judges what is no machine.
func ofSite(f Facts) (list []fleet.Breach) {
	if s := f.Site; s.Total > 0 {
		least := max(f.Thresholds.FreeBytes, int64(f.Thresholds.FreeShare*float64(s.Total)))
		if s.Free < least {
			list = append(list, fleet.Breach{Rule: fleet.RuleSpace, Subject: "repository", Name: "the repository",
				Text:   fmt.Sprintf("the repository has %s free of %s; at least %s are wanted", sizeText(s.Free), sizeText(s.Total), sizeText(least)),
				Advice: "remove versions that nobody needs (`seedbed image rm`), then `seedbed image prune`, or give it a larger disk; captures fail when it is full"})
		}
	}
	for _, c := range f.Site.Certificates {
		left := c.Expires.Sub(f.Now)
		if left > time.Duration(f.Thresholds.CertificateDays)*24*time.Hour {
			continue
		}
		text := fmt.Sprintf("%s ends on %s, in %d days", c.Name, c.Expires.UTC().Format(time.DateOnly), int(left.Hours()/24))
		if left <= 0 {
			text = fmt.Sprintf("%s ended on %s", c.Name, c.Expires.UTC().Format(time.DateOnly))
		}
		list = append(list, fleet.Breach{Rule: fleet.RuleCertificate, Subject: c.Name, Name: c.Name, Text: text, Advice: c.Renew})
	}
	if f.Site.Damage != "" {
		list = append(list, fleet.Breach{Rule: fleet.RuleDamage, Subject: "repository", Name: "the repository", Text: "images in the repository are damaged", Cause: f.Site.Damage,
			Advice: "heal them from a disk that holds the image (`seedbed image verify --heal-from DISK`) or capture them again, then verify all (`seedbed image verify --all`), which ends this alert; and look at the health of the repository's disk"})
	}
	return list
}

// over says how a breach ended.
func over(a *fleet.Alert, p *monitor.Picture) string {
	if a.Machine == "" {
		return "it is as it should be again"
	}
	var m *monitor.Progress
	if p != nil {
		m = p.Machines[a.Machine]
	}
	switch {
	case m == nil:
		return "the machine is not known any more"
	case a.Rule == fleet.RuleErrors:
		return "what it gets is right again"
	case m.Word == monitor.Normal:
		return fmt.Sprintf("it goes on, at %s", rateText(m.Rate))
	}
	return "it is " + string(m.Word) + " now"
}

// lapse writes a length of time: "30 s", "2 min".
func lapse(d fleet.Duration) string {
	s := int64(time.Duration(d) / time.Second)
	if s >= 120 && s%60 == 0 {
		return fmt.Sprintf("%d min", s/60)
	}
	return fmt.Sprintf("%d s", s)
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

// rateText is a rate as people read it: "9.4 MB/s".
func rateText(bytesPerSecond float64) string { return scaled(bytesPerSecond) + "/s" }

// rateBelow is a rate that is below a bound, rounded down, so that 9.98 MB/s do not read as the 10 MB/s that they fall short of.
func rateBelow(bytesPerSecond float64) string {
	v, unit := in(bytesPerSecond)
	return fmt.Sprintf("%.6g %s/s", math.Floor(v*10)/10, unit)
}

// rateBound is a bound as it was set: rounded it might read as less than what falls short of it.
func rateBound(bytesPerSecond float64) string {
	v, unit := in(bytesPerSecond)
	return fmt.Sprintf("%.6g %s/s", v, unit)
}

// in returns a number of bytes in the largest unit of which it is at least one.
func in(bytes float64) (v float64, unit string) {
	i := 0
	for v = bytes; v >= 1000 && i < len(units)-1; i++ {
		v /= 1000
	}
	return v, units[i]
}

var units = []string{"B", "kB", "MB", "GB", "TB", "PB"}

func sizeText(bytes int64) string { return scaled(float64(bytes)) }

func scaled(v float64) string {
	i := 0
	for v >= 999.5 && i < len(units)-1 {
		v /= 1000
		i++
	}
	s := fmt.Sprintf("%.1f", v)
	if v >= 99.5 || i == 0 {
		s = fmt.Sprintf("%.0f", v)
	}
	return strings.TrimSuffix(s, ".0") + " " + units[i]
}
