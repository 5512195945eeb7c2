package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"seedbed/appliance/fleet"
)

// bootsAtOnce is how many boots one statement writes: a round trip to PostgreSQL costs more than the rows.
const bootsAtOnce = 100

// KeepBoots implements fleet.Records.
func (s *Store) KeepBoots(ctx context.Context, list []fleet.SeenBoot) error {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	defer tx.Rollback() // after a commit it does nothing
	for len(list) > 0 {
		part := list[:min(len(list), bootsAtOnce)]
		list = list[len(part):]
		put, cut := putBoots(part)
		for _, statement := range []query{put, cut} {
			if _, err := tx.ExecContext(ctx, s.bound(statement.text), statement.args...); err != nil {
				return fmt.Errorf("write how machines boot: %w", err)
			}
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("write how machines boot: %w", err)
	}
	return nil
}

// query is a statement and what goes into it.
type query struct {
	text string
	args []any
}

// putBoots returns what writes boots, and what deletes those before the last fleet.KeptBoots of the same machines as the same appliances
// saw them.
func putBoots(list []fleet.SeenBoot) (put, cut query) {
	for _, b := range list {
		put.args = append(put.args, b.MAC, b.Appliance, b.Began.UnixNano(), b.Latest.UnixNano(), string(b.Doc))
		cut.args = append(cut.args, b.MAC)
	}
	put.text = "INSERT INTO boots (mac, appliance, began, latest, doc) VALUES " + places("(?, ?, ?, ?, ?)", len(list)) +
		" ON CONFLICT (mac, appliance, began) DO UPDATE SET latest = excluded.latest, doc = excluded.doc"
	cut.text = "DELETE FROM boots WHERE mac IN (" + places("?", len(list)) + `) AND appliance = ? AND began < (SELECT b.began FROM boots b
		WHERE b.mac = boots.mac AND b.appliance = boots.appliance ORDER BY b.began DESC LIMIT 1 OFFSET ?)`
	cut.args = append(cut.args, list[0].Appliance, fleet.KeptBoots-1)
	return put, cut
}

func places(one string, n int) string { return strings.TrimSuffix(strings.Repeat(one+", ", n), ", ") }

// Boots implements fleet.Records.
func (s *Store) Boots(ctx context.Context, q fleet.BootQuery) (list []fleet.SeenBoot, err error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	where, args := []string{"latest >= ?"}, []any{int64(0)}
	if !q.Since.IsZero() {
		args[0] = q.Since.UnixNano()
	}
	if len(q.MACs) > 0 {
		where = append(where, "mac IN ("+places("?", len(q.MACs))+")")
		for _, mac := range q.MACs {
			args = append(args, mac)
		}
	}
	if q.Appliance != "" {
		where, args = append(where, "appliance = ?"), append(args, q.Appliance)
	}
	if q.Limit <= 0 {
		q.Limit = defaultLimit
	}
	rows, err := s.db.QueryContext(ctx, s.bound("SELECT mac, appliance, began, latest, doc FROM boots WHERE "+strings.Join(where, " AND ")+
		" ORDER BY latest DESC LIMIT ?"), append(args, q.Limit)...)
	if err != nil {
		return nil, fmt.Errorf("read how machines booted: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var b fleet.SeenBoot
		var began, latest int64
		if err := rows.Scan(&b.MAC, &b.Appliance, &began, &latest, &b.Doc); err != nil {
			return nil, fmt.Errorf("read how machines booted: %w", err)
		}
		b.Began, b.Latest = time.Unix(0, began).UTC(), time.Unix(0, latest).UTC()
		list = append(list, b)
	}
	return list, rows.Err()
}

// BootMACs implements fleet.Records.
func (s *Store) BootMACs(ctx context.Context) (list []string, err error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	rows, err := s.db.QueryContext(ctx, "SELECT DISTINCT mac FROM boots")
	if err != nil {
		return nil, fmt.Errorf("read of which machines boots are kept: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var mac string
		if err := rows.Scan(&mac); err != nil {
			return nil, fmt.Errorf("read of which machines boots are kept: %w", err)
		}
		list = append(list, mac)
	}
	return list, rows.Err()
}

// ForgetBoots implements fleet.Records.
func (s *Store) ForgetBoots(ctx context.Context, before, after time.Time, macs []string) (n int, err error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	count := func(text string, args ...any) {
		if err != nil {
			return
		}
		r, problem := s.db.ExecContext(ctx, s.bound(text), args...)
		if problem != nil {
			err = fmt.Errorf("delete old boots: %w", problem)
			return
		}
		gone, _ := r.RowsAffected() // both drivers know it
		n += int(gone)
	}
	if !before.IsZero() {
		count("DELETE FROM boots WHERE latest < ?", before.UnixNano())
	}
	if !after.IsZero() {
		count("DELETE FROM boots WHERE latest > ?", after.UnixNano())
	}
	for len(macs) > 0 {
		part := macs[:min(len(macs), bootsAtOnce)]
		macs = macs[len(part):]
		args := make([]any, len(part))
		for i, mac := range part {
			args[i] = mac
		}
		count("DELETE FROM boots WHERE mac IN ("+places("?", len(part))+")", args...)
	}
	return n, err
}
