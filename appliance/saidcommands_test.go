package main

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"seedbed/appliance/bootdoctor"
)

// saidCommand finds a command that a sentence tells people to run.
var saidCommand = regexp.MustCompile("`(seedbed(?: [^`]*)?)`")

// blank finds what is filled in: of fmt, and of the boot doctor.
var blank = regexp.MustCompile(`%(?:\[\d+\])?[sqdv]|\{[a-z]+\}|…`)

// TestCommandsThatSentencesTellOfAreThere: each command in backquotes, in sentences of all packages, in templates and in translations, is
// one that this program takes, with its flags and its number of arguments.
func TestCommandsThatSentencesTellOfAreThere(t *testing.T) {
	said := map[string]string{}
	add := func(at, text string) {
		for _, m := range saidCommand.FindAllStringSubmatch(text, -1) {
			said[m[1]] = at
		}
	}
	for _, text := range bootdoctor.Texts() {
		add("package bootdoctor", text)
	}
	if len(said) < 5 {
		t.Fatalf("the boot doctor tells of %d commands", len(said))
	}
	for _, root := range []string{".", "../initramfs"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && (d.Name() == "node_modules" || d.Name() == "vendor" || d.Name() == "testdata"):
				return fs.SkipDir
			case strings.HasSuffix(path, "_test.go"):
			case strings.HasSuffix(path, ".go"):
				return stringsOf(path, add)
			case strings.HasSuffix(path, ".html"), strings.HasSuffix(path, ".js"):
				b, err := os.ReadFile(path)
				add(path, string(b))
				return err
			case strings.HasPrefix(path, "console/") && strings.HasSuffix(path, ".json") && !strings.HasPrefix(path, "console/npm"):
				return translationsOf(path, add)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(said) < 40 {
		t.Errorf("only %d commands were found", len(said))
	}
	for text, at := range said {
		if text == "seedbed %s" { // the name of a role, which is that of its command
			continue
		}
		if wrong := takes(strings.Fields(blank.ReplaceAllString(text, "X"))[1:]); wrong != "" {
			t.Errorf("%s tells people to run `%s`: %s", at, text, wrong)
		}
	}
}

// takes says why the program does not take a command line of which arguments may be left out, "" is that it does.
func takes(args []string) string {
	root := command()
	root.InitDefaultHelpCmd()
	root.InitDefaultVersionFlag()
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err.Error()
	}
	if n := len(rest); n > 0 && strings.HasPrefix(rest[n-1], "--") && !strings.Contains(rest[n-1], "=") { // a flag that is told of alone
		if f := cmd.Flag(strings.TrimPrefix(rest[n-1], "--")); f != nil && f.NoOptDefVal == "" {
			rest = append(rest, valueOf(f))
		}
	}
	for i, word := range rest {
		if name, is := strings.CutPrefix(word, "--"); is && i+1 < len(rest) && (rest[i+1] == "X" || strings.ToUpper(rest[i+1]) == rest[i+1]) {
			if f := cmd.Flag(name); f != nil && f.NoOptDefVal == "" {
				rest[i+1] = valueOf(f)
			}
		}
	}
	if err := cmd.ParseFlags(rest); err != nil && !errors.Is(err, pflag.ErrHelp) {
		return err.Error()
	}
	left := cmd.Flags().Args()
	if len(left) > 0 && cmd.HasSubCommands() {
		return "there is no command " + left[0] + " of " + cmd.CommandPath()
	}
	if len(left) > 0 {
		if err := cmd.ValidateArgs(left); err != nil {
			return err.Error()
		}
	}
	return ""
}

// valueOf is one that a flag takes.
func valueOf(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "int", "int64", "uint", "float64":
		return "1"
	case "duration":
		return "1h"
	case "string", "stringArray", "stringSlice":
		return "X"
	}
	if f.DefValue != "" {
		return f.DefValue
	}
	return "1"
}

// stringsOf gives all strings of a Go file, those that are put together of several as one, with X for what is no literal.
func stringsOf(path string, add func(at, text string)) error {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, nil, 0)
	if err != nil {
		return err
	}
	var whole func(e ast.Expr) string
	whole = func(e ast.Expr) string {
		switch e := e.(type) {
		case *ast.BasicLit:
			if s, err := strconv.Unquote(e.Value); e.Kind == token.STRING && err == nil {
				return s
			}
		case *ast.BinaryExpr:
			if e.Op == token.ADD {
				return whole(e.X) + whole(e.Y)
			}
		case *ast.ParenExpr:
			return whole(e.X)
		}
		return "X"
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch e := n.(type) {
		case *ast.BinaryExpr:
			if e.Op == token.ADD {
				add(set.Position(e.Pos()).String(), whole(e))
				return false
			}
		case *ast.BasicLit:
			add(set.Position(e.Pos()).String(), whole(e))
		}
		return true
	})
	return nil
}

// translationsOf gives all texts of a file of translations, both languages.
func translationsOf(path string, add func(at, text string)) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	texts := map[string]string{}
	if err := json.Unmarshal(b, &texts); err != nil {
		return err
	}
	for english, other := range texts {
		add(path, english)
		add(path, other)
	}
	return nil
}

// TestTakesSeesWhatIsNotThere: the test above finds what is wrong.
func TestTakesSeesWhatIsNotThere(t *testing.T) {
	for line, right := range map[string]bool{
		"job retry X": true, "image verify --all": true, "image verify --heal-from DISK": true, "settings set --mail-user": true, "serve --boot-dir": true, "doctor": true,
		"job again X": false, "retry": false, "image verify --everything": false, "job retry": true, "machine merge X": false, "group X": false, "serve X": false,
	} {
		if wrong := takes(strings.Fields(line)); (wrong == "") != right {
			t.Errorf("%q: %q", line, wrong)
		}
	}
}
