package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"seedbed/appliance/fleet"
)

// Office implements fleet.Records.
func (s *Store) Office(ctx context.Context) (o fleet.Office, err error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	if err := s.db.QueryRowContext(ctx, "SELECT epoch, holder, beat FROM site").Scan(&o.Epoch, &o.Holder, &o.Beat); err != nil {
		return o, fmt.Errorf("read who schedules the site: %w", err)
	}
	return o, nil
}

// Beat implements fleet.Records.
func (s *Store) Beat(ctx context.Context, holder string, epoch int64) error {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	r, err := s.db.ExecContext(ctx, s.bound("UPDATE site SET beat = beat + 1 WHERE holder = ? AND epoch = ?"), holder, epoch)
	if err != nil {
		return fmt.Errorf("say that this appliance schedules the site: %w", err)
	}
	if n, err := r.RowsAffected(); err != nil || n != 1 {
		return fleet.ErrFenced
	}
	return nil
}

// Seize implements fleet.Records.
func (s *Store) Seize(ctx context.Context, holder string, seen fleet.Office) (o fleet.Office, err error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	o.Holder = holder
	err = s.db.QueryRowContext(ctx, s.bound(`UPDATE site SET epoch = epoch + 1, holder = ?, beat = 0
		WHERE epoch = ? AND holder = ? AND beat = ? RETURNING epoch`), holder, seen.Epoch, seen.Holder, seen.Beat).Scan(&o.Epoch)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return fleet.Office{}, fleet.ErrFenced
	case err != nil:
		return fleet.Office{}, fmt.Errorf("take over the schedule of the site: %w", err)
	}
	return o, nil
}

// Attend implements fleet.Records.
func (s *Store) Attend(ctx context.Context, p fleet.Presence) error {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	_, err := s.db.ExecContext(ctx, s.bound(`INSERT INTO attendance (appliance, beat, doc) VALUES (?, ?, ?)
		ON CONFLICT (appliance) DO UPDATE SET beat = excluded.beat, doc = excluded.doc`), p.Appliance, p.Beat, string(p.Doc))
	if err != nil {
		return fmt.Errorf("tell the other appliances: %w", err)
	}
	return nil
}

// Attendance implements fleet.Records.
func (s *Store) Attendance(ctx context.Context) (list []fleet.Presence, err error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	rows, err := s.db.QueryContext(ctx, "SELECT appliance, beat, doc FROM attendance ORDER BY appliance")
	if err != nil {
		return nil, fmt.Errorf("read what the other appliances tell: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var p fleet.Presence
		if err := rows.Scan(&p.Appliance, &p.Beat, &p.Doc); err != nil {
			return nil, fmt.Errorf("read what the other appliances tell: %w", err)
		}
		list = append(list, p)
	}
	return list, rows.Err()
}
