package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"seedbed/appliance/fleet"
	"seedbed/appliance/journal"
)

// addJournal adds the tables of what jobs did.
func (o *Operators) addJournal() {
	tables := func(op *huma.Operation) {
		op.Description = "CSV (RFC 4180), a row for each job and one for each partition of its receipt. Bytes are in the row of the job alone. Columns:"
		for _, c := range journal.Columns {
			op.Description += "\n\n`" + c.Name + "`: " + c.Means + "."
		}
	}
	deployment := operation("GET", "/deployments/{id}/journal", "deploymentJournal", "What the jobs of a deployment did, as CSV", produces("text/csv"), tables)
	huma.Register(o.api, deployment, func(ctx context.Context, in *DeploymentPath) (*huma.StreamResponse, error) {
		if _, err := o.deploymentOf(in.ID); err != nil {
			return nil, o.problem(ctx, deployment.OperationID, err)
		}
		return o.journal(journal.Query{Deployment: in.ID}, "deployment-"+in.ID), nil
	})
	machine := operation("GET", "/machines/{name}/journal", "machineJournal", "What the jobs of a machine did, as CSV", produces("text/csv"), tables)
	huma.Register(o.api, machine, func(ctx context.Context, in *Named) (*huma.StreamResponse, error) {
		id, err := o.everMachine(ctx, in.Name)
		if err != nil {
			return nil, o.problem(ctx, machine.OperationID, err)
		}
		return o.journal(journal.Query{Machine: id}, "machine-"+id), nil
	})
}

// everMachine returns the ID of a machine, also of one that was removed and is named by its ID.
func (o *Operators) everMachine(ctx context.Context, name string) (string, error) {
	m, err := o.fleet.Machine(name)
	if err == nil {
		return m.ID, nil
	}
	if old, historyErr := o.fleet.History(ctx, fleet.JobQuery{Machine: name, Limit: 1}); historyErr == nil && len(old) > 0 {
		return name, nil
	}
	return "", err
}

// journal answers with a table while it is made. Where that ends early the connection breaks, so that nobody takes a part for the whole.
func (o *Operators) journal(q journal.Query, name string) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		r, w := humago.Unwrap(hc)
		w.Header().Set("Content-Type", journal.Kind)
		w.Header().Set("Content-Disposition", `attachment; filename="`+name+`.csv"`)
		if err := journal.Write(r.Context(), w, o.fleet, q); err != nil {
			if r.Context().Err() == nil {
				o.log.Warn("journal not finished", "of", name, "err", err)
			}
			panic(http.ErrAbortHandler)
		}
	}}
}
