//go:build linux

package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// What is secret stands in files of mode 0600 and on the wire to whom it is for: not in the log, in arguments or in kernel command
// lines.
func TestNoSecretIsSaid(t *testing.T) {
	network(t)
	data := filepath.Join(t.TempDir(), "data")
	disk, _ := newDisk(t)
	must(t, data, "image", "add", disk, "--name", "debian")
	p := serve(t, data, bootFiles(t), "--admit", "auto", "--log-level", "debug")
	secrets := map[string]string{}
	must(t, data, "deploy", "debian", "--all")
	m := &machine{t: t}
	script := m.firmware()
	m.bootAgent()
	secrets["boot token"] = m.boot.Token
	m.hello()
	m.claim()
	ticket := must(t, data, "token", "new", "--for", "get")
	decoded, err := readTicket(writeSecret(t, ticket), nil)
	if err != nil {
		t.Fatal(err)
	}
	secrets["token of get"] = decoded.Token
	secrets["ticket"] = strings.TrimSpace(ticket)
	newHost(t, 1).start(t.TempDir(), "get", "debian", filepath.Join(t.TempDir(), "out"), "--token-file", writeSecret(t, ticket)).finish()
	for _, name := range []string{"site.key", "ca.key"} {
		b, err := os.ReadFile(filepath.Join(data, "site", name))
		if err != nil {
			t.Fatal(err)
		}
		secrets[name] = strings.Split(string(b), "\n")[1] // of the PEM block
	}
	arguments, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "cmdline"))
	if err != nil {
		t.Fatal(err)
	}
	events := must(t, data, "event", "ls", "--json")
	listed := must(t, data, "token", "ls", "--json") + must(t, data, "machine", "ls", "--json") + must(t, data, "job", "ls", "--json")
	p.kill()
	if !strings.Contains(p.log.String(), "level=DEBUG") || !strings.Contains(p.log.String(), "boot file asked for") {
		t.Fatal("the log does not tell of what was done")
	}
	password := regexp.MustCompile(`the user is admin, the password (\S+)`).FindStringSubmatch(p.out.String())
	if password == nil {
		t.Fatalf("the first start tells no password: %s", p.out)
	}
	secrets["password of the first administrator"] = password[1]
	said := map[string]string{"log": p.log.String(), "arguments": string(arguments), "script with the kernel's command line": script,
		"events": events, "listings": listed}
	for what, secret := range secrets {
		if len(secret) < 20 {
			t.Fatalf("%s is %q", what, secret)
		}
		for where, text := range said {
			if strings.Contains(text, secret) {
				t.Errorf("the %s stands in the %s", what, where)
			}
		}
		if inRecords := recordsContain(t, data, secret); inRecords {
			t.Errorf("the %s stands in the records", what)
		}
	}
	filesArePrivate(t, data)
}

// recordsContain reports whether the files of the records hold a text.
func recordsContain(t *testing.T, data, text string) bool {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(data, "records.db*"))
	if err != nil || len(list) == 0 {
		t.Fatalf("records: %v, %v", list, err)
	}
	for _, path := range list {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte(text)) {
			return true
		}
	}
	return false
}

// filesArePrivate expects a data directory that nobody but its owner can read.
func filesArePrivate(t *testing.T, data string) {
	t.Helper()
	if info, err := os.Stat(data); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v %v", data, info.Mode(), err)
	}
	private := regexp.MustCompile(`(\.key|\.crt|records\.db.*|seedbed\.sock|appliance-id)$`)
	seen := 0
	err := filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !private.MatchString(path) {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if seen++; info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil || seen < 5 {
		t.Errorf("%d files looked at, %v", seen, err)
	}
}

// writeSecret makes a file of mode 0600.
func writeSecret(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The password of the records is given to nobody but PostgreSQL.
func TestThePasswordOfTheRecordsIsNotSaid(t *testing.T) {
	network(t)
	const password = "open sesame 2718281828"
	file := writeSecret(t, password+"\n")
	location := "postgres://seedbed@127.0.0.1:1/seedbed"
	for _, args := range [][]string{{"serve", "--no-boot"}, {"serve", "--no-boot", "--check"}, {"config", "show"}} {
		out, errs, _ := both(t, t.TempDir(), append(args, "--store", location, "--store-password-file", file, "--log-level", "debug")...)
		if strings.Contains(out+errs, password) || strings.Contains(out+errs, "sesame") {
			t.Errorf("%v: %s%s", args, out, errs)
		}
	}
	with, err := recordsWith("", location, file)
	if err != nil || !strings.Contains(with, "open%20sesame%202718281828@") {
		t.Errorf("%q, %v", with, err)
	}
	if _, err := recordsWith("", "postgres://127.0.0.1/seedbed", file); err == nil || strings.Contains(err.Error(), password) {
		t.Error(err)
	}
	if _, err := recordsWith("/data", "", file); err == nil {
		t.Error("a password for SQLite was taken")
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := recordsWith("", location, file); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Error(err)
	}
}
