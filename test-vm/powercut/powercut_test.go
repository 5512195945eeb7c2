package powercut

import (
	"bytes"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite" // the "sqlite" driver
)

// TestWhatADatabaseKeepsThroughPowerCuts shows that the disk forgets: a database that syncs keeps each row that it acknowledged,
// one that does not sync loses some, or breaks.
func TestWhatADatabaseKeepsThroughPowerCuts(t *testing.T) {
	const rounds = 8
	for _, c := range []struct {
		pragmas string
		keeps   bool
	}{
		{"_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)", true},
		{"_pragma=journal_mode(DELETE)&_pragma=synchronous(FULL)", true},
		{"_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)", false},
		{"_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)", false},
	} {
		kept := 0
		for i := range rounds {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			acknowledged, dir := rowsUntilThePowerIsOut(t, c.pragmas, 1+random.Int64N(120)), t.TempDir()
			if err := acknowledged.disk.Restore(dir, Loss(i)%Losses, random); err != nil {
				t.Fatal(err)
			}
			if n, err := rows(filepath.Join(dir, "test.db"), c.pragmas); err == nil && n >= acknowledged.rows && n <= acknowledged.rows+1 {
				kept++
			}
		}
		if c.keeps != (kept == rounds) {
			t.Errorf("%s: right after %d of %d power cuts", c.pragmas, kept, rounds)
		}
	}
}

type written struct {
	disk *Disk
	rows int
}

func rowsUntilThePowerIsOut(t *testing.T, pragmas string, cut int64) (w written) {
	t.Helper()
	dir := t.TempDir()
	w.disk = New(t, dir)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "test.db")+"?"+pragmas)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("CREATE TABLE t (n INTEGER)"); err != nil {
		t.Fatal(err)
	}
	w.disk.Cut(cut)
	for {
		if _, err := db.Exec("INSERT INTO t VALUES (?)", w.rows); err != nil {
			if !w.disk.IsOff() {
				t.Fatal(err)
			}
			return w
		}
		w.rows++
	}
}

func rows(path, pragmas string) (n int, err error) {
	db, err := sql.Open("sqlite", "file:"+path+"?"+pragmas)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	err = db.QueryRow("SELECT COUNT(*) FROM t").Scan(&n)
	return n, err
}

func TestLosses(t *testing.T) {
	dir := t.TempDir()
	d := New(t, dir)
	f := d.open(filepath.Join(dir, "f"), true)
	old := bytes.Repeat([]byte{1}, 3*sector)
	d.write(f, write{0, old})
	d.sync(f)
	d.write(f, write{sector / 2, bytes.Repeat([]byte{2}, 2*sector)})
	d.write(f, write{offset: sector})
	d.open(filepath.Join(dir, "unsynced"), true)
	after := func(loss Loss, seed uint64) string {
		out := t.TempDir()
		if err := d.Restore(out, loss, rand.New(rand.NewPCG(seed, 0))); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(out, "f"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = os.Stat(filepath.Join(out, "unsynced"))
		return fmt.Sprintf("%d %d %d %v", len(b), b[0], b[sector-1], err == nil)
	}
	if got := after(All, 1); got != "1536 1 1 false" {
		t.Errorf("all lost: %s", got)
	}
	if got := after(None, 1); got != "512 1 2 true" {
		t.Errorf("nothing lost: %s", got)
	}
	for _, loss := range []Loss{Writes, Sectors} {
		seen := map[string]bool{}
		for seed := range uint64(200) {
			seen[after(loss, seed)] = true
		}
		if len(seen) != 8 { // written or not, cut off or not, the other file there or not
			t.Errorf("loss %d: %v", loss, seen)
		}
	}
	d.Fail(2, 1)
	for i, works := range []bool{true, false, true} {
		if d.remove(filepath.Join(dir, "nothing"), false) != works {
			t.Errorf("operation %d of a disk whose second fails: %v", i, !works)
		}
	}
	if d.Cut(1); d.sync(f) || !d.IsOff() || d.write(f, write{}) || d.remove(filepath.Join(dir, "f"), true) {
		t.Error("the disk works without power")
	}
}
