package console

import (
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"seedbed/appliance/fleet"
)

// groupPath is the path of a group's page.
func groupPath(id string) string { return "/groups/" + url.PathEscape(id) }

// groupForm is the form of a group: what is set, or what was typed and what is wrong with it.
type groupForm struct {
	ID, Name string // "" is one that is to be made
	Version  int64
	Machines int
	Plan     []*setting // name, kind, rows, columns, notes
	Limits   []*setting
	Windows  []*windowRow
	Clean    *setting // the image; Clean.Value is "" for what was deployed last
	Keep     bool
	Refused  string // why nothing was changed, "" is nothing
}

// Path is that of the group's page.
func (f *groupForm) Path() string { return groupPath(f.ID) }

// groupForm returns the form of a group; nil is one that is to be made.
func (c *console) groupForm(v *visit, g *fleet.GroupView) (*groupForm, error) {
	f, have := &groupForm{}, fleet.Group{Kind: fleet.Room}
	if g != nil {
		have = g.Group
		f.ID, f.Name, f.Version, f.Machines = g.ID, g.Name, g.Version, g.Machines
	}
	kind := &setting{Key: "kind", Label: v.t("Kind"), Hint: v.t("A machine stands in one room; of the others it may have several."), Kind: "choice", Value: string(have.Kind)}
	for _, k := range groupKinds {
		kind.Choices = append(kind.Choices, settingChoice{string(k.Kind), v.t(k.Name), k.Kind == have.Kind})
	}
	rows, columns := v.amount("rows", v.t("Rows of the plan"), v.t("From the front to the back; 0 draws no plan."), "", float64(have.Rows)),
		v.amount("columns", v.t("Columns of the plan"), v.t("Seats side by side, from the left."), "", float64(have.Columns))
	notes := &setting{Key: "notes", Label: v.t("Notes"), Kind: "lines", Value: have.Notes}
	f.Plan = []*setting{kind, rows, columns, notes}
	if g == nil {
		f.Plan = slices.Insert(f.Plan, 0, &setting{Key: "name", Label: v.t("Name of the room"), Hint: v.t("As people call it: A101. It stays as it is."), Kind: "text"})
		rows.Value, columns.Value = "4", "6"
		return f, nil
	}
	f.Limits = []*setting{
		v.amount("limit", v.t("Machines at work at once"), v.t("0 is no limit."), "", float64(have.Limit)),
		{Key: "uplink", Label: v.t("Link that it shares with others"), Hint: v.t("A name for the line over which content comes, as in branch-2; empty is none."), Kind: "text", Value: have.Uplink},
		v.amount("uplink_limit", v.t("Machines behind that link at work at once"), v.t("In all rooms that name the link; 0 is no limit."), "", float64(have.UplinkLimit)),
		{Key: "broadcast", Label: v.t("Address that wakes its machines"), Hint: v.t("The broadcast address of their network, as in 10.1.2.255; empty is those of all networks of the appliance."), Kind: "text", Value: have.Broadcast},
	}
	f.Windows = windowRows(have.Windows)
	image := ""
	if f.Keep = have.KeepClean != nil; f.Keep {
		image = have.KeepClean.Image
	}
	var err error
	f.Clean, err = c.cleanChoice(v, image)
	return f, err
}

// cleanChoice is the choice of the image that machines are kept clean by.
func (c *console) cleanChoice(v *visit, chosen string) (*setting, error) {
	s := &setting{Key: "clean_image", Label: v.t("Image that their disks should have"), Kind: "choice", Value: chosen, Choices: []settingChoice{{"", v.t("what was deployed on each last"), chosen == ""}}}
	list, err := c.imageOptions(v)
	if err != nil {
		return nil, err
	}
	add := func(value, name string) {
		if !slices.ContainsFunc(s.Choices, func(c settingChoice) bool { return c.Value == value }) {
			s.Choices = append(s.Choices, settingChoice{value, name, value == chosen})
		}
	}
	for _, i := range list {
		add(i.Name, v.t("%s, the newest version", i.Name))
		add(i.Name+":"+i.Version, i.Name+":"+i.Version)
	}
	add(chosen, chosen) // one that is gone, or a digest
	return s, nil
}

// fields are all fields of the form.
func (f *groupForm) fields() []*setting {
	all := slices.Concat(f.Plan, f.Limits)
	if f.Clean != nil {
		all = append(all, f.Clean)
	}
	return all
}

// field returns the field with a key; one that the form has not is empty, and nobody sees it.
func (f *groupForm) field(key string) *setting {
	for _, s := range f.fields() {
		if s.Key == key {
			return s
		}
	}
	return &setting{Key: key}
}

// read takes what was typed into the form and returns what it asks for; what is wrong stands at its field.
func (f *groupForm) read(c *console, v *visit) (o fleet.GroupOrder) {
	_ = v.ParseForm() // what is no form says nothing
	for _, s := range f.fields() {
		s.Value = strings.TrimSpace(v.PostForm.Get(s.Key))
		for i := range s.Choices {
			s.Choices[i].Chosen = s.Choices[i].Value == s.Value
		}
	}
	number := func(key string) *int {
		s := f.field(key)
		n, err := strconv.Atoi(s.Value)
		if err != nil || n < 0 {
			s.Wrong = v.t("A whole number from 0 is wanted here.")
			return nil
		}
		return &n
	}
	o.Kind, o.Notes = new(fleet.GroupKind(f.field("kind").Value)), &f.field("notes").Value
	o.Rows, o.Columns = number("rows"), number("columns")
	if f.ID != "" {
		o.Limit, o.Uplink, o.UplinkLimit, o.Broadcast = number("limit"), &f.field("uplink").Value, number("uplink_limit"), &f.field("broadcast").Value
		o.Windows = f.readWindows(c, v)
		if f.Keep = v.PostForm.Get("keep_clean") != ""; f.Keep {
			o.CleanImage = &f.Clean.Value
		}
		o.KeepClean = &f.Keep
	}
	for key, why := range c.Fleet.CheckGroup(o) {
		if s := f.field(key); s.Wrong == "" {
			s.Wrong = v.sentenceOf(why)
		}
	}
	return o
}

// wrong reports whether a value cannot be, and says so on top.
func (f *groupForm) wrong(v *visit) bool {
	count := 0
	for _, s := range f.fields() {
		if s.Wrong != "" {
			s.First = count == 0
			count++
		}
	}
	for _, w := range f.Windows {
		if w.Wrong != "" {
			w.First = count == 0
			count++
		}
	}
	switch {
	case count == 1:
		f.Refused = v.t("Nothing was changed: one value cannot be. It says why.")
	case count > 1:
		f.Refused = v.t("Nothing was changed: %d values cannot be. Each says why.", count)
	}
	return count > 0
}

// refuse puts what the fleet refuses to the field that it is about.
func (f *groupForm) refuse(v *visit, err error) {
	key, refusal := "", (*fleet.Refusal)(nil)
	if errors.As(err, &refusal) {
		switch {
		case f.ID == "" && (refusal.Code == fleet.CodeGroupExists || refusal.Code == fleet.CodeInvalid):
			key = "name"
		case refusal.Code == fleet.CodeAmbiguous:
			key = "kind" // as its machines stand, it cannot be a room
		case refusal.Code == fleet.CodeImageUnknown:
			key = "clean_image"
		}
	}
	if key != "" {
		f.field(key).Wrong = v.formSentence(err)
		if f.wrong(v) {
			return
		}
	}
	f.Refused = v.formSentence(err)
}

// commands are those that refusals name for people at a terminal.
var commands = regexp.MustCompile(`[;,]? \(?\x60seedbed [^\x60]+\x60(?: lists them)?\)?`) // \x60 is a backquote

// formSentence is what a person reads of an error at a form, which has itself what the command line would do.
func (v *visit) formSentence(err error) string { return commands.ReplaceAllString(v.sentence(err), "") }
