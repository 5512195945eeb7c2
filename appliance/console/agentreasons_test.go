package console

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	uploads "seedbed/appliance/upload"
)

// reasonsIn are the folders whose code makes failures that a machine tells: types Failure and Refusal with a Code and a Sentence.
var reasonsIn = []string{"../../initramfs/agent", "../../initramfs/disk", "../job"}

// passedOn are codes that the agent takes over from a refusal of the appliance, see capture_sink.go of package agent; those by which a job is over are not told.
var passedOn = []string{job.CodeRepositoryFull, job.CodeTilesMissing, job.CodeCaptureExpired, fleet.CodeVersionExists, fleet.CodeCaptureBusy, uploads.CodeTileWrong, uploads.CodeSpecWrong}

// agentReasons returns the codes and the sentences of all failures that agents tell, each with where it is; what is filled into a
// sentence is ⁂.
func agentReasons(t *testing.T) (codes, sentences map[string]string) {
	t.Helper()
	codes, sentences = map[string]string{}, map[string]string{}
	set, constants := token.NewFileSet(), map[string]string{}
	var files []*ast.File
	for _, dir := range reasonsIn {
		list, err := filepath.Glob(dir + "/*.go")
		if err != nil || len(list) == 0 {
			t.Fatal(dir, err)
		}
		for _, path := range list {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			f, err := parser.ParseFile(set, path, b, 0)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
			ast.Inspect(f, func(n ast.Node) bool {
				if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 {
					if s, ok := literal(spec.Values[0]); ok {
						constants[spec.Names[0].Name] = s
					}
				}
				return true
			})
		}
	}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			made, ok := n.(*ast.CompositeLit)
			if !ok || !slices.Contains([]string{"Failure", "Refusal", "DiskRefusal"}, lastName(made.Type)) {
				return true
			}
			if slices.ContainsFunc(made.Elts, func(e ast.Expr) bool { pair, ok := e.(*ast.KeyValueExpr); return ok && lastName(pair.Key) == "over" }) {
				return true // the job was ended by others: nobody is told
			}
			for _, e := range made.Elts {
				pair, ok := e.(*ast.KeyValueExpr)
				if !ok {
					t.Errorf("%s: fields without names", set.Position(e.Pos()))
					continue
				}
				at := set.Position(e.Pos()).String()
				switch lastName(pair.Key) {
				case "Code":
					if s, ok := literal(pair.Value); ok {
						codes[s] = at
					} else if s, ok := constants[lastName(pair.Value)]; ok {
						codes[s] = at
					} else if lastName(pair.Value) != "Code" { // of another refusal, which is here itself or in passedOn
						t.Errorf("%s: a code that is no constant", at)
					}
				case "Sentence":
					if s := filled(pair.Value); strings.Trim(s, "⁂ .") != "" {
						sentences[s] = at
					}
				}
			}
			return true
		})
	}
	for _, code := range passedOn {
		codes[code] = "the appliance"
	}
	return codes, sentences
}

func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

func literal(e ast.Expr) (string, bool) {
	if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
		s, err := strconv.Unquote(l.Value)
		return s, err == nil
	}
	return "", false
}

// filled is a sentence with ⁂ where something is filled in.
func filled(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return filled(e.X) + filled(e.Y)
	case *ast.CallExpr:
		if lastName(e.Fun) == "Sprintf" {
			return regexp.MustCompile(`%[.0-9]*[a-z]`).ReplaceAllString(filled(e.Args[0]), "⁂")
		}
	}
	if s, ok := literal(e); ok {
		return s
	}
	return "⁂"
}

// TestEveryReasonOfAnAgentIsToldInChinese: each code has a sentence of its own, and each sentence is translated with what is filled in.
func TestEveryReasonOfAnAgentIsToldInChinese(t *testing.T) {
	codes, sentences := agentReasons(t)
	if len(codes) < 25 || len(sentences) < 30 {
		t.Fatalf("only %d codes and %d sentences were found", len(codes), len(sentences))
	}
	chinese, err := textsOf("zh")
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]string{}
	for code, at := range codes {
		text := errorTexts[code]
		if text == "" || chinese[text] == "" {
			t.Errorf("%s: the code %s has no Chinese sentence (%q)", at, code, text)
		}
		if other := by[text]; text != "" && other != "" {
			t.Errorf("the codes %s and %s have one sentence", code, other)
		}
		by[text] = code
	}
	for code := range errorTexts {
		if codes[code] == "" {
			t.Errorf("no agent tells the code %s any more", code)
		}
	}
	zh := &look{texts: map[string]string{}}
	if zh.whole, zh.parts, err = sentencesOf("zh"); err != nil {
		t.Fatal(err)
	}
	english, command := regexp.MustCompile(`[a-z]{4,} [a-z]+ [a-z]+`), regexp.MustCompile("`[^`]*`")
	for sentence, at := range sentences {
		if said := zh.say(sentence); said == sentence || strings.Count(said, "⁂") > strings.Count(sentence, "⁂") || english.MatchString(command.ReplaceAllString(said, "")) {
			t.Errorf("%s: not in Chinese: %q: %q", at, sentence, said)
		}
	}
}
