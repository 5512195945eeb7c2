package store

import (
	"context"
	"database/sql"
	"io/fs"
	"time"

	"github.com/pressly/goose/v3"
)

// Age makes all removals older.
func Age(s *Store, by time.Duration) {
	if _, err := s.db.ExecContext(context.Background(), s.bound("UPDATE records SET ended = ended - ? WHERE doc = ''"), int64(by/time.Second)); err != nil {
		panic(err)
	}
}

// OpenAs makes an SQLite database as an earlier version left it, with what the statements put into it.
func OpenAs(path string, version int64, statements ...string) error {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	defer db.Close()
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, sub, goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	if _, err := p.UpTo(context.Background(), version); err != nil {
		return err
	}
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			return err
		}
	}
	return nil
}
