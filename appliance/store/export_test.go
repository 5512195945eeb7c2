package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/pressly/goose/v3"

	"seedbed/appliance/fleet"
)

// Age makes all removals older.
func Age(s *Store, by time.Duration) {
	if _, err := s.db.ExecContext(context.Background(), s.bound("UPDATE records SET ended = ended - ? WHERE doc = ''"), int64(by/time.Second)); err != nil {
		panic(err)
	}
}

// EventsPlan says how the database looks for events, where it would rather not read all of them.
func EventsPlan(ctx context.Context, s *Store, q fleet.EventQuery) (plan string, err error) {
	query, args := eventsQuery(q)
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	defer tx.Rollback()
	explain, columns := "EXPLAIN QUERY PLAN ", 4
	if s.shared {
		explain, columns = "EXPLAIN ", 1
		if _, err := tx.ExecContext(ctx, "SET LOCAL enable_seqscan = off"); err != nil {
			return "", err
		}
	}
	if _, err := tx.ExecContext(ctx, "ANALYZE"); err != nil {
		return "", err
	}
	rows, err := tx.QueryContext(ctx, s.bound(explain+query), args...)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		into := []any{new(any), new(any), new(any), new(any)}[:columns]
		into[columns-1] = &line
		if err := rows.Scan(into...); err != nil {
			return "", err
		}
		plan += line + "\n"
	}
	return plan, rows.Err()
}

// OpenAs makes a database as an earlier version left it, with what the statements put into it.
func OpenAs(ctx context.Context, location string, version int64, statements ...string) error {
	s := &Store{shared: IsPostgres(location)}
	driver, dialect := "sqlite", goose.DialectSQLite3
	if s.shared {
		driver, dialect = "pgx", goose.DialectPostgres
	}
	var err error
	if s.db, err = sql.Open(driver, location); err != nil {
		return err
	}
	defer s.db.Close()
	p, err := s.provider(dialect)
	if err != nil {
		return err
	}
	if _, err := p.UpTo(ctx, version); err != nil {
		return err
	}
	for _, statement := range statements {
		if _, err := s.db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// Newest is the version that the tables have.
func Newest(ctx context.Context, s *Store) (version int64, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT MAX(version_id) FROM goose_db_version").Scan(&version)
	return version, err
}
