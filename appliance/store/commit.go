package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"seedbed/appliance/fleet"
)

// Commit implements fleet.Records.
func (s *Store) Commit(ctx context.Context, c *fleet.Change) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	defer tx.Rollback() // after a commit it does nothing
	var epoch int64
	if err := tx.QueryRowContext(ctx, "SELECT epoch FROM epoch").Scan(&epoch); err != nil {
		return fmt.Errorf("read the epoch: %w", err)
	}
	if epoch != c.Epoch {
		return fleet.ErrFenced
	}
	w := &writer{ctx: ctx, tx: tx}
	w.records(c)
	w.facts(c)
	if w.err != nil {
		return w.err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	w.done(c)
	return nil
}

// writer keeps its first error.
type writer struct {
	ctx context.Context
	tx  *sql.Tx
	err error
	ids []int64 // of the events written
}

// records writes the versioned records. A record is encoded with the version that it will have.
func (w *writer) records(c *fleet.Change) {
	for _, m := range c.Machines {
		next := *m
		next.Version++
		w.put("machines", m.ID, m.Version, next, "", nil)
	}
	for _, d := range c.Deployments {
		next := *d
		next.Version++
		w.put("deployments", d.ID, d.Version, next, "", nil)
	}
	for _, s := range c.Sessions {
		next := *s
		next.Version++
		w.put("sessions", s.ID, s.Version, next, "", nil)
	}
	for _, j := range c.Jobs {
		next := *j
		next.Version++
		ended := int64(0)
		if j.State.Ended() {
			ended = j.Ended.Unix()
		}
		w.put("jobs", j.ID, j.Version, next, "machine, ended", []any{j.Machine, ended})
	}
	for _, t := range c.Tokens {
		next := *t
		next.Version++
		w.put("tokens", t.ID, t.Version, next, "", nil)
	}
	for _, id := range c.Spent {
		w.exec("DELETE FROM tokens WHERE id = ?", id)
	}
	for _, id := range c.Forget {
		w.exec("DELETE FROM sessions WHERE id = ?", id)
	}
}

// put inserts a record of version 0 and replaces the row of the same version of any other; more names further columns.
func (w *writer) put(table, id string, version int64, record any, more string, values []any) {
	if w.err != nil {
		return
	}
	doc, err := json.Marshal(record)
	if err != nil {
		w.err = fmt.Errorf("encode %s %s: %w", table, id, err)
		return
	}
	args := append([]any{version + 1, string(doc)}, values...)
	var query string
	switch {
	case version == 0 && more == "":
		query = "INSERT INTO " + table + " (version, doc, id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
		args = append(args, id)
	case version == 0:
		query = "INSERT INTO " + table + " (version, doc, " + more + ", id) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
		args = append(args, id)
	case more == "":
		query = "UPDATE " + table + " SET version = ?, doc = ? WHERE id = ? AND version = ?"
		args = append(args, id, version)
	default:
		query = "UPDATE " + table + " SET version = ?, doc = ?, (" + more + ") = (?, ?) WHERE id = ? AND version = ?"
		args = append(args, id, version)
	}
	if n := w.exec(query, args...); w.err == nil && n != 1 {
		w.err = fmt.Errorf("%s %s, version %d: %w", table, id, version, fleet.ErrConflict)
	}
}

// facts writes what is never changed.
func (w *writer) facts(c *fleet.Change) {
	for _, e := range c.Events {
		doc, err := json.Marshal(e)
		if err != nil && w.err == nil {
			w.err = fmt.Errorf("encode event: %w", err)
		}
		if w.err != nil {
			return
		}
		r, err := w.tx.ExecContext(w.ctx, "INSERT INTO events (doc) VALUES (?)", string(doc))
		if err == nil {
			var id int64
			id, err = r.LastInsertId()
			w.ids = append(w.ids, id)
		}
		if err != nil {
			w.err = fmt.Errorf("write event: %w", err)
		}
	}
	for _, f := range c.Frames {
		w.exec("INSERT INTO frames (job, digest, at, bytes) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
			f.Job, f.Digest.String(), f.At.UnixNano(), f.Bytes)
	}
	for _, r := range c.Receipts {
		w.exec("INSERT INTO receipts (job, at, receipt, signature, countersignature) VALUES (?, ?, ?, ?, ?)",
			r.Job, r.At.UnixNano(), r.Receipt, r.Signature, r.Countersignature)
	}
}

func (w *writer) exec(query string, args ...any) int64 {
	if w.err != nil {
		return 0
	}
	r, err := w.tx.ExecContext(w.ctx, query, args...)
	if err != nil {
		w.err = fmt.Errorf("write records: %w", err)
		return 0
	}
	n, err := r.RowsAffected()
	if err != nil {
		w.err = fmt.Errorf("write records: %w", err)
	}
	return n
}

// done tells the caller's records what the transaction made of them.
func (w *writer) done(c *fleet.Change) {
	for _, m := range c.Machines {
		m.Version++
	}
	for _, d := range c.Deployments {
		d.Version++
	}
	for _, s := range c.Sessions {
		s.Version++
	}
	for _, j := range c.Jobs {
		j.Version++
	}
	for _, t := range c.Tokens {
		t.Version++
	}
	for i := range c.Events {
		c.Events[i].ID = w.ids[i]
	}
}
