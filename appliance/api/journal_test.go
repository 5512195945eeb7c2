package api_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"io"
	"slices"
	"strings"
	"testing"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// checkJournal looks at the tables after the one machine's one job.
func (a *appliance) checkJournal(machine string, j job.Job) {
	a.t.Helper()
	for of, write := range map[string]func(context.Context, string, io.Writer) error{j.Deployment: a.operator.DeploymentJournal, machine: a.operator.MachineJournal} {
		var out bytes.Buffer
		if err := write(a.t.Context(), of, &out); err != nil {
			a.t.Fatal(err)
		}
		all, err := csv.NewReader(&out).ReadAll()
		if err != nil || len(all) != 3 {
			a.t.Fatalf("journal %q, %v", all, err)
		}
		cell := func(row int, column string) string { return all[row][slices.Index(all[0], column)] }
		if cell(1, "from_appliance") != "60" || cell(1, "verified") != "yes" || cell(1, "partition") != "" || cell(1, "machine") != machine || cell(1, "name") != "pc-770010" ||
			cell(1, "image_digest") != j.Image.String() || cell(2, "partition") != "0" || cell(2, "hash") != a.shelf.m.Partitions[0].Root.String() || cell(2, "from_appliance") != "" {
			a.t.Errorf("journal %q", all)
		}
	}
}

func TestJournalsOfWhatIsNotThere(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	if err := a.operator.DeploymentJournal(t.Context(), "none", io.Discard); err == nil || !strings.Contains(err.Error(), "no deployment has the ID none") {
		t.Errorf("a deployment that is not there: %v", err)
	}
	if err := a.operator.MachineJournal(t.Context(), "none", io.Discard); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a machine that is not there: %v", err)
	}
}

// TestAJournalThatEndsEarlyIsAnError, and not a short table.
func TestAJournalThatEndsEarlyIsAnError(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	if _, err := a.operator.ImportMachines(t.Context(), strings.NewReader(table), false); err != nil {
		t.Fatal(err)
	}
	d, err := a.operator.Deploy(t.Context(), api.Order{Order: fleet.Order{Image: "debian", Machines: []string{"one"}}})
	if err != nil {
		t.Fatal(err)
	}
	var whole bytes.Buffer
	if err := a.operator.DeploymentJournal(t.Context(), d.ID, &whole); err != nil || !strings.Contains(whole.String(), ",waiting,") {
		t.Fatalf("%q, %v", whole.String(), err)
	}
	a.store.Close() // what has ended cannot be read any more
	var part bytes.Buffer
	if err := a.operator.DeploymentJournal(t.Context(), d.ID, &part); err == nil {
		t.Errorf("a journal without what has ended is told as whole: %q", part.String())
	}
}
