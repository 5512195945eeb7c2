//go:build full

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"seedbed/appliance/fleet"
)

// wineLoader is where Debian's package wine64 has the program that runs those of Windows.
const wineLoader = "/usr/lib/wine/wine64"

// wine runs the program for Windows, with a Windows of its own.
type wine struct {
	t               *testing.T
	program, prefix string
}

func newWine(t *testing.T) *wine {
	t.Helper()
	w := &wine{t: t, program: filepath.Join(t.TempDir(), "seedbed.exe"), prefix: t.TempDir()}
	build := exec.Command("go", "build", "-o", w.program, ".")
	build.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	server := func(how string) error {
		cmd := exec.Command("/usr/lib/wine/wineserver64", how)
		cmd.Env = w.env()
		return cmd.Run()
	}
	t.Cleanup(func() {
		server("-k")
		server("-w")
	})
	cmd := exec.Command(wineLoader, "wineboot", "--init")
	cmd.Env = w.env()
	if err := errors.Join(cmd.Run(), server("-w")); err != nil {
		t.Fatalf("%v (install the package wine64)", err)
	}
	// Go's programs draw random bytes from this library, which wine has since 9.0.
	library := filepath.Join(w.prefix, "drive_c/windows/system32/bcryptprimitives.dll")
	if _, err := os.Stat(library); err != nil {
		if err := os.WriteFile(library, forwarder("bcryptprimitives.dll", "ProcessPrng", "advapi32.SystemFunction036"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *wine) env() []string {
	return append(os.Environ(), "WINEPREFIX="+w.prefix, "WINEDEBUG=-all", "WINEDLLOVERRIDES=mscoree,mshtml,winemenubuilder.exe=")
}

// path returns a file's name as Windows has it.
func (w *wine) path(name string) string { return "Z:" + strings.ReplaceAll(name, "/", `\`) }

func (w *wine) command(args ...string) *exec.Cmd {
	cmd := exec.Command(wineLoader, append([]string{w.program}, args...)...)
	cmd.Env = w.env()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// start starts a command, which is killed at the end of the test at the latest.
func (w *wine) start(log io.Writer, args ...string) *exec.Cmd {
	w.t.Helper()
	cmd := w.command(args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

// run returns what a command printed, on standard error if it failed, and its exit code.
func (w *wine) run(args ...string) (string, int) {
	w.t.Helper()
	cmd := w.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		return errs.String(), code
	}
	return out.String(), 0
}

// forwarder returns a library of Windows (PE32+, "PE Format", Microsoft) with one function, which is that of another library.
func forwarder(library, name, target string) []byte {
	const address, fileAlign, headEnd = 0x1000, 0x200, 40 + 4 + 4 + 4
	var words []byte
	word := func(s string) uint32 {
		at := address + headEnd + len(words)
		words = append(append(words, s...), 0)
		return uint32(at)
	}
	own, function, other := word(library), word(name), word(target)
	var table, file bytes.Buffer
	put := func(b *bytes.Buffer, values ...any) {
		for _, v := range values {
			binary.Write(b, binary.LittleEndian, v)
		}
	}
	put(&table, []uint32{0, 0, 0, own, 1, 1, 1, address + 40, address + 44, address + 48}, other, function, uint32(0), words)
	length := uint32(table.Len())
	put(&file, []byte("MZ"), [58]byte{}, uint32(64), []byte("PE\x00\x00"))
	put(&file, []uint16{0x8664, 1}, [3]uint32{}, []uint16{240, 0x2022}) // x86-64, one section, a library
	put(&file, []uint16{0x20b, 1}, []uint32{0, fileAlign, 0, 0, address}, uint64(0x180000000), []uint32{address, fileAlign})
	put(&file, []uint16{10, 0, 1, 0, 10, 0}, []uint32{0, 2 * address, fileAlign, 0}, []uint16{3, 0x160})
	put(&file, []uint64{1 << 20, 1 << 12, 1 << 20, 1 << 12}, []uint32{0, 16, address, length}, [30]uint32{})
	put(&file, [8]byte{'.', 'e', 'd', 'a', 't', 'a'}, []uint32{length, address, fileAlign, fileAlign, 0, 0, 0, 0x40000040})
	b := append(file.Bytes(), make([]byte, fileAlign-file.Len())...)
	return append(append(b, table.Bytes()...), make([]byte, fileAlign-length)...)
}

// The program for Windows does its work in wine, with an appliance on this host.
func TestWindows(t *testing.T) {
	w := newWine(t)
	for name, test := range map[string]func(*testing.T, *wine){
		"get goes on after a kill": windowsGets, "a seed node": windowsSeeds, "files": windowsFiles, "what it cannot": windowsRefuses,
	} {
		t.Run(name, func(t *testing.T) { test(t, &wine{t, w.program, w.prefix}) })
	}
}

func windowsGets(t *testing.T, w *wine) {
	s := newTestSite(t, 24<<20)
	dir := t.TempDir()
	out, token := filepath.Join(dir, "disk.img"), s.token("--for", "get", "--uses", "3")
	get := []string{"get", "debian", w.path(out), "--token-file", w.path(token)}

	var log bytes.Buffer
	cmd := w.start(&log, append(get, "--limit", "4M")...)
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) { // the file is all there is to wait for
		var st syscall.Stat_t
		if err := syscall.Stat(out+".part", &st); err == nil && st.Blocks*512 > 6<<20 {
			break
		}
		if time.Now().After(end) {
			cmd.Process.Kill()
			cmd.Wait()
			t.Fatalf("nothing was fetched: %s", log.String())
		}
	}
	if text, code := w.run(get...); code != exitRefused || !strings.Contains(text, "another `seedbed get` writes") {
		t.Errorf("a second get of the same file: exit code %d: %s", code, text)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if _, err := os.Stat(out); err == nil {
		t.Fatal("half a disk has its name")
	}
	text, code := w.run(append(get, "--json")...)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, text)
	}
	same(t, out, s.exported)
	if r := report(t, text); r.Resumed < 4<<20 || r.FromAppliance > 22<<20 || !r.Verified || !r.FromDisk {
		t.Errorf("%+v", r)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(out, &st); err != nil || st.Blocks*512 > st.Size/2 {
		t.Errorf("the file has no holes: %d of %d bytes, %v", st.Blocks*512, st.Size, err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("beside what was asked for there is more: %v, %v", list, err)
	}
	if text, code := w.run(get...); code != exitRefused || !strings.Contains(text, "exists; remove it") {
		t.Errorf("over a file that exists: exit code %d: %s", code, text)
	}
	root := filepath.Join(dir, "root.img")
	if text, code := w.run("get", "debian", w.path(root), "--partition", "1", "--token-file", w.path(token)); code != 0 {
		t.Fatalf("exit code %d: %s", code, text)
	}
	tools(t, "", "fsck.ext4", "-f", "-n", root)
}

func windowsSeeds(t *testing.T, w *wine) {
	s := newTestSite(t, 12<<20)
	var log bytes.Buffer
	node := w.start(&log, "seed", "debian", "--data", w.path(t.TempDir()), "--listen", ":6882",
		"--token-file", w.path(s.token("--for", "seed")))
	for end := time.Now().Add(time.Minute); !hold(1, 1)(decode[[]fleet.NodeView](t, s.data, "seed", "ls")); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			node.Process.Kill()
			node.Wait()
			t.Fatalf("the seed node does not hold the image: %s", log.String())
		}
	}
	out := filepath.Join(t.TempDir(), "disk.img")
	text, code := elsewhere(t, "get", "debian", out, "--token-file", s.token("--for", "get"), "--limit", "4M", "--json")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, text)
	}
	same(t, out, s.exported)
	if r := report(t, text); r.FromPeers == 0 {
		t.Errorf("nothing came from the seed node: %+v", r)
	}
}

// windowsFiles captures a disk from a file, in a repository of its own, and gives it back.
func windowsFiles(t *testing.T, w *wine) {
	disk, dir := newReferenceDisk(t, 4<<20, 9), t.TempDir()
	data, out := w.path(filepath.Join(dir, "data")), filepath.Join(dir, "disk.img")
	for _, args := range [][]string{{"image", "add", w.path(disk), "--name", "debian"}, {"image", "verify", "debian"}, {"image", "export", "debian", w.path(out)},
		{"verify", "debian", w.path(out)}} {
		if text, code := w.run(append(args, "--data", data)...); code != 0 {
			t.Fatalf("%q: exit code %d: %s", args, code, text)
		}
	}
	tools(t, "", "sgdisk", "--verify", out)
	must(t, t.TempDir(), "image", "add", out, "--name", "debian")
}

func windowsRefuses(t *testing.T, w *wine) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"serve", "--admit", "auto"}, exitRefused, "seedbed serve needs Linux, and this is windows"},
		{[]string{"image", "ls", "--repository", "s3://bucket/images"}, exitRefused, "needs Linux"},
		{[]string{"image", "add", `\\.\PhysicalDrive0`, "--name", "debian"}, exitFailure, "captured on Linux"},
		{[]string{"get", "debian", "NUL"}, exitUsage, "NUL is no disk"},
		{[]string{"get", "debian", `C:\disk.img:stream`}, exitUsage, "cannot be the name of a file"},
		{[]string{"get", "debian", `\\.\C:`}, exitUsage, "PhysicalDrive1"},
		{[]string{"get", "debian", `\\.\PhysicalDrive77`}, exitRefused, "PhysicalDrive77"},
		{[]string{"get", "debian", `C:\none\disk.img`}, exitRefused, "make the folder first"},
		{[]string{"get", "debian", `C:\disk.img`}, exitStopped, "no appliance runs on this host"},
		{[]string{"job", "ls"}, exitStopped, ""},
	} {
		if text, code := w.run(c.args...); code != c.code || !strings.Contains(text, c.says) {
			t.Errorf("%q: exit code %d: %s", c.args, code, text)
		}
	}
}
