package site_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/appliance/site"
)

var passphrase = []byte("correct horse battery")

func TestExportedIdentityIsTheSameElsewhere(t *testing.T) {
	s := open(t, t.TempDir())
	sealed, err := s.Export(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "site")
	other, err := site.Import(dir, sealed, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	if other.Fingerprint() != s.Fingerprint() || again.Fingerprint() != s.Fingerprint() || !again.PublicKey().Equal(s.PublicKey()) {
		t.Error("the identity is another one")
	}
	if signature := again.SignManifest([]byte("m")); !bytes.Equal(signature, s.SignManifest([]byte("m"))) {
		t.Error("it signs otherwise")
	}
	files := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		files++
		return err
	})
	if err != nil || files != 4 {
		t.Errorf("%d files and folders, %v", files, err)
	}
	// An import that was interrupted is completed by the same one.
	if err := os.Remove(filepath.Join(dir, "ca.crt")); err != nil {
		t.Fatal(err)
	}
	if _, err := site.Import(dir, sealed, passphrase); err != nil {
		t.Error(err)
	}
}

func TestImportRefuses(t *testing.T) {
	sealed, err := open(t, t.TempDir()).Export(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	used, half := t.TempDir(), t.TempDir()
	before := open(t, used).Fingerprint()
	if err := os.WriteFile(filepath.Join(half, "ca.key"), []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := string(sealed)
	for name, c := range map[string]struct {
		dir, sealed string
		passphrase  string
		want        error // nil is any
	}{
		"another passphrase":          {"", text, "correct horse batterY", site.ErrPassphrase},
		"another identity is there":   {used, text, string(passphrase), site.ErrOther},
		"a part of another is there":  {half, text, string(passphrase), site.ErrOther},
		"no export":                   {"", "nothing", string(passphrase), site.ErrNoExport},
		"something behind it":         {"", text + "more", string(passphrase), site.ErrNoExport},
		"a fingerprint was replaced":  {"", strings.Replace(text, "Fingerprint: ", "Fingerprint: 0", 1), string(passphrase), site.ErrPassphrase},
		"the salt was cut":            {"", strings.Replace(text, "Salt: ", "Salt: 00", 1), string(passphrase), site.ErrNoExport},
		"a derivation without end":    {"", strings.Replace(text, "t=3 ", "t=999999999 ", 1), string(passphrase), nil},
		"a derivation of all memory":  {"", strings.Replace(text, "m=64 ", "m=4294967295 ", 1), string(passphrase), nil},
		"a weaker derivation":         {"", strings.Replace(text, "t=3 ", "t=1 ", 1), string(passphrase), site.ErrPassphrase},
		"far too much":                {"", text + strings.Repeat(" ", site.MaxExport), string(passphrase), site.ErrNoExport},
		"a derivation with something": {"", strings.Replace(text, "p=4", "p=4 x", 1), string(passphrase), nil},
	} {
		dir := c.dir
		if dir == "" {
			dir = t.TempDir()
		}
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := site.Import(dir, []byte(c.sealed), []byte(c.passphrase)); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if after, err := os.ReadDir(dir); err != nil || len(after) != len(files) {
			t.Errorf("%s: %d files, %d before, %v", name, len(after), len(files), err)
		}
	}
	if open(t, used).Fingerprint() != before {
		t.Error("the identity that was there has changed")
	}
}

func TestExportSaysNothingWithoutThePassphrase(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := s.Export([]byte("short")); !errors.Is(err, site.ErrShort) {
		t.Errorf("a short passphrase: %v", err)
	}
	one, err := s.Export(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.Export(passphrase)
	if err != nil || bytes.Equal(one, two) {
		t.Errorf("two exports are the same: %v", err)
	}
	for _, name := range []string{"site.key", "ca.key"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if line := strings.Split(string(b), "\n")[1]; bytes.Contains(one, []byte(line)) {
			t.Errorf("the export holds %s in the clear", name)
		}
	}
}

func FuzzImport(f *testing.F) {
	f.Add([]byte("-----BEGIN SEEDBED SITE-----\nDerivation: argon2id t=1 m=8 p=1\nFingerprint: 00\nSalt: 00112233445566778899aabbccddeeff\n\n" +
		strings.Repeat("AAAA", 16) + "\n-----END SEEDBED SITE-----\n"))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if bytes.Contains(sealed, []byte("m=")) && !bytes.Contains(sealed, []byte("m=8 ")) {
			return // only time would be lost
		}
		if _, err := site.Import(t.TempDir(), sealed, passphrase); err == nil {
			t.Error("imported what nobody exported")
		}
	})
}
