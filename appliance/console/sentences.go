package console

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// sentences are texts of other packages that people read on pages, with %s where something is named: a sentence that looks like one of
// them is shown in the visit's language. What looks like none is shown as it is.
var sentences = []string{
	text("%s has the role %s, and so has every token of that user at most"),
	text("%s has the role %s; to %s needs the role %s: ask an administrator"),
	text("%s was changed by somebody else meanwhile; look again"),
	text("a password has at least %s characters; this one has %s"),
	text("a password has at most %s bytes"),
	text("a user is viewer, operator or admin"),
	text("a user's name has 1 to 64 letters, digits, dots, hyphens, underscores and @, and begins with a letter or digit; %s has not"),
	text("an API token is good for at most %s days, not %s"),
	text("image %s is used by %s"),
	text("name or password are wrong"),
	text("no machine shows the code %s; read it from the machine's screen again"),
	text("nobody would be left who administers the site; make another administrator first"),
	text("say what the API token is for, in 1 to 64 bytes: it is how people know it again"),
	text("there is a user %s already"),
	text("there is no API token %s; `seedbed user token ls` lists them"),
	text("there is no user %s; `seedbed user ls` lists them"),
	text("too many wrong passwords for this name or from this address; try again in %s"),
}

// sentence is a pattern of sentences, with its text in the look's language.
type sentence struct {
	pattern *regexp.Regexp
	text    string
}

// verb finds what fmt.Sprintf fills in.
var verb = regexp.MustCompile(`%[a-z]`)

// patterns are the sentences of a language, compiled once.
var patterns = struct {
	sync.Mutex
	by map[*look][]sentence
}{by: map[*look][]sentence{}}

func (l *look) sentences() []sentence {
	patterns.Lock()
	defer patterns.Unlock()
	list, ok := patterns.by[l]
	if ok {
		return list
	}
	for _, english := range sentences {
		other, ok := l.texts[english]
		if !ok {
			continue
		}
		parts := verb.Split(english, -1)
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		list = append(list, sentence{regexp.MustCompile("(?s)^" + strings.Join(parts, "(.*?)") + "$"), verb.ReplaceAllString(other, "%s")})
	}
	patterns.by[l] = list
	return list
}

// sentence returns a sentence of another package in the look's language, if that is known.
func (l *look) sentence(english string) string {
	if other, ok := l.texts[english]; ok {
		return other
	}
	for _, s := range l.sentences() {
		m := s.pattern.FindStringSubmatch(english)
		if m == nil {
			continue
		}
		var args []any
		for _, part := range m[1:] {
			args = append(args, part)
		}
		return fmt.Sprintf(s.text, args...)
	}
	return english
}
