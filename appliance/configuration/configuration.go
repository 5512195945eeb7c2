// Package configuration reads the appliance's configuration file: YAML whose keys are the program's long flags, with underscores
// in place of hyphens. What the file says takes the place of a flag that was not given.
package configuration

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// maxLength bounds a configuration file in bytes.
const maxLength = 1 << 20

// File is what a configuration file says. Immutable after Read.
type File struct {
	// Path is where it was read.
	Path string
	// Open says that every user of the host may read it. It holds no secrets, and tells how the site is built.
	Open     bool
	settings []setting
	wrong    []complaint // of lines that are no setting
}

// setting is one key with its value.
type setting struct {
	key   string
	line  int // of the key
	value *yaml.Node
}

// Key returns the key of a flag: "boot_dir" of --boot-dir.
func Key(flag string) string { return strings.ReplaceAll(flag, "-", "_") }

// Read reads a file; an empty one says nothing. What is wrong with single lines Apply tells; an error says that it is no configuration at all. It
// wraps fs.ErrNotExist or fs.ErrPermission where there is no file, or none that may be read.
func Read(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	mode := info.Mode()
	if mode.IsRegular() && runtime.GOOS != "windows" && mode.Perm()&0o022 != 0 {
		return nil, fmt.Errorf("%s: others than its owner may write it (mode %04o), and so decide what this program does; take that away with `chmod go-w %s`",
			path, mode.Perm(), path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxLength+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the configuration: %w", err)
	case len(b) > maxLength:
		return nil, fmt.Errorf("%s: a configuration has at most %d bytes", path, maxLength)
	}
	parsed, err := parse(path, b)
	if err != nil {
		return nil, err
	}
	parsed.Open = runtime.GOOS != "windows" && mode.Perm()&0o004 != 0
	return parsed, nil
}

// yamlLine is how the YAML library says where an error is.
var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)

// parse reads the text of a file.
func parse(path string, b []byte) (*File, error) {
	file := &File{Path: path}
	d := yaml.NewDecoder(strings.NewReader(string(b)))
	var document yaml.Node
	err := d.Decode(&document)
	if errors.Is(err, io.EOF) {
		return file, nil
	}
	if err != nil {
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
			return nil, fmt.Errorf("%s:%s: %s", path, m[1], yamlLine.ReplaceAllString(err.Error(), ""))
		}
		return nil, fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: there is a second document in the file; remove the line ---", path)
	}
	if len(document.Content) == 0 {
		return file, nil
	}
	root := document.Content[0]
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		return file, nil // comments alone
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: the file is lines of the form key: value", path, root.Line)
	}
	c := complaints{path: path}
	first := map[string]int{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		switch line, had := first[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			c.add(key.Line, "a key is a word")
			continue
		case had:
			c.add(key.Line, "the key %s is in line %d already", key.Value, line)
			continue
		}
		first[key.Value] = key.Line
		file.settings = append(file.settings, setting{key.Value, key.Line, value})
	}
	file.wrong = c.list
	return file, nil
}

// complaint is one thing that is wrong with a file.
type complaint struct {
	line int
	text string
}

// complaints collect what is wrong with a file.
type complaints struct {
	path string
	list []complaint
}

func (c *complaints) add(line int, format string, a ...any) {
	c.list = append(c.list, complaint{line, fmt.Sprintf(format, a...)})
}

// err tells all of it, in the order of the lines.
func (c *complaints) err() error {
	slices.SortStableFunc(c.list, func(a, b complaint) int { return cmp.Compare(a.line, b.line) })
	var list []error
	for _, one := range c.list {
		list = append(list, fmt.Errorf("%s:%d: %s", c.path, one.line, one.text))
	}
	return errors.Join(list...)
}

// Apply gives the flags what the file says; those that were given on the command line keep their value, and what the file says
// of them is checked all the same. The error lists everything that is wrong, each as "FILE:LINE: sentence".
func (f *File) Apply(flags []*pflag.Flag) error {
	byKey := map[string]*pflag.Flag{}
	var keys []string
	for _, flag := range flags {
		byKey[Key(flag.Name)] = flag
		keys = append(keys, Key(flag.Name))
	}
	c := complaints{path: f.Path, list: slices.Clone(f.wrong)}
	for _, s := range f.settings {
		flag := byKey[s.key]
		if flag == nil {
			c.add(s.line, "the key %s is not known%s", s.key, meant(s.key, keys))
			continue
		}
		text, err := scalar(flag.Value.Type(), s.value)
		given := flag.Value.String()
		if err == nil {
			err = flag.Value.Set(text)
		}
		if err != nil {
			c.add(s.value.Line, "%s: %v", s.key, plain(err))
		}
		if flag.Changed {
			if err := flag.Value.Set(given); err != nil {
				return fmt.Errorf("--%s: %w", flag.Name, err)
			}
		}
	}
	return c.err()
}

// Line returns the line of a flag's key, 0 where the file says nothing of it.
func (f *File) Line(flag string) int {
	if f == nil {
		return 0
	}
	for _, s := range f.settings {
		if s.key == Key(flag) {
			return s.line
		}
	}
	return 0
}

// plain takes the names of Go functions out of an error.
func plain(err error) error {
	if number, ok := errors.AsType[*strconv.NumError](err); ok {
		return fmt.Errorf("%q: %w", number.Num, number.Err)
	}
	return errors.New(strings.TrimPrefix(err.Error(), "time: "))
}

// TypeList is the type of a flag whose values are separated by commas: in a file it may be a list.
const TypeList = "list"

// scalar returns the text that a flag of this type is set to.
func scalar(kind string, n *yaml.Node) (string, error) {
	if n.Kind == yaml.SequenceNode && kind == TypeList {
		var list []string
		for _, e := range n.Content {
			if e.Kind != yaml.ScalarNode || e.ShortTag() != "!!str" {
				return "", fmt.Errorf("a list of words is wanted here, and %q in line %d is none", e.Value, e.Line)
			}
			list = append(list, e.Value)
		}
		return strings.Join(list, ","), nil
	}
	if n.Kind != yaml.ScalarNode {
		return "", errors.New("one value is wanted here")
	}
	tag := n.ShortTag()
	if tag == "!!null" {
		return "", errors.New("there is no value; leave the key out for its default")
	}
	wrong := func(what string) (string, error) { return "", fmt.Errorf("%s is wanted here, not %q", what, n.Value) }
	switch kind {
	case "bool":
		if tag != "!!bool" {
			return wrong("true or false")
		}
	case "int", "int64", "uint", "uint64":
		var number int64
		if tag != "!!int" || n.Decode(&number) != nil {
			return wrong("a whole number")
		}
		return strconv.FormatInt(number, 10), nil
	case "duration":
		if tag != "!!str" && n.Value != "0" {
			return wrong("a time with its unit, as in 24h or 90s,")
		}
	case "string", TypeList:
		if tag != "!!str" {
			return wrong("a text, in quotes where it looks like a number,")
		}
	default: // values that read themselves: rates
		if tag != "!!str" && tag != "!!int" && tag != "!!float" {
			return wrong("a number, with a unit or without,")
		}
	}
	return n.Value, nil
}

// meant names the key that was meant, if one is near.
func meant(key string, keys []string) string {
	best, distance := "", max(2, len(key)/3)+1
	for _, k := range keys {
		if d := changes(strings.ToLower(strings.ReplaceAll(key, "-", "_")), k); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return "; `seedbed config default` lists all"
	}
	return "; is " + best + " meant?"
}

// changes counts the bytes to insert, remove or replace that make b of a (Levenshtein's distance).
func changes(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// Secret reads a file that holds one secret, such as a password: its first line. A file that others may read holds no secret.
func Secret(path string) (string, error) {
	f, err := OpenSecret(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("read a secret: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	line = strings.TrimSuffix(line, "\r")
	switch {
	case line == "":
		return "", fmt.Errorf("%s: the first line is empty; it holds the secret", path)
	case len(b) > maxSecret:
		return "", fmt.Errorf("%s: a secret has at most %d bytes", path, maxSecret)
	}
	return line, nil
}

// maxSecret bounds a file with a secret in bytes.
const maxSecret = 4096

// OpenSecret opens a file with a secret, unless others may read it: mode 0600 or less, or 0640 where it is root's and a group of
// those who need it may read it. Pipes and terminals have no such mode.
func OpenSecret(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read a secret: %w", err)
	}
	if err := checkSecret(path, f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// CheckSecret refuses a file that OpenSecret does not open.
func CheckSecret(path string) error {
	f, err := OpenSecret(path)
	if err != nil {
		return err
	}
	return f.Close()
}

func checkSecret(path string, f fs.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read a secret: %w", err)
	}
	allowed := fs.FileMode(0o700)
	if ownedByRoot(info) {
		allowed = 0o740
	}
	if mode := info.Mode(); runtime.GOOS != "windows" && mode.IsRegular() && mode.Perm()&^allowed != 0 {
		return fmt.Errorf("%s holds a secret, and others than its owner may read or write it (mode %04o); take that away with `chmod 600 %s`",
			path, mode.Perm(), path)
	}
	return nil
}
