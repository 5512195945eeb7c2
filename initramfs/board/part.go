package board

import (
	"slices"
	"strings"
)

// part is one thing on the board: a text in large letters or plain, lines of plain text, or the bar.
type part struct {
	left, right string   // in large letters where scale is not 0
	lines       []string // of left where it takes several, or plain text
	plain       bool     // lines are plain text
	room        int      // letters that left takes at least
	bar         bool
	share       float64 // of the bar that is full
	color       Color
	rank        int // parts of a low rank grow first
	least       int // scale that it is to have before others grow
	scale       int // 0 is plain text
}

// most is the largest scale of letters.
const most = 8

// text is a part of plain lines, nil for none.
func text(color Color, lines ...string) *part {
	lines = slices.DeleteFunc(slices.Clone(lines), func(s string) bool { return s == "" })
	if len(lines) == 0 {
		return nil
	}
	return &part{lines: lines, plain: true, color: color}
}

func (p *part) ifAny() *part {
	if p.left == "" {
		return nil
	}
	return p
}

// halves breaks a text that is too wide for letters of the least scale into two lines that are not, at a hyphen or space if it
// has one there; nil if one line does, or two do not.
func halves(s string, width int) []string {
	if wide(s, 1) <= width {
		return nil
	}
	r := []rune(s)
	for _, at := range append(breaks(s), len(r)/2) {
		if a, b := string(r[:at]), string(r[at:]); wide(a, 1) <= width && wide(b, 1) <= width {
			return []string{a, b}
		}
	}
	return nil
}

// breaks are the places after hyphens and the like, from the middle outwards.
func breaks(s string) (list []int) {
	for i, r := range []rune(s) {
		if strings.ContainsRune("-_. ", r) {
			list = append(list, i+1)
		}
	}
	middle := length(s) / 2
	slices.SortStableFunc(list, func(a, b int) int { return max(a-middle, middle-a) - max(b-middle, middle-b) })
	return list
}

// big are the lines in large letters, nil if there is a letter that cannot be drawn.
func (p *part) big() []string {
	lines := p.lines
	if lines == nil {
		lines = []string{p.left}
	}
	var out []string
	for _, l := range lines {
		c, ok := capitals(l)
		if !ok {
			return nil
		}
		out = append(out, c)
	}
	return out
}

// width is how many cells the part takes at a scale.
func (p *part) width(scale int) (n int) {
	for _, l := range p.big() {
		n = max(n, wide(l, scale), (p.room*advance-1)*scale)
	}
	if p.right != "" {
		n += wide(p.right, scale) + 2*scale
	}
	return n
}

// rows is how many rows the part takes.
func (p *part) rows() int {
	switch {
	case p.plain:
		return len(p.lines)
	case p.bar:
		return max(1, 2*p.scale)
	case p.scale == 0:
		return 1
	}
	n := max(1, len(p.lines))
	return n*high(p.scale) + n - 1
}

// grows reports whether the part may be larger by one.
func (p *part) grows(width int) bool {
	switch {
	case p.plain || p.scale == most:
		return false
	case p.bar:
		return p.scale < 4
	}
	return p.big() != nil && p.width(p.scale+1) <= width
}

// fit gives each part its scale: those of a low rank grow first, as the width and the rows allow. What is to be large comes before free
// rows between the parts, all else after them. Where the rows are too few, plain text loses its last lines.
func fit(parts []*part, width, rows int) {
	order := slices.Clone(parts)
	slices.SortStableFunc(order, func(a, b *part) int { return a.rank - b.rank })
	for scale := 1; scale <= most; scale++ {
		for _, first := range []bool{true, false} {
			for _, p := range order {
				if (p.least >= scale) != first || p.scale >= scale || !p.grows(width) {
					continue
				}
				between := 0
				if !first {
					between = len(parts) - 1
				}
				if p.scale++; together(parts)+between > rows {
					p.scale--
				}
			}
		}
	}
	for i := len(parts) - 1; i >= 0; i-- {
		for p := parts[i]; p.plain && len(p.lines) > 1 && together(parts) > rows; {
			p.lines = p.lines[:len(p.lines)-1]
		}
	}
}

// together is how many rows parts take without free ones between them.
func together(parts []*part) (n int) {
	for _, p := range parts {
		n += p.rows()
	}
	return n
}

// draw puts the part on the canvas.
func (p *part) draw(c *Canvas, row int) {
	width := c.Columns - 2*margin
	switch {
	case p.plain:
		for i, l := range p.lines {
			c.write(row+i, margin, clip(l, width), p.color)
		}
	case p.bar:
		full := int(p.share * float64(width))
		for i := range p.rows() {
			c.write(row+i, margin, strings.Repeat("█", full), p.color)
			c.write(row+i, margin+full, strings.Repeat("░", width-full), Dim)
		}
	case p.scale == 0:
		c.write(row, margin, clip(shown(p.left), width), p.color)
		c.write(row, c.Columns-margin-length(p.right), p.right, p.color)
	default:
		for _, l := range p.big() {
			c.put(row, margin, p.scale, l, p.color)
			row += high(p.scale) + 1
		}
		if right, ok := capitals(p.right); ok {
			c.put(row-high(p.scale)-1, c.Columns-margin-wide(right, p.scale), p.scale, right, p.color)
		}
	}
}
