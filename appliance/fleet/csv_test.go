package fleet_test

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"slices"
	"strings"
	"testing"

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
	if err != nil || *done != (fleet.Imported{Added: 1, Changed: 1}) {
		t.Fatalf("%+v, %v", done, err)
	}
	if len(r.Machines()) != 2 || len(r.Groups()) != 0 {
		t.Fatal("a dry run wrote something")
	}
	if done, err = r.ImportMachines(ctx, strings.NewReader(in), false); err != nil || *done != (fleet.Imported{Added: 1, Changed: 1}) {
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
	if done, err = r.ImportMachines(ctx, &out, false); err != nil || *done != (fleet.Imported{Same: 3}) {
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
