package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// untouched fails when anybody reads it.
type untouched struct{ t *testing.T }

func (u untouched) Read([]byte) (int, error) {
	u.t.Error("a disk that there is no room for is read")
	return 0, errors.New("read")
}

// TestAnUploadWithoutRoomIsRefusedBeforeItIsTaken: nothing is read and nothing is left, and the sentence says how much is needed and free.
func TestAnUploadWithoutRoomIsRefusedBeforeItIsTaken(t *testing.T) {
	a := &appliance{config: config{Data: t.TempDir()}}
	_, _, err := a.spoolUpload(untouched{t}, 1<<60)
	refusal, ok := errors.AsType[*fleet.Refusal](err)
	if !ok || refusal.Code != job.CodeRepositoryFull {
		t.Fatalf("%v", err)
	}
	for _, part := range []string{"this disk of 1.0 EiB", "are needed in " + a.config.Data, "are free", "seedbed image add"} {
		if !strings.Contains(refusal.Detail, part) {
			t.Errorf("%q lacks %q", refusal.Detail, part)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(importSpool(a.config.Data), "*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	for _, length := range []int64{4, -1} { // known and unknown
		path, remove, err := a.spoolUpload(strings.NewReader("disk"), length)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "disk" {
			t.Errorf("%q, %v", b, err)
		}
		remove()
	}
}
