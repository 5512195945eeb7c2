package store_test

import (
	"database/sql"
	"testing"
	"time"

	"seedbed/appliance/store"
	"seedbed/test-vm/postgres"
)

// A real server, whose clock_timestamp is another one for those who look for it elsewhere first.
func TestTheClockOfTheDatabaseIsCompared(t *testing.T) {
	location := postgres.Start(t).Database()
	db, err := sql.Open("pgx", location)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), `CREATE SCHEMA wrong; CREATE FUNCTION wrong.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
		'SELECT pg_catalog.clock_timestamp() - interval ''1 hour'''`); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]time.Duration{"pg_catalog": 0, "wrong,pg_catalog": -time.Hour} {
		ahead, within, err := store.Ahead(t.Context(), location+"&search_path="+path)
		if err != nil || (ahead-want).Abs() > within+100*time.Millisecond {
			t.Errorf("%s: %s ahead, within %s, %v", path, ahead, within, err)
		}
	}
	for _, location := range []string{"", "/records.db", "postgres://a:secret@[x"} {
		if _, _, err := store.Ahead(t.Context(), location); err == nil {
			t.Errorf("%q has a clock", location)
		}
	}
}
