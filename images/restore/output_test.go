package restore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestNameFileReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	part, name := filepath.Join(dir, "disk.part"), filepath.Join(dir, "disk")
	for _, f := range []string{part, name} {
		if err := os.WriteFile(f, []byte(f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	holds := func(path, want string) {
		t.Helper()
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v", path, b, err)
		}
	}
	if err := NameFile(part, name); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
	holds(part, part)
	holds(name, name)
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := NameFile(part, name); err != nil {
		t.Error(err)
	}
	holds(name, part)
	if _, err := os.Lstat(part); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file in the making is there still: %v", err)
	}
}
