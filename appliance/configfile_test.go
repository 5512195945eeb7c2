//go:build linux

package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/appliance/configuration"
)

var update = flag.Bool("update", false, "rewrite the table of settings in README.md")

// manualTable is the table of settings as the manual has it.
func manualTable() string {
	var b strings.Builder
	for _, f := range settings(command()) {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", configuration.Key(f.Name), strings.ReplaceAll(defaultText(f), "|", "\\|"), strings.ReplaceAll(whatText(f), "|", "\\|"))
	}
	return b.String()
}

// Help, manual and `config default` tell the same defaults: those that are in force.
func TestDefaultsAreTheSameEverywhere(t *testing.T) {
	const head = "| key | default | what |\n| --- | --- | --- |\n"
	manual, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(manual), head)
	table, after, end := strings.Cut(rest, "\n\n")
	if !ok || !end {
		t.Fatal("README.md has no table of settings")
	}
	if want := manualTable(); table+"\n" != want {
		if !*update {
			t.Errorf("the table of settings in README.md is not that of the program; `go test ./appliance -run TestDefaults -update` writes it:\n%s", want)
		} else if err := os.WriteFile("README.md", []byte(before+head+want+"\n"+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data := t.TempDir()
	help, standard := must(t, data, "serve", "--help"), must(t, data, "config", "default")
	for _, f := range settings(command()) {
		if defaultText(f) == "" {
			t.Errorf("--%s does not tell its default", f.Name)
		}
		line := ""
		for l := range strings.SplitSeq(help, "\n") {
			if strings.Contains(l, "--"+f.Name+" ") {
				line = l
			}
		}
		if f.Value.Type() != "bool" && !strings.Contains(line, defaultText(f)) {
			t.Errorf("the help of --%s does not tell the default %q: %s", f.Name, defaultText(f), line)
		}
		if !strings.Contains(standard, "\n# Default: "+defaultText(f)+"\n# "+configuration.Key(f.Name)+": ") {
			t.Errorf("`config default` does not tell the default %q of %s", defaultText(f), configuration.Key(f.Name))
		}
	}
}

// What `config default` prints is a configuration, also with its lines in force, and changes nothing.
func TestConfigDefaultChangesNothing(t *testing.T) {
	data := t.TempDir()
	standard := must(t, data, "config", "default")
	var active strings.Builder
	for line := range strings.SplitSeq(standard, "\n") {
		if key, value, ok := strings.Cut(strings.TrimPrefix(line, "# "), ": "); ok && !strings.ContainsAny(key, " A") && strings.HasPrefix(line, "# ") && key != "Default" && value != `""` {
			line = strings.TrimPrefix(line, "# ")
		}
		active.WriteString(line + "\n")
	}
	for what, text := range map[string]string{"comments alone": standard, "all keys": active.String()} {
		path := filepath.Join(t.TempDir(), "seedbed.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		with := decode[[]inForce](t, data, "config", "show", "--config", path)
		without := decode[[]inForce](t, data, "config", "show")
		if len(with) != len(settings(command())) || len(with) != len(without) {
			t.Fatalf("%s: %d settings, without a file %d", what, len(with), len(without))
		}
		lines := 0
		for i := range with {
			if with[i].Value != without[i].Value {
				t.Errorf("%s: %s is %q instead of %q", what, with[i].Key, with[i].Value, without[i].Value)
			}
			if strings.HasPrefix(with[i].Origin, path) {
				lines++
			}
		}
		if what == "all keys" && lines < 15 {
			t.Errorf("%d settings come from the file", lines)
		}
	}
}

// writeConfig writes a configuration file.
func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "seedbed.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigurationsThatCannotBeUsed(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"admit: perhaps\n", ":1: --admit is ask or auto"},
		{"\naddress: nowhere\n", ":2: --address:"},
		{"dscp: 77\n", ":1: --dscp is a number from 0 to 63"},
		{"swarm_upload_limit: fast\n", ":1: swarm_upload_limit: a rate is"},
		{"metrics_from: [10.0.0.0/99]\n", ":1: metrics_from:"},
		{"verify_rate: -1\n", ":1: --prune-every and --verify-rate"},
		{"check: true\n", ":1: the key check is not known"},
		{"log-level: debug\n", ":1: the key log-level is not known; is log_level meant?"},
		{"no_boot: true\nno_boot: false\n", ":2: the key no_boot is in line 1 already"},
	} {
		path := writeConfig(t, c.text)
		out, code := seedbed(t, t.TempDir(), "serve", "--config", path)
		if code != exitUsage || !strings.Contains(out, path+c.want) {
			t.Errorf("%q: exit code %d: %s", c.text, code, out)
		}
	}
	if out, code := seedbed(t, t.TempDir(), "job", "ls", "--config", "/nowhere/seedbed.yaml"); code != exitUsage || !strings.Contains(out, "/nowhere/seedbed.yaml") {
		t.Errorf("a file that is named and not there: exit code %d: %s", code, out)
	}
	if out, code := seedbed(t, t.TempDir(), "job", "ls", "--config", writeConfig(t, "boot_dirs: a\n")); code != exitUsage {
		t.Errorf("another command with a wrong file: exit code %d: %s", code, out)
	}
	path := writeConfig(t, "dscp: 77\n")
	if out, code := seedbed(t, t.TempDir(), "serve", "--config", path, "--dscp", "99"); code != exitUsage || strings.Contains(out, path) {
		t.Errorf("a wrong flag is said to come from the file: exit code %d: %s", code, out)
	}
}

// All commands find the appliance by the configuration.
func TestCommandsFindTheApplianceByTheConfiguration(t *testing.T) {
	network(t)
	data := t.TempDir()
	path := writeConfig(t, fmt.Sprintf("data: %s\nno_boot: true\naddress: %s\nhttps: %[2]s:0\nswarm: %[2]s:0\n", data, applianceAddr))
	serve(t, data, "", "--config", path)
	cmd := startProcess(t, aCommand("--config", path, "job", "ls", "--json"))
	if out := cmd.finish(); strings.TrimSpace(out) != "[]" {
		t.Errorf("%s", out)
	}
}

func TestServeCheck(t *testing.T) {
	network(t)
	data, boot := filepath.Join(t.TempDir(), "data"), bootFiles(t)
	good := []string{"serve", "--check", "--boot-dir", boot, "--address", applianceAddr}
	out := must(t, data, good...)
	for _, want := range []string{"made at the first start", "none: all machines are one group", "udp :67", "tcp :443", "# in force:", "admit: ask"} {
		if !strings.Contains(out, want) {
			t.Errorf("a new appliance: %q is missing:\n%s", want, out)
		}
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("a check made the data directory")
	}
	serve(t, data, boot)
	if out := must(t, data, good...); !strings.Contains(out, "in use by the appliance that runs here") || !strings.Contains(out, "tables of version") {
		t.Errorf("beside an appliance that runs:\n%s", out)
	}
	topology := filepath.Join(t.TempDir(), "topology.yaml")
	writeTopology(t, topology, "nonsense: 1\n")
	cert := newCertificate(t, "seedbed.example")
	if err := os.Chmod(cert.key, 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("no records"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		args []string
		want string
	}{
		"topology":    {[]string{"--topology", topology}, topology + ": line 1"},
		"boot files":  {[]string{"--boot-dir", t.TempDir()}, "vmlinuz is missing"},
		"certificate": {[]string{"--tls-cert", cert.cert, "--tls-key", cert.key}, "chmod 600"},
		"a key alone": {[]string{"--tls-key", cert.key}, "go together"},
		"records":     {[]string{"--store", file}, "WRONG  records"},
		"PostgreSQL":  {[]string{"--store", "postgres://seedbed@127.0.0.1:1/seedbed"}, "WRONG  records"},
		"repository":  {[]string{"--repository", file}, "no folder"},
		"S3":          {[]string{"--repository", "s3://bucket/prefix?color=blue"}, "neither endpoint nor region"},
		"address":     {[]string{"--interface", "nothing0", "--address", ""}, "interface nothing0"},
		"ports":       {[]string{"--data", t.TempDir()}, "another program has the port"},
	} {
		out, all, code := both(t, data, append(good[:len(good):len(good)], c.args...)...)
		if code != exitUsage || !strings.Contains(out, c.want) || !strings.Contains(all, "found something wrong") {
			t.Errorf("%s: exit code %d, want %q: %s%s", what, code, c.want, out, all)
		}
	}
}

// both runs a command and returns what it printed, what it complained of, and its exit code.
func both(t *testing.T, data string, args ...string) (out, errs string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	cmd := aCommand(append([]string{"--data", data}, args...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = commandEnv(), &o, &e
	cmd.Run()
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}
