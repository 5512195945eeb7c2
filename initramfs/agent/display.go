package agent

import (
	"io"
	"time"

	"seedbed/initramfs/board"
)

// display is a console that is a screen, with its own goroutine: it shows the board, and the log below it.
type display struct {
	wake chan struct{} // something is new; closed at the end
	done chan struct{}

	// Guarded by the screen's mutex.
	lines []string // of the log, that were not shown yet
	anew  bool     // all of the board is to be drawn
}

// drawEvery is how often a display is drawn at most: framebuffers of servers take some tenths of a second for a screen.
const drawEvery = 400 * time.Millisecond

// waitingLines bounds the lines that wait for a display that takes no bytes.
const waitingLines = 256

// AddDisplay has the board shown on w, a console of Linux of the given size, which is asked for before each drawing.
func (s *Screen) AddDisplay(w io.Writer, size func() (columns, rows int)) {
	d := &display{wake: make(chan struct{}, 1), done: make(chan struct{})}
	s.mu.Lock()
	s.displays = append(s.displays, d)
	s.mu.Unlock()
	terminal := board.NewTerminal(w, size)
	go func() {
		defer close(d.done)
		for range d.wake {
			s.draw(d, terminal)
			time.Sleep(drawEvery)
		}
		s.draw(d, terminal)
		_ = terminal.Close() // nobody to tell
	}()
}

// draw shows what is to be seen now.
func (s *Screen) draw(d *display, terminal *board.Terminal) {
	s.mu.Lock()
	b, lines, anew := s.board, d.lines, d.anew
	d.lines, d.anew = nil, false
	tail := append([]string(nil), s.tail...)
	s.mu.Unlock()
	if anew {
		terminal.Refresh()
	}
	_ = terminal.Show(b, lines, tail) // nobody to tell
}

// Show changes the board.
func (s *Screen) Show(change func(*board.Board)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.board
	change(&s.board)
	if s.board == before {
		return
	}
	for _, d := range s.displays {
		d.anew = d.anew || s.board.Word != before.Word || s.board.Level != before.Level
		s.stir(d)
	}
}

// logged has a line shown on the displays; the caller holds mu.
func (s *Screen) logged(line string) {
	for _, d := range s.displays {
		if len(d.lines) == waitingLines {
			d.lines = d.lines[1:]
		}
		d.lines = append(d.lines, line)
		s.stir(d)
	}
}

// stir has a display drawn; the caller holds mu.
func (s *Screen) stir(d *display) {
	if s.closed {
		return
	}
	select {
	case d.wake <- struct{}{}:
	default:
	}
}
