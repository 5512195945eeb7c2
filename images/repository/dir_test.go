package repository_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"seedbed/images/repository"
	"seedbed/images/repository/buckettest"
)

func TestAFolderIsABucket(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) repository.Bucket {
		d, err := repository.OpenDir(filepath.Join(t.TempDir(), "deep", "bucket"))
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
}

func TestAFileOnTheSameFileSystemIsLinkedIn(t *testing.T) {
	folder := t.TempDir()
	d, err := repository.OpenDir(filepath.Join(folder, "bucket"))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(folder, "file")
	if err := os.WriteFile(name, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.PutFile(t.Context(), "packs/a", name); err != nil {
		t.Fatal(err)
	}
	if err := d.PutFile(t.Context(), "packs/a", name); !errors.Is(err, repository.ErrExists) {
		t.Errorf("second put: %v, want ErrExists", err)
	}
	a, _ := os.Stat(name)
	b, err := os.Stat(filepath.Join(folder, "bucket", "packs", "a"))
	if err != nil || !os.SameFile(a, b) {
		t.Errorf("the object is not the file: %v", err)
	}
}

func TestAFileOnAnotherFileSystemIsCopied(t *testing.T) {
	other, err := os.MkdirTemp("/dev/shm", "seedbed-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(other)
	d, err := repository.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("content"), 100000)
	if err := os.WriteFile(filepath.Join(other, "file"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.PutFile(t.Context(), "packs/a", filepath.Join(other, "file")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(d.Path(), "packs", "a"))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes copied, %v", len(got), err)
	}
}

func TestTemporaryFilesOfDeadProcessesGo(t *testing.T) {
	folder := t.TempDir()
	temp := filepath.Join(folder, ".tmp")
	if err := os.MkdirAll(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, age := range map[string]time.Duration{"old": 25 * time.Hour, "young": time.Hour} {
		file := filepath.Join(temp, name)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := repository.OpenDir(folder); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(temp, "*"))
	if len(left) != 1 || !strings.HasSuffix(left[0], "young") {
		t.Errorf("left: %v", left)
	}
}
