package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"seedbed/appliance/fleet"
)

// lostCommit says that a commit was asked for and not confirmed: it may have come to pass.
type lostCommit struct {
	number int64
	err    error
}

func (l *lostCommit) Error() string { return "commit: " + l.err.Error() }
func (l *lostCommit) Unwrap() error { return l.err }

// sign writes whose commit this is, where others may follow before anybody looks. The numbers of transactions that PostgreSQL
// keeps would not do: after a crash it gives those anew of which nothing had reached the disk.
func (w *writer) sign() {
	if w.s.shared {
		w.exec("INSERT INTO writers (writer, commit_number) VALUES (?, ?) ON CONFLICT (writer) DO UPDATE SET commit_number = excluded.commit_number",
			w.s.writer, w.number)
	}
}

// keepWriters is after how many later commits a process is forgotten: far more than any can be behind.
const keepWriters = 1 << 20

// Times to find out what became of a commit: how long a database that is away is waited for, and between two looks. What waits
// behind the commit could not be written in that time either.
const (
	outcomeWait  = 20 * time.Second
	outcomePause = 100 * time.Millisecond
)

// outcome finds out what became of a commit whose connection broke. nil: it is durable. fleet.ErrUnsure: the database did not
// come back in time. Else nothing was written, and nothing of it will be.
func (s *Store) outcome(ctx context.Context, l *lostCommit) error {
	if !s.shared {
		return l
	}
	ctx, cancel := context.WithTimeout(ctx, outcomeWait)
	defer cancel()
	for {
		last, err := s.lastOwn(ctx)
		switch {
		case err == nil && last == l.number:
			return nil
		case err == nil:
			return l
		}
		select {
		case <-time.After(outcomePause):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", fleet.ErrUnsure, l)
		}
	}
}

// lastOwn returns the number of the last commit of this process; 0 is none. It waits for one that the server is still at: each
// commit holds the row that is locked here.
func (s *Store) lastOwn(ctx context.Context) (number int64, err error) {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback() // it writes nothing
	if err := tx.QueryRowContext(ctx, "SELECT one FROM site FOR UPDATE").Scan(new(int)); err != nil {
		return 0, err
	}
	err = tx.QueryRowContext(ctx, s.bound("SELECT commit_number FROM writers WHERE writer = ?"), s.writer).Scan(&number)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return number, err
}

// patience is how long one transaction may take: a server that vanished without a word, or a network that loses all, would hold
// every change for minutes.
const patience = 10 * time.Second

// limit bounds what is asked of a server. A file has none of these troubles.
func (s *Store) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if !s.shared {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, patience)
}
