package console

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"time"

	"seedbed/appliance/monitor"
)

// language is one that the console speaks.
type language struct{ Code, Name string }

// languages are all, the one of browsers that speak none of them first.
var languages = []language{{"en", "English"}, {"zh", "中文"}}

// chinese has the translations, a file for each page.
//
//go:embed chinese
var chinese embed.FS

// textsOf returns the translations into a language by their English text.
func textsOf(code string) (map[string]string, error) {
	if code != "zh" {
		return nil, nil
	}
	files, err := fs.Glob(chinese, "chinese/*.json")
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, file := range files {
		b, err := chinese.ReadFile(file)
		if err != nil {
			return nil, err
		}
		texts := map[string]string{}
		if err := json.Unmarshal(b, &texts); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		maps.Copy(all, texts)
	}
	return all, nil
}

// t returns a text in the look's language, with arguments in their places as fmt.Sprintf puts them; translations may number these.
func (l *look) t(english string, args ...any) string {
	format := english
	if other, ok := l.texts[english]; ok {
		format = other
	}
	if len(args) == 0 {
		return format
	}
	return fmt.Sprintf(format, args...)
}

// text marks a text that is translated where it is shown.
func text(english string) string { return english }

// words are the words of package monitor as people read them.
var words = map[monitor.Word]string{
	monitor.Idle: text("idle"), monitor.Waiting: text("waiting"), monitor.Normal: text("normal"), monitor.Slow: text("slow"),
	monitor.Silent: text("silent"), monitor.Paused: text("paused"), monitor.Failed: text("failed"), monitor.Done: text("done"),
	monitor.Cancelled: text("cancelled"),
}

// wordOrder is the order in which words are told: what needs a person first.
var wordOrder = []monitor.Word{monitor.Failed, monitor.Silent, monitor.Slow, monitor.Normal, monitor.Waiting, monitor.Paused, monitor.Done, monitor.Cancelled, monitor.Idle}

// word returns a word of package monitor in the look's language.
func (l *look) word(w monitor.Word) string { return l.t(words[w]) }

// Bytes writes a length in bytes for people: "40.2 GB". Units are decimal, as vendors of disks and networks count.
func Bytes(n int64) string { return scaled(float64(n), "") }

// Rate writes a rate in bytes a second for people: "112 MB/s".
func Rate(r float64) string { return scaled(r, "/s") }

func scaled(n float64, per string) string {
	unit := 0
	names := []string{"B", "KB", "MB", "GB", "TB", "PB"}
	for n >= 999.5 && unit < len(names)-1 {
		n, unit = n/1000, unit+1
	}
	if n >= 9.95 || unit == 0 {
		return fmt.Sprintf("%.0f %s%s", n, names[unit], per)
	}
	return fmt.Sprintf("%.1f %s%s", n, names[unit], per)
}

// duration writes how long something takes for people: "2 min 10 s". What is negative is not known.
func (l *look) duration(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case d < 0:
		return "–"
	case s < 60:
		return l.t("%d s", s)
	case s < 600:
		return l.t("%d min %d s", s/60, s%60)
	case s < 7200:
		return l.t("%d min", (s+30)/60)
	case s < 48*3600:
		return l.t("%d h %d min", s/3600, s%3600/60)
	}
	return l.t("%d days", s/86400)
}

// about writes a forecast, which says no more than it knows: "6 min".
func (l *look) about(d time.Duration) string {
	switch {
	case d < 0:
		return "–"
	case d > 100*time.Second:
		d = d.Round(time.Minute)
	case d > 10*time.Second:
		d = d.Round(5 * time.Second)
	}
	if d >= 2*time.Minute && d < 10*time.Minute {
		return l.t("%d min", int(d.Minutes()))
	}
	return l.duration(d)
}

// time writes a moment in the appliance's time zone: "2026-11-23 20:05:09". Zero is a dash.
func (l *look) time(at time.Time) string {
	if at.IsZero() {
		return "–"
	}
	return at.Local().Format("2006-01-02 15:04:05")
}

// ago writes how long ago a moment was. Zero is never.
func (l *look) ago(at time.Time) string {
	if at.IsZero() {
		return l.t("never")
	}
	return l.t("%s ago", l.duration(max(0, time.Since(at))))
}

// percent writes a share of 0 to 1: "43 %". It says 100 only when all is done.
func percent(share float64) string { return fmt.Sprintf("%d %%", int(share*100)) }
