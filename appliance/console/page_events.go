package console

import (
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"seedbed/appliance/fleet"
)

// eventsPage is what happened, the latest first.
var eventsPage = &page{path: "/events", name: "events", nav: text("Events"), data: eventsData, live: eventsLive, routes: []route{
	{pattern: "GET /events/file", serve: eventsFile},
}}

// eventsShown is how many events one page shows.
const eventsShown = 50

// eventFilter says which events are shown, as people typed it.
type eventFilter struct{ Machine, Kind, Actor, Deployment, Job string }

// eventsView is what the page shows.
type eventsView struct {
	eventFilter
	Kinds  []eventKind
	Events []eventRow
	// Newest says that there is nothing later; Newer and Older are pages, "" where there is none.
	Newest            bool
	Newer, Older      string
	CSVFile, JSONFile string
	Filtered          bool
}

// Latest is the page of the latest events.
func (e *eventsView) Latest() string { return e.link("/events") }

// eventKind is what events can be chosen by: the beginning of their kinds.
type eventKind struct {
	Value, Text string
	Chosen      bool
}

// eventGroups are the beginnings of kinds, as people read them.
var eventGroups = []struct{ value, name string }{
	{"machine.", text("Machines")}, {"job.", text("Jobs")}, {"deployment.", text("Deployments")}, {"image.", text("Images")},
	{"group.", text("Groups and rooms")}, {"user.", text("Users and logins")}, {"key.", text("API tokens")}, {"token.", text("Tokens for guests")},
	{"guest.", text("Guests")}, {"alert.", text("Alerts")}, {"settings.", text("Settings")}, {"appliance.", text("Appliances")}, {"records.", text("Records")}, {"disk.", text("Disks of the appliance")},
	{"message.", text("Mail and webhooks")},
}

// eventRow is an event with what it is about.
type eventRow struct {
	fleet.Event
	// About is in the visit's language: "Machines".
	About                     string
	Said                      string // the text, in the visit's language if it can be
	MachineName, MachineURL   string
	DeploymentURL, ImageURL   string
	DeploymentName, ImageName string
}

// eventsQuery returns the filter of a request and the question to the records.
func eventsQuery(c *console, r *http.Request) (f eventFilter, q fleet.EventQuery, err error) {
	get := func(name string) string { return strings.TrimSpace(r.URL.Query().Get(name)) }
	f = eventFilter{Machine: get("machine"), Kind: get("kind"), Actor: get("actor"), Deployment: get("deployment"), Job: get("job")}
	q = fleet.EventQuery{Machine: f.Machine, Kind: f.Kind, Actor: f.Actor, Deployment: f.Deployment, Job: f.Job, Limit: eventsShown}
	if f.Machine != "" {
		if m, err := c.Fleet.Machine(f.Machine); err == nil { // one that was removed has events too, by its ID
			q.Machine = m.ID
		}
	}
	for name, to := range map[string]*int64{"before": &q.Before, "after": &q.After} {
		if value := get(name); value != "" {
			if *to, err = strconv.ParseInt(value, 10, 64); err != nil || *to < 0 {
				return f, q, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: text("this page of the events is none that this console gave; begin with the latest")}
			}
		}
	}
	return f, q, nil
}

// values returns the filter as a query.
func (f eventFilter) values() url.Values {
	v := url.Values{}
	for name, value := range map[string]string{"machine": f.Machine, "kind": f.Kind, "actor": f.Actor, "deployment": f.Deployment, "job": f.Job} {
		if value != "" {
			v.Set(name, value)
		}
	}
	return v
}

func (f eventFilter) link(path string, pairs ...string) string {
	v := f.values()
	for i := 0; i < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	if len(v) == 0 {
		return path
	}
	return path + "?" + v.Encode()
}

func eventsData(c *console, v *visit) (any, error) {
	f, q, err := eventsQuery(c, v.Request)
	if err != nil {
		return nil, err
	}
	view := &eventsView{eventFilter: f, Newest: q.Before == 0 && q.After == 0, Filtered: f != eventFilter{}}
	page, err := fromRecords(c, v, "events", func() (p eventsPart, err error) {
		p.list, p.more, err = eventsOf(v.Context(), c.Fleet, q)
		return p, err
	})
	if err != nil {
		return nil, err
	}
	list, more := page.list, page.more
	for _, g := range eventGroups {
		view.Kinds = append(view.Kinds, eventKind{g.value, v.t(g.name), f.Kind == g.value})
	}
	if f.Kind != "" && !slices.ContainsFunc(view.Kinds, func(k eventKind) bool { return k.Chosen }) {
		view.Kinds = append(view.Kinds, eventKind{f.Kind, f.Kind, true})
	}
	view.Events = eventRows(c, v, list)
	if len(list) > 0 {
		first, last := strconv.FormatInt(list[0].ID, 10), strconv.FormatInt(list[len(list)-1].ID, 10)
		if q.After != 0 && !more { // the latest page
			view.Newest = true
		}
		if !view.Newest {
			view.Newer = f.link("/events", "after", first)
		}
		if q.After != 0 || more {
			view.Older = f.link("/events", "before", last)
		}
	} else if !view.Newest {
		view.Newer = f.link("/events")
	}
	view.CSVFile, view.JSONFile = f.link("/events/file", "format", "csv"), f.link("/events/file", "format", "jsonl")
	return view, nil
}

// eventsPart is one page of events, the latest first; more says that there are more in the direction that was asked for.
type eventsPart struct {
	list []fleet.Event
	more bool
}

// eventsOf returns one page of events, the latest first, and whether there are more in the direction that was asked for.
func eventsOf(ctx context.Context, f *fleet.Fleet, q fleet.EventQuery) (list []fleet.Event, more bool, err error) {
	shown := q.Limit
	q.Limit++
	if q.After == 0 && q.Before == 0 {
		q.Before = 1<<63 - 1 // the last ones
	}
	if list, err = f.Events(ctx, q); err != nil {
		return nil, false, err
	}
	slices.SortFunc(list, func(a, b fleet.Event) int { return cmp.Compare(b.ID, a.ID) })
	if more = len(list) > shown; more {
		if q.After != 0 {
			list = list[1:] // the latest one is of the next page
		} else {
			list = list[:shown]
		}
	}
	return list, more, nil
}

// imageIn finds the image that an event's text names.
var imageIn = regexp.MustCompile(`\b[a-z0-9][a-z0-9._-]*:[a-z0-9][a-z0-9._-]*\b`)

// eventRows adds to events what they are about.
func eventRows(c *console, v *visit, list []fleet.Event) (rows []eventRow) {
	machines, deployments := map[string]string{}, map[string]string{}
	for _, m := range c.Fleet.Machines() {
		machines[m.ID] = m.Name
	}
	for _, d := range c.Fleet.Deployments() {
		deployments[d.ID] = d.ImageName
	}
	for _, e := range list {
		row := eventRow{Event: e, Said: v.look.say(e.Text)}
		for _, g := range eventGroups {
			if strings.HasPrefix(e.Kind, g.value) {
				row.About = v.t(g.name)
			}
		}
		if name, ok := machines[e.Machine]; ok {
			row.MachineName, row.MachineURL = name, "/machines/"+url.PathEscape(e.Machine)
		}
		if name, ok := deployments[e.Deployment]; ok {
			row.DeploymentName, row.DeploymentURL = name, "/deployments/"+url.PathEscape(e.Deployment)
		}
		if strings.HasPrefix(e.Kind, "image.") && e.Kind != "image.removed" {
			if row.ImageName = imageIn.FindString(e.Text); row.ImageName != "" {
				row.ImageURL = "/images/" + url.PathEscape(row.ImageName)
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func eventsLive(c *console, v *visit) (*live, error) {
	data, err := eventsData(c, v)
	if err != nil {
		return nil, err
	}
	view := data.(*eventsView)
	if !view.Newest { // what was long ago does not change
		return &live{}, nil
	}
	return &live{parts: []part{v.part("events", "event-list", "", "list", view)}}, nil
}

// eventColumns are the header of the table of events.
var eventColumns = []string{"id", "time", "kind", "machine", "machine_name", "job", "deployment", "actor", "from", "text"}

// eventsFile streams all events of a filter as a table (RFC 4180) or as lines of JSON, oldest first.
func eventsFile(c *console, v *visit) (*answer, error) {
	_, q, err := eventsQuery(c, v.Request)
	if err != nil {
		return nil, err
	}
	q.After, q.Before, q.Limit = 0, 0, 1000
	format := v.URL.Query().Get("format")
	kind := map[string]string{"csv": "text/csv; charset=utf-8; header=present", "jsonl": "application/x-ndjson"}[format]
	if kind == "" {
		return nil, &fleet.Refusal{Code: fleet.CodeInvalid, Detail: text("events come as csv or as jsonl")}
	}
	next := func() ([]fleet.Event, error) {
		list, err := c.Fleet.Events(v.Context(), q)
		if len(list) > 0 {
			q.After = list[len(list)-1].ID
		}
		return list, err
	}
	list, err := next() // an error of the records is told as a page
	if err != nil {
		return nil, err
	}
	v.w.Header().Set("Content-Type", kind)
	v.w.Header().Set("Content-Disposition", `attachment; filename="events-`+time.Now().Format("2006-01-02")+"."+format+`"`)
	names := map[string]string{}
	for _, m := range c.Fleet.Machines() {
		names[m.ID] = m.Name
	}
	write := writeEventLines
	if format == "csv" {
		write = eventTable(names)
	}
	for err == nil && len(list) > 0 {
		if err = write(v.w, list); err == nil {
			list, err = next()
		}
	}
	if err != nil && v.Context().Err() == nil && !errors.Is(err, http.ErrAbortHandler) {
		c.Log.Warn("download of events not finished", "err", err)
		panic(http.ErrAbortHandler) // a cut file is not taken for a whole one
	}
	if format == "csv" && q.After == 0 {
		return nil, write(v.w, nil)
	}
	return nil, nil
}

func writeEventLines(w io.Writer, list []fleet.Event) error {
	out := json.NewEncoder(w)
	for _, e := range list {
		if err := out.Encode(e); err != nil {
			return err
		}
	}
	return nil
}

// eventTable returns what writes events as a table, whose header comes first.
func eventTable(names map[string]string) func(io.Writer, []fleet.Event) error {
	begun := false
	return func(w io.Writer, list []fleet.Event) error {
		out := csv.NewWriter(w)
		out.UseCRLF = true
		if !begun {
			begun = true
			_ = out.Write(eventColumns) // an error stays for Error
		}
		for _, e := range list {
			record := []string{strconv.FormatInt(e.ID, 10), e.At.UTC().Format(time.RFC3339Nano), e.Kind, e.Machine, names[e.Machine], e.Job, e.Deployment, e.Actor, e.From, e.Text}
			for i := range record {
				record[i] = fleet.Harmless(record[i])
			}
			_ = out.Write(record)
		}
		out.Flush()
		return out.Error()
	}
}
