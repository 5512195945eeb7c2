package board

import (
	"strings"
)

// Color is one of those that every console has.
type Color byte

const (
	Plain Color = iota
	Bright
	Dim
	Green
	Yellow
	Red
)

// sequences set the colors (ECMA-48 §8.3.117). Backgrounds stay black: text mode shows bright ones as blinking.
var sequences = map[Color]string{Plain: "\x1b[0;37m", Bright: "\x1b[0;1;37m", Dim: "\x1b[0;1;30m", Green: "\x1b[0;1;32m", Yellow: "\x1b[0;1;33m", Red: "\x1b[0;1;31m"}

// Cell is one place of a console.
type Cell struct {
	Rune  rune // one cell wide
	Color Color
}

// Canvas is what a console shows, row by row. What is drawn beyond its borders is lost.
type Canvas struct {
	Columns, Rows int
	cells         []Cell
}

// newCanvas returns one of spaces.
func newCanvas(columns, rows int) *Canvas {
	c := &Canvas{columns, rows, make([]Cell, columns*rows)}
	for i := range c.cells {
		c.cells[i] = Cell{' ', Plain}
	}
	return c
}

func (c *Canvas) at(row, column int) *Cell {
	if row < 0 || row >= c.Rows || column < 0 || column >= c.Columns {
		return nil
	}
	return &c.cells[row*c.Columns+column]
}

// write puts a line of text, as far as there is room; every rune takes one cell.
func (c *Canvas) write(row, column int, text string, color Color) {
	for _, r := range text {
		if cell := c.at(row, column); cell != nil {
			*cell = Cell{r, color}
		}
		column++
	}
}

// String is the canvas without colors, a line a row, without spaces at the ends.
func (c *Canvas) String() string {
	var b strings.Builder
	for row := range c.Rows {
		var line strings.Builder
		for column := range c.Columns {
			line.WriteRune(c.at(row, column).Rune)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

// glyphs are those beyond ASCII that the kernel's fonts have and that are drawn here: code page 437.
const glyphs = "█▀▄░─►○√▲·äöüÄÖÜßéèêëàâåçîïìôòûùÿñÑæÆÅÇÉáíóú"

// shown returns text of runes that every console has, one cell each: others become question marks.
func shown(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r == '…':
			return '.'
		case r < ' ' || r == 0x7f:
			return -1
		case r < 0x7f || strings.ContainsRune(glyphs, r):
			return r
		}
		return '?'
	}, text)
}

// wrap breaks text into lines of at most width cells, at spaces where there are any.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		for {
			room := width - length(line)
			if line != "" {
				room--
			}
			if length(word) <= room {
				if line != "" {
					line += " "
				}
				line += word
				break
			}
			if line != "" {
				lines, line = append(lines, line), ""
				continue
			}
			r := []rune(word)
			lines, word = append(lines, string(r[:width])), string(r[width:])
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// Marks between facts, at which lines of them end: things are apart by the first, what is said of one by the second.
const (
	between = " · "
	within  = ", "
)

// wrapFacts breaks facts into lines of at most width cells: between things, and within one that takes more than a line. Lines after the
// first one begin with indent.
func wrapFacts(text string, width int, indent string) []string {
	var units []string // each with the mark before it
	for _, thing := range strings.SplitAfter(text, between) {
		if length(thing) <= width-length(indent) {
			units = append(units, thing)
			continue
		}
		units = append(units, strings.SplitAfter(thing, within)...)
	}
	var lines []string
	line := ""
	end := func() {
		if line = strings.TrimRight(strings.TrimSuffix(line, between), " "); line != "" {
			lines = append(lines, line)
		}
		line = indent
	}
	for i, unit := range units {
		if i > 0 && length(line)+length(strings.TrimRight(unit, " ·")) > width {
			end()
		}
		line += unit
		if length(strings.TrimRight(line, " ·")) > width {
			broken := wrap(line, width-length(indent))
			for j, l := range broken {
				if len(lines) > 0 || j > 0 {
					broken[j] = indent + l
				}
			}
			lines, line = append(lines, broken[:len(broken)-1]...), broken[len(broken)-1]
			if strings.HasSuffix(unit, " ") {
				line += " "
			}
		}
	}
	end()
	return lines
}

func length(s string) int { return len([]rune(s)) }

// clip cuts text to width cells.
func clip(text string, width int) string {
	r := []rune(text)
	return string(r[:min(len(r), max(0, width))])
}
