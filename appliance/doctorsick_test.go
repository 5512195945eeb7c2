//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/doctor"
	"seedbed/images/repository/s3/s3test"
)

// checksOf names the checks that found something, each once.
func checksOf(r doctor.Report) (list []string) {
	for _, f := range r.Findings {
		if !slices.Contains(list, f.Check) {
			list = append(list, f.Check)
		}
	}
	return list
}

// privateDir is a data folder as an appliance makes it.
func privateDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Of an appliance elsewhere its word is all that there is.
func TestDoctorAsksAnApplianceElsewhere(t *testing.T) {
	network(t)
	data, elsewhere := t.TempDir(), t.TempDir()
	p := serve(t, data, bootFiles(t), "--no-boot")
	if out, code := say(t, "correct horse battery\n", data, "user", "new", "vera"); code != 0 {
		t.Fatalf("%d %s", code, out)
	}
	token := filepath.Join(elsewhere, "token")
	must(t, data, "user", "token", "new", "doctor", "--user", "vera", "--out", token)
	pin := []string{"--appliance", "https://" + applianceAddr, "--fingerprint", siteFingerprint(t, data), "--token-file"}
	r, code := examine(t, elsewhere, append(pin, token)...)
	if got := strings.Join(checksOf(r), " "); code != 0 || got != "service schedule images queue machines" {
		t.Errorf("exit code %d, checks %s: %s", code, got, findingsText(r))
	}
	expect(t, r, doctor.OK, "service", "https://"+applianceAddr+" says ready")
	r, code = examine(t, elsewhere, append(pin, writeSecret(t, "seedbed_00_11\n"))...)
	if got := strings.Join(checksOf(r), " "); code != exitAiling || got != "service" || !tells(r, doctor.Wrong, "service", "does not tell what it knows") {
		t.Errorf("with a token that is none: exit code %d, checks %s: %s", code, got, findingsText(r))
	}
	p.kill()
	if r, code = examine(t, elsewhere, append(pin, token)...); code != exitAiling || !tells(r, doctor.Wrong, "service", "does not answer") {
		t.Errorf("one that is gone: exit code %d: %s", code, findingsText(r))
	}
}

// Damage is told until all images were found whole, and no longer.
func TestDoctorTellsOfDamageUntilItIsHealed(t *testing.T) {
	network(t)
	data, boot := privateDir(t), bootFiles(t)
	disk, _ := newDisk(t)
	serve(t, data, boot, "--no-boot")
	must(t, data, "image", "add", disk, "--name", "debian")
	flags := []string{"--no-boot", "--boot-dir", boot, "--address", applianceAddr}
	r, _ := examine(t, data, flags...)
	expect(t, r, doctor.OK, "repository", "no marks of damage")
	flipBit(t, onlyPack(t, data))
	if _, code := seedbed(t, data, "image", "verify", "debian"); code != exitDamaged {
		t.Fatalf("exit code %d", code)
	}
	r, _ = examine(t, data, flags...)
	expect(t, r, doctor.Warning, "repository", "marks of damage at 1 packs; `seedbed image verify --all --heal`")
	expect(t, r, doctor.Warning, "images", "verification found on")
	if report := decode[api.VerifyReport](t, data, "image", "verify", "debian", "--heal-from", disk); !report.IsWhole() {
		t.Fatalf("%+v", report)
	}
	if r, _ = examine(t, data, flags...); !tells(r, doctor.Warning, "images", "verification found on") {
		t.Error("one image that is whole is taken for all")
	}
	must(t, data, "image", "verify", "--all")
	r, code := examine(t, data, flags...)
	if code != 0 {
		t.Errorf("exit code %d: %s", code, findingsText(r))
	}
	expect(t, r, doctor.OK, "repository", "all images were found whole since")
	expect(t, r, doctor.OK, "images", "1 images can be deployed")
}

func TestDoctorLooksAtObjectStorage(t *testing.T) {
	network(t)
	at := s3test.Start(t, "images")
	credentials := writeSecret(t, "[default]\n")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", credentials)
	location := "s3://images/site?endpoint=" + at
	data := filepath.Join(t.TempDir(), "data")
	disk, _ := newDisk(t)
	must(t, data, "--repository", location, "image", "add", disk, "--name", "debian")
	r, _ := examine(t, data, "--no-boot", "--address", applianceAddr, "--repository", location)
	expect(t, r, doctor.OK, "repository", "no marks of damage")
	expect(t, r, doctor.OK, "room", "storage does not tell what is free")
	if err := os.Chmod(credentials, 0o644); err != nil {
		t.Fatal(err)
	}
	r, code := examine(t, data, "--no-boot", "--address", applianceAddr, "--repository", location)
	if code != exitAiling || !tells(r, doctor.Wrong, "secrets", "chmod 600 "+credentials) {
		t.Errorf("keys that others may read: exit code %d: %s", code, findingsText(r))
	}
	for what, wrong := range map[string]string{"another bucket": "s3://other/site?endpoint=" + at, "nobody there": "s3://images/site?endpoint=http://" + applianceAddr + ":9"} {
		if r, code := examine(t, data, "--no-boot", "--address", applianceAddr, "--repository", wrong); code != exitAiling || !tells(r, doctor.Wrong, "repository", "cannot be read") {
			t.Errorf("%s: exit code %d: %s", what, code, findingsText(r))
		}
	}
}

func TestDoctorLooksAtInterfaces(t *testing.T) {
	network(t)
	h := newHost(t, 1)
	route, err := exec.Command("ip", "-o", "route", "get", h.addrs[0].String()).Output()
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(route)) // "10.80.1.2 dev cable1 src 10.80.1.1 uid 0"
	cable := fields[slices.Index(fields, "dev")+1]
	for _, c := range []struct {
		set     []string
		verdict doctor.Verdict
		words   string
	}{
		{[]string{"mtu", "1400"}, doctor.Warning, "has an MTU of 1400 bytes, less than what machines send; `ip link set " + cable + " mtu 1500`"},
		{[]string{"mtu", "9000"}, doctor.OK, "MTU 9000 bytes, which all switches and machines of its network have to take"},
		{[]string{"mtu", "1500"}, doctor.OK, "link, MTU 1500 bytes"},
		{[]string{"down"}, doctor.Wrong, "interface " + cable + " is down; `ip link set " + cable + " up`"},
	} {
		tools(t, "", "ip", append([]string{"link", "set", cable}, c.set...)...)
		r, code := examine(t, t.TempDir(), "--no-boot", "--interface", cable)
		if code != exitAiling || !tells(r, c.verdict, "network", c.words) { // nothing runs
			t.Errorf("%v: exit code %d: %s", c.set, code, findingsText(r))
		}
	}
}

func TestDoctorSaysForWhatJobsWait(t *testing.T) {
	network(t)
	data := privateDir(t)
	serve(t, data, bootFiles(t), "--no-boot")
	disk, _ := newDisk(t)
	must(t, data, "image", "add", disk, "--name", "debian")
	if out, code := say(t, machineTable+"52:54:00:00:00:03,three,lab,true\n52:54:00:00:00:04,stranger,,false\n", data, "machine", "import", "-"); code != 0 {
		t.Fatalf("%d %s", code, out)
	}
	must(t, data, "deploy", "debian", "--machine", "one", "--at", time.Now().Add(time.Hour).Format(time.RFC3339))
	must(t, data, "deploy", "debian", "--machine", "two")
	must(t, data, "deploy", "debian", "--machine", "three")
	must(t, data, "job", "pause", decode[[]api.Job](t, data, "job", "ls", "--machine", "three")[0].ID)
	r, code := examine(t, data, "--no-boot", "--address", applianceAddr)
	if code != 0 {
		t.Errorf("exit code %d: %s", code, findingsText(r))
	}
	expect(t, r, doctor.OK, "queue", "0 jobs at work, 3 wait")
	expect(t, r, doctor.OK, "queue", "1 jobs wait for their start time: one")
	expect(t, r, doctor.OK, "queue", "1 jobs wait for their machines to boot from the network: two")
	expect(t, r, doctor.Warning, "queue", "1 jobs wait for a person to resume them: three")
	expect(t, r, doctor.Warning, "machines", "1 machines are not admitted: stranger")
}

// Who is not root is told to ask as root, and not that all is broken.
func TestDoctorWhoIsNotRootSaysSo(t *testing.T) {
	network(t)
	data := privateDir(t)
	serve(t, data, bootFiles(t), "--no-boot")
	self, err := os.Open("/proc/self/exe") // which may lie where nobody else gets
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/fd/3", "--data", data, "doctor", "--json", "--no-boot", "--address", applianceAddr)
	cmd.ExtraFiles, cmd.Dir, cmd.Env = []*os.File{self}, "/", commandEnv()
	const nobody = 65534
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Run()
	var r doctor.Report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v: %s%s", err, &out, &errs)
	}
	expect(t, r, doctor.Warning, "service", fmt.Sprintf("the socket %s may not be opened by this user; ask as root", filepath.Join(data, "seedbed.sock")))
	for _, check := range []string{"data", "repository", "records", "certificate"} {
		expect(t, r, doctor.Warning, check, "ask as root")
	}
	for _, f := range r.Findings {
		if f.Verdict == doctor.Wrong && strings.Contains(f.Text, "permission") {
			t.Errorf("%+v", f)
		}
	}
}
