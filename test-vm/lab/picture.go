package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Picture is what a machine's screen showed, as the cells of a console: the upper and the lower half of each are lit or dark. Texts
// in letters made of halves can be found in it, and bars. Immutable.
type Picture struct {
	Columns, Rows int // of the console, in cells

	lit [][]string // by half rows and columns: "" is dark, else the color
}

// Colors of letters and bars.
const (
	White  = "white"
	Green  = "green"
	Yellow = "yellow"
	Red    = "red"
)

// Picture takes what the machine's screen shows. The machine needs Display.
func (b *Boot) Picture(ctx context.Context) (*Picture, error) {
	path := filepath.Join(b.dir, b.Name+".ppm")
	if err := b.monitor(ctx, "screendump", map[string]any{"filename": path}); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := readPicture(f)
	if err != nil {
		return nil, fmt.Errorf("screen of machine %s in %s: %w", b.Name, path, err)
	}
	return p, nil
}

// readPicture reads a binary PPM of 8 bits (netpbm, ppm(5)). Cells are 9 x 16 dots in VGA's text mode of 80 x 25, and 8 x 16 on framebuffers.
func readPicture(r io.Reader) (*Picture, error) {
	in := bufio.NewReader(r)
	var width, height, most int
	if _, err := fmt.Fscanf(in, "P6\n%d %d\n%d\n", &width, &height, &most); err != nil || most != 255 || width <= 0 || height <= 0 || width > 1<<13 || height > 1<<13 {
		return nil, fmt.Errorf("no PPM of 8 bits: %d x %d, %d: %w", width, height, most, err)
	}
	dots := make([]byte, 3*width*height)
	if _, err := io.ReadFull(in, dots); err != nil {
		return nil, fmt.Errorf("the PPM ends early: %w", err)
	}
	cell := 8
	if width == 720 && height == 400 {
		cell = 9
	}
	p := &Picture{Columns: width / cell, Rows: height / 16}
	for y := range 2 * p.Rows {
		row := make([]string, p.Columns)
		for x := range row {
			row[x] = colorOf(dots, width, x*cell, y*8)
		}
		p.lit = append(p.lit, row)
	}
	return p, nil
}

// colorOf returns the color of half a cell whose 8 x 8 dots all have it, "" where one has not: shades and plain letters are dark. The first
// and last row of the half do not count: in the kernel's fonts the upper half block has seven rows, and the lower one nine.
func colorOf(dots []byte, width, left, top int) (color string) {
	for y := top + 1; y < top+7; y++ {
		for x := left; x < left+8; x++ {
			d := dots[3*(y*width+x):]
			red, green, blue := d[0] > 0xc0, d[1] > 0xc0, d[2] > 0xc0
			now := map[[3]bool]string{{true, true, true}: White, {false, true, false}: Green, {true, true, false}: Yellow, {true, false, false}: Red}[[3]bool{red, green, blue}]
			if now == "" || color != "" && now != color {
				return ""
			}
			color = now
		}
	}
	return color
}

// Find looks for a text, given as rows of '#' and ' ', in letters of any scale, and returns the color of its letters and the scale; "" if
// it is not there. All dots have to be lit, and the spaces between them dark.
func (p *Picture) Find(rows []string) (color string, scale int) {
	if len(rows) == 0 || len(rows[0]) == 0 {
		return "", 0
	}
	for scale = 1; scale*len(rows) <= len(p.lit) && scale*len(rows[0]) <= p.Columns; scale++ {
		for y := range len(p.lit) - scale*len(rows) + 1 {
			for x := range p.Columns - scale*len(rows[0]) + 1 {
				if color := p.at(rows, scale, y, x); color != "" {
					return color, scale
				}
			}
		}
	}
	return "", 0
}

// at returns the color of a text if it is at a place.
func (p *Picture) at(rows []string, scale, top, left int) (color string) {
	for y := range scale * len(rows) {
		for x := range scale * len(rows[0]) {
			now := p.lit[top+y][left+x]
			if lit := rows[y/scale][x/scale] == '#'; lit != (now != "") || lit && color != "" && now != color {
				return ""
			}
			if now != "" {
				color = now
			}
		}
	}
	return color
}

// Bar returns the color and the length of the longest bar, as a share of the screen's width.
func (p *Picture) Bar() (color string, share float64) {
	longest := 0
	for y := 0; y+1 < len(p.lit); y += 2 {
		run := 0
		for x, now := range p.lit[y] {
			if now == "" || now != p.lit[y+1][x] || x > 0 && now != p.lit[y][x-1] {
				run = 0
			}
			if now != "" && now == p.lit[y+1][x] {
				run++
			}
			if run > longest {
				longest, color = run, now
			}
		}
	}
	return color, float64(longest) / float64(p.Columns)
}
