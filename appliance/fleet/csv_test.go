package fleet_test

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

func TestTableOfMachinesGoesOutAndComesBack(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	agents := r.machines(2, "")
	ctx := as(t, "otto", fleet.RoleOperator)
	in := "\ufeffname,mac,groups,row,column,notes,admitted\r\n" +
		"desk-1," + strings.ToUpper(agents[0].mac) + ",lab; floor 2,1,1,\"says \"\"hello\"\", loud\",true\r\n" +
		"desk-2,52-54-00-00-09-01,lab,1,2,=1+1,true\r\n"
	done, err := r.ImportMachines(ctx, strings.NewReader(in), true)
	imported := fleet.Imported{Added: 1, Changed: 1, NewGroups: []string{"lab", "floor 2"}}
	if err != nil || !reflect.DeepEqual(*done, imported) {
		t.Fatalf("%+v, %v", done, err)
	}
	if len(r.Machines()) != 2 || len(r.Groups()) != 0 {
		t.Fatal("a dry run wrote something")
	}
	if done, err = r.ImportMachines(ctx, strings.NewReader(in), false); err != nil || !reflect.DeepEqual(*done, imported) {
		t.Fatalf("%+v, %v", done, err)
	}
	var out bytes.Buffer
	if err := r.ExportMachines(&out); err != nil {
		t.Fatal(err)
	}
	table, err := csv.NewReader(&out).ReadAll()
	if err != nil || len(table) != 4 {
		t.Fatalf("%v, %v", table, err)
	}
	i := slices.IndexFunc(table, func(l []string) bool { return l[0] == agents[0].mac })
	if l := table[i]; l[1] != "desk-1" || l[2] != "floor 2;lab" || l[3] != "1" || l[5] != `says "hello", loud` || l[11] != "SERIAL-0" {
		t.Fatalf("%q", l)
	}
	i = slices.IndexFunc(table, func(l []string) bool { return l[0] == "52:54:00:00:09:01" })
	if table[i][5] != "'=1+1" {
		t.Fatalf("a formula goes out: %q", table[i])
	}
	if err := r.ExportMachines(&out); err != nil {
		t.Fatal(err)
	}
	if done, err = r.ImportMachines(ctx, &out, false); err != nil || !reflect.DeepEqual(*done, fleet.Imported{Same: 3}) {
		t.Fatalf("what went out comes back as %+v, %v", done, err)
	}
	// The machine that was imported is known when it comes.
	a := r.boot("52:54:00:00:09:01", job.Inventory{UUID: "11111111-2222-3333-4444-555555555909", Serial: "S9"})
	if a.me.Name != "desk-2" || !a.me.Admitted {
		t.Fatalf("%+v", a.me)
	}
}

func TestTablesThatCannotBeReadImportNothing(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	for what, in := range map[string]string{
		"nothing": "", "no mac": "name\nx\n", "a strange column": "mac,colour\n52:54:00:00:00:01,red\n", "a column twice": "mac,mac\n52:54:00:00:00:01,x\n",
		"no address": "mac,name\n52:54:00:00:00:01,a\nhere,b\n", "one address twice": "mac\n52:54:00:00:00:01\n52-54-00-00-00-01\n",
		"one name twice": "mac,name\n52:54:00:00:00:01,a\n52:54:00:00:00:02,a\n", "half a seat": "mac,row,column\n52:54:00:00:00:01,1,\n",
		"a strange word": "mac,admitted\n52:54:00:00:00:01,perhaps\n", "an open quote": "mac,name\n52:54:00:00:00:01,\"a\n", "too few fields": "mac,name\n52:54:00:00:00:01\n",
		"another encoding": "mac,groups\n52:54:00:00:00:01,B\xfcro\n", "a zero byte": "mac,notes\n52:54:00:00:00:01,a\x00b\n",
		"a column without a name": "mac,name,\n52:54:00:00:00:01,a,b\n", "a card of nobody": "mac\n00:00:00:00:00:00\n", "all cards": "mac\nff:ff:ff:ff:ff:ff\n",
		"a number of a spreadsheet": "mac;name\n5,2540E+11;a\n", "half of a letter": "\xff\xfem", "a strange separator": "sep=x\nmacxname\n",
		"a group that cannot be": "mac,groups\n52:54:00:00:00:01,a/b\n", "a long group": "mac,groups\n52:54:00:00:00:01," + strings.Repeat("x", 100) + "\n",
	} {
		_, err := r.ImportMachines(t.Context(), strings.NewReader(in), false)
		if err == nil || codeOf(err) == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(r.Machines()) != 0 {
		t.Fatal("a table that was refused left something")
	}
	if _, err := r.ImportMachines(as(t, "vera", fleet.RoleViewer), strings.NewReader("mac\n52:54:00:00:00:01\n"), false); codeOf(err) != fleet.CodeForbidden {
		t.Errorf("a viewer imports: %v", err)
	}
}

func TestTableWithSemicolons(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	done, err := r.ImportMachines(as(t, "otto", fleet.RoleOperator), strings.NewReader("mac;name;groups\r\n52:54:00:00:00:01;desk-1;\"lab;floor\"\r\n"), false)
	if err != nil || done.Added != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	if m, err := r.Machine("desk-1"); err != nil || !slices.Equal(m.Groups, []string{"floor", "lab"}) {
		t.Fatalf("%+v, %v", m, err)
	}
}

// TestTablesAsSpreadsheetsWriteThem: marks, separators of other countries, what was emptied, addresses without anything between.
func TestTablesAsSpreadsheetsWriteThem(t *testing.T) {
	wide := func(s string, big bool) string {
		var b strings.Builder
		for _, u := range append([]uint16{0xfeff}, utf16.Encode([]rune(s))...) {
			if big {
				u = u<<8 | u>>8
			}
			b.Write([]byte{byte(u), byte(u >> 8)})
		}
		return b.String()
	}
	tabs := "mac\tname\tgroups\tnotes\r\n52-54-00-00-00-01\tBüro\t\t\"eine\nzwei\"\r\n"
	for what, in := range map[string]string{
		"commas":              "mac,name,notes\n52:54:00:00:00:01,Büro,\"eine\nzwei\"\n",
		"semicolons, a mark":  "\ufeff\"mac\";\"name\";notes;;\r\n525400000001;Büro;\"eine\r\nzwei\";;\r\n;;;;\r\n",
		"a line that says so": "sep=;\r\nmac;name;notes\r\n5254.0000.0001;Büro;\"eine\nzwei\"\r\n",
		"tabs":                tabs, "Unicode text": wide(tabs, false), "Unicode text of others": wide(tabs, true),
	} {
		r := newRoom(t, fleet.AdmitAuto)
		done, err := r.ImportMachines(t.Context(), strings.NewReader(in), false)
		if err != nil || done.Added != 1 {
			t.Errorf("%s: %+v, %v", what, done, err)
			continue
		}
		if m, err := r.Machine("525400000001"); err != nil || m.Name != "Büro" || m.Notes != "eine\nzwei" {
			t.Errorf("%s: %+v, %v", what, m, err)
		}
	}
	r := newRoom(t, fleet.AdmitAuto)
	_, err := r.ImportMachines(t.Context(), strings.NewReader("sep=;\nmac;name\n;\n52:54:00:00:00:01;a\nhere;b\n"), false)
	if err == nil || !strings.Contains(err.Error(), "line 5") {
		t.Errorf("the wrong line is named: %v", err)
	}
}

// TestWhatLooksLikeAFormulaGoesOutHarmlessAndComesBack: also where semicolons separate, and where it had an apostrophe before.
func TestWhatLooksLikeAFormulaGoesOutHarmlessAndComesBack(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	ctx := as(t, "otto", fleet.RoleOperator)
	words := []string{"=1+1", "'=1+1", "''-2", "a;=HYPERLINK(\"http://x\")", "one\n@two", "＝1", "'quoted", "don't", "a - b", "x, -1", "|+3", "row 1; =2"}
	for i, text := range words {
		a := r.boot(fmt.Sprintf("52:54:00:00:0a:%02x", i), job.Inventory{Serial: "SN;=" + fmt.Sprint(i), Product: "\t=cmd"})
		if _, err := r.EditMachine(ctx, a.me.Machine, 0, fleet.MachineOrder{Notes: &text}); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := r.ExportMachines(&out); err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.FieldsFunc(out.String(), func(r rune) bool { return strings.ContainsRune(",;|\t\r\n", r) }) {
		if first := strings.TrimLeft(part, " \""); first != "" && strings.IndexAny(first, "=+-@＝") == 0 {
			t.Errorf("a formula goes out: %q", part)
		}
	}
	done, err := r.ImportMachines(ctx, &out, false)
	if err != nil || !reflect.DeepEqual(*done, fleet.Imported{Same: len(words)}) {
		t.Errorf("what went out comes back as %+v, %v", done, err)
	}
}

func TestLargeTableOfMachines(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	var in strings.Builder
	in.WriteString("mac,name,groups,row,column\n")
	for i := range 600 {
		fmt.Fprintf(&in, "52:54:00:%02x:%02x:00,desk-%d,room %d,%d,%d\n", i>>8, i&255, i, i/400, i%400/20+1, i%20+1)
	}
	done, err := r.ImportMachines(as(t, "otto", fleet.RoleOperator), strings.NewReader(in.String()), false)
	if err != nil || done.Added != 600 || len(r.Jobs()) != 600 {
		t.Fatalf("%+v, %d jobs, %v", done, len(r.Jobs()), err)
	}
}
