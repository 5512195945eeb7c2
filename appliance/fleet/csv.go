package fleet

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"seedbed/appliance/job"
)

// columns of the table of machines, RFC 4180 with a header. An import reads mac, and those of name, groups, row, column,
// notes and admitted that its header has, in any order; the others are for people.
var columns = []string{"mac", "name", "groups", "row", "column", "notes", "admitted", "id", "uuid", "manufacturer", "product", "serial",
	"memory_bytes", "disks", "holds", "first_seen"}

// maxImport bounds the machines of one import.
const maxImport = 20000

// ExportMachines writes the table of machines. Spreadsheets take a field that begins with =, +, - or @ for a formula: such a
// field of a machine's own words begins with an apostrophe.
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
			record[i] = harmless(record[i])
		}
		if err := out.Write(record); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// harmless keeps a spreadsheet from computing what a stranger wrote; plain takes that back.
func harmless(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}

func plain(s string) string {
	if len(s) > 1 && s[0] == '\'' && strings.ContainsRune("=+-@\t\r", rune(s[1])) {
		return s[1:]
	}
	return s
}

// Imported says what an import did.
type Imported struct {
	Added   int `json:"added"`
	Changed int `json:"changed"`
	Same    int `json:"same"`
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
		for _, l := range lines {
			if err := d.importLine(ctx, l, &done); err != nil {
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

func (d *draft) importLine(ctx context.Context, l line, done *Imported) error {
	all := d.machines()
	m := byMAC(identity{macs: []string{l.mac}}, all)
	fresh := m == nil
	if fresh {
		m = d.record(identity{macs: []string{l.mac}}, "")
		all = append(all, m)
	}
	if l.order.Groups != nil {
		for _, name := range *l.order.Groups {
			if lookup[*Group](d, KindGroup, GroupID(name)) == nil {
				g := &Group{ID: GroupID(name), Name: strings.TrimSpace(name), Kind: Tag, Created: d.f.now().UTC()}
				d.add(g)
				d.event(by(ctx, Event{Kind: "group.created", Text: "group " + g.Name + " was made by an import"}))
			}
		}
	}
	own := m.copy().(*Machine)
	what, err := d.alter(own, l.order, all)
	if err != nil {
		return err
	}
	admits := l.admitted != nil && *l.admitted && !own.Admitted
	if admits {
		own.Admitted, own.Code = true, ""
		what = append(what, "was admitted")
	}
	switch {
	case fresh:
		done.Added++
	case len(what) == 0:
		done.Same++
		return nil
	default:
		done.Changed++
	}
	*d.editMachine(m) = *own
	if admits {
		d.enlist(d.machine(own.ID))
	}
	return nil
}

// readLines reads a table of machines.
func readLines(r io.Reader) (list []line, err error) {
	in := csv.NewReader(r)
	in.TrimLeadingSpace = true
	header, err := in.Read()
	if err != nil {
		return nil, refuse(CodeInvalid, "the table of machines has no header; its first line names its columns, of which one is mac")
	}
	at := map[string]int{}
	for i, name := range header {
		name = strings.ToLower(strings.TrimSpace(strings.TrimPrefix(name, "\ufeff"))) // spreadsheets begin a file with a mark
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

func readLine(record []string, at map[string]int) (l line, err error) {
	field := func(name string) *string {
		i, ok := at[name]
		if !ok {
			return nil
		}
		text := plain(strings.TrimSpace(record[i]))
		return &text
	}
	mac, err := net.ParseMAC(*field("mac"))
	if err != nil || len(mac) != 6 {
		return l, fmt.Errorf("%q is no MAC; one is written 52:54:00:77:00:10", *field("mac"))
	}
	l.mac = mac.String()
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
