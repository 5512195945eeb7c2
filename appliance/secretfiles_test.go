//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// A file with a secret that others may read is refused, whatever the secret is for.
func TestSecretsThatOthersMayReadAreRefused(t *testing.T) {
	for _, mode := range []os.FileMode{0o644, 0o604, 0o660} {
		file := writeSecret(t, "correct horse battery staple\n")
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := readPassphrase(nil, file, false); err == nil || !strings.Contains(err.Error(), "--passphrase-file: ") || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("a passphrase, mode %04o: %v", mode, err)
		}
		if _, err := (&remote{tokenFile: file}).token(nil); err == nil || !strings.Contains(err.Error(), "--token-file: ") || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("an API token, mode %04o: %v", mode, err)
		}
		if _, err := readTicket(file, nil); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("a token, mode %04o: %v", mode, err)
		}
	}
	if p, err := readPassphrase(nil, writeSecret(t, "correct horse\n"), false); err != nil || string(p) != "correct horse" {
		t.Errorf("%q, %v", p, err)
	}
	if token, err := (&remote{tokenFile: writeSecret(t, "seedbed_a_b\n")}).token(nil); err != nil || token != "seedbed_a_b" {
		t.Errorf("%q, %v", token, err)
	}
	read, write, err := os.Pipe() // as a shell gives it: <(pass show token)
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if _, err := write.WriteString("seedbed_c_d\n"); err != nil {
		t.Fatal(err)
	}
	write.Close()
	if token, err := (&remote{tokenFile: fmt.Sprintf("/proc/self/fd/%d", read.Fd())}).token(nil); err != nil || token != "seedbed_c_d" {
		t.Errorf("of a pipe: %q, %v", token, err)
	}
}

func TestPasswordsInLocationsAreHidden(t *testing.T) {
	for location, want := range map[string]string{
		"": "", "/srv/records.db": "/srv/records.db", "postgres://alice@db/seedbed": "postgres://alice@db/seedbed",
		"postgres:///seedbed?host=/run/postgresql":               "postgres:///seedbed?host=/run/postgresql",
		"postgres://alice:sesame@db/seedbed?sslmode=verify-full": "postgres://alice:xxxxx@db/seedbed?sslmode=verify-full",
		"postgres://db/seedbed?password=sesame&user=a":           "postgres://db/seedbed?password=xxxxx&user=a",
		"postgres://db/seedbed?sslpassword=sesame":               "postgres://db/seedbed?sslpassword=xxxxx",
		"postgres://a b:sesame@[db/x":                            "postgres://xxxxx@[db/x",
		"postgres://a b:ses@ame@[db/x?password=sesame":           "postgres://xxxxx@[db/x",
		"s3://images/site?endpoint=https://s3.example:9000":      "s3://images/site?endpoint=https://s3.example:9000",
		"s3://images/site?endpoint=https://key:sesame@s3":        "s3://images/site?endpoint=https%3A%2F%2Fkey%3Axxxxx%40s3",
	} {
		if got := withoutPassword(location); got != want {
			t.Errorf("%q: %q, want %q", location, got, want)
		}
	}
}

// A password that somebody wrote where it has no place is not printed there.
func TestThePasswordInTheLocationOfTheRecordsIsNotPrinted(t *testing.T) {
	network(t)
	for i, location := range []string{"postgres://seedbed:sesame27182@127.0.0.1:1/x", "postgres://seedbed@127.0.0.1:1/x?password=sesame27182", "postgres://a b:sesame27182@[db/x"} {
		config := writeConfig(t, "store: "+location+"\n")
		commands := [][]string{{"config", "show"}, {"serve", "--no-boot", "--check"}}
		if i == 0 {
			commands = append(commands, []string{"config", "show", "--json"}, []string{"serve", "--no-boot"}, []string{"doctor", "--no-boot"})
		}
		for _, args := range commands {
			out, errs, code := both(t, t.TempDir(), append(args, "--config", config)...)
			if strings.Contains(out+errs, "sesame") || args[0] == "config" && (code != 0 || !strings.Contains(out, "xxxxx")) {
				t.Errorf("%v with %s: %d: %s%s", args, location, code, out, errs)
			}
		}
	}
}
