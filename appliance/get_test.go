//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
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

// testSite is a running appliance with the image debian:1 of a disk with a GPT, an ext4 file system and swap space.
type testSite struct {
	*process
	data, disk, exported string
}

func newTestSite(t *testing.T, noise int64, boots ...string) *testSite {
	t.Helper()
	network(t)
	s := &testSite{data: t.TempDir(), disk: newReferenceDisk(t, noise, 9)}
	if len(boots) > 0 {
		s.process = serve(t, s.data, bootFiles(t), boots...)
	} else {
		s.process = serve(t, s.data, "", "--no-boot")
	}
	must(t, s.data, "image", "add", s.disk, "--name", "debian")
	s.exported = filepath.Join(t.TempDir(), "exported.img")
	must(t, s.data, "image", "export", "debian", s.exported)
	return s
}

// token makes a token and returns the file that holds it.
func (s *testSite) token(args ...string) (file string) {
	s.t.Helper()
	file = filepath.Join(s.t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(must(s.t, s.data, append([]string{"token", "new"}, args...)...)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return file
}

// elsewhere runs a command as on a machine that is not the appliance's.
func elsewhere(t *testing.T, args ...string) (string, int) {
	t.Helper()
	return seedbed(t, t.TempDir(), args...)
}

// same fails the test unless two files hold the same.
func same(t *testing.T, got, want string) {
	t.Helper()
	if sumOf(t, got) != sumOf(t, want) {
		t.Errorf("%s is not %s", got, want)
	}
}

func report(t *testing.T, out string) (r GetReport) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return r
}

func TestGetGivesWhatExportGives(t *testing.T) {
	s := newTestSite(t, 12<<20)
	dir := t.TempDir()
	local := filepath.Join(dir, "local.img")
	r := report(t, must(t, s.data, "get", "debian", local, "--json"))
	same(t, local, s.exported)
	if r.Image != "debian:1" || !r.Verified || r.FromAppliance < 12<<20 || r.Resumed != 0 || r.Partition != nil || r.Path != local {
		t.Errorf("%+v", r)
	}
	remote := filepath.Join(dir, "remote.img")
	out, code := elsewhere(t, "get", "debian:1", remote, "--token-file", s.token("--for", "get"), "--hash-threads", "1", "--limit", "200M")
	if code != 0 || !strings.Contains(out, "verified") {
		t.Fatalf("exit code %d: %s", code, out)
	}
	same(t, remote, s.exported)

	root := filepath.Join(dir, "root.img")
	r = report(t, must(t, s.data, "get", "debian", root, "--partition", "1", "--json"))
	whole, err := os.ReadFile(s.exported)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, whole[1<<20:1<<20+int64(len(got))]) || r.Partition == nil || *r.Partition != 1 || r.Length != int64(len(got)) {
		t.Errorf("partition 1 is not that of the disk: %+v", r)
	}
	tools(t, "", "fsck.ext4", "-f", "-n", root)

	unchecked := filepath.Join(dir, "unchecked.img")
	if out := must(t, s.data, "get", "debian", unchecked, "--unverified"); !strings.Contains(out, "UNVERIFIED") {
		t.Errorf("it does not say that nothing was verified: %s", out)
	}
	same(t, unchecked+".unverified", s.exported)
	if _, err := os.Stat(unchecked); err == nil {
		t.Error("what was not verified has the name of what was")
	}
	if err := os.Remove(unchecked + ".unverified"); err != nil {
		t.Fatal(err)
	}
	if r := report(t, must(t, s.data, "get", "debian", unchecked, "--unverified", "--json")); r.Verified || r.FromDisk || r.Path != unchecked+".unverified" {
		t.Errorf("%+v", r)
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 4 {
		t.Errorf("beside what was asked for there is more: %v, %v", list, err)
	}
	kinds := ""
	for _, e := range decode[[]fleet.Event](t, s.data, "event", "ls") {
		kinds += e.Kind + " "
	}
	for _, e := range decode[[]fleet.Event](t, s.data, "event", "ls") {
		if strings.Contains(e.Text, "UNVERIFIED") {
			kinds += "unverified "
		}
	}
	if strings.Count(kinds, "unverified") != 2 {
		t.Errorf("events %s", kinds)
	}
	if !strings.Contains(kinds, "token.created") || strings.Count(kinds, "guest.joined") != 5 {
		t.Errorf("events %s", kinds)
	}
}

func TestGetGoesOnAfterAKillWithTheSameToken(t *testing.T) {
	s := newTestSite(t, 24<<20)
	out := filepath.Join(t.TempDir(), "disk.img")
	token := s.token("--for", "get")
	cmd := exec.Command(os.Args[0], "--data", t.TempDir(), "get", "debian", out, "--token-file", token, "--limit", "4M")
	cmd.Env = commandEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) { // the file is all there is to wait for
		var st syscall.Stat_t
		if err := syscall.Stat(out+".part", &st); err == nil && st.Blocks*512 > 6<<20 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing was fetched")
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	if _, err := os.Stat(out); err == nil {
		t.Fatal("half a disk has its name")
	}
	text, code := elsewhere(t, "get", "debian", out, "--token-file", token, "--json")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, text)
	}
	same(t, out, s.exported)
	if r := report(t, text); r.Resumed < 4<<20 || r.FromAppliance > 22<<20 {
		t.Errorf("%+v", r)
	}
	if list := decode[[]fleet.Token](t, s.data, "token", "ls"); len(list) != 1 || list[0].Used != 1 {
		t.Errorf("tokens %+v", list)
	}
}

func TestATokenIsGoodForWhatItWasMadeFor(t *testing.T) {
	s := newTestSite(t, 1<<20)
	must(t, s.data, "image", "add", s.disk, "--name", "other")
	out := filepath.Join(t.TempDir(), "disk.img")
	refused := func(code int, says string, args ...string) {
		t.Helper()
		text, got := elsewhere(t, append([]string{"get"}, args...)...)
		if got != code || !strings.Contains(text, says) {
			t.Errorf("seedbed get %v: exit code %d, want %d and %q: %s", args, got, code, says, text)
		}
		for _, name := range []string{out, out + ".part", out + ".part.pass"} {
			if _, err := os.Stat(name); err == nil {
				t.Errorf("%s was made", name)
				os.Remove(name)
			}
		}
	}
	refused(exitStopped, "token new --for get", "debian", out)
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, []byte("c2VjcmV0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(exitFailure, "this is no token", "debian", out, "--token-file", garbage)
	refused(exitRefused, "for `seedbed seed`", "debian", out, "--token-file", s.token("--for", "seed"))
	refused(exitNotFound, "not good for image debian:1", "debian", out, "--token-file", s.token("--for", "get", "--image", "other"))
	refused(exitNotFound, "nothing", "nothing", out, "--token-file", s.token("--for", "get"))
	refused(exitRefused, "expired", "debian", out, "--token-file", s.token("--for", "get", "--expires", "1ns"))

	used := s.token("--for", "get")
	if text, code := elsewhere(t, "get", "debian", out, "--token-file", used); code != 0 {
		t.Fatalf("exit code %d: %s", code, text)
	}
	if err := os.Remove(out); err != nil {
		t.Fatal(err)
	}
	refused(exitRefused, "was used 1 times", "debian", out, "--token-file", used)

	file := s.token("--for", "get")
	line, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	ticket, err := decodeTicket(string(line))
	if err != nil {
		t.Fatal(err)
	}
	list := decode[[]fleet.Token](t, s.data, "token", "ls")
	last := list[len(list)-1]
	if strings.Contains(last.ID, ticket.Token) || strings.Contains(must(t, s.data, "token", "ls", "--json"), ticket.Token) {
		t.Error("the secret is shown again")
	}
	must(t, s.data, "token", "revoke", last.Short())
	if text, code := seedbed(t, s.data, "token", "revoke", strings.Repeat("0", 12)); code != exitNotFound || !strings.Contains(text, "`seedbed token ls` lists them") {
		t.Errorf("a token that is not there: exit code %d: %s", code, text)
	}
	refused(exitRefused, "was revoked", "debian", out, "--token-file", file)
	ticket.Token = strings.Repeat("0", 64)
	forged, err := encodeTicket(ticket)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(forged), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(exitRefused, "not known", "debian", out, "--token-file", file)
	ticket.Fingerprint[0] ^= 1
	if forged, err = encodeTicket(ticket); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(forged), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(exitFailure, "another fingerprint", "debian", out, "--token-file", file)
	kinds := ""
	for _, e := range decode[[]fleet.Event](t, s.data, "event", "ls") {
		kinds += e.Kind + " "
	}
	if strings.Count(kinds, "token.refused") != 3 || !strings.Contains(kinds, "token.revoked") {
		t.Errorf("events %s", kinds)
	}
}

// loopDevice makes a block device of a file of length bytes.
func loopDevice(t *testing.T, length int64) (device string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "loop.img")
	if err := os.WriteFile(file, bytes.Repeat([]byte{0xA5}, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, length); err != nil {
		t.Fatal(err)
	}
	device = strings.TrimSpace(tools(t, "", "losetup", "--find", "--show", file))
	t.Cleanup(func() { tools(t, "", "losetup", "--detach", device) })
	return device
}

func TestGetWritesADiskOrSaysWhyNot(t *testing.T) {
	s := newTestSite(t, 8<<20)
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := t.TempDir()
	refused := func(code int, says string, args ...string) {
		t.Helper()
		if text, got := seedbed(t, s.data, append([]string{"get"}, args...)...); got != code || !strings.Contains(text, says) {
			t.Errorf("seedbed get %v: exit code %d, want %d and %q: %s", args, got, code, says, text)
		}
	}
	st, err := os.Stat(s.exported)
	if err != nil {
		t.Fatal(err)
	}
	device := loopDevice(t, st.Size()+4<<20) // longer than the captured one
	token := s.token("--for", "get")
	if text, code := elsewhere(t, "get", "debian", device, "--token-file", token); code != 0 || !strings.Contains(text, "read back from the disk") {
		t.Fatalf("exit code %d: %s", code, text)
	}
	if text, code := seedbed(t, s.data, "verify", "debian", device); code != 0 {
		t.Errorf("the disk does not hold the image: %s", text)
	}
	r := report(t, must(t, s.data, "get", "debian", device, "--json")) // again: what is there is right
	if r.Resumed != r.DataLength || r.FromAppliance > 256<<10 {        // what describes the image
		t.Errorf("%+v", r)
	}

	mounted := filepath.Join(dir, "mounted")
	if err := os.Mkdir(mounted, 0o700); err != nil {
		t.Fatal(err)
	}
	busy := loopDevice(t, st.Size())
	tools(t, "", "mkfs.ext4", "-q", "-F", busy)
	tools(t, "", "mount", "-o", "ro", busy, mounted) // one that may write does so in the background: times, inode tables
	t.Cleanup(func() { tools(t, "", "umount", "-l", mounted) })
	before := sumOf(t, busy)
	refused(exitRefused, "--force", "debian", busy)
	if sumOf(t, busy) != before {
		t.Error("a disk in use was written")
	}
	refused(exitRefused, "nothing was written", "debian", loopDevice(t, 16<<20))
	refused(exitRefused, "exists", "debian", s.exported)
	refused(exitNotFound, "no partition 7", "debian", filepath.Join(dir, "x"), "--partition", "7")
	refused(exitUsage, "a rate is bytes", "debian", filepath.Join(dir, "x"), "--limit", "fast")
	refused(exitUsage, "accepts 2", "debian")

	small := filepath.Join(dir, "small")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	tools(t, "", "mount", "-t", "tmpfs", "-o", "size=4m", "seedbed-test", small)
	t.Cleanup(func() { tools(t, "", "umount", "-l", small) })
	refused(exitRefused, "there is no room", "debian", filepath.Join(small, "disk.img"))
	if list, err := os.ReadDir(small); err != nil || len(list) > 0 {
		t.Errorf("left on the full disk: %v, %v", list, err)
	}
}

func TestGetGoesOnWithANewTokenAfterTheOldOneWasRevoked(t *testing.T) {
	s := newTestSite(t, 1<<20)
	out := filepath.Join(t.TempDir(), "disk.img")
	data, ctx := t.TempDir(), t.Context()
	first := s.token("--for", "get")
	ticket, err := readTicket(first, nil)
	if err != nil {
		t.Fatal(err)
	}
	g, err := (&options{data: data}).newGuest(ctx, job.RoleGet, ticket, out+".part.pass", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	if _, err := g.join(ctx, "debian", false); err != nil {
		t.Fatal(err)
	}
	must(t, s.data, "token", "revoke", decode[[]fleet.Token](t, s.data, "token", "ls")[0].ID)
	if text, code := elsewhere(t, "get", "debian", out, "--token-file", first); code != exitRefused || !strings.Contains(text, "revoked") {
		t.Errorf("exit code %d: %s", code, text)
	}
	if text, code := elsewhere(t, "get", "debian", out, "--token-file", s.token("--for", "get")); code != 0 {
		t.Errorf("exit code %d: %s", code, text)
	}
	same(t, out, s.exported)
}
