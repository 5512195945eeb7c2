package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"seedbed/appliance/fleet"
)

// fillShelves is the migration that fills columns, of rows from before there were such, from the records in them.
func (s *Store) fillShelves(ctx context.Context, tx *sql.Tx) error {
	jobs, err := docs(ctx, tx, "SELECT id, doc FROM records WHERE kind = 'job'")
	if err != nil {
		return err
	}
	for id, doc := range jobs {
		var j fleet.Job
		if err := json.Unmarshal(doc, &j); err != nil {
			return fmt.Errorf("read job %s: %w", id, err)
		}
		if _, err := tx.ExecContext(ctx, s.bound("UPDATE records SET parent = ? WHERE kind = 'job' AND id = ?"), j.Deployment, id); err != nil {
			return err
		}
	}
	events, err := docs(ctx, tx, "SELECT CAST(id AS TEXT), doc FROM events")
	if err != nil {
		return err
	}
	for id, doc := range events {
		var e fleet.Event
		if err := json.Unmarshal(doc, &e); err != nil {
			return fmt.Errorf("read event %s: %w", id, err)
		}
		_, err := tx.ExecContext(ctx, s.bound("UPDATE events SET kind = ?, machine = ?, job = ?, deployment = ? WHERE id = CAST(? AS BIGINT)"),
			e.Kind, e.Machine, e.Job, e.Deployment, id)
		if err != nil {
			return err
		}
	}
	return nil
}

func docs(ctx context.Context, tx *sql.Tx, query string) (map[string][]byte, error) {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[string][]byte{}
	for rows.Next() {
		var id string
		var doc []byte
		if err := rows.Scan(&id, &doc); err != nil {
			return nil, err
		}
		all[id] = doc
	}
	return all, rows.Err()
}
