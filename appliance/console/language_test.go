package console

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"seedbed/appliance/bootdoctor"
)

// inTemplate finds the texts of a template: t "...", also in parentheses.
var inTemplate = regexp.MustCompile("\\bt \"((?:[^\"\\\\]|\\\\.)*)\"")

// texts returns every text that people read, and where it is: of templates t "...", of Go t("...") and text("...").
func texts(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	files, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		b, err := templateFiles.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range inTemplate.FindAllStringSubmatch(string(b), -1) {
			s, err := strconv.Unquote(`"` + m[1] + `"`)
			if err != nil {
				t.Fatalf("%s: %s: %v", file, m[1], err)
			}
			found[s] = file
		}
	}
	set := token.NewFileSet()
	packages, err := parser.ParseDir(set, ".", func(i fs.FileInfo) bool { return !strings.HasSuffix(i.Name(), "_test.go") }, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packages {
		ast.Inspect(p, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			name := ""
			switch f := call.Fun.(type) {
			case *ast.Ident:
				name = f.Name
			case *ast.SelectorExpr:
				name = f.Sel.Name
			}
			if literal, ok := call.Args[0].(*ast.BasicLit); ok && literal.Kind == token.STRING && (name == "t" || name == "text") {
				s, _ := strconv.Unquote(literal.Value)
				found[s] = set.Position(literal.Pos()).String()
			}
			return true
		})
	}
	for _, s := range slices.Concat(bootdoctor.Texts(), bootdoctor.StepTexts(), bootdoctor.Phrases()) {
		found[s] = "package bootdoctor"
	}
	return found
}

// verbs finds what fmt.Sprintf fills in.
var verbs = regexp.MustCompile(`%(?:\[(\d+)\])?[#+]?[\d.]*([a-zA-Z%])`)

func TestEveryTextIsInChinese(t *testing.T) {
	chinese, err := textsOf("zh")
	if err != nil {
		t.Fatal(err)
	}
	used := texts(t)
	var missing []string
	for english, at := range used {
		other, ok := chinese[english]
		if !ok {
			missing = append(missing, at+": "+strconv.Quote(english))
			continue
		}
		count := func(s string) int { return len(verbs.FindAllString(strings.ReplaceAll(s, "%%", ""), -1)) }
		if count(english) != count(other) {
			t.Errorf("%q and %q do not have the same arguments", english, other)
		}
	}
	slices.Sort(missing)
	if len(missing) > 0 {
		t.Errorf("the folder chinese lacks these %d texts:\n%s", len(missing), strings.Join(missing, "\n"))
	}
	for english := range chinese {
		if used[english] == "" {
			t.Errorf("the folder chinese has %q, which nothing shows", english)
		}
	}
}

// TestATextIsTheSameInAllFilesOfALanguage, since one of them would take the others' place.
func TestATextIsTheSameInAllFilesOfALanguage(t *testing.T) {
	files, err := fs.Glob(chinese, "chinese/*.json")
	if err != nil || len(files) < 2 {
		t.Fatal(files, err)
	}
	said, by := map[string]string{}, map[string]string{}
	for _, file := range files {
		b, err := chinese.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		own := map[string]string{}
		if err := json.Unmarshal(b, &own); err != nil {
			t.Fatal(file, err)
		}
		for english, other := range own {
			if before, had := said[english]; had && before != other {
				t.Errorf("%q is %q in %s and %q in %s", english, before, by[english], other, file)
			}
			said[english], by[english] = other, file
		}
	}
}

func TestSentencesAreThoseThatOtherPackagesSay(t *testing.T) {
	var source strings.Builder
	for _, dir := range []string{"../monitor", "../queue", "../fleet", "../api", "../alert", "../boot", "../job", "..", "../../initramfs/agent", "../../initramfs/disk", "."} {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatal(dir, err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			source.Write(b)
		}
	}
	said := strings.ReplaceAll(regexp.MustCompile(`"\s*\+\s*"`).ReplaceAllString(source.String(), ""), `\"`, `"`) // sentences over several lines are whole
	all, err := allSentences()
	if err != nil || len(all) < 50 {
		t.Fatal(len(all), err)
	}
	for english := range all {
		for part := range strings.SplitSeq(strings.NewReplacer("%%", "%s", " machines ", "%s", ") is ", "%s").Replace(english), "%s") {
			if part = strings.Trim(part, " :,;()"); len(part) > 8 && !strings.Contains(said, part) {
				t.Errorf("nothing says %q of %q any more", part, english)
			}
		}
	}
	zh := &look{texts: map[string]string{}}
	if zh.whole, zh.parts, err = sentencesOf("zh"); err != nil {
		t.Fatal(err)
	}
	for english, want := range map[string]string{
		"its network card has negotiated 100 Mbit/s; its siblings have 1000: check cable and switch port": "它的网卡协商速率为 100 Mbit/s，同机房其他机器为 1000：请检查网线和交换机端口",
		"waits for a place: 4 of 8 machines of group Lab B are at work":                                   "等待名额：分组 Lab B 的 8 台名额中已有 4 台在工作",
		"its processors are busy to 97 %":                                                                 "它的处理器占用率为 97 %",
		"vera has the role viewer; to admit machines needs the role operator: ask an administrator":       "vera 的角色是 viewer，此操作需要角色 operator：请联系管理员",
		"a sentence that nobody knows":                                                                    "a sentence that nobody knows",
	} {
		if got := zh.say(english); got != want {
			t.Errorf("%q: %q, want %q", english, got, want)
		}
	}
}
