package console

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/queue"
)

// windowRow is a time of the week in which jobs of a group may begin, as the form has it.
type windowRow struct {
	Number         int    // from 1
	Was            string // as the group has it, "" is a new one
	Days           []windowDay
	From, To, Zone string // "18:00"; midnight is "00:00" at both ends
	Away           bool   // it is to be taken away
	Wrong          string
	First          bool // of what is wrong in the form
}

// windowDay is a day of the week.
type windowDay struct {
	Value, Name string // "mon", "Mon"
	Chosen      bool
}

// weekDays are the days of the week as windows write them, with their names.
var weekDays = []windowDay{{"mon", text("Mon"), false}, {"tue", text("Tue"), false}, {"wed", text("Wed"), false}, {"thu", text("Thu"), false},
	{"fri", text("Fri"), false}, {"sat", text("Sat"), false}, {"sun", text("Sun"), false}}

// windowRows are the windows of a group, and an empty one to be filled in.
func windowRows(windows []string) (rows []*windowRow) {
	for _, text := range windows {
		rows = append(rows, windowOf(text))
	}
	rows = append(rows, windowOf(""))
	for i, r := range rows {
		r.Number = i + 1
	}
	return rows
}

// windowOf is the row of a window; one that cannot be read is empty but for its text.
func windowOf(text string) *windowRow {
	r := &windowRow{Was: text, Days: slices.Clone(weekDays)}
	w, err := queue.ParseWindow(text, nil)
	if err != nil {
		return r
	}
	clock := func(d time.Duration) string {
		d %= 24 * time.Hour
		return fmt.Sprintf("%02d:%02d", d/time.Hour, d%time.Hour/time.Minute)
	}
	for i := range r.Days {
		r.Days[i].Chosen = w.Days[(i+1)%7] // time.Weekday begins with Sunday
	}
	if r.From, r.To = clock(w.From), clock(w.To); w.Zone != nil {
		r.Zone = w.Zone.String()
	}
	return r
}

// text writes what was typed as the fleet reads windows; "" is a row that is empty.
func (r *windowRow) text() string {
	var days []string
	for _, d := range r.Days {
		if d.Chosen {
			days = append(days, d.Value)
		}
	}
	if len(days) == 0 && r.From == "" && r.To == "" {
		return ""
	}
	to := r.To
	if to == "00:00" {
		to = "24:00"
	}
	return strings.TrimSpace(strings.Join(days, ",") + " " + r.From + "-" + to + " " + r.Zone)
}

// same reports whether two rows say the same.
func (r *windowRow) same(o *windowRow) bool {
	return slices.Equal(r.Days, o.Days) && r.From == o.From && r.To == o.To && r.Zone == o.Zone
}

// readWindows takes the windows that were typed into the form and returns them; those without days and times are none.
func (f *groupForm) readWindows(c *console, v *visit) *[]string {
	count, _ := v.number("windows") // what is no number is none
	list := []string{}
	f.Windows = nil
	for n := 1; n <= min(count, maxWindows); n++ {
		field := func(name string) string { return strings.TrimSpace(v.PostForm.Get(fmt.Sprint(name, "-", n))) }
		r := &windowRow{Number: n, Was: field("was"), Days: slices.Clone(weekDays), From: field("from"), To: field("to"), Zone: field("zone"), Away: field("away") != ""}
		for i, d := range r.Days {
			r.Days[i].Chosen = slices.Contains(v.PostForm[fmt.Sprint("days-", n)], d.Value)
		}
		f.Windows = append(f.Windows, r)
		if r.Away {
			continue
		}
		written := r.text()
		switch was := windowOf(r.Was); {
		case written == "":
			continue
		case r.Was != "" && r.same(was):
			list = append(list, r.Was)
			continue
		case !slices.ContainsFunc(r.Days, func(d windowDay) bool { return d.Chosen }):
			r.Wrong = v.t("Choose the days on which it opens.")
		case r.From == "" || r.To == "":
			r.Wrong = v.t("Say from when to when jobs may begin.")
		case strings.ContainsAny(r.Zone, " \t"):
			r.Wrong = v.t("A time zone is named as in Europe/Berlin.")
		default:
			if why := c.Fleet.CheckGroup(fleet.GroupOrder{Windows: &[]string{written}})["windows"]; why != "" {
				r.Wrong = v.sentenceOf(why)
			}
		}
		list = append(list, written)
	}
	return &list
}

// maxWindows is how many windows of a group the form takes.
const maxWindows = 100
