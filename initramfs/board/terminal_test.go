package board

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// vt is a console of Linux as far as boards use it: it stands for a screen in tests.
type vt struct {
	columns, rows int
	cells         []Cell
	row, column   int // of the cursor, from 0; column may be columns, where the next letter begins a new line
	top, bottom   int // rows that scroll, from 0, inclusive
	saved         [2]int
	color         Color
	problem       string
}

func newVT(columns, rows int) *vt {
	v := &vt{columns: columns, rows: rows, bottom: rows - 1}
	v.clear(0, rows)
	return v
}

func (v *vt) clear(from, to int) {
	if v.cells == nil {
		v.cells = make([]Cell, v.columns*v.rows)
	}
	for i := from * v.columns; i < to*v.columns; i++ {
		v.cells[i] = Cell{' ', Plain}
	}
}

func (v *vt) Write(b []byte) (int, error) {
	for text := string(b); text != ""; {
		if strings.HasPrefix(text, "\x1b") {
			text = v.sequence(text[1:])
			continue
		}
		r, n := utf8.DecodeRuneInString(text)
		text = text[n:]
		v.print(r)
	}
	return len(b), nil
}

func (v *vt) print(r rune) {
	switch {
	case r == '\r':
		v.column = 0
		return
	case r == '\n':
		v.feed()
		return
	case r < ' ':
		v.problem = fmt.Sprintf("the control character %q", r)
		return
	}
	if v.column == v.columns {
		v.column = 0
		v.feed()
	}
	v.cells[v.row*v.columns+v.column] = Cell{r, v.color}
	v.column++
}

func (v *vt) feed() {
	if v.row != v.bottom {
		v.row = min(v.row+1, v.rows-1)
		return
	}
	copy(v.cells[v.top*v.columns:], v.cells[(v.top+1)*v.columns:(v.bottom+1)*v.columns])
	v.clear(v.bottom, v.bottom+1)
}

// sequence takes one that begins behind the escape, and returns what follows it.
func (v *vt) sequence(text string) string {
	switch text[0] {
	case '7':
		v.saved = [2]int{v.row, v.column}
		return text[1:]
	case '8':
		v.row, v.column = v.saved[0], v.saved[1]
		return text[1:]
	case '%':
		return text[2:]
	}
	at := strings.IndexFunc(text[1:], func(r rune) bool { return r >= '@' && r <= '~' }) + 1
	if text[0] != '[' || at == 0 {
		v.problem = fmt.Sprintf("the sequence %q", text[:2])
		return text[1:]
	}
	var numbers []int
	for f := range strings.SplitSeq(text[1:at], ";") {
		n, _ := strconv.Atoi(f)
		numbers = append(numbers, n)
	}
	switch text[at] {
	case 'H':
		if v.row, v.column = numbers[0]-1, numbers[1]-1; v.row >= v.rows || v.column >= v.columns || v.row < 0 || v.column < 0 {
			v.problem = "the cursor is beyond the console"
			v.row, v.column = 0, 0
		}
	case 'r':
		v.top, v.bottom, v.row, v.column = 0, v.rows-1, 0, 0
		if len(numbers) == 2 {
			v.top, v.bottom = numbers[0]-1, numbers[1]-1
		}
	case 'J':
		v.clear(0, v.rows)
	case 'm':
		v.color = Plain
		for c, s := range sequences {
			if s == "\x1b"+text[:at+1] {
				v.color = c
			}
		}
	case 'h', 'l', ']':
	default:
		v.problem = fmt.Sprintf("the sequence %q", text[:at+1])
	}
	return text[at+1:]
}

// is reports whether the rows of the board show a canvas.
func (v *vt) is(c *Canvas) bool {
	for i, cell := range c.cells {
		if got := v.cells[i]; got.Rune != cell.Rune || got.Rune != ' ' && got.Color != cell.Color {
			return false
		}
	}
	return true
}

// log is the text below the board.
func (v *vt) log() (lines []string) {
	for row := v.top; row <= v.bottom; row++ {
		var line strings.Builder
		for _, c := range v.cells[row*v.columns : (row+1)*v.columns] {
			line.WriteRune(c.Rune)
		}
		lines = append(lines, strings.TrimRight(line.String(), " "))
	}
	return lines
}

// TestAConsoleShowsTheBoardAndTheLogBelowWhateverHappens: boards of all kinds, lines of all lengths, what the kernel prints, and
// consoles that change their size.
func TestAConsoleShowsTheBoardAndTheLogBelowWhateverHappens(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var v *vt
	term := NewTerminal(writer{&v}, func() (int, int) { return v.columns, v.rows })
	var tail []string
	for i := range 400 {
		if i%50 == 0 {
			v = newVT(LeastColumns+r.IntN(100), LeastRows+r.IntN(50))
			if i%100 == 0 {
				term.Refresh()
			}
		}
		var lines []string
		for range r.IntN(4) {
			lines = append(lines, fmt.Sprintf("line %d %s", i, strings.Repeat("x", r.IntN(2)*r.IntN(300))))
		}
		lines = append(lines, fmt.Sprint("last ", i))
		tail = append(tail, lines...)
		tail = tail[max(0, len(tail)-40):]
		b := random(r)
		if err := term.Show(b, lines, tail); err != nil {
			t.Fatal(err)
		}
		if want := Draw(b, v.columns, v.rows); !v.is(want) {
			t.Fatalf("board %d on %d x %d is not shown:\n%s", i, v.columns, v.rows, want)
		}
		if log := v.log(); len(log) != LogRows(v.rows) || log[len(log)-1] != fmt.Sprint("last ", i) {
			t.Fatalf("the log below board %d is %q", i, log)
		}
		if r.IntN(3) == 0 {
			fmt.Fprintf(v, "\r\n[    1.234567] the kernel says something %s", strings.Repeat("k", r.IntN(200)))
		}
		if v.problem != "" {
			t.Fatal(v.problem)
		}
	}
	if err := term.Close(); err != nil || v.top != 0 || v.bottom != v.rows-1 {
		t.Errorf("after the end rows %d to %d scroll (%v)", v.top, v.bottom, err)
	}
}

// writer writes to the console of the moment.
type writer struct{ v **vt }

func (w writer) Write(b []byte) (int, error) { return (*w.v).Write(b) }

func TestOnlyWhatChangedIsWritten(t *testing.T) {
	v := &counted{vt: newVT(240, 67)}
	term := NewTerminal(v, func() (int, int) { return v.columns, v.rows })
	b := boards["copy"]
	for _, step := range []struct {
		change func()
		most   int // bytes
	}{{func() {}, 200_000}, {func() {}, 0}, {func() { b.Done += 10_000_000 }, 0}, {func() { b.Facts = strings.Replace(b.Facts, "14 peers", "15 peers", 1) }, 60}, {func() { b.Done += 300_000_000 }, 2000}} {
		step.change()
		v.bytes = 0
		if err := term.Show(b, nil, nil); err != nil {
			t.Fatal(err)
		}
		if v.bytes > step.most {
			t.Errorf("%d bytes are written, %d would do", v.bytes, step.most)
		}
	}
}

type counted struct {
	*vt
	bytes int
}

func (c *counted) Write(b []byte) (int, error) {
	c.bytes += len(b)
	return c.vt.Write(b)
}

func TestAConsoleThatIsTooSmallGetsLines(t *testing.T) {
	for _, size := range [][2]int{{0, 0}, {39, 50}, {80, 15}} {
		var b strings.Builder
		term := NewTerminal(&b, func() (int, int) { return size[0], size[1] })
		if err := term.Show(boards["copy"], []string{"one", "two"}, []string{"zero", "one", "two"}); err != nil {
			t.Fatal(err)
		}
		if got := b.String(); got != "one\r\ntwo\r\n" {
			t.Errorf("%v: %q", size, got)
		}
	}
}
