//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
)

// say runs a command with something on its standard input, and returns what it printed and its exit code.
func say(t *testing.T, stdin, data string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"--data", data}, args...)...)
	cmd.Env = commandEnv()
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &out
	if err := cmd.Run(); err != nil {
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// siteFingerprint is that of the site's CA certificate.
func siteFingerprint(t *testing.T, data string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(data, "site", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		t.Fatal("ca.crt is no PEM")
	}
	return images.Sum(block.Bytes).String()
}

const machineTable = "mac,name,groups,admitted\n52:54:00:00:00:01,one,lab,true\n52:54:00:00:00:02,two,lab,true\n"

func TestARoomIsSetUpAndDeployedFromTheCommandLine(t *testing.T) {
	network(t)
	data := t.TempDir()
	serve(t, data, bootFiles(t), "--no-boot")
	disk, _ := newDisk(t)
	must(t, data, "image", "add", disk, "--name", "debian")
	must(t, data, "group", "new", "lab", "--kind", "room", "--limit", "5", "--window", "Mon-Sun 00:00-24:00")
	if out, code := say(t, machineTable, data, "machine", "import", "-", "--dry-run"); code != 0 || !strings.Contains(out, "2 machines are new") {
		t.Fatalf("a dry import: %d %s", code, out)
	}
	if list := decode[[]api.Machine](t, data, "machine", "ls"); len(list) != 0 {
		t.Fatalf("a dry import made %d machines", len(list))
	}
	if out, code := say(t, machineTable, data, "machine", "import", "-"); code != 0 {
		t.Fatalf("import: %d %s", code, out)
	}
	must(t, data, "machine", "edit", "one", "--seat", "2,3", "--notes", "by the door", "--boot", "local", "--once")
	m := decode[api.Machine](t, data, "machine", "show", "52-54-00-00-00-01")
	if m.Seat == nil || m.Seat.Column != 3 || m.Boot == nil || !m.Boot.Once || m.Notes != "by the door" || len(m.Groups) != 1 {
		t.Errorf("machine %+v", m)
	}
	if out := must(t, data, "machine", "show", "one"); !strings.Contains(out, "row 2, column 3") || !strings.Contains(out, "(root)") && !strings.Contains(out, "by the door") {
		t.Errorf("machine show: %s", out)
	}
	for _, c := range []struct{ words, want string }{
		{"machine show ", "one two"}, {"machine merge one t", "two"}, {"machine show one ", ""}, {"machine wipe one ", "one two"}, {"group add ", "lab"}, {"group add lab ", "one two"},
		{"deploy ", "debian:1"}, {"deploy debian:1 --group ", "lab"}, {"image rm d", "debian:1"}, {"image diff debian:1 ", "debian:1"}, {"capture o", "one"}, {"user token new x --user ", "admin"},
	} {
		words := strings.Split(c.words, " ")
		if got := strings.Join(completed(t, data, words...), " "); got != c.want {
			t.Errorf("seedbed %s<tab>: %s, want %s", c.words, got, c.want)
		}
	}
	if out := must(t, data, "machine", "export"); !strings.Contains(out, "52:54:00:00:00:02,two,lab") {
		t.Errorf("machine export: %s", out)
	}
	groups := decode[[]fleet.GroupView](t, data, "group", "ls")
	if len(groups) != 1 || groups[0].Machines != 2 || groups[0].Kind != fleet.Room || groups[0].Limit != 5 {
		t.Errorf("groups %+v", groups)
	}
	must(t, data, "settings", "set", "--limit", "7", "--keep-events", "400d", "--keep-jobs", "forever")
	if out := must(t, data, "settings", "show"); !strings.Contains(out, "events are kept           400 days\njobs are kept             for ever") {
		t.Errorf("settings show: %s", out)
	}
	if out, code := seedbed(t, data, "settings", "set", "--keep-events", "a year"); code != exitUsage {
		t.Errorf("a year of events: %d %s", code, out)
	}
	if s := decode[fleet.Settings](t, data, "settings", "show"); s.Limit != 7 || s.KeepEvents != 400 || s.KeepJobs != fleet.KeepForever {
		t.Errorf("settings %+v", s)
	}
	at := time.Now().Add(time.Hour).Format(time.RFC3339)
	plan := decode[fleet.Plan](t, data, "deploy", "debian", "--group", "lab", "--at", at, "--dry-run")
	if len(plan.Machines) != 2 || plan.Written != 2 || plan.Unknown != 2 || plan.Machines[0].Wait != "start-time" || plan.Needed < 1<<20 || plan.Fetched < 2*4096 || !plan.AtMost {
		t.Errorf("a dry run: %+v", plan)
	}
	if out := must(t, data, "deploy", "debian", "--group", "lab", "--dry-run"); !strings.Contains(out, "written to 2 disks, at most ") || !strings.Contains(out, "Nothing was changed") ||
		!strings.Contains(out, "not known: it will be looked at") {
		t.Errorf("a dry run says: %s", out)
	}
	if list := decode[[]api.Deployment](t, data, "deployment", "ls"); len(list) != 0 {
		t.Fatalf("a dry run made %d deployments", len(list))
	}
	d := decode[api.Deployment](t, data, "deploy", "debian", "--group", "lab", "--priority", "9", "--at", at, "--verify", "sample", "--free", "discard", "--retries", "3", "--seed-for", "90s")
	jobs := decode[[]api.Job](t, data, "job", "ls", "--deployment", d.ID)
	if len(jobs) != 2 || jobs[0].Priority != 9 || jobs[0].Wait != "start-time" || time.Duration(d.SeedFor) != 90*time.Second || d.Options.Verify != job.VerifySample || d.By != "root" {
		t.Errorf("deployment %+v of jobs %+v", d, jobs)
	}
	must(t, data, "job", "priority", jobs[0].ID, "3")
	must(t, data, "deployment", "pause", d.ID)
	must(t, data, "deployment", "resume", d.ID)
	if out := must(t, data, "deployment", "show", d.ID); !strings.Contains(out, "2 waiting") || !strings.Contains(out, "starts at") {
		t.Errorf("deployment show: %s", out)
	}
	must(t, data, "deployment", "cancel", d.ID)
	file := filepath.Join(t.TempDir(), "journal.csv")
	must(t, data, "deployment", "journal", d.ID, file)
	if b, err := os.ReadFile(file); err != nil || strings.Count(string(b), ",cancelled,") != 2 || strings.Count(string(b), "\r\n") != 3 {
		t.Errorf("deployment journal: %s, %v", b, err)
	}
	if out, code := seedbed(t, data, "deployment", "journal", d.ID, file); code == 0 {
		t.Errorf("a file that was there is written over: %s", out)
	}
	if out := must(t, data, "machine", "journal", "one", "-"); strings.Count(out, ",cancelled,") != 1 {
		t.Errorf("machine journal: %s", out)
	}
	shut := strings.ToLower(time.Now().AddDate(0, 0, 3).Format("Mon")) + " 03:00-04:00"
	must(t, data, "group", "edit", "lab", "--window", shut)
	if out := must(t, data, "deploy", "debian", "--group", "lab", "--wake", "--retries", "3"); !strings.Contains(out, "of debian:1 to 2 machines; machines that are off are woken") ||
		!strings.Contains(out, "2 of them: waits until ") || !strings.Contains(out, "when its maintenance window opens") {
		t.Errorf("who deploys outside a window learns: %s", out)
	}
	if out := must(t, data, "deploy", "debian", "--machine", "one", "--any-time", "--at", at); !strings.Contains(out, "to 1 machine; switch the machines on, at ") || strings.Contains(out, "of them") {
		t.Errorf("who deploys for later learns: %s", out)
	}
	must(t, data, "machine", "edit", "one", "--boot", "local")
	if out := must(t, data, "deploy", "debian", "--machine", "one", "--any-time"); !strings.Contains(out, "1 of them: waits, since the machine boots its own disk by a person's word") {
		t.Errorf("who deploys to a machine that does not come learns: %s", out)
	}
	must(t, data, "machine", "edit", "one", "--boot", "jobs")
	must(t, data, "group", "edit", "lab", "--window", "Mon-Sun 00:00-24:00")
	for _, d := range decode[[]api.Deployment](t, data, "deployment", "ls") {
		must(t, data, "deployment", "cancel", d.ID)
	}
	d = decode[api.Deployment](t, data, "deploy", "debian", "--group", "lab")
	if out, code := seedbed(t, data, "deploy", "debian", "--group", "nowhere"); code != exitNotFound {
		t.Errorf("a group that is not there: %d %s", code, out)
	}
	if out, code := seedbed(t, data, "deploy", "debian", "--group", "lab", "--at", "soon"); code != exitUsage {
		t.Errorf("a time that is none: %d %s", code, out)
	}
	if out, code := seedbed(t, data, "machine", "verify", "one"); code == 0 || !strings.Contains(out, "which has not ended") {
		t.Errorf("a verify beside a deployment: %d %s", code, out)
	}
	must(t, data, "deployment", "cancel", d.ID)
	if out, code := seedbed(t, data, "machine", "wipe", "one"); code == 0 || !strings.Contains(out, "confirm it with the word") {
		t.Errorf("a wipe that nobody confirmed: %d %s", code, out)
	}
	if out, code := seedbed(t, data, "machine", "repair", "one"); code == 0 || !strings.Contains(out, "holds no image that is known") {
		t.Errorf("a repair of what is not known: %d %s", code, out)
	}
	work := decode[[]api.Job](t, data, "machine", "wipe", "--group", "lab", "--confirm", "wipe", "--method", "discard", "--after", "poweroff")
	if len(work) != 2 || work[0].Kind != job.WipeDisk || work[0].Work == nil || work[0].Work.Method != job.WipeDiscard || work[0].Work.After != "poweroff" {
		t.Errorf("wipes %+v", work)
	}
	must(t, data, "job", "cancel", work[0].ID)
	must(t, data, "job", "cancel", work[1].ID)
	if out, code := seedbed(t, data, "job", "retry", work[1].ID); code == 0 || !strings.Contains(out, "confirm it with the word") {
		t.Errorf("the retry of a wipe that nobody confirmed: %d %s", code, out)
	}
	if again := decode[api.Job](t, data, "job", "retry", work[1].ID, "--confirm", "wipe"); again.Kind != job.WipeDisk || again.ID == work[1].ID {
		t.Errorf("the retry of a wipe: %+v", again)
	} else {
		must(t, data, "job", "cancel", again.ID)
	}
	if out := must(t, data, "machine", "verify", "one", "--image", "debian"); !strings.Contains(out, "verify of one debian:1") {
		t.Errorf("machine verify: %s", out)
	}
	must(t, data, "machine", "rm", "two")
	gone := work[slices.IndexFunc(work, func(j api.Job) bool { return j.MachineName == "two" })].Machine
	if out := must(t, data, "job", "ls"); !strings.Contains(out, gone) {
		t.Errorf("jobs of a machine that was removed are nobody's: %s", out)
	}
	if list := decode[[]fleet.ApplianceView](t, data, "appliance", "ls"); len(list) != 1 || list[0].Program == "" {
		t.Errorf("appliances %+v", list)
	}
	if events := decode[[]fleet.Event](t, data, "event", "ls", "--kind", "machine.", "--actor", "root"); len(events) != 7 {
		t.Errorf("events %+v", events)
	}
	// A deployment to all is for machines that are admitted later too, and who admits one learns that.
	if out, code := say(t, "mac;name;groups\n525400000003;three;lob\n;;\n", data, "machine", "import", "-"); code != 0 || !strings.Contains(out, "groups that were not there: lob") {
		t.Errorf("import: %d %s", code, out)
	}
	if out := must(t, data, "deploy", "debian", "--all"); !strings.Contains(out, "to 1 machine, and those seen later; ") {
		t.Errorf("deploy: %s", out)
	}
	if out := must(t, data, "machine", "admit", "three"); !strings.Contains(out, "is admitted\nit has job ") || !strings.Contains(out, "(deploy debian:1)") {
		t.Errorf("admit: %s", out)
	}
}

func TestWhoWaitsLearnsTheOutcome(t *testing.T) {
	network(t)
	data := t.TempDir()
	serve(t, data, bootFiles(t), "--no-boot")
	disk, _ := newDisk(t)
	must(t, data, "image", "add", disk, "--name", "debian")
	if out, code := say(t, machineTable, data, "machine", "import", "-"); code != 0 {
		t.Fatalf("import: %d %s", code, out)
	}
	waiting := startProcess(t, exec.Command(os.Args[0], "--data", data, "deploy", "debian", "--group", "lab", "--wait"))
	c := client.Local(filepath.Join(data, "seedbed.sock"))
	defer c.Close()
	for {
		list, err := c.Deployments(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 1 {
			if n, err := c.OperateDeployment(t.Context(), list[0].ID, fleet.CancelAll); err != nil || n != 2 {
				t.Fatalf("%d, %v", n, err)
			}
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	<-waiting.ended
	if code := waiting.cmd.ProcessState.ExitCode(); code != exitJobs || !strings.Contains(waiting.log.String(), "2 were cancelled") {
		t.Errorf("exit code %d: %s", code, waiting.log)
	}
	idle := exec.CommandContext(t.Context(), os.Args[0], "--data", data, "deploy", "debian", "--all", "--wait")
	idle.Env = commandEnv()
	said, err := idle.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := idle.Start(); err != nil {
		t.Fatal(err)
	}
	text := bufio.NewReader(said)
	if line, err := text.ReadString('\n'); err != nil || !strings.HasPrefix(line, "deployment ") { // from here on it waits
		t.Fatalf("%q, %v", line, err)
	}
	if err := idle.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(text)
	if err != nil {
		t.Fatal(err)
	}
	idle.Wait() // its exit code is looked at
	if code := idle.ProcessState.ExitCode(); code != exitFailure || !strings.Contains(string(rest), "interrupted; the jobs go on") {
		t.Errorf("ctrl-C: exit code %d: %s", code, rest)
	}
	list, err := c.Deployments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		if _, err := c.OperateDeployment(t.Context(), d.ID, fleet.CancelAll); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"capture", "one", "--name", "mine", "--wait"}, {"machine", "inventory", "one", "--wait"}} {
		waiting := startProcess(t, exec.Command(os.Args[0], append([]string{"--data", data}, args...)...))
		var open []api.Job
		for len(open) == 0 {
			var err error
			if open, err = c.Jobs(t.Context(), api.JobQuery{State: "open"}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Operate(t.Context(), open[0].ID, "cancel"); err != nil {
			t.Fatal(err)
		}
		<-waiting.ended
		if code := waiting.cmd.ProcessState.ExitCode(); code != exitJobs || !strings.Contains(waiting.log.String(), "cancelled") {
			t.Errorf("%v: exit code %d: %s", args, code, waiting.log)
		}
	}
}

func TestAnotherHostAsksWithAToken(t *testing.T) {
	network(t)
	data, elsewhere := t.TempDir(), t.TempDir()
	p := startProcess(t, exec.Command(os.Args[0], "--data", data, "serve", "--no-boot", "--address", applianceAddr))
	c := client.Local(filepath.Join(data, "seedbed.sock"))
	defer c.Close()
	for !c.Running(t.Context()) {
		select {
		case <-p.ended:
			t.Fatalf("the appliance ended: %s", p.log)
		case <-time.After(20 * time.Millisecond):
		}
	}
	if out, code := say(t, "short\n", data, "user", "new", "alice", "--role", "operator"); code != exitRefused {
		t.Errorf("a short password: %d %s", code, out)
	}
	if out, code := say(t, "correct horse battery\n", data, "user", "new", "alice", "--role", "operator"); code != 0 {
		t.Fatalf("user new: %d %s", code, out)
	}
	pin := []string{"--appliance", "https://" + applianceAddr, "--fingerprint", siteFingerprint(t, data)}
	token := must(t, data, "user", "token", "new", "laptop", "--user", "alice")
	ask := func(token string, args ...string) (string, int) {
		return say(t, token, elsewhere, append(append(args, pin...), "--token-file", "-")...)
	}
	if out, code := ask(token, "machine", "ls", "--json"); code != 0 || strings.TrimSpace(out) != "[]" {
		t.Errorf("machine ls: %d %s", code, out)
	}
	if out, code := ask(token, "user", "ls"); code != exitDenied || !strings.Contains(out, "needs the role admin") {
		t.Errorf("user ls: %d %s", code, out)
	}
	if out, code := ask(token, "image", "add", "/etc/passwd", "--name", "x"); code != exitDenied || !strings.Contains(out, "own host") {
		t.Errorf("image add: %d %s", code, out)
	}
	if out, code := say(t, token, elsewhere, "machine", "ls", "--token-file", "-", "--appliance", "https://"+applianceAddr); code != exitFailure || !strings.Contains(out, "--fingerprint") {
		t.Errorf("an appliance whose certificate nobody knows: %d %s", code, out)
	}
	if out, code := ask("seedbed_00_11", "machine", "ls"); code != exitDenied {
		t.Errorf("a token that is none: %d %s", code, out)
	}
	own, code := say(t, "correct horse battery\n", elsewhere, append([]string{"user", "token", "new", "desk", "--user", "alice"}, pin...)...)
	if code != 0 || !strings.HasPrefix(own, "seedbed_") {
		t.Errorf("a token by a password: %d %s", code, own)
	}
	if out, code := say(t, "wrong horse battery\n", elsewhere, append([]string{"user", "token", "new", "desk", "--user", "alice"}, pin...)...); code != exitDenied {
		t.Errorf("a token by a wrong password: %d %s", code, out)
	}
	must(t, data, "user", "edit", "alice", "--disabled")
	if out, code := ask(own, "machine", "ls"); code != exitDenied {
		t.Errorf("a token of who is shut out: %d %s", code, out)
	}
	must(t, data, "user", "rm", "alice")
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.ended
	if n := strings.Count(p.log.String(), "the user is admin, the password "); n != 1 {
		t.Errorf("the first password was told %d times: %s", n, p.log)
	}
	if out, code := ask(token, "machine", "ls"); code != exitStopped {
		t.Errorf("an appliance that is gone: %d %s", code, out)
	}
}

func TestTimesArePutAsPeopleSayThem(t *testing.T) {
	now := time.Date(2026, 3, 1, 20, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"18:30": "2026-03-02T18:30:00Z", "21:15": "2026-03-01T21:15:00Z", "2026-04-01 08:00": "2026-04-01T08:00:00Z", "2026-04-01T08:00:00+02:00": "2026-04-01T06:00:00Z",
	} {
		if at, err := parseTime(text, now); err != nil || at.UTC().Format(time.RFC3339) != want {
			t.Errorf("%s: %v, %v, want %s", text, at, err, want)
		}
	}
	for _, text := range []string{"", "soon", "25:00", "2026-13-01 08:00"} {
		if at, err := parseTime(text, now); err == nil {
			t.Errorf("%q is %v", text, at)
		}
	}
}
