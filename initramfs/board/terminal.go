package board

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Terminal shows boards on a console of Linux, and lines of a log below them. The log is a scrolling region in which the cursor
// rests, so that what the kernel prints lands there too and leaves the board alone. Owned by one goroutine.
type Terminal struct {
	w    io.Writer
	size func() (columns, rows int)

	shown *Canvas // nil before the first board, and when all is to be drawn anew
	rows  int     // of the console, when shown was drawn
}

// NewTerminal returns one that writes to w, a console whose size is asked for before each board: drivers change it as they load.
func NewTerminal(w io.Writer, size func() (columns, rows int)) *Terminal {
	return &Terminal{w: w, size: size}
}

// Sequences of linux/drivers/tty/vt (console_codes(4)): cursor hidden or not, no blanking, no power saving, UTF-8.
const (
	begin = "\x1b[?25l\x1b[9;0]\x1b[14;0]\x1b%G"
	end   = "\x1b[r\x1b[?25h\x1b[0m"
)

// Show draws what changed of the board, and adds lines to the log. tail are the last lines of the log, those among them, for a
// console that is drawn anew. A console too small for a board gets the lines alone.
func (t *Terminal) Show(b Board, lines, tail []string) error {
	columns, rows := t.size()
	if columns < LeastColumns || rows < LeastRows {
		t.shown = nil
		return t.write(log(lines, ""))
	}
	c := Draw(b, columns, rows)
	if t.shown == nil || t.shown.Columns != columns || t.rows != rows {
		t.shown, t.rows = c, rows
		return t.write(begin + "\x1b[r\x1b[0m\x1b[2J" + changes(nil, c) + region(c.Rows+1, rows) + sequences[Plain] + log(tail[max(0, len(tail)-rows+c.Rows):], "\r\n"))
	}
	text := changes(t.shown, c)
	if text != "" {
		text = "\x1b7" + text + "\x1b8" // the cursor is where the log goes on
	}
	t.shown = c
	return t.write(text + log(lines, "\r\n"))
}

// Refresh has the next Show draw all of the board anew: the kernel may have written over it.
func (t *Terminal) Refresh() { t.shown = nil }

// Close gives the whole console back, its cursor at the end of the log.
func (t *Terminal) Close() error {
	if t.shown == nil {
		return nil
	}
	return t.write(end + fmt.Sprintf("\x1b[%d;1H\r\n", t.rows))
}

func (t *Terminal) write(text string) error {
	if text == "" {
		return nil
	}
	_, err := io.WriteString(t.w, text)
	return err
}

// region makes rows first to last, from 1, the ones that scroll (DECSTBM), and puts the cursor at the last: a line of the log begins
// with a line feed.
func region(first, last int) string { return fmt.Sprintf("\x1b[%d;%dr\x1b[%d;1H", first, last, last) }

// log returns lines as the console shows them, before a line feed or after it.
func log(lines []string, before string) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(before + shown(l))
		if before == "" {
			b.WriteString("\r\n")
		}
	}
	return b.String()
}

// changes returns what turns a console that shows one canvas into one that shows the other; nil is an empty console. Changes a few
// cells apart are written as one.
func changes(from, to *Canvas) string {
	var b strings.Builder
	for row := range to.Rows {
		line := to.cells[row*to.Columns : (row+1)*to.Columns]
		old := slices.Repeat([]Cell{{' ', Plain}}, to.Columns)
		if from != nil {
			old = from.cells[row*to.Columns : (row+1)*to.Columns]
		}
		for at := 0; at < len(line); at++ {
			if line[at] == old[at] {
				continue
			}
			stop, same := at+1, 0
			for i := stop; i < len(line) && same < 6; i++ {
				if same++; line[i] != old[i] {
					stop, same = i+1, 0
				}
			}
			fmt.Fprintf(&b, "\x1b[%d;%dH", row+1, at+1)
			color := Color(255)
			for ; at < stop; at++ {
				if line[at].Color != color {
					color = line[at].Color
					b.WriteString(sequences[color])
				}
				b.WriteRune(line[at].Rune)
			}
			at--
		}
	}
	if b.Len() > 0 {
		b.WriteString(sequences[Plain])
	}
	return b.String()
}
