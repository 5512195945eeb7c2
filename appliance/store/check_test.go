package store_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/appliance/store"
	"seedbed/test-vm/postgres"
)

func TestCheckChangesNothing(t *testing.T) {
	server := postgres.Start(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "records.db")
	empty := filepath.Join(dir, "empty.db")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(dir, "old.db")
	if err := store.OpenAs(t.Context(), old, 2); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer.db")
	if err := store.OpenAs(t.Context(), newer, 3, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)"); err != nil {
		t.Fatal(err)
	}
	junk := filepath.Join(dir, "junk.db")
	if err := os.WriteFile(junk, []byte(strings.Repeat("no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadDir("migrations")
	if err != nil {
		t.Fatal(err)
	}
	number, _, _ := strings.Cut(all[len(all)-1].Name(), "_")
	newest := strings.TrimLeft(number, "0")
	check := func(location, want string) {
		t.Helper()
		got, err := store.Check(t.Context(), location)
		if part, wrong := strings.CutPrefix(want, "!"); wrong {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q, %v", location, got, err)
			}
		} else if err != nil || !strings.Contains(got, want) {
			t.Errorf("%s: %q, %v", location, got, err)
		}
	}
	url := server.Database()
	for range 2 { // the first left all as it was
		check(file, "made at the first start")
		check(empty, "no tables yet")
		check(old, "tables of version 2, which become version "+newest)
		check(newer, "!version 99")
		check(junk, "!not a database")
		check(dir, "!no file")
		check(url, "no tables yet")
	}
	if b, err := os.ReadFile(empty); err != nil || len(b) > 0 {
		t.Errorf("an empty file has %d bytes now, %v", len(b), err)
	}
	for _, location := range []string{file, url} {
		s, err := store.Open(t.Context(), location)
		if err != nil {
			t.Fatal(err)
		}
		check(location, "tables of version "+newest)
		s.Close()
		check(location, "tables of version "+newest)
	}
	check("postgres://seedbed:sesame@127.0.0.1:1/seedbed", "!seedbed:xxxxx@")
	_, err = store.Check(t.Context(), "postgres://seedbed:sesame@127.0.0.1:1/seedbed")
	if err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("the password is said: %v", err)
	}
}
