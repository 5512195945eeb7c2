package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"seedbed/appliance/fleet"
)

// Commit implements fleet.Records.
func (s *Store) Commit(ctx context.Context, c *fleet.Change) (int64, error) {
	limited, cancel := s.limit(ctx)
	defer cancel()
	number, lastEvent, err := s.commit(limited, c)
	if lost := (*lostCommit)(nil); errors.As(err, &lost) {
		err = s.outcome(ctx, lost)
	}
	if err != nil {
		return 0, err
	}
	for _, r := range c.Put {
		*r.Row()++
	}
	for i := range c.Events {
		c.Events[i].ID = lastEvent - int64(len(c.Events)) + int64(i) + 1
	}
	return number, nil
}

// commit writes a change and returns the numbers of the commit and of the last event, of a lostCommit too.
func (s *Store) commit(ctx context.Context, c *fleet.Change) (number, lastEvent int64, err error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, 0, fmt.Errorf("begin a transaction: %w", err)
	}
	defer tx.Rollback() // after a commit it does nothing
	// The row is locked from here on: commits follow each other, and each one knows all before it.
	var epoch int64
	err = tx.QueryRowContext(ctx, s.bound(`UPDATE site SET commit_number = commit_number + 1, event = event + ?
		WHERE commit_number = ? RETURNING event, epoch`), len(c.Events), c.Base).Scan(&lastEvent, &epoch)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		// One who was relieved learns that first: what it knows of the records is old, and what it decides is not its to decide.
		if err := tx.QueryRowContext(ctx, "SELECT epoch FROM site").Scan(&epoch); err == nil && c.Epoch != 0 && c.Epoch != epoch {
			return 0, 0, fleet.ErrFenced
		}
		return 0, 0, fmt.Errorf("commit %d is not the last one: %w", c.Base, fleet.ErrConflict)
	case err != nil:
		return 0, 0, fmt.Errorf("number the commit: %w", err)
	case c.Epoch != 0 && c.Epoch != epoch:
		return 0, 0, fleet.ErrFenced
	}
	w := &writer{ctx: ctx, s: s, tx: tx, number: c.Base + 1, prepared: map[string]*sql.Stmt{}}
	for _, r := range c.Put {
		w.put(r)
	}
	for _, k := range c.Remove {
		w.remove(k)
	}
	w.facts(c, lastEvent-int64(len(c.Events)))
	w.sign()
	w.forget()
	if w.err != nil {
		return 0, 0, w.err
	}
	if err := tx.Commit(); err != nil {
		return w.number, lastEvent, &lostCommit{w.number, err}
	}
	return w.number, lastEvent, nil
}

// writer keeps its first error.
type writer struct {
	ctx    context.Context
	s      *Store
	tx     *sql.Tx
	number int64
	err    error
	// prepared are the store's statements in this transaction.
	prepared map[string]*sql.Stmt
}

// put inserts a record of version 0 and replaces the row of the same version of any other. A record is encoded with the
// version that it will have.
func (w *writer) put(r fleet.Record) {
	if w.err != nil {
		return
	}
	k, version, shelf := r.Ref(), *r.Row(), r.Shelf()
	*r.Row() = version + 1
	doc, err := json.Marshal(r)
	*r.Row() = version
	if err != nil {
		w.err = fmt.Errorf("encode %s %s: %w", k.Kind, k.ID, err)
		return
	}
	ended := int64(0)
	if !shelf.Ended.IsZero() {
		ended = max(1, shelf.Ended.Unix())
	}
	values := []any{version + 1, w.number, shelf.Owner, shelf.Parent, ended, string(doc), k.Kind, k.ID}
	query := replaceRecord
	if version == 0 {
		query = insertRecord
	} else {
		values = append(values, version)
	}
	if n := w.exec(query, values...); w.err == nil && n != 1 {
		w.err = fmt.Errorf("%s %s, version %d: %w", k.Kind, k.ID, version, fleet.ErrConflict)
	}
}

// remove leaves an empty row in place of a record, for the appliances that read what changed.
func (w *writer) remove(k fleet.Key) {
	w.exec("UPDATE records SET doc = '', commit_number = ?, ended = ? WHERE kind = ? AND id = ? AND doc <> ''", w.number, time.Now().Unix(), k.Kind, k.ID)
}

// What is written with each change.
const (
	replaceRecord = `UPDATE records SET version = ?, commit_number = ?, owner = ?, parent = ?, ended = ?, doc = ?
		WHERE kind = ? AND id = ? AND version = ? AND doc <> ''`
	insertRecord = `INSERT INTO records (version, commit_number, owner, parent, ended, doc, kind, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (kind, id) DO UPDATE SET version = excluded.version, commit_number = excluded.commit_number, owner = excluded.owner,
		parent = excluded.parent, ended = excluded.ended, doc = excluded.doc WHERE records.doc = ''`
	insertEvent = "INSERT INTO events (id, kind, machine, job, deployment, actor, doc) VALUES (?, ?, ?, ?, ?, ?, ?)"
)

// prepare has SQLite parse these once, which takes it a third of the time of a statement; the driver of PostgreSQL does that by
// itself.
func (s *Store) prepare(ctx context.Context) error {
	s.prepared = map[string]*sql.Stmt{}
	for _, query := range []string{replaceRecord, insertRecord, insertEvent} {
		statement, err := s.db.PrepareContext(ctx, query)
		if err != nil {
			return err
		}
		s.prepared[query] = statement
	}
	return nil
}

// run executes a statement in the transaction.
func (w *writer) run(query string, args []any) (sql.Result, error) {
	if own := w.prepared[query]; own != nil {
		return own.ExecContext(w.ctx, args...)
	}
	if statement := w.s.prepared[query]; statement != nil {
		w.prepared[query] = w.tx.StmtContext(w.ctx, statement)
		return w.prepared[query].ExecContext(w.ctx, args...)
	}
	return w.tx.ExecContext(w.ctx, w.s.bound(query), args...)
}

// facts writes what is never changed; the first event comes after the one of that number.
func (w *writer) facts(c *fleet.Change, last int64) {
	for i, e := range c.Events {
		e.ID = last + int64(i) + 1
		doc, err := json.Marshal(e)
		if err != nil && w.err == nil {
			w.err = fmt.Errorf("encode event: %w", err)
		}
		w.exec(insertEvent, e.ID, e.Kind, e.Machine, e.Job, e.Deployment, e.Actor, string(doc))
	}
	for _, job := range c.Unframe {
		w.exec("DELETE FROM frames WHERE job = ?", job)
	}
	for _, job := range c.Delete.Jobs {
		w.remove(fleet.Key{Kind: fleet.KindJob, ID: job})
		w.exec("DELETE FROM frames WHERE job = ?", job)
		w.exec("DELETE FROM receipts WHERE job = ?", job)
	}
	if c.Delete.Events > 0 {
		w.exec("DELETE FROM events WHERE id <= ?", c.Delete.Events)
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

// Removals are kept for the appliances that read them, which are never that far behind without loading all again.
const (
	keepRemovals = 24 * time.Hour
	forgetEvery  = 1024 // commits
)

// forget deletes the rows of records that were removed long ago.
func (w *writer) forget() {
	if w.number%forgetEvery != 0 {
		return
	}
	before := time.Now().Add(-keepRemovals).Unix()
	w.exec(`UPDATE site SET forgot = (SELECT MAX(n) FROM (SELECT forgot AS n FROM site UNION ALL
		SELECT commit_number AS n FROM records WHERE doc = '' AND ended < ?) AS gone)`, before)
	w.exec("DELETE FROM records WHERE doc = '' AND ended < ?", before)
	w.exec("DELETE FROM writers WHERE commit_number < ?", w.number-keepWriters)
}

func (w *writer) exec(query string, args ...any) int64 {
	if w.err != nil {
		return 0
	}
	r, err := w.run(query, args)
	if err != nil {
		w.err = fmt.Errorf("write the records: %w", err)
		return 0
	}
	n, err := r.RowsAffected()
	if err != nil {
		w.err = fmt.Errorf("write the records: %w", err)
	}
	return n
}
