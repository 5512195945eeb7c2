package source

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mib = 1 << 20

// tool runs a program; it is a failure not to have it.
func tool(t testing.TB, pkg, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("%s is missing (Debian: apt install %s)", name, pkg)
	}
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// newRaw writes a raw disk of 8 MiB and a sector, with noise, zeros and a hole.
func newRaw(t testing.TB) (name string, content []byte) {
	t.Helper()
	content = make([]byte, 8*mib+512)
	noise := rand.NewChaCha8([32]byte{1})
	noise.Read(content[:mib])
	noise.Read(content[5*mib : 5*mib+3000])
	content[len(content)-1] = 7
	name = filepath.Join(t.TempDir(), "disk.raw")
	write(t, name, content)
	return name, content
}

func write(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// convert makes a virtual machine's disk of a raw one.
func convert(t testing.TB, raw, format string, options ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk."+format)
	args := append([]string{"convert", "-f", "raw", "-O", format}, options...)
	tool(t, "qemu-utils", qemuImg, append(args, raw, name)...)
	return name
}

func openSource(t testing.TB, name string, o Options) *Source {
	t.Helper()
	s, err := Open(t.Context(), name, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestEveryFormatGivesTheSameBytes(t *testing.T) {
	raw, content := newRaw(t)
	stem := filepath.Join(t.TempDir(), "disk [1]*.")
	write(t, stem+"001", content[:3*mib])
	write(t, stem+"002", content[3*mib:3*mib+100])
	write(t, stem+"003", content[3*mib+100:])
	cases := []struct{ format, name string }{
		{"raw", raw}, {"volumes", stem + "001"}, {"volumes", stem + "002"}, {"qcow2", convert(t, raw, "qcow2")},
		{"qcow2", convert(t, raw, "qcow2", "-c", "-o", "compat=0.10")}, {"vmdk", convert(t, raw, "vmdk")},
		{"vmdk", convert(t, raw, "vmdk", "-o", "subformat=streamOptimized")}, {"vdi", convert(t, raw, "vdi")}, {"vhdx", convert(t, raw, "vhdx")},
		{"vhd", convert(t, raw, "vpc", "-o", "force_size=on")}, {"vhd", convert(t, raw, "vpc", "-o", "subformat=fixed,force_size=on")},
	}
	for i, c := range cases {
		t.Run(fmt.Sprint(i, c.format), func(t *testing.T) {
			s := openSource(t, c.name, Options{})
			if s.Format != c.format || s.SectorLength != 512 || s.Length < int64(len(content)) || len(s.Files) == 0 {
				t.Fatalf("%s: format %s, sector %d, %d bytes, files %v", c.name, s.Format, s.SectorLength, s.Length, s.Files)
			}
			got, err := io.ReadAll(io.NewSectionReader(s, 0, s.Length))
			// Some formats round their length up.
			if err != nil || !bytes.Equal(got[:len(content)], content) || bytes.Trim(got[len(content):], "\x00") != nil && len(bytes.Trim(got[len(content):], "\x00")) > 0 {
				t.Errorf("other bytes: %v", err)
			}
			var group sync.WaitGroup
			for k := range 20 { // more than there are connections
				group.Go(func() {
					b := make([]byte, 6*mib)
					at := int64(k * 1000)
					if n, err := s.ReadAt(b, at); n != len(b) || err != nil || !bytes.Equal(b, content[at:at+int64(n)]) {
						t.Errorf("%d bytes at %d: %v", n, at, err)
					}
				})
			}
			group.Wait()
			if n, err := s.ReadAt(make([]byte, 100), s.Length-40); n != 40 || err != io.EOF {
				t.Errorf("at the end: %d, %v", n, err)
			}
			if n, err := s.ReadAt(make([]byte, 1), s.Length); n != 0 || err != io.EOF {
				t.Errorf("behind the end: %d, %v", n, err)
			}
			if err := s.Unchanged(); err != nil {
				t.Error(err)
			}
		})
	}
}

// header returns the first bytes of a file with changes.
func header(t *testing.T, name string, spoil func(b []byte)) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	spoil(b)
	out := filepath.Join(t.TempDir(), "spoilt")
	write(t, out, b)
	return out
}

func TestWhatCannotBeADiskIsRefusedWithARemedy(t *testing.T) {
	raw, content := newRaw(t)
	qcow, vmdk, vdi, vhd := convert(t, raw, "qcow2"), convert(t, raw, "vmdk"), convert(t, raw, "vdi"), convert(t, raw, "vpc")
	backed := filepath.Join(t.TempDir(), "backed")
	tool(t, "qemu-utils", qemuImg, "create", "-q", "-f", "qcow2", "-b", qcow, "-F", "qcow2", backed)
	external := filepath.Join(t.TempDir(), "external")
	tool(t, "qemu-utils", qemuImg, "create", "-q", "-f", "qcow2", "-o", "data_file="+filepath.Join(t.TempDir(), "data"), external, "1M")
	flat := filepath.Join(t.TempDir(), "flat.vmdk")
	tool(t, "qemu-utils", qemuImg, "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", flat, "1M")
	child := filepath.Join(t.TempDir(), "child.vmdk")
	tool(t, "qemu-utils", qemuImg, "create", "-q", "-f", "vmdk", "-b", vmdk, "-F", "vmdk", child)
	hole := filepath.Join(t.TempDir(), "disk.")
	write(t, hole+"001", content[:mib])
	write(t, hole+"003", content[:mib])
	file := func(b string) string {
		name := filepath.Join(t.TempDir(), "file")
		write(t, name, []byte(b))
		return name
	}
	for _, c := range []struct {
		what, name, want string
		kind             error
	}{
		{"a backing file", backed, "qemu-img convert", ErrForeign},
		{"an external data file", external, "qemu-img convert", ErrForeign},
		{"a VMDK of two files", flat, "elsewhere", ErrForeign},
		{"a VMDK with a parent", child, "parent", ErrForeign},
		{"a VMDK that is a description", header(t, vmdk, func(b []byte) { clear(b[12:20]) }), "description", ErrForeign},
		{"a VHD with a parent", header(t, vhd, func(b []byte) { b[63] = 4 }), "parent", ErrForeign},
		{"a VDI with a parent", header(t, vdi, func(b []byte) { b[0x4c] = 4 }), "parent", ErrForeign},
		{"an encrypted qcow2", header(t, qcow, func(b []byte) { b[35] = 2 }), "decrypt", ErrFormat},
		{"a corrupt qcow2", header(t, qcow, func(b []byte) { b[79] |= 2 }), "qemu-img check", ErrFormat},
		{"a future qcow2", header(t, qcow, func(b []byte) { b[7] = 9 }), "version 9", ErrFormat},
		{"a qcow2 with a lie in its header", header(t, qcow, func(b []byte) { binary.BigEndian.PutUint32(b[20:], 60) }), "qemu-img", ErrFormat},
		{"a qcow2 that is cut off", file("QFI\xfb\x00\x00\x00\x03"), "cut off", ErrFormat},
		{"a missing volume", hole + "001", "disk.002 is missing", ErrFormat},
		{"a packed file", file("\x1f\x8b\x08 and more"), "gunzip", ErrFormat},
		{"no file", file(""), "empty", ErrFormat},
		{"half a sector", file("x"), "sectors of 512", ErrFormat},
		{"a folder", t.TempDir(), "neither a file nor a disk", ErrFormat},
		{"nothing", "/nonexistent/disk", "no such file", os.ErrNotExist},
	} {
		s, err := Open(t.Context(), c.name, Options{})
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.name) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// TestServersEndWithTheirSource counts the processes that hold the file open.
func TestServersEndWithTheirSource(t *testing.T) {
	raw, _ := newRaw(t)
	name := convert(t, raw, "qcow2")
	s := openSource(t, name, Options{})
	holders := func() (n int) {
		found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range found {
			b, _ := os.ReadFile(f)
			if bytes.Contains(b, []byte(name)) && bytes.Contains(b, []byte(qemuNBD)) {
				n++
			}
		}
		return n
	}
	if n := holders(); n != 1 {
		t.Errorf("%d servers run", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(10 * time.Second); holders() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the server still runs")
		}
	}
}

func TestAFileThatChangesIsNoticed(t *testing.T) {
	for what, change := range map[string]func(name string) error{
		"written": func(name string) error {
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("new"), 3000)
			return errors.Join(err, f.Close(), os.Chtimes(name, time.Time{}, time.Now().Add(time.Minute)))
		},
		"cut":      func(name string) error { return os.Truncate(name, mib) },
		"removed":  os.Remove,
		"replaced": func(name string) error { return os.Rename(name+".other", name) },
	} {
		name, content := newRaw(t)
		write(t, name+".other", content)
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name+".other", time.Time{}, st.ModTime()); err != nil {
			t.Fatal(err)
		}
		strict, live := openSource(t, name, Options{}), openSource(t, name, Options{Live: true})
		if err := change(name); err != nil {
			t.Fatal(err)
		}
		if err := strict.Unchanged(); !errors.Is(err, ErrChanged) {
			t.Errorf("%s: %v", what, err)
		}
		if err := live.Unchanged(); err != nil || len(live.Warnings) != 1 {
			t.Errorf("%s, live: %v, %q", what, err, live.Warnings)
		}
	}
}

func TestTheSectorIsThatOfTheTable(t *testing.T) {
	name, content := newRaw(t)
	content = content[:8*mib]
	copy(content[4096:], "EFI PART")
	write(t, name, content)
	for said, want := range map[int]int{0: 4096, 512: 512, 4096: 4096} {
		if s := openSource(t, name, Options{SectorLength: said}); s.SectorLength != want {
			t.Errorf("said %d: sector of %d bytes, want %d", said, s.SectorLength, want)
		}
	}
	if _, err := Open(t.Context(), name, Options{SectorLength: 520}); err == nil {
		t.Error("a sector of 520 bytes was taken")
	}
}

func FuzzRecognise(f *testing.F) {
	raw, _ := newRaw(f)
	for _, format := range []string{"qcow2", "vmdk", "vdi", "vpc", "vhdx"} {
		b, err := os.ReadFile(convert(f, raw, format))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:min(len(b), 20<<10)])
	}
	name := filepath.Join(f.TempDir(), "file")
	f.Fuzz(func(t *testing.T, b []byte) {
		write(t, name, b)
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		_, _ = recognise(file)
	})
}
