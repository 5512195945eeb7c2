package fleet_test

import (
	"bytes"
	"encoding/csv"
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
