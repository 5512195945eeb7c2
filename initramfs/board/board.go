// Package board draws what a machine's screen shows a room: name, word, bar, rate, time left, in letters as large as the console
// allows, and below them the last lines of the log. It knows facts and cells; it opens nothing.
package board

import (
	"fmt"
	"strings"
	"time"
)

// Level says how a machine stands. It is told by a shape and a color, beside the word.
type Level int

const (
	Working Level = iota
	Waiting
	Done
	Failed
)

var shapes = map[Level]string{Working: "►", Waiting: "○", Done: "√", Failed: "▲"}
var colors = map[Level]Color{Working: Green, Waiting: Yellow, Done: Green, Failed: Red}

// Board is what is to be shown. Fields that are empty are left out.
type Board struct {
	Name string // of the machine
	ID   string // of the machine, in ASCII: stands for a name that cannot be shown
	// Code is what a person compares to admit the machine.
	Code     string
	About    string // what tells the machine from others: "52:54:00:77:00:10, 10.77.0.113"
	Level    Level
	Word     string // "copying"
	Headline string // a few words more: "disk too small"
	Image    string // "golden:3"
	Disk     string // "sda, 512.1 GB"
	// Done of Total bytes; a Total of zero is no bar.
	Done, Total    int64
	BytesPerSecond float64       // 0 is not known
	Left           time.Duration // 0 is not known
	// Facts are plain words about the work: "12 peers, 1.2 GB from the appliance".
	Facts string
	// Message is what happens, to what, what to do; Notice something beside it: "the appliance does not answer".
	Message, Notice string
}

// LeastColumns and LeastRows are those of the smallest console on which a board is drawn.
const (
	LeastColumns = 40
	LeastRows    = 16
)

// margin is what stays free at the left and the right, in cells.
const margin = 1

// LogRows is how many rows of a console the log takes, below a rule.
func LogRows(rows int) int { return max(4, rows/5) }

// Draw returns the board for a console, without the rows of the log.
func Draw(b Board, columns, rows int) *Canvas {
	c := newCanvas(columns, rows-LogRows(rows))
	rule := c.Rows - 1
	c.write(rule, 0, strings.Repeat("─", columns), Dim)
	var parts []*part
	for _, p := range b.parts(columns - 2*margin) {
		if p != nil {
			parts = append(parts, p)
		}
	}
	fit(parts, columns-2*margin, rule)
	row, free := 0, gaps(parts, rule)
	for i, p := range parts {
		p.draw(c, row+free[i])
		row += free[i] + p.rows()
	}
	return c
}

// gaps returns how many free rows there are above each part: large ones are set apart first, then plain text.
func gaps(parts []*part, rows int) []int {
	free := make([]int, len(parts))
	for _, p := range parts {
		rows -= p.rows()
	}
	for _, apart := range []func(i int) bool{
		func(i int) bool { return parts[i].scale > 0 || parts[i-1].scale > 0 },
		func(i int) bool { return free[i] == 0 },
		func(i int) bool { return parts[i].scale > 0 },
	} {
		for i := 1; i < len(parts); i++ {
			if rows > 0 && apart(i) {
				free[i]++
				rows--
			}
		}
	}
	return free
}

// parts are what the board is made of, from the top; nil is one that it has not.
func (b *Board) parts(width int) []*part {
	color := colors[b.Level]
	name := b.title()
	word := &part{left: b.Word, color: color, rank: 3}
	if b.Total == 0 || b.Level == Failed {
		word.rank, word.least = 1, 1
	}
	message := wrap(shown(b.Message), width)
	return []*part{
		{left: name, lines: halves(name, width), color: Bright, rank: 2, least: 1},
		text(color, wrapFacts(b.subject(), width, "  ")...),
		word.ifAny(),
		b.progress(),
		b.bar(),
		(&part{left: b.headline(), color: Bright, rank: 4, room: rateRoom}).ifAny(),
		text(Plain, wrapFacts(shown(b.Facts), width, "")...),
		text(Bright, message...),
		text(Yellow, wrap(shown(b.Notice), width)...),
	}
}

// title is the largest text: the code of a machine that waits to be admitted, else its name, or its ID where that cannot be shown.
func (b *Board) title() string {
	if b.Code != "" {
		return "CODE " + b.Code
	}
	for _, s := range []string{b.Name, b.ID} {
		if _, ok := capitals(s); ok && s != "" {
			return s
		}
	}
	return "Seedbed"
}

// subject is a text about what is done to which disk of which machine, behind the shape of how it stands.
func (b *Board) subject() string {
	var facts []string
	if b.Image != "" {
		facts = append(facts, "image "+b.Image)
	}
	if b.Disk != "" {
		facts = append(facts, "disk "+b.Disk)
	}
	if b.About != "" {
		facts = append(facts, b.About)
	}
	return shown(shapes[b.Level] + " " + strings.Join(facts, between))
}

// progress is the percentage, and the time left at the right.
func (b *Board) progress() *part {
	if b.Total == 0 || b.Level == Failed {
		return nil
	}
	return &part{left: fmt.Sprintf("%d%%", b.percent()), right: short(b.Left), color: Bright, rank: 0, least: 1, room: percentRoom}
}

// Letters that percentages and rates are given room for, so that the board stays as it is while they change.
const (
	percentRoom = len("99%")
	rateRoom    = len("99.9 MB/s")
)

// headline is what the board says, or the rate.
func (b *Board) headline() string {
	rate := b.BytesPerSecond / 1e6
	switch {
	case b.Headline != "" || rate <= 0:
		return b.Headline
	case rate < 100:
		return fmt.Sprintf("%.1f MB/s", rate)
	}
	return fmt.Sprintf("%.0f MB/s", rate)
}

func (b *Board) percent() int64 {
	return min(100, max(0, int64(float64(b.Done)/float64(b.Total)*100)))
}

func (b *Board) bar() *part {
	if b.Total == 0 || b.Level == Failed {
		return nil
	}
	return &part{bar: true, share: min(1, max(0, float64(b.Done)/float64(b.Total))), color: colors[b.Level], rank: 5, least: 1}
}

// short is a duration in few letters, rounded up: "40 s", "3 min", "1:20 h"; nothing for one that is not known.
func short(d time.Duration) string {
	switch {
	case d <= 0:
		return ""
	case d < time.Minute:
		return fmt.Sprintf("%d s", int((d+time.Second-1)/time.Second))
	}
	minutes := int((d + time.Minute - 1) / time.Minute)
	if minutes < 100 {
		return fmt.Sprintf("%d min", minutes)
	}
	return fmt.Sprintf("%d:%02d h", minutes/60, minutes%60)
}
