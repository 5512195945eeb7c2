package fsmap

import (
	"strconv"
	"strings"
)

// lvmSection is a part of LVM's metadata text: `name { key = value ... }`. Values are texts, whole numbers or, in brackets,
// lists of them.
type lvmSection struct {
	values   map[string][]any // string or int64
	sections map[string]*lvmSection
	order    []string // of the sections
}

// number returns a value between 0 and 2^40 (extents, sectors), or -1.
func (s *lvmSection) number(key string) int64 {
	if v := s.values[key]; len(v) == 1 {
		if n, ok := v[0].(int64); ok && n >= 0 && n < 1<<40 {
			return n
		}
	}
	return -1
}

func (s *lvmSection) text(key string) string {
	if v := s.values[key]; len(v) == 1 {
		if t, ok := v[0].(string); ok {
			return t
		}
	}
	return ""
}

// section returns the section of that name; an empty one if there is none.
func (s *lvmSection) section(name string) *lvmSection {
	if c := s.sections[name]; c != nil {
		return c
	}
	return &lvmSection{}
}

// lvmDepth bounds sections within sections; LVM writes 4.
const lvmDepth = 8

// lvmParser reads metadata text. The first error stays.
type lvmParser struct {
	rest string
	pos  int // bytes read
	err  error
}

func parseLVMText(text string) (*lvmSection, error) {
	text, _, _ = strings.Cut(text, "\x00")
	p := &lvmParser{rest: text}
	s := p.section(0)
	return s, p.err
}

func (p *lvmParser) fail(what string) {
	if p.err == nil {
		p.err = unmapped("its metadata text has %s at byte %d", what, p.pos)
	}
	p.rest = ""
}

func (p *lvmParser) skip(n int) {
	p.rest, p.pos = p.rest[n:], p.pos+n
}

// peek returns the next byte that is not space or in a comment, 0 at the end.
func (p *lvmParser) peek() byte {
	for p.rest != "" {
		switch c := p.rest[0]; {
		case c == '#':
			n := strings.IndexByte(p.rest, '\n')
			if n < 0 {
				n = len(p.rest)
			}
			p.skip(n)
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			p.skip(1)
		default:
			return c
		}
	}
	return 0
}

// take reads the byte c if it is next.
func (p *lvmParser) take(c byte) bool {
	if p.peek() != c {
		return false
	}
	p.skip(1)
	return true
}

// section reads keys, values and sections up to the brace or the end that closes them.
func (p *lvmParser) section(depth int) *lvmSection {
	s := &lvmSection{values: map[string][]any{}, sections: map[string]*lvmSection{}}
	if depth > lvmDepth {
		p.fail("too many sections within one another")
	}
	for p.err == nil {
		if c := p.peek(); c == 0 || c == '}' {
			if (c == 0) != (depth == 0) {
				p.fail("a brace without its other")
			}
			break
		}
		name := p.word()
		_, value := s.values[name]
		_, section := s.sections[name]
		switch {
		case p.err != nil:
		case value || section:
			p.fail("a second " + strconv.Quote(name))
		case p.take('{'):
			c := p.section(depth + 1)
			if !p.take('}') {
				p.fail("a section without end")
			}
			s.sections[name] = c
			s.order = append(s.order, name)
		case p.take('='):
			s.values[name] = p.value()
		default:
			p.fail("a name without value")
		}
	}
	return s
}

// word reads a name, quoted or not.
func (p *lvmParser) word() string {
	if p.peek() == '"' {
		return p.quoted()
	}
	n := strings.IndexAny(p.rest, " \t\r\n#={}[],\"")
	if n < 0 {
		n = len(p.rest)
	}
	if n == 0 {
		p.fail("something other than a name")
		return ""
	}
	w := p.rest[:n]
	p.skip(n)
	return w
}

// quoted reads a text in quotes, in which a backslash takes the next byte as it is.
func (p *lvmParser) quoted() string {
	p.skip(1)
	var b strings.Builder
	for i := 0; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.skip(i + 1)
			return b.String()
		case c == '\\' && i+1 < len(p.rest):
			i++
			b.WriteByte(p.rest[i])
		default:
			b.WriteByte(c)
		}
	}
	p.fail("a text without end")
	return ""
}

// value reads one value or a list.
func (p *lvmParser) value() []any {
	if !p.take('[') {
		return []any{p.single()}
	}
	list := []any{}
	for p.err == nil && !p.take(']') {
		list = append(list, p.single())
		if !p.take(',') && p.peek() != ']' {
			p.fail("a list without end")
		}
	}
	return list
}

func (p *lvmParser) single() any {
	if p.peek() == '"' {
		return p.quoted()
	}
	w := p.word()
	if n, err := strconv.ParseInt(w, 10, 64); err == nil {
		return n
	}
	if _, err := strconv.ParseFloat(w, 64); err != nil {
		p.fail("something other than a value")
	}
	return w
}
