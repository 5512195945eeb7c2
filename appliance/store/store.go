// Package store keeps the durable records of an appliance, or of a site with several, in SQLite or PostgreSQL: machines,
// jobs, deployments, boots of agents, events, saved frames and receipts. It never holds image content. Statements and
// migrations are the same for both.
package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	_ "modernc.org/sqlite" // the "sqlite" driver

	"seedbed/appliance/fleet"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Store implements fleet.Records. Safe for concurrent use.
type Store struct {
	db     *sql.DB
	shared bool   // PostgreSQL
	writer string // names this process among those that write
	// prepared are statements by their text; of SQLite alone.
	prepared map[string]*sql.Stmt
}

// Shared implements fleet.Records.
func (s *Store) Shared() bool { return s.shared }

// IsPostgres reports whether a location names a PostgreSQL database: "postgres://host/name".
func IsPostgres(location string) bool {
	return strings.HasPrefix(location, "postgres://") || strings.HasPrefix(location, "postgresql://")
}

// Open opens the records and brings their tables up to date. A location is a database file, which is made if there is none
// (mode 0600), or the URL of a PostgreSQL database, whose password may stand in the file that PGPASSFILE names.
func Open(ctx context.Context, location string) (*Store, error) {
	if IsPostgres(location) {
		return openPostgres(ctx, location)
	}
	f, err := os.OpenFile(location, os.O_RDWR|os.O_CREATE, 0o600)
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
	source := url.URL{Scheme: "file", Opaque: (&url.URL{Path: location}).EscapedPath(), RawQuery: pragmas.Encode()}
	db, err := sql.Open("sqlite", source.String())
	if err != nil {
		return nil, fmt.Errorf("open the records in %s: %w", location, err)
	}
	db.SetMaxOpenConns(1) // SQLite has one writer; one connection keeps the order of transactions plain
	s := &Store{db: db}
	if err := s.migrate(ctx, goose.DialectSQLite3); err != nil {
		db.Close()
		return nil, fmt.Errorf("bring the records in %s up to date: %w", location, err)
	}
	if err := s.prepare(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("prepare statements for the records in %s: %w", location, err)
	}
	return s, nil
}

// maxConnections to PostgreSQL; commits follow each other, so that reads take the others.
const maxConnections = 8

// dropTheLost has the server end a transaction whose appliance is gone without a word, or stands still: it holds the row that
// every commit of the site needs, and the one by which another appliance takes over. Milliseconds and seconds, as PostgreSQL has them.
const dropTheLost = `SET idle_in_transaction_session_timeout = 4000; SET tcp_user_timeout = 8000;
	SET tcp_keepalives_idle = 3; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 2`

func openPostgres(ctx context.Context, location string) (*Store, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, errors.New("the URL of the PostgreSQL database cannot be read; it is postgres://USER@HOST/NAME") // err quotes the password
	}
	config, err := pgx.ParseConfig(location)
	if err != nil { // it quotes the location
		return nil, fmt.Errorf("open the records in PostgreSQL at %s: the URL cannot be read, or a file that it names", u.Redacted())
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = patience / 2
	}
	// A connection is asked for a sign of life before each use. One that broke while nobody used it, by a restart of the server,
	// would else fail what it is used for first.
	db := stdlib.OpenDB(*config, stdlib.OptionShouldPing(func(context.Context, stdlib.ShouldPingParams) bool { return true }),
		stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, dropTheLost)
			return err
		}))
	db.SetMaxOpenConns(maxConnections)
	s := &Store{db: db, shared: true, writer: rand.Text()}
	if err := s.migrate(ctx, goose.DialectPostgres); err != nil {
		db.Close()
		return nil, fmt.Errorf("bring the records in PostgreSQL at %s up to date: %w", u.Redacted(), err)
	}
	return s, nil
}

// Close waits for running transactions and closes the database.
func (s *Store) Close() error { return s.db.Close() }

// migrate brings the tables up to date. Those of a newer program are left alone: what it keeps in them this one would lose.
func (s *Store) migrate(ctx context.Context, dialect goose.Dialect) error {
	if _, err := s.tables(ctx); err != nil {
		return err
	}
	p, err := s.provider(dialect)
	if err != nil {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// provider knows the migrations; it changes nothing by itself.
func (s *Store) provider(dialect goose.Dialect) (*goose.Provider, error) {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	options := []goose.ProviderOption{goose.WithLogger(goose.NopLogger()), goose.WithGoMigrations(
		goose.NewGoMigration(4, &goose.GoFunc{RunTx: s.fillShelves}, &goose.GoFunc{RunTx: func(context.Context, *sql.Tx) error { return nil }}),
	)}
	if s.shared { // several appliances may start at once
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return nil, err
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	return goose.NewProvider(dialect, s.db, sub, options...)
}

// bound returns a statement with its placeholders as the database wants them: "?" are numbered for PostgreSQL.
func (s *Store) bound(query string) string {
	if !s.shared {
		return query
	}
	var b strings.Builder
	n := 0
	for i := range len(query) {
		if query[i] != '?' {
			b.WriteByte(query[i])
			continue
		}
		n++
		b.WriteString("$" + strconv.Itoa(n))
	}
	return b.String()
}

// reader is a database, a transaction or one connection.
type reader interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// consistent runs fn on a view of the database in which nothing changes.
func (s *Store) consistent(ctx context.Context, fn func(r reader) error) error {
	o := &sql.TxOptions{ReadOnly: true}
	if s.shared {
		o.Isolation = sql.LevelRepeatableRead
	}
	tx, err := s.db.BeginTx(ctx, o)
	if err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	defer tx.Rollback() // it wrote nothing
	return fn(tx)
}

var _ fleet.Records = (*Store)(nil)
