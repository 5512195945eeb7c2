package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// Ahead returns by how much the clock of a database in PostgreSQL is ahead of this host's, and how wrong that may be. It changes nothing.
func Ahead(ctx context.Context, location string) (ahead, within time.Duration, err error) {
	u, err := url.Parse(location)
	if err != nil || !IsPostgres(location) {
		return 0, 0, errors.New("the records are in no PostgreSQL database, which has a clock of its own") // err quotes the password
	}
	db, err := sql.Open("pgx", location)
	if err != nil {
		return 0, 0, fmt.Errorf("open the records in PostgreSQL at %s: %w", u.Redacted(), err)
	}
	defer db.Close()
	for range 2 { // the first question opens the connection, which takes its time
		var at time.Time
		began := time.Now()
		if err := db.QueryRowContext(ctx, "SELECT clock_timestamp()").Scan(&at); err != nil {
			return 0, 0, fmt.Errorf("ask PostgreSQL at %s for its time: %w", u.Redacted(), err)
		}
		within = time.Since(began) / 2
		ahead = at.Sub(began.Add(within))
	}
	return ahead, within, nil
}
