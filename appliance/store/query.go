package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/images"
)

// defaultLimit of what a query returns.
const defaultLimit = 1000

// topic is the beginning of an event's kind as far as its dot, as the index events_topic has it.
const topic = "rtrim(kind, 'abcdefghijklmnopqrstuvwxyz0123456789-')"

// eventsQuery returns the statement that finds events, and what goes into it.
func eventsQuery(q fleet.EventQuery) (query string, args []any) {
	where, args := []string{"id > ?"}, []any{q.After}
	and := func(condition string, value any) {
		where, args = append(where, condition), append(args, value)
	}
	for column, value := range map[string]string{"machine": q.Machine, "job": q.Job, "deployment": q.Deployment, "actor": q.Actor} {
		if value != "" {
			and(column+" = ?", value)
		}
	}
	switch {
	case strings.HasSuffix(q.Kind, "."):
		and(topic+" = ?", q.Kind)
	case q.Kind != "":
		and("kind = ?", q.Kind)
	}
	order := "id"
	if q.Before > 0 {
		and("id < ?", q.Before)
		order = "id DESC"
	}
	if q.Limit <= 0 {
		q.Limit = defaultLimit
	}
	return "SELECT id, doc FROM events WHERE " + strings.Join(where, " AND ") + " ORDER BY " + order + " LIMIT ?", append(args, q.Limit)
}

// Events implements fleet.Records.
func (s *Store) Events(ctx context.Context, q fleet.EventQuery) (list []fleet.Event, err error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	query, args := eventsQuery(q)
	rows, err := s.db.QueryContext(ctx, s.bound(query), args...)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var e fleet.Event
		var id int64
		var doc []byte
		if err := rows.Scan(&id, &doc); err != nil {
			return nil, fmt.Errorf("read events: %w", err)
		}
		if err := json.Unmarshal(doc, &e); err != nil {
			return nil, fmt.Errorf("read event %d: %w", id, err)
		}
		e.ID = id
		list = append(list, e)
	}
	if q.Before > 0 {
		slices.Reverse(list)
	}
	return list, rows.Err()
}

// Jobs implements fleet.Records.
func (s *Store) Jobs(ctx context.Context, q fleet.JobQuery) (list []*fleet.Job, err error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	where, args := []string{"kind = 'job'", "doc <> ''", "ended > 0"}, []any{}
	and := func(condition string, value any) {
		where, args = append(where, condition), append(args, value)
	}
	if q.Machine != "" {
		and("owner = ?", q.Machine)
	}
	if q.Deployment != "" {
		and("parent = ?", q.Deployment)
	}
	switch {
	case !q.Before.IsZero() && q.Behind != "":
		and("ended <= ?", q.Before.Unix())
		where, args = append(where, "(ended < ? OR id > ?)"), append(args, q.Before.Unix(), q.Behind)
	case !q.Before.IsZero():
		and("ended < ?", q.Before.Unix())
	}
	if q.Limit <= 0 {
		q.Limit = defaultLimit
	}
	rows, err := s.db.QueryContext(ctx, s.bound("SELECT id, doc FROM records WHERE "+strings.Join(where, " AND ")+
		" ORDER BY ended DESC, id LIMIT ?"), append(args, q.Limit)...)
	if err != nil {
		return nil, fmt.Errorf("read jobs: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		k := fleet.Key{Kind: fleet.KindJob}
		var doc []byte
		if err := rows.Scan(&k.ID, &doc); err != nil {
			return nil, fmt.Errorf("read jobs: %w", err)
		}
		record, err := decode(k, doc)
		if err != nil {
			return nil, err
		}
		list = append(list, record.(*fleet.Job))
	}
	return list, rows.Err()
}

// Receipt implements fleet.Records.
func (s *Store) Receipt(ctx context.Context, job string) (*fleet.Receipt, error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	r := &fleet.Receipt{Job: job}
	var at int64
	err := s.db.QueryRowContext(ctx, s.bound("SELECT at, receipt, signature, countersignature FROM receipts WHERE job = ?"), job).
		Scan(&at, &r.Receipt, &r.Signature, &r.Countersignature)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the receipt of job %s: %w", job, err)
	}
	r.At = time.Unix(0, at)
	return r, nil
}

// Frames implements fleet.Records.
func (s *Store) Frames(ctx context.Context, job string) (list []fleet.Frame, err error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	rows, err := s.db.QueryContext(ctx, s.bound("SELECT digest, at, bytes FROM frames WHERE job = ? ORDER BY at"), job)
	if err != nil {
		return nil, fmt.Errorf("read the frames of job %s: %w", job, err)
	}
	defer rows.Close()
	for rows.Next() {
		f := fleet.Frame{Job: job}
		var at int64
		var digest string
		if err := rows.Scan(&digest, &at, &f.Bytes); err != nil {
			return nil, fmt.Errorf("read the frames of job %s: %w", job, err)
		}
		f.At = time.Unix(0, at)
		if f.Digest, err = images.ParseDigest(digest); err != nil {
			return nil, err
		}
		list = append(list, f)
	}
	return list, rows.Err()
}
