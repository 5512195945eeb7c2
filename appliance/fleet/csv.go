package fleet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"seedbed/appliance/job"
)

// columns of the table of machines, RFC 4180 with a header. An import reads mac, and those of name, groups, row, column,
// notes and admitted that its header has, in any order; the others are for people.
var columns = []string{"mac", "name", "groups", "row", "column", "notes", "admitted", "id", "uuid", "manufacturer", "product", "serial",
	"memory_bytes", "disks", "holds", "first_seen"}

// maxImport bounds the machines of one import.
const maxImport = 20000

// ExportMachines writes the table of machines. Spreadsheets take a field that begins with =, +, - or @ for a formula: before these it
// has an apostrophe.
func (f *Fleet) ExportMachines(w io.Writer) error {
	out := csv.NewWriter(w)
	out.UseCRLF = true
	if err := out.Write(columns); err != nil {
		return err
	}
	for _, m := range f.Machines() {
		row, column := "", ""
		if m.Seat != nil {
			row, column = strconv.Itoa(m.Seat.Row), strconv.Itoa(m.Seat.Column)
		}
		inv := m.Inventory
		if inv == nil {
			inv = &job.Inventory{}
		}
		var disks []string
		for _, d := range inv.Disks {
			disks = append(disks, fmt.Sprintf("%s %s %s %d", d.Name, d.Model, d.Serial, d.Length))
		}
		holds := ""
		if m.Deployed != nil {
			holds = m.Deployed.ImageName
		}
		record := []string{m.MAC, m.Name, strings.Join(m.Groups, ";"), row, column, m.Notes, strconv.FormatBool(m.Admitted), m.ID, m.UUID,
			inv.Manufacturer, inv.Product, inv.Serial, strconv.FormatInt(inv.MemoryBytes, 10), strings.Join(disks, "; "), holds,
			m.FirstSeen.UTC().Format("2006-01-02T15:04:05Z")}
		for i := range record {
			record[i] = Harmless(record[i])
		}
		if err := out.Write(record); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// formulas are what fields begin with that spreadsheets compute (OWASP, CSV injection), the wide ones in some countries; separators are
// what ends a field in some country: a table with commas that is opened where semicolons separate is cut at these.
const (
	formulas   = "=+-@＝＋－＠"
	separators = ",;|\t\r\n"
)

// Harmless keeps a spreadsheet from computing what a stranger wrote: an apostrophe goes before whatever would be a formula. plain
// takes that back.
func Harmless(s string) string {
	return eachField(s, func(field string) string {
		if isFormula(field) {
			return "'" + field
		}
		return field
	})
}

func plain(s string) string {
	return eachField(s, func(field string) string {
		if rest, quoted := strings.CutPrefix(field, "'"); quoted && isFormula(field) {
			return rest
		}
		return field
	})
}

// isFormula reports whether a field is a formula, behind apostrophes or without.
func isFormula(field string) bool {
	first, _ := utf8.DecodeRuneInString(strings.TrimLeft(field, "'"))
	return first != utf8.RuneError && strings.ContainsRune(formulas, first)
}

// eachField returns a text with what fn makes of each part of it that a spreadsheet may take for a field, without the blanks before.
func eachField(s string, fn func(field string) string) string {
	var b strings.Builder
	for s != "" {
		end := strings.IndexAny(s, separators)
		if end < 0 {
			end = len(s)
		}
		field := strings.TrimLeft(s[:end], " ")
		b.WriteString(s[:end-len(field)])
		b.WriteString(fn(field))
		if end < len(s) {
			b.WriteByte(s[end])
			end++
		}
		s = s[end:]
	}
	return b.String()
}

// Imported says what an import did.
type Imported struct {
	Added   int `json:"added"`
	Changed int `json:"changed"`
	Same    int `json:"same"`
	// NewGroups are the groups that were not there before, by name.
	NewGroups []string `json:"new_groups,omitempty"`
}

// line is one machine of an import; nil fields are columns that the table has not.
type line struct {
	number   int
	mac      string
	order    MachineOrder
	admitted *bool
}

// ImportMachines takes over a table of machines, all of it or nothing. A MAC that is not known makes a machine that is known
// before it is seen. Groups that are not there are made, as tags. dry only says what it would do.
func (f *Fleet) ImportMachines(ctx context.Context, r io.Reader, dry bool) (*Imported, error) {
	if err := may(ctx, RoleOperator, "import machines"); err != nil {
		return nil, err
	}
	lines, err := readLines(r)
	if err != nil {
		return nil, err
	}
	var done Imported
	errDry := refuse("dry", "nothing is written")
	err = f.change(ctx, func(d *draft) error {
		done = Imported{}
		known := newRegister(d.machines())
		for _, l := range lines {
			if err := d.importLine(ctx, l, known, &done); err != nil {
				return refuse(CodeInvalid, "line %d (%s): %v; nothing was imported", l.number, l.mac, err)
			}
		}
		if dry {
			return errDry
		}
		d.event(by(ctx, Event{Kind: "machine.import", Text: fmt.Sprintf("a table of machines was imported: %d new, %d changed, %d the same", done.Added, done.Changed, done.Same)}))
		return nil
	})
	if err != nil && err != errDry {
		return nil, err
	}
	return &done, nil
}

// register is a list of machines in which an import finds each quickly.
type register struct {
	all   []*Machine
	at    map[string]int        // in all, by ID
	byMAC map[string][]*Machine // by each MAC that they had when they came into the register
}

func newRegister(machines []*Machine) *register {
	r := &register{at: map[string]int{}, byMAC: map[string][]*Machine{}}
	for _, m := range machines {
		r.put(m)
	}
	return r
}

// put adds a machine, or replaces its record; an import changes no MACs.
func (r *register) put(m *Machine) {
	i, had := r.at[m.ID]
	if had {
		r.all[i] = m
	} else {
		r.at[m.ID] = len(r.all)
		r.all = append(r.all, m)
	}
	for _, mac := range m.MACs {
		list := slices.DeleteFunc(r.byMAC[mac], func(o *Machine) bool { return o.ID == m.ID })
		r.byMAC[mac] = append(list, m)
	}
}

func (d *draft) importLine(ctx context.Context, l line, known *register, done *Imported) error {
	m := byMAC(identity{macs: []string{l.mac}}, known.byMAC[l.mac])
	fresh := m == nil
	if fresh {
		m = d.record(identity{macs: []string{l.mac}}, "")
		m.ByItself = time.Time{} // it is a person who says so
		known.put(m)
	}
	if l.order.Groups != nil {
		for _, name := range *l.order.Groups {
			if lookup[*Group](d, KindGroup, GroupID(name)) == nil {
				g, err := d.newGroup(name)
				if err != nil {
					return err
				}
				d.add(g)
				done.NewGroups = append(done.NewGroups, g.Name)
				d.event(by(ctx, Event{Kind: "group.created", Text: "group " + g.Name + " was made by an import"}))
			}
		}
	}
	own := m.copy().(*Machine)
	what, err := d.alter(own, l.order, known.all)
	if err != nil {
		return err
	}
	admits := l.admitted != nil && *l.admitted && !own.vouched()
	if admits {
		if !own.Admitted {
			what = append(what, "was admitted")
		}
		own.admit()
		d.event(by(ctx, Event{Kind: "machine.admitted", Machine: own.ID, Text: own.Name + " was admitted by an import"}))
	}
	switch {
	case fresh:
		done.Added++
	case len(what) == 0:
		if done.Same++; !admits {
			return nil
		}
	default:
		done.Changed++
	}
	*d.editMachine(m) = *own
	known.put(d.machine(own.ID))
	if admits {
		d.enlist(d.machine(own.ID))
	}
	return nil
}

// readLines reads a table of machines.
func readLines(r io.Reader) (list []line, err error) {
	text, err := decoded(bufio.NewReader(r))
	if err != nil {
		return nil, refuse(CodeInvalid, "the table of machines cannot be read: %v", err)
	}
	comma, skipped, err := separator(text)
	if err != nil {
		return nil, refuse(CodeInvalid, "the table of machines cannot be read: %v", err)
	}
	in := csv.NewReader(text)
	in.TrimLeadingSpace, in.Comma = comma != '\t', comma
	header, err := in.Read()
	if err != nil {
		return nil, refuse(CodeInvalid, "the table of machines has no header; its first line names its columns, of which one is mac")
	}
	at := map[string]int{}
	for i, name := range header {
		name = strings.ToLower(strings.TrimSpace(name))
		if name == "" {
			continue // spreadsheets write columns that were emptied
		}
		if !slices.Contains(columns, name) {
			return nil, refuse(CodeInvalid, "there is no column %q; the columns are %s", name, strings.Join(columns, ", "))
		}
		if _, twice := at[name]; twice {
			return nil, refuse(CodeInvalid, "the column %q is there twice", name)
		}
		at[name] = i
	}
	if _, ok := at["mac"]; !ok {
		return nil, refuse(CodeInvalid, "the table of machines has no column mac, by which machines are known")
	}
	seen := map[string]int{}
	for {
		record, err := in.Read()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return nil, refuse(CodeInvalid, "the table of machines cannot be read: %v", err)
		}
		number, _ := in.FieldPos(0)
		number += skipped
		if !slices.ContainsFunc(record, func(s string) bool { return strings.TrimSpace(s) != "" }) {
			continue // and lines
		}
		if i := nameless(header, record); i >= 0 {
			return nil, refuse(CodeInvalid, "line %d has %q in column %d, which has no name in the first line; nothing was imported", number, record[i], i+1)
		}
		if slices.ContainsFunc(record, func(s string) bool { return !utf8.ValidString(s) || strings.ContainsRune(s, 0) }) {
			return nil, refuse(CodeInvalid, "line %d is not in UTF-8; save the table as \"CSV UTF-8\"; nothing was imported", number)
		}
		l, err := readLine(record, at)
		if err != nil {
			return nil, refuse(CodeInvalid, "line %d: %v; nothing was imported", number, err)
		}
		if first := seen[l.mac]; first > 0 {
			return nil, refuse(CodeInvalid, "line %d has the MAC of line %d; nothing was imported", number, first)
		}
		l.number, seen[l.mac] = number, number
		if list = append(list, l); len(list) > maxImport {
			return nil, refuse(CodeInvalid, "one import takes at most %d machines", maxImport)
		}
	}
}

// nameless returns the first column with something in it that has no name, or -1.
func nameless(header, record []string) int {
	for i := range record {
		if strings.TrimSpace(header[i]) == "" && strings.TrimSpace(record[i]) != "" {
			return i
		}
	}
	return -1
}

// Marks with which spreadsheets begin a file (Unicode 23.8): UTF-8, and UTF-16, which they call "Unicode text".
var (
	markUTF8   = []byte("\xef\xbb\xbf")
	markLittle = []byte("\xff\xfe")
	markBig    = []byte("\xfe\xff")
)

// decoded returns a text in UTF-8, without a mark.
func decoded(text *bufio.Reader) (*bufio.Reader, error) {
	begin, err := text.Peek(len(markUTF8))
	if err != nil && err != io.EOF {
		return nil, err
	}
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(begin, markUTF8):
		_, err := text.Discard(len(markUTF8))
		return text, err
	case bytes.HasPrefix(begin, markLittle):
		order = binary.LittleEndian
	case bytes.HasPrefix(begin, markBig):
		order = binary.BigEndian
	default:
		return text, nil
	}
	all, err := io.ReadAll(text)
	if err != nil {
		return nil, err
	}
	units := make([]uint16, 0, len(all)/2)
	for i := 2; i+1 < len(all); i += 2 {
		units = append(units, order.Uint16(all[i:]))
	}
	return bufio.NewReader(strings.NewReader(string(utf16.Decode(units)))), nil
}

// separator returns what separates the fields: what a first line "sep=;" names, which some spreadsheets write and which is skipped; else
// a semicolon or a tab where the header has one and no comma, as spreadsheets write it in countries whose numbers have commas.
func separator(text *bufio.Reader) (comma rune, skipped int, err error) {
	begin, err := text.Peek(text.Size())
	if err != nil && err != io.EOF {
		return 0, 0, err
	}
	header, _, _ := bytes.Cut(begin, []byte("\n"))
	if named, is := bytes.CutPrefix(bytes.ToLower(bytes.Trim(header, "\"\r")), []byte("sep=")); is && len(named) == 1 {
		if !bytes.Contains([]byte(",;\t|"), named) {
			return 0, 0, fmt.Errorf("%q separates no fields", named)
		}
		_, err := text.ReadSlice('\n')
		if err == io.EOF {
			err = nil
		}
		return rune(named[0]), 1, err
	}
	for _, other := range ";\t" {
		if bytes.ContainsRune(header, other) && !bytes.Contains(header, []byte(",")) {
			return other, 0, nil
		}
	}
	return ',', 0, nil
}

func readLine(record []string, at map[string]int) (l line, err error) {
	field := func(name string) *string {
		i, ok := at[name]
		if !ok {
			return nil
		}
		text := plain(strings.TrimSpace(record[i]))
		return &text
	}
	if l.mac = typedMAC(*field("mac")); l.mac == "" {
		return l, fmt.Errorf("%q is no MAC of a network card; one is written 52:54:00:77:00:10", *field("mac"))
	}
	if name := field("name"); name != nil && *name != "" {
		l.order.Name = name
	}
	l.order.Notes = field("notes")
	if groups := field("groups"); groups != nil {
		names := []string{}
		for _, name := range strings.Split(*groups, ";") {
			if name = strings.TrimSpace(name); name != "" {
				names = append(names, name)
			}
		}
		l.order.Groups = &names
	}
	if row, column := field("row"), field("column"); row != nil && column != nil {
		seat := Seat{}
		if *row != "" || *column != "" {
			r, err1 := strconv.Atoi(*row)
			c, err2 := strconv.Atoi(*column)
			if err1 != nil || err2 != nil {
				return l, fmt.Errorf("row %q and column %q are no seat", *row, *column)
			}
			seat = Seat{r, c}
		}
		l.order.Seat = &seat
	}
	if admitted := field("admitted"); admitted != nil && *admitted != "" {
		b, err := strconv.ParseBool(*admitted)
		if err != nil {
			return l, fmt.Errorf("admitted is true or false, not %q", *admitted)
		}
		l.admitted = &b
	}
	return l, nil
}
