// Package store keeps the appliance's durable records in SQLite: machines, jobs, deployments, boots of agents, events,
// saved frames and receipts. It never holds image content.
package store

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the "sqlite" driver

	"seedbed/appliance/fleet"
	"seedbed/images"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store implements fleet.Records. Safe for concurrent use.
type Store struct{ db *sql.DB }

// Open opens the database file, makes it if there is none (mode 0600) and brings its tables up to date.
func Open(ctx context.Context, path string) (*Store, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the records: %w", err)
	}
	f.Close()
	// Write-ahead log with a sync at each commit: what Commit acknowledged survives a power cut
	// (sqlite.org/pragma.html#pragma_synchronous).
	pragmas := url.Values{
		"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(10000)", "foreign_keys(ON)"},
		"_txlock": {"immediate"},
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: pragmas.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open the records in %s: %w", path, err)
	}
	db.SetMaxOpenConns(1) // SQLite has one writer; one connection keeps the order of transactions plain
	s := &Store{db: db}
	if err := s.migrate(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("bring the records in %s up to date: %w", path, err)
	}
	return s, nil
}

// Close waits for running transactions and closes the file.
func (s *Store) Close() error { return s.db.Close() }

func (s *Store) migrate(ctx context.Context) error {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, s.db, sub, goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// Load implements fleet.Records.
func (s *Store) Load(ctx context.Context, since time.Time) (*fleet.Snapshot, error) {
	snap := new(fleet.Snapshot)
	if err := s.db.QueryRowContext(ctx, "SELECT epoch FROM epoch").Scan(&snap.Epoch); err != nil {
		return nil, fmt.Errorf("read the epoch: %w", err)
	}
	var err error
	if snap.Machines, err = load[fleet.Machine](ctx, s.db, "SELECT doc FROM machines"); err != nil {
		return nil, fmt.Errorf("read machines: %w", err)
	}
	if snap.Deployments, err = load[fleet.Deployment](ctx, s.db, "SELECT doc FROM deployments"); err != nil {
		return nil, fmt.Errorf("read deployments: %w", err)
	}
	if snap.Sessions, err = load[fleet.Session](ctx, s.db, "SELECT doc FROM sessions"); err != nil {
		return nil, fmt.Errorf("read sessions: %w", err)
	}
	if snap.Tokens, err = load[fleet.Token](ctx, s.db, "SELECT doc FROM tokens"); err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	snap.Jobs, err = load[fleet.Job](ctx, s.db, `SELECT doc FROM jobs WHERE ended = 0 OR ended > ? OR doc ->> 'deployment' IN
		(SELECT id FROM deployments WHERE doc ->> 'all' AND NOT doc ->> 'closed')`, since.Unix())
	if err != nil {
		return nil, fmt.Errorf("read jobs: %w", err)
	}
	return snap, nil
}

func load[T any](ctx context.Context, db *sql.DB, query string, args ...any) (list []*T, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var doc []byte
		if err := rows.Scan(&doc); err != nil {
			return nil, err
		}
		v := new(T)
		if err := json.Unmarshal(doc, v); err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}

// Events implements fleet.Records.
func (s *Store) Events(ctx context.Context, after int64, limit int) (list []fleet.Event, err error) {
	rows, err := s.db.QueryContext(ctx, "SELECT id, doc FROM events WHERE id > ? ORDER BY id LIMIT ?", after, limit)
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
	return list, rows.Err()
}

// Receipt implements fleet.Records.
func (s *Store) Receipt(ctx context.Context, job string) (*fleet.Receipt, error) {
	r := &fleet.Receipt{Job: job}
	var at int64
	err := s.db.QueryRowContext(ctx, "SELECT at, receipt, signature, countersignature FROM receipts WHERE job = ?", job).
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
	rows, err := s.db.QueryContext(ctx, "SELECT digest, at, bytes FROM frames WHERE job = ? ORDER BY at", job)
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
