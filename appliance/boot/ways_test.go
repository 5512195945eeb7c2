package boot

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestWaysThatLackFilesAreTold(t *testing.T) {
	for _, c := range []struct {
		remove string
		want   []string // ways that are wrong
	}{
		{"", nil}, {fileUndionly, []string{"BIOS"}}, {fileIPXE, []string{"UEFI"}}, {fileGRUB, []string{"UEFI with Secure Boot"}},
		{fileKernel, []string{"BIOS", "UEFI", "UEFI with Secure Boot"}},
	} {
		dir := t.TempDir()
		for _, name := range append(slices.Clone(loaderFiles), fileKernel, fileInitramfs) {
			if name == c.remove {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var wrong []string
		for _, w := range Ways(dir) {
			if w.Wrong != "" {
				wrong = append(wrong, w.Name)
				if !strings.Contains(w.Wrong, c.remove+" is missing") || !strings.HasSuffix(w.Wrong, remedy) {
					t.Errorf("without %s: %s", c.remove, w.Wrong)
				}
			}
		}
		if !slices.Equal(wrong, c.want) {
			t.Errorf("without %q: %q are wrong", c.remove, wrong)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileManifest), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, w := range Ways(dir) {
		if !strings.Contains(w.Wrong, fileManifest) {
			t.Errorf("with a manifest that is broken: %s", w.Wrong)
		}
	}
}
