//go:build linux

package main

import (
	"errors"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

func TestGetWritesNothingThatIsNotItsOwn(t *testing.T) {
	s := newTestSite(t, 1<<20)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	const precious = "half of something else"
	for _, name := range []string{"foreign.part", "victim"} {
		if err := os.WriteFile(file(name), []byte(precious), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"linked.part": "victim", "planted.part.pass": "victim", "dangling": "nowhere"} {
		if err := os.Symlink(to, file(link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(file("folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	token := s.token("--for", "get")
	for out, says := range map[string]string{
		"foreign": "no interrupted get", "linked": "no interrupted get", "planted": "no file of your own", "dangling": "leads nowhere",
		"folder": "is a folder", "missing/disk.img": "make the folder first", "victim/disk.img": "make the folder first",
	} {
		if text, code := elsewhere(t, "get", "debian", file(out), "--token-file", token); code != exitRefused || !strings.Contains(text, says) {
			t.Errorf("%s: exit code %d, want %q: %s", out, code, says, text)
		}
	}
	if text, code := seedbed(t, s.data, "get", "debian", "/dev/null"); code != exitRefused || strings.Contains(text, "remove it") {
		t.Errorf("exit code %d: %s", code, text)
	}
	for _, name := range []string{"foreign.part", "victim"} {
		if b, err := os.ReadFile(file(name)); err != nil || string(b) != precious {
			t.Errorf("%s was written: %d bytes, %v", name, len(b), err)
		}
	}
	if list := decode[[]fleet.Token](t, s.data, "token", "ls"); len(list) != 1 || list[0].Used != 0 {
		t.Errorf("the token was spent on nothing: %+v", list)
	}
	if text, code := seedbed(t, s.data, "get", "debian", file("disk.img"), "--listen", "nowhere"); code != exitUsage {
		t.Errorf("exit code %d: %s", code, text)
	}
	busy := applianceAddr + ":443"
	if text, code := seedbed(t, s.data, "get", "debian", file("disk.img"), "--listen", busy); code != exitFailure || !strings.Contains(text, "in use") {
		t.Errorf("exit code %d: %s", code, text)
	}
	if left, err := filepath.Glob(file("disk.img*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestGetLeavesAFileAloneThatAnotherGetWrites(t *testing.T) {
	s := newTestSite(t, 24<<20)
	out := filepath.Join(t.TempDir(), "disk.img")
	cmd := exec.Command(os.Args[0], "--data", s.data, "get", "debian", out, "--limit", "4M")
	cmd.Env = commandEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) { // the file is all there is to wait for
		if st, err := os.Stat(out + ".part"); err == nil && st.Size() > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing was begun")
		}
	}
	if text, code := seedbed(t, s.data, "get", "debian", out); code != exitRefused || !strings.Contains(text, "another") {
		t.Errorf("exit code %d: %s", code, text)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-ended
	// What is left belongs to the appliance's own host, which has no token.
	if r := report(t, must(t, s.data, "get", "debian", out, "--json")); r.Length == 0 {
		t.Errorf("%+v", r)
	}
	same(t, out, s.exported)
}

func TestGetOfAnotherImageBeginsAnewInTheSamePlace(t *testing.T) {
	s := newTestSite(t, 1<<20)
	must(t, s.data, "image", "add", s.disk, "--name", "other", "--partitions", "1")
	dir := t.TempDir()
	for _, local := range []bool{true, false} {
		out := filepath.Join(dir, map[bool]string{true: "local", false: "remote"}[local])
		data, ticket := s.data, (*job.Ticket)(nil)
		if !local {
			data = t.TempDir()
			var err error
			if ticket, err = readTicket(s.token("--for", "get"), nil); err != nil {
				t.Fatal(err)
			}
		}
		g, err := (&options{data: data}).newGuest(t.Context(), job.RoleGet, ticket, out+".part.pass", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.join(t.Context(), "debian", false); err != nil {
			t.Fatal(err)
		}
		g.close()
		args := []string{"get", "other", out}
		if !local {
			args = append(args, "--token-file", s.token("--for", "get"))
		}
		if text, code := seedbed(t, data, args...); code != 0 {
			t.Errorf("exit code %d: %s", code, text)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A guest whose answer is lost joins by the same token again.
func TestAKeyIsKeptBeforeItsTokenIsShown(t *testing.T) {
	s := newTestSite(t, 1<<20)
	file := filepath.Join(t.TempDir(), "pass")
	ticket, err := readTicket(s.token("--for", "get"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for range 2 {
		g, err := (&options{data: t.TempDir()}).newGuest(t.Context(), job.RoleGet, ticket, file, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, string(g.public))
		g.http.Transport = lostAnswers{g.http.Transport}
		if _, err := g.join(t.Context(), "debian", false); err == nil {
			t.Error("an answer came that was lost")
		}
		g.http.CloseIdleConnections()
		g.close()
	}
	if keys[0] != keys[1] {
		t.Error("another key joins by the token")
	}
	if list := decode[[]fleet.Token](t, s.data, "token", "ls"); len(list) != 1 || list[0].Used != 1 {
		t.Errorf("tokens %+v", list)
	}
}

// lostAnswers carries requests, and loses what is answered.
type lostAnswers struct{ http.RoundTripper }

func (l lostAnswers) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := l.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	answer.Body.Close()
	return nil, errors.New("the connection was lost")
}

func (l lostAnswers) CloseIdleConnections() { l.RoundTripper.(*http.Transport).CloseIdleConnections() }

func TestNamesDoNotSteerATerminal(t *testing.T) {
	var b strings.Builder
	table := newTable(&b, "NODE")
	table.row("lab\x1b[2J\n\tü 7")
	if err := table.flush(); err != nil || b.String() != "NODE\nlab [2J  ü 7\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}
