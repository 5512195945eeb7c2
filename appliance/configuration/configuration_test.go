package configuration

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// listValue is a flag of several words.
type listValue struct{ words []string }

func (l *listValue) Set(s string) error { l.words = strings.Split(s, ","); return nil }
func (l *listValue) String() string     { return strings.Join(l.words, ",") }
func (l *listValue) Type() string       { return TypeList }

// flags are some of each type.
type flags struct {
	set    *pflag.FlagSet
	folder string
	quiet  bool
	count  int
	every  time.Duration
	from   listValue
}

func newFlags() *flags {
	f := &flags{set: pflag.NewFlagSet("", pflag.ContinueOnError)}
	f.set.StringVar(&f.folder, "boot-dir", "boot", "")
	f.set.BoolVar(&f.quiet, "quiet", false, "")
	f.set.IntVar(&f.count, "count", 7, "")
	f.set.DurationVar(&f.every, "every", time.Hour, "")
	f.set.Var(&f.from, "from", "")
	return f
}

func (f *flags) list() (list []*pflag.Flag) {
	f.set.VisitAll(func(one *pflag.Flag) { list = append(list, one) })
	return list
}

// write makes a file of a text.
func write(t *testing.T, text string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "seedbed.yaml")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// apply reads a text into new flags, after the arguments.
func apply(t *testing.T, text string, args ...string) (*flags, *File, error) {
	t.Helper()
	f := newFlags()
	if err := f.set.Parse(args); err != nil {
		t.Fatal(err)
	}
	file, err := Read(write(t, text, 0o600))
	if err == nil {
		err = file.Apply(f.list())
	}
	return f, file, err
}

func TestFlagsGoBeforeTheFile(t *testing.T) {
	f, file, err := apply(t, "# a comment\nboot_dir: /srv/boot\nquiet: true\ncount: 0x10\n\nevery: 90s\nfrom: [a, b]\n", "--count", "3")
	if err != nil {
		t.Fatal(err)
	}
	if f.folder != "/srv/boot" || !f.quiet || f.count != 3 || f.every != 90*time.Second || f.from.String() != "a,b" {
		t.Errorf("%+v", f)
	}
	if file.Line("boot-dir") != 2 || file.Line("every") != 6 || file.Line("nothing") != 0 || (*File)(nil).Line("every") != 0 {
		t.Errorf("lines %d, %d", file.Line("boot-dir"), file.Line("every"))
	}
	for _, empty := range []string{"", "# comments\n", "---\n"} {
		if f, _, err := apply(t, empty); err != nil || f.folder != "boot" {
			t.Errorf("%q: %v", empty, err)
		}
	}
	if f, _, err := apply(t, "from: a,b\nevery: 0\ncount: 16\n"); err != nil || f.from.String() != "a,b" || f.every != 0 || f.count != 16 {
		t.Errorf("%+v, %v", f, err)
	}
}

var lineOf = regexp.MustCompile(`:\d+: `)

func TestWhatIsWrongInAFileIsSaidWithItsLine(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"boot_dir: a\nboot-dir: b\n", ":2: the key boot-dir is not known; is boot_dir meant?"},
		{"bootdir: a\n", ":1: the key bootdir is not known; is boot_dir meant?"},
		{"password: x\n", ":1: the key password is not known; `seedbed config default` lists all"},
		{"count: 1\n\ncount: 2\n", ":3: the key count is in line 1 already"},
		{"count: many\n", `:1: count: a whole number is wanted here, not "many"`},
		{"count: 1.5\n", `:1: count: a whole number`},
		{"quiet: yes please\n", `:1: quiet: true or false is wanted here, not "yes please"`},
		{"quiet: 1\n", `:1: quiet: true or false`},
		{"boot_dir: 7\n", `:1: boot_dir: a text, in quotes where it looks like a number, is wanted here, not "7"`},
		{"boot_dir:\n", ":1: boot_dir: there is no value"},
		{"boot_dir: [a]\n", ":1: boot_dir: one value"},
		{"every: 24\n", ":1: every: a time with its unit"},
		{"every: 1 day\n", `:1: every: `},
		{"from: [a, 7]\n", `:1: from: a list of words`},
		{"a: &x 1\nb: *x\n", ":1: the key a is not known"},
		{"- a\n", ":1: the file is lines of the form key: value"},
		{"boot_dir: a\n---\nboot_dir: b\n", ": there is a second document"},
		{"boot_dir: 'a\n", ":"},
		{"boot_dir: a\n\tcount: 3\n", ":2: "},
	} {
		_, _, err := apply(t, c.text)
		if err == nil || !strings.Contains(err.Error(), "seedbed.yaml"+c.want) {
			t.Errorf("%q: %v", c.text, err)
		}
	}
	if _, _, err := apply(t, "count: many\n", "--count", "3"); err == nil {
		t.Error("what the file says of a flag that was given is not checked")
	}
	if _, _, err := apply(t, "count: many\nnonsense: 1\ncount: 2\nquiet: 1\n"); err == nil || strings.Join(lineOf.FindAllString(err.Error(), -1), "") != ":1: :2: :3: :4: " {
		t.Errorf("not everything that is wrong is said, in its order: %v", err)
	}
}

func TestFilesThatOthersMayWriteAreRefused(t *testing.T) {
	for mode, want := range map[fs.FileMode]string{0o600: "", 0o640: "", 0o644: "open", 0o660: "write", 0o646: "write"} {
		file, err := Read(write(t, "count: 3\n", mode))
		switch {
		case want == "write" && (err == nil || !strings.Contains(err.Error(), "chmod go-w")):
			t.Errorf("mode %04o: %v", mode, err)
		case want != "write" && (err != nil || file.Open != (want == "open")):
			t.Errorf("mode %04o: %+v, %v", mode, file, err)
		}
	}
	if _, err := Read("/nowhere/seedbed.yaml"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := Read(write(t, "#"+strings.Repeat(" ", maxLength), 0o600)); err == nil {
		t.Error("a file of any length was read")
	}
}

func TestSecretsThatOthersMayReadAreRefused(t *testing.T) {
	for _, c := range []struct {
		mode  fs.FileMode
		owner int
		text  string
		want  string // the secret, or a part of the error after "!"
	}{
		{0o600, 0, "hunter2\n", "hunter2"}, {0o400, 0, "hunter2", "hunter2"}, {0o640, 0, "hunter2\r\nmore\n", "hunter2"},
		{0o640, 1000, "hunter2", "!chmod 600"}, {0o644, 0, "hunter2", "!chmod 600"}, {0o606, 0, "hunter2", "!chmod 600"}, {0o620, 0, "hunter2", "!chmod 600"},
		{0o600, 0, "", "!empty"}, {0o600, 0, strings.Repeat("x", maxSecret+1), "!at most"},
	} {
		path := write(t, c.text, c.mode)
		if err := os.Chown(path, c.owner, 0); err != nil {
			t.Fatal(err)
		}
		got, err := Secret(path)
		if part, wrong := strings.CutPrefix(c.want, "!"); wrong {
			if err == nil || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("mode %04o of %d: %v", c.mode, c.owner, err)
			}
		} else if err != nil || got != c.want {
			t.Errorf("mode %04o of %d: %q, %v", c.mode, c.owner, got, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, text := range []string{"boot_dir: a\n", "count: [1]", "{a: b}", "&a [*a]", "? [x]\n: y", "from: [a, b]\n---\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		file, err := parse("seedbed.yaml", []byte(text))
		if err != nil {
			return
		}
		flags := newFlags()
		if err := file.Apply(flags.list()); err != nil && !strings.Contains(err.Error(), "seedbed.yaml:") {
			t.Errorf("an error without its line: %v", err)
		}
	})
}
