package lab

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"seedbed/initramfs/board"
)

// paint makes the picture of a console that shows a board; width is that of a cell, in dots.
func paint(c string, columns, rows, width int, color [3]byte) []byte {
	dots := make([]byte, 3*columns*width*rows*16)
	for row, line := range strings.Split(c, "\n") {
		for column, r := range []rune(line) {
			for y := range 16 {
				for x := range width {
					if r == '█' || r == '▀' && y < 7 || r == '▄' && y >= 7 || r == '░' && (x+y)%2 == 0 || r == 'x' && x == y {
						copy(dots[3*((row*16+y)*columns*width+column*width+x):], color[:])
					}
				}
			}
		}
	}
	return append([]byte(fmt.Sprintf("P6\n%d %d\n255\n", columns*width, rows*16)), dots...)
}

func TestAPictureTellsLettersAndBars(t *testing.T) {
	for _, size := range [][3]int{{80, 25, 9}, {100, 37, 8}, {160, 50, 8}} {
		b := board.Board{Name: "room-7", Word: "copying", Done: 40, Total: 100}
		text := board.Draw(b, size[0], size[1]).String() + strings.Repeat("x", size[0])
		p, err := readPicture(bytes.NewReader(paint(text, size[0], size[1], size[2], [3]byte{0x55, 0xff, 0x55})))
		if err != nil {
			t.Fatal(err)
		}
		if p.Columns != size[0] || p.Rows != size[1] {
			t.Errorf("%v is taken for %d x %d", size, p.Columns, p.Rows)
		}
		for text, want := range map[string]string{"room-7": Green, "40%": Green, "room-1": "", "41%": "", "oom-7": Green} {
			if got, _ := p.Find(board.Dots(text)); got != want {
				t.Errorf("%v: %q is %q, not %q", size, text, got, want)
			}
		}
		if color, share := p.Bar(); color != Green || math.Abs(share-0.4) > 0.02 {
			t.Errorf("%v: the bar is %q and %.2f wide", size, color, share)
		}
	}
	for _, wrong := range []string{"", "P5\n1 1\n255\nxxx", "P6\n9 9\n255\nx", "P6\n-1 9\n255\n", "P6\n1 1\n65535\nxxxxxx"} {
		if _, err := readPicture(strings.NewReader(wrong)); err == nil {
			t.Errorf("%q is read as a picture", wrong)
		}
	}
}
