package queue

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // hosts without a database of time zones keep windows too
)

// Window is a time of the week in which jobs may begin.
type Window struct {
	// Days are those on which it opens, by time.Weekday.
	Days [7]bool
	// From and To are since midnight by the clock on the wall; To at or before From is on the next day.
	From, To time.Duration
	// Zone is where the clock hangs; nil is UTC.
	Zone *time.Location
}

var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// ParseWindow reads a window: "mon-fri 18:00-07:00", "sat,sun 00:00-24:00", "daily 12:00-13:00", and a time zone after it,
// "mon-fri 18:00-07:00 Europe/Berlin"; without one it is zone.
func ParseWindow(text string, zone *time.Location) (Window, error) {
	w := Window{Zone: zone}
	fields := strings.Fields(text)
	if len(fields) != 2 && len(fields) != 3 {
		return w, fmt.Errorf("a window is written DAYS FROM-TO, for example %q, not %q", "mon-fri 18:00-07:00", text)
	}
	var err error
	if w.Days, err = parseDays(strings.ToLower(fields[0])); err != nil {
		return w, fmt.Errorf("window %q: %w", text, err)
	}
	from, to, ok := strings.Cut(fields[1], "-")
	if !ok {
		return w, fmt.Errorf("window %q: the times are written FROM-TO, for example 18:00-07:00", text)
	}
	if w.From, err = parseClock(from); err != nil {
		return w, fmt.Errorf("window %q: %w", text, err)
	}
	if w.To, err = parseClock(to); err != nil {
		return w, fmt.Errorf("window %q: %w", text, err)
	}
	if w.From == 24*time.Hour || w.From == w.To {
		return w, fmt.Errorf("window %q: it opens and closes at different times of the day; the whole day is 00:00-24:00", text)
	}
	if len(fields) == 3 {
		if w.Zone, err = Zone(fields[2]); err != nil {
			return w, fmt.Errorf("window %q: there is no time zone %q", text, fields[2])
		}
	}
	return w, nil
}

// zones are those that were looked up, which takes a file.
var zones sync.Map

// Zone returns a time zone by its name: "Europe/Berlin".
func Zone(name string) (*time.Location, error) {
	if zone, known := zones.Load(name); known {
		return zone.(*time.Location), nil
	}
	zone, err := time.LoadLocation(name)
	if err == nil {
		zones.Store(name, zone)
	}
	return zone, err
}

func parseDays(text string) (days [7]bool, err error) {
	if text == "daily" {
		return [7]bool{true, true, true, true, true, true, true}, nil
	}
	for _, part := range strings.Split(text, ",") {
		from, to, span := strings.Cut(part, "-")
		first, last := dayOf(from), dayOf(from)
		if span {
			last = dayOf(to)
		}
		if first < 0 || last < 0 {
			return days, fmt.Errorf("days are sun, mon, tue, wed, thu, fri, sat, a span such as mon-fri, or daily, not %q", part)
		}
		for d := first; ; d = (d + 1) % 7 {
			days[d] = true
			if d == last {
				break
			}
		}
	}
	return days, nil
}

func dayOf(name string) int {
	for i, d := range dayNames {
		if name == d {
			return i
		}
	}
	return -1
}

func parseClock(text string) (time.Duration, error) {
	if text == "24:00" {
		return 24 * time.Hour, nil
	}
	t, err := time.Parse("15:04", text)
	if err != nil {
		return 0, errors.New("a time of the day is written 07:40, from 00:00 to 24:00, not " + text)
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}

// String writes the window as ParseWindow reads it.
func (w Window) String() string {
	clock := func(d time.Duration) string { return fmt.Sprintf("%02d:%02d", d/time.Hour, d%time.Hour/time.Minute) }
	var days []string
	for i, on := range w.Days {
		if on {
			days = append(days, dayNames[i])
		}
	}
	text := strings.Join(days, ",")
	if len(days) == 7 {
		text = "daily"
	}
	text += " " + clock(w.From) + "-" + clock(w.To)
	if w.Zone != nil {
		text += " " + w.Zone.String()
	}
	return text
}

// span returns when the window that opens on the day of a time opens and closes. Where clocks are set forward over one of
// these, it is the moment at which they are.
func (w Window) span(day time.Time) (from, to time.Time) {
	zone := w.Zone
	if zone == nil {
		zone = time.UTC
	}
	y, m, d := day.In(zone).Date()
	at := func(days int, since time.Duration) time.Time {
		return onTheWall(time.Date(y, m, d+days, int(since/time.Hour), int(since%time.Hour/time.Minute), 0, 0, zone), since)
	}
	if w.To <= w.From {
		return at(0, w.From), at(1, w.To)
	}
	return at(0, w.From), at(0, w.To)
}

// onTheWall returns t, or the moment at which clocks are set forward over a time of the day that there is not on that day: time.Date
// returns one before or after it.
func onTheWall(t time.Time, since time.Duration) time.Time {
	shown := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
	if shown == since%(24*time.Hour) {
		return t
	}
	begin, end := t.ZoneBounds()
	if !begin.IsZero() && (end.IsZero() || t.Sub(begin) < end.Sub(t)) { // the near one of its two changes of the clock
		return begin
	}
	return end
}

// Open reports whether one of the windows is open and when that changes next; zero is never.
func Open(windows []Window, now time.Time) (open bool, next time.Time) {
	for _, w := range windows {
		zone := w.Zone
		if zone == nil {
			zone = time.UTC
		}
		y, m, d := now.In(zone).Date()
		for day := -1; day <= 8; day++ {
			date := time.Date(y, m, d+day, 12, 0, 0, 0, zone) // at noon no clock is set
			if !w.Days[date.Weekday()] {
				continue
			}
			from, to := w.span(date)
			switch {
			case !to.After(now), !to.After(from): // of a window in an hour that is left out there is nothing on that day
			case !from.After(now): // inside
				if !open || to.After(next) {
					open, next = true, to
				}
			case !open && (next.IsZero() || from.Before(next)):
				next = from
			}
		}
	}
	return open, next
}
