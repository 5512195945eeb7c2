package console

import (
	"cmp"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// chineseSentences has sentences of other packages, which come ready made: by what machines are judged, what jobs wait for, why
// something is refused. In English %s stands for any part of a sentence; the translation takes the parts in the same order, or numbers them.
//
//go:embed sentences
var chineseSentences embed.FS

// sentence is one that has parts.
type sentence struct {
	begins string
	form   *regexp.Regexp
	other  string // for fmt.Sprintf
}

// allSentences returns the translations of all files by their English sentence.
func allSentences() (map[string]string, error) {
	files, err := fs.Glob(chineseSentences, "sentences/*.json")
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, file := range files {
		b, err := chineseSentences.ReadFile(file)
		if err != nil {
			return nil, err
		}
		list := map[string]string{}
		if err := json.Unmarshal(b, &list); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for english, other := range list {
			if _, twice := all[english]; twice {
				return nil, fmt.Errorf("%s: %q is in another file, too", file, english)
			}
			all[english] = other
		}
	}
	return all, nil
}

// sentencesOf returns those of a language, whole ones by their English text and those with parts, the longest first.
func sentencesOf(code string) (whole map[string]string, parts []sentence, err error) {
	if code != "zh" {
		return nil, nil, nil
	}
	all, err := allSentences()
	if err != nil {
		return nil, nil, err
	}
	whole = map[string]string{}
	var order []string
	for english, other := range all {
		if !strings.Contains(english, "%") {
			whole[english] = other
			continue
		}
		order = append(order, english)
	}
	slices.SortFunc(order, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	for _, english := range order {
		begins, _, _ := strings.Cut(english, "%")
		form := strings.ReplaceAll(strings.ReplaceAll(regexp.QuoteMeta(english), "%s", "(.+?)"), "%%", "%")
		parts = append(parts, sentence{begins, regexp.MustCompile("^" + form + "$"), all[english]})
	}
	return whole, parts, nil
}

// cancels is how sentences tell a terminal to cancel a job; pages have a button for it.
var cancels = regexp.MustCompile("(?:end it with|cancel it) \\(?`seedbed job cancel [^`]+`\\)?")

// say returns a ready sentence of another package in the look's language; one that is not known stays English.
func (l *look) say(english string) string {
	if english == "" || l.texts == nil {
		return cancels.ReplaceAllString(english, "cancel it")
	}
	if other, ok := l.texts[english]; ok {
		return other
	}
	if other, ok := l.whole[english]; ok {
		return other
	}
	for _, s := range l.parts {
		if !strings.HasPrefix(english, s.begins) {
			continue
		}
		if m := s.form.FindStringSubmatch(english); m != nil {
			args := make([]any, len(m)-1)
			for i, part := range m[1:] {
				args[i] = l.partly(part)
			}
			return strings.SplitN(fmt.Sprintf(s.other, args...), "%!(EXTRA", 2)[0] // a translation may leave parts out
		}
	}
	return english
}

// partly is say of a part of a sentence, which may be one itself; what is a text of a page by chance is a name here.
func (l *look) partly(part string) string {
	return (&look{texts: map[string]string{}, whole: l.whole, parts: l.parts}).say(part)
}
