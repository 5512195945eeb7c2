package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"seedbed/appliance/fleet"
)

// Load implements fleet.Records.
func (s *Store) Load(ctx context.Context, since time.Time) (*fleet.Snapshot, error) {
	snap := new(fleet.Snapshot)
	err := s.consistent(ctx, func(r reader) error {
		if err := r.QueryRowContext(ctx, "SELECT commit_number FROM site").Scan(&snap.Number); err != nil {
			return fmt.Errorf("read the number of the last commit: %w", err)
		}
		if err := s.rows(ctx, r, snap, "WHERE doc <> '' AND (ended = 0 OR ended > ?)", since.Unix()); err != nil {
			return err
		}
		for _, record := range snap.Put {
			d, ok := record.(*fleet.Deployment)
			if !ok || !d.All || d.Closed {
				continue
			}
			err := s.rows(ctx, r, snap, "WHERE doc <> '' AND kind = 'job' AND parent = ? AND ended > 0 AND ended <= ?", d.ID, since.Unix())
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return snap, nil
}

// Since implements fleet.Records.
func (s *Store) Since(ctx context.Context, number int64) (*fleet.Snapshot, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	snap := new(fleet.Snapshot)
	err := s.consistent(ctx, func(r reader) error {
		var forgot int64
		if err := r.QueryRowContext(ctx, "SELECT commit_number, forgot FROM site").Scan(&snap.Number, &forgot); err != nil {
			return fmt.Errorf("read the number of the last commit: %w", err)
		}
		switch {
		case snap.Number == number:
			return nil
		case number < forgot || number > snap.Number: // a database that was put back from a copy is older
			return fleet.ErrStale
		}
		return s.rows(ctx, r, snap, "WHERE commit_number > ? ORDER BY commit_number", number)
	})
	if err != nil {
		return nil, err
	}
	return snap, nil
}

// rows adds the records of a query to a snapshot.
func (s *Store) rows(ctx context.Context, r reader, snap *fleet.Snapshot, where string, args ...any) error {
	rows, err := r.QueryContext(ctx, s.bound("SELECT kind, id, doc FROM records "+where), args...)
	if err != nil {
		return fmt.Errorf("read the records: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var k fleet.Key
		var doc []byte
		if err := rows.Scan(&k.Kind, &k.ID, &doc); err != nil {
			return fmt.Errorf("read the records: %w", err)
		}
		if len(doc) == 0 {
			snap.Remove = append(snap.Remove, k)
			continue
		}
		record, err := decode(k, doc)
		if err != nil {
			return err
		}
		snap.Put = append(snap.Put, record)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the records: %w", err)
	}
	return nil
}

func decode(k fleet.Key, doc []byte) (fleet.Record, error) {
	record, err := fleet.NewRecord(k.Kind)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(doc, record); err != nil {
		return nil, fmt.Errorf("read %s %s: %w", k.Kind, k.ID, err)
	}
	return record, nil
}
