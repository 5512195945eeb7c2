package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	"github.com/pressly/goose/v3"
)

// Check says in a sentence whether records can be opened at a location, and changes nothing: neither tables nor files are made.
func Check(ctx context.Context, location string) (sentence string, err error) {
	if IsPostgres(location) {
		return checkPostgres(ctx, location)
	}
	info, err := os.Stat(location)
	if errors.Is(err, fs.ErrNotExist) {
		return location + " is not there yet and is made at the first start", nil
	}
	if err != nil {
		return "", fmt.Errorf("look for the records: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("the records in %s are no file", location)
	}
	source := url.URL{Scheme: "file", Opaque: (&url.URL{Path: location}).EscapedPath(),
		RawQuery: url.Values{"mode": {"rw"}, "_pragma": {"busy_timeout(10000)", "query_only(ON)"}}.Encode()}
	db, err := sql.Open("sqlite", source.String())
	if err != nil {
		return "", fmt.Errorf("open the records in %s: %w", location, err)
	}
	defer db.Close()
	tables, err := (&Store{db: db}).tables(ctx)
	if err != nil {
		return "", fmt.Errorf("read the records in %s: %w", location, err)
	}
	return location + ", " + tables, nil
}

func checkPostgres(ctx context.Context, location string) (string, error) {
	u, err := url.Parse(location)
	if err != nil {
		return "", errors.New("the URL of the PostgreSQL database cannot be read; it is postgres://USER@HOST/NAME") // err quotes the password
	}
	db, err := sql.Open("pgx", location)
	if err != nil {
		return "", fmt.Errorf("open the records in PostgreSQL at %s: %w", u.Redacted(), err)
	}
	defer db.Close()
	tables, err := (&Store{db: db, shared: true}).tables(ctx)
	if err != nil {
		return "", fmt.Errorf("read the records in PostgreSQL at %s: %w", u.Redacted(), err)
	}
	return u.Redacted() + ", " + tables, nil
}

// tables says which version the tables of a database are.
func (s *Store) tables(ctx context.Context) (string, error) {
	dialect, find := goose.DialectSQLite3, "SELECT COUNT(*) FROM sqlite_master WHERE name = 'goose_db_version'"
	if s.shared {
		dialect, find = goose.DialectPostgres, "SELECT COUNT(*) FROM pg_tables WHERE tablename = 'goose_db_version' AND schemaname = ANY (current_schemas(false))"
	}
	p, err := s.provider(dialect)
	if err != nil {
		return "", err
	}
	var last int64
	for _, source := range p.ListSources() {
		last = max(last, source.Version)
	}
	var found, version int64
	if err := s.db.QueryRowContext(ctx, find).Scan(&found); err != nil {
		return "", err
	}
	if found == 0 {
		return "no tables yet, which are made at the first start", nil
	}
	if err := s.db.QueryRowContext(ctx, "SELECT MAX(version_id) FROM goose_db_version").Scan(&version); err != nil {
		return "", err
	}
	switch {
	case version > last:
		return "", fmt.Errorf("its tables are of version %d, and this program knows %d; start the newer program that made them", version, last)
	case version < last:
		return fmt.Sprintf("tables of version %d, which become version %d at the start", version, last), nil
	}
	return fmt.Sprintf("tables of version %d", version), nil
}
