//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/images"
)

// tableDisk makes a disk file with a GPT and an ext4 whose free space holds noise.
func tableDisk(t *testing.T) (path string, content []byte) {
	t.Helper()
	dir := t.TempDir()
	tool := func(pkg, name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v %s (Debian: %s)", name, args, err, out, pkg)
		}
	}
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	random := mathrand.NewChaCha8([32]byte{7})
	for i := range 6 {
		b := make([]byte, 1+i*200_000)
		if i != 3 { // zeros that are allocated
			random.Read(b)
		}
		if err := os.WriteFile(filepath.Join(tree, fmt.Sprint("file", i)), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(dir, "root")
	if err := os.WriteFile(root, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	tool("e2fsprogs", "mkfs.ext4", "-q", "-d", tree, root)
	fs, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	content = make([]byte, 20<<20)
	copy(content[1<<20:], fs)
	path = filepath.Join(dir, "disk.img")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	tool("gdisk", "sgdisk", "-n", "1:2048:+16M", path)
	if content, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// change writes other bytes into a disk file.
func change(t *testing.T, path string, offset int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(b, offset)
	if closeErr := f.Close(); err != nil || closeErr != nil {
		t.Fatal(err, closeErr)
	}
}

// withoutAndWith runs a test on the repository alone and on a running appliance.
func withoutAndWith(t *testing.T, data string, fn func(t *testing.T)) {
	t.Run("alone", fn)
	serve(t, data, bootFiles(t))
	t.Run("running", fn)
}

func TestADiskIsVerifiedAndRepaired(t *testing.T) {
	network(t)
	data := filepath.Join(t.TempDir(), "data")
	disk, content := tableDisk(t)
	must(t, data, "image", "add", disk, "--name", "debian")
	withoutAndWith(t, data, func(t *testing.T) {
		if out := must(t, data, "verify", "debian", disk); !strings.Contains(out, "holds image debian:1") {
			t.Errorf("the captured disk: %s", out)
		}
		change(t, disk, 1<<20+1024+10, []byte{1, 2, 3}) // superblock
		change(t, disk, 440, []byte{9})
		before, err := os.ReadFile(disk)
		if err != nil {
			t.Fatal(err)
		}
		if out, code := seedbed(t, data, "verify", "debian", disk); code != exitWrong || !strings.Contains(out, "--repair") {
			t.Errorf("a wrong disk: exit code %d: %s", code, out)
		}
		if after, err := os.ReadFile(disk); err != nil || !bytes.Equal(after, before) {
			t.Error("a disk was written without --repair")
		}
		var r api.DiskReport
		out := output(t, data, exitWrong, "verify", "debian", disk, "--json")
		if err := json.Unmarshal(out, &r); err != nil || r.WrongTiles != 1 || r.WrongFrame != 512 || len(r.Ranges) != 2 ||
			r.Ranges[1].Partition != 1 || r.Ranges[1].Offset != 0 || r.Ranges[1].Length != images.TileLength {
			t.Errorf("%s %v", out, err)
		}
		if out := must(t, data, "verify", "debian", disk, "--repair"); !strings.Contains(out, "repaired: 1 tiles") || !strings.Contains(out, "partition 1, bytes [0, 65536)") {
			t.Errorf("repair: %s", out)
		}
		if after, err := os.ReadFile(disk); err != nil || !bytes.Equal(after, content) {
			t.Error("the disk is not as it was")
		}
		must(t, data, "verify", "debian", disk)
		small := filepath.Join(t.TempDir(), "small")
		if err := os.WriteFile(small, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			code  int
			path  string
			words string
		}{{exitRefused, small, "too small"}, {exitRefused, "/nowhere", "no such file"}, {exitRefused, "/dev/null", "neither a disk"}} {
			if out, code := seedbed(t, data, "verify", "debian", c.path); code != c.code || !strings.Contains(out, c.words) {
				t.Errorf("%s: exit code %d: %s", c.path, code, out)
			}
		}
		if out, code := seedbed(t, data, "verify", "nothing", disk); code != exitNotFound {
			t.Errorf("no such image: exit code %d: %s", code, out)
		}
	})
}

// output returns what a command that ends with a code printed.
func output(t *testing.T, data string, code int, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"--data", data}, args...)...)
	cmd.Env = commandEnv()
	out, _ := cmd.Output()
	if cmd.ProcessState.ExitCode() != code {
		t.Fatalf("seedbed %v: exit code %d: %s", args, cmd.ProcessState.ExitCode(), out)
	}
	return out
}

func TestAnImageIsExportedAndTakenBack(t *testing.T) {
	network(t)
	data := filepath.Join(t.TempDir(), "data")
	disk, _ := tableDisk(t)
	must(t, data, "image", "add", disk, "--name", "debian")
	first := decode[api.ImageDetail](t, data, "image", "show", "debian:1")
	packs := func() int64 { return size(t, filepath.Join(data, "repository", "packs")) }
	before := packs()
	withoutAndWith(t, data, func(t *testing.T) {
		dir := t.TempDir()
		raw, name := filepath.Join(dir, "raw"), filepath.Join(dir, "out.img")
		must(t, data, "image", "export", "debian:1", raw)
		must(t, data, "verify", "debian:1", raw)
		must(t, data, "image", "export", "debian:1", name, "--split", "7")
		whole, err := os.ReadFile(raw)
		if err != nil {
			t.Fatal(err)
		}
		if piped := output(t, data, 0, "image", "export", "debian:1", "-"); !bytes.Equal(piped, whole) {
			t.Error("standard output has another disk")
		}
		if out, err := exec.Command("sgdisk", "-v", raw).CombinedOutput(); err != nil || !strings.Contains(string(out), "No problems") {
			t.Errorf("sgdisk: %v %s", err, out)
		}
		if out, code := seedbed(t, data, "image", "export", "debian:1", raw); code == 0 || !strings.Contains(out, "another name") {
			t.Errorf("a file that exists: exit code %d: %s", code, out)
		}
		if out, code := seedbed(t, data, "image", "export", "debian:1", filepath.Join(dir, "x"), "--length", "1048576"); code != exitRefused || !strings.Contains(out, "too small") {
			t.Errorf("a length that is too small: exit code %d: %s", code, out)
		}
		long := filepath.Join(dir, "long")
		must(t, data, "image", "export", "debian:1", long, "--length", "41943040")
		if out, err := exec.Command("sgdisk", "-v", long).CombinedOutput(); err != nil || !strings.Contains(string(out), "No problems") {
			t.Errorf("sgdisk: %v %s", err, out)
		}
		small := filepath.Join(dir, "out.img.zst")
		must(t, data, "image", "export", "debian:1", small)
		if unpacked, err := exec.Command("zstd", "-dc", small).Output(); err != nil || !bytes.Equal(unpacked, whole) {
			t.Errorf("zstd (Debian: zstd) unpacks another disk: %v", err)
		}
		if st, err := os.Stat(small); err != nil || st.Size() > int64(len(whole))/2 {
			t.Errorf("compressed it has %d bytes of %d, %v", st.Size(), len(whole), err)
		}
		if out, code := seedbed(t, data, "image", "export", "debian:1", small); code == 0 || !strings.Contains(out, "another name") {
			t.Errorf("a compressed file that exists: exit code %d: %s", code, out)
		}
		if out, code := seedbed(t, data, "image", "export", "debian:1", small+".zst", "--split", "7"); code != exitUsage || !strings.Contains(out, "--split") {
			t.Errorf("compressed volumes: exit code %d: %s", code, out)
		}
		zipped := filepath.Join(dir, "raw.gz")
		if out, err := exec.Command("sh", "-c", "gzip -c "+raw+" >"+zipped).CombinedOutput(); err != nil {
			t.Fatalf("gzip: %v %s", err, out)
		}
		broken := filepath.Join(dir, "broken.zst")
		if err := os.WriteFile(broken, output(t, data, 0, "image", "export", "debian:1", "-", "--compress")[:4000], 0o600); err != nil {
			t.Fatal(err)
		}
		if out, code := seedbed(t, data, "image", "import", broken, "--name", "again"); code != exitRefused || !strings.Contains(out, "damaged or cut off") {
			t.Errorf("a file that is cut off: exit code %d: %s", code, out)
		}
		stdin := func() string {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "--data", data, "image", "import", "-", "--name", "again", "--json")
			cmd.Env, cmd.Stdin = commandEnv(), bytes.NewReader(whole)
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			return string(out)
		}
		for _, out := range []string{
			must(t, data, "image", "import", raw, "--name", "again", "--json"),
			must(t, data, "image", "import", name+".001", "--name", "again", "--json"), stdin(),
			must(t, data, "image", "import", small, "--name", "again", "--json"),
			must(t, data, "image", "import", zipped, "--name", "again", "--json"),
		} {
			var d api.ImageDetail
			if err := json.Unmarshal([]byte(out), &d); err != nil {
				t.Fatal(err)
			}
			if d.Manifest.DiskLength != first.Manifest.DiskLength || d.Manifest.Partitions[0].Root != first.Manifest.Partitions[0].Root {
				t.Errorf("it came back as another disk: %+v", d.Manifest)
			}
		}
		if list, _ := os.ReadDir(filepath.Join(data, "spool", "import")); len(list) > 0 {
			t.Errorf("left in the spool: %v", list)
		}
	})
	if after := packs(); after != before {
		t.Errorf("packs grew by %d bytes", after-before)
	}
}

// size returns the length of all files in a folder.
func size(t *testing.T, dir string) (n int64) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}

func TestNothingIsLeftOfAnInterruptedImport(t *testing.T) {
	network(t)
	data := filepath.Join(t.TempDir(), "data")
	disk, _ := newDisk(t)
	must(t, data, "image", "add", disk, "--name", "debian")
	dir := importSpool(data)
	spooled := func() []os.DirEntry {
		list, _ := os.ReadDir(dir)
		return list
	}
	reading := func(known int) *exec.Cmd { // an import that waits for more
		t.Helper()
		cmd := exec.CommandContext(t.Context(), os.Args[0], "--data", data, "image", "import", "-", "--name", "x")
		cmd.Env = commandEnv()
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in.Write(make([]byte, 1<<20))
		for deadline := time.Now().Add(10 * time.Second); len(spooled()) == known; <-time.After(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("nothing is read")
			}
		}
		return cmd
	}
	stop := func(cmd *exec.Cmd, s os.Signal) {
		t.Helper()
		cmd.Process.Signal(s)
		if err := cmd.Wait(); err == nil {
			t.Error("it succeeded")
		}
	}
	killed := reading(0)
	other := reading(1)
	stop(killed, syscall.SIGKILL)
	list := decode[[]api.ImageListing](t, data, "image", "ls") // sweeps
	if len(list) != 1 || len(spooled()) != 1 {
		t.Errorf("%d images, in the spool %v", len(list), spooled())
	}
	stop(other, syscall.SIGINT)
	if len(spooled()) > 0 {
		t.Errorf("left in the spool: %v", spooled())
	}
}
