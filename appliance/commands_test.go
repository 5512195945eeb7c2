//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// each calls fn with every command that does something, and its words after "seedbed".
func each(c *cobra.Command, fn func(path string, c *cobra.Command)) {
	for _, sub := range c.Commands() {
		if sub.Name() == "help" || sub.Hidden {
			continue
		}
		if !sub.HasSubCommands() || sub.Name() == "seed" {
			fn(strings.TrimPrefix(sub.CommandPath(), "seedbed "), sub)
		}
		each(sub, fn)
	}
}

// everyCommand is the tree as a person sees it.
func everyCommand() *cobra.Command {
	root := command()
	root.InitDefaultCompletionCmd()
	return root
}

func TestEveryCommandAnswersAsJSON(t *testing.T) {
	without := map[string]string{
		"seed": "goes on until it is stopped", "machine export": "is a table (CSV)", "machine journal": "is a table (CSV)", "deployment journal": "is a table (CSV)", "man": "writes files", "config default": "is a configuration file",
		"metrics dashboard": "is JSON of another program",
		"completion bash":   "is for a shell", "completion zsh": "is for a shell", "completion fish": "is for a shell", "completion powershell": "is for a shell",
	}
	commands := 0
	each(everyCommand(), func(path string, c *cobra.Command) {
		commands++
		if has := c.Flags().Lookup("json") != nil; has == (without[path] != "") {
			t.Errorf("seedbed %s: --json %v, and it %s", path, has, without[path])
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("seedbed %s: %q", path, c.Short)
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("seedbed %s --%s is not explained", path, f.Name)
			}
		})
	})
	if commands < 80 {
		t.Errorf("%d commands", commands)
	}
}

// manual is the text of a chapter of README.md, without its title.
func manual(t *testing.T, title string) string {
	t.Helper()
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "\n## "+title+"\n")
	if !ok {
		t.Fatalf("README.md has no chapter %q", title)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	return text
}

func TestTheManualHasTheExitCodesOfTheHelp(t *testing.T) {
	rows := regexp.MustCompile(`(?m)^\| (\d+) \| (.*) \|$`).FindAllStringSubmatch(manual(t, "Commands"), -1)
	var table strings.Builder
	table.WriteString("Exit codes:")
	for _, r := range rows {
		table.WriteString("\n" + strings.Repeat(" ", 3-len(r[1])) + r[1] + "  " + r[2])
	}
	if table.String() != exitTable {
		t.Errorf("README.md has\n%s\nand the help\n%s", &table, exitTable)
	}
}

// documented are the commands of the manual's table, each with the flags that are named with it.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	list := map[string][]string{}
	spans, word, flag := regexp.MustCompile("`([^`]+)`"), regexp.MustCompile(`^[a-z][a-z-]*(\\\|[a-z-]+)*$`), regexp.MustCompile(`--[a-z][a-z0-9-]*`)
	for line := range strings.Lines(manual(t, "Commands")) {
		cell, ok := strings.CutPrefix(line, "| `")
		if !ok {
			continue
		}
		cell, _, _ = strings.Cut("`"+cell, " | ")
		for _, span := range spans.FindAllStringSubmatch(cell, -1) {
			paths := []string{""}
			for _, w := range strings.Fields(span[1]) {
				if !word.MatchString(w) {
					break
				}
				var longer []string
				for _, p := range paths {
					for _, one := range strings.Split(w, `\|`) {
						longer = append(longer, strings.TrimSpace(p+" "+one))
					}
				}
				paths = longer
			}
			for _, p := range paths {
				list[p] = append(list[p], flag.FindAllString(span[1], -1)...)
			}
		}
	}
	return list
}

// What the manual lists is there, and what is there the manual lists.
func TestTheManualListsEveryCommand(t *testing.T) {
	list, root := documented(t), everyCommand()
	each(root, func(path string, _ *cobra.Command) {
		if _, ok := list[path]; !ok && path != "completion powershell" {
			t.Errorf("README.md does not list seedbed %s", path)
		}
	})
	for path, flags := range list {
		c, rest, err := root.Find(strings.Fields(path))
		switch {
		case path == "": // flags of the command before
			continue
		case err != nil || len(rest) > 0:
			t.Errorf("README.md lists seedbed %s, which is none: %v", path, err)
			continue
		}
		for _, f := range flags {
			if name := strings.TrimPrefix(f, "--"); c.Flags().Lookup(name) == nil && c.InheritedFlags().Lookup(name) == nil {
				t.Errorf("README.md lists seedbed %s %s, which is no flag of it", path, f)
			}
		}
	}
}

// Manual pages and completion are there for every command.
func TestManualPagesAndCompletionAreWritten(t *testing.T) {
	dir, data := filepath.Join(t.TempDir(), "man"), t.TempDir()
	must(t, data, "man", dir)
	each(everyCommand(), func(path string, c *cobra.Command) {
		page := "seedbed-" + strings.ReplaceAll(path, " ", "-") + ".1"
		b, err := os.ReadFile(filepath.Join(dir, page))
		if err != nil || !strings.Contains(string(b), ".SH") {
			t.Errorf("%s: %v", page, err)
			return
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && !strings.Contains(strings.ReplaceAll(string(b), `\-`, "-"), "--"+f.Name) {
				t.Errorf("%s does not tell of --%s", page, f.Name)
			}
		})
	})
	if b, err := os.ReadFile(filepath.Join(dir, "seedbed.1")); err != nil || !strings.Contains(string(b), "no such image, machine") {
		t.Errorf("seedbed.1 has no exit codes: %v", err)
	}
	for shell, want := range map[string]string{"bash": "__start_seedbed", "zsh": "#compdef seedbed", "fish": "complete -c seedbed", "powershell": "Register-ArgumentCompleter"} {
		script := must(t, data, "completion", shell)
		if !strings.Contains(script, want) {
			t.Errorf("completion of %s: %.200s", shell, script)
		}
		if shell != "bash" {
			continue
		}
		cmd := exec.CommandContext(t.Context(), "bash", "-n")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("bash does not read its completion: %v %s", err, out)
		}
	}
	if out, code := seedbed(t, data, "__complete", "machine", "show", ""); code != 0 || strings.Contains(out, "not running") { // nobody sees an error at a tab
		t.Errorf("completion without an appliance: %d %s", code, out)
	}
}

// completed is what a shell offers.
func completed(t *testing.T, data string, words ...string) []string {
	t.Helper()
	cmd := aCommand(append([]string{"__complete", "--data", data}, words...)...)
	cmd.Env = commandEnv()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Split(strings.TrimSpace(string(out)), "\n")
	return slices.DeleteFunc(list, func(line string) bool { return strings.HasPrefix(line, ":") })
}
