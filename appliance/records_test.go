//go:build linux

package main

import (
	"strings"
	"testing"
)

func TestPasswordsAreNotTakenFromTheCommandLine(t *testing.T) {
	for location, want := range map[string]string{
		"": "/data/records.db", "/other/r.db": "/other/r.db", "postgres://alice@db/seedbed": "postgres://alice@db/seedbed",
		"postgres:///seedbed?host=/run/postgresql": "postgres:///seedbed?host=/run/postgresql",
	} {
		if got, err := recordsAt("/data", location); err != nil || got != want {
			t.Errorf("%q: %q, %v", location, got, err)
		}
	}
	for _, location := range []string{"postgres://alice:secret@db/seedbed", "postgres://db/seedbed?password=secret", "postgres://a b:secret@[db/x"} {
		_, err := recordsAt("/data", location)
		if err == nil || strings.Contains(err.Error(), "secret@") || strings.Contains(err.Error(), "=secret") {
			t.Errorf("%q: %v", location, err)
		}
	}
}

func TestApplianceKeepsItsName(t *testing.T) {
	dir := t.TempDir()
	first, err := applianceID(dir)
	if err != nil || len(first) != 12 {
		t.Fatalf("%q, %v", first, err)
	}
	if again, err := applianceID(dir); err != nil || again != first {
		t.Fatalf("%q after %q, %v", again, first, err)
	}
}
