package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"seedbed/appliance/job"
	"seedbed/initramfs/board"
)

// Screen is what a person before the machine sees: the same lines on every console, and on those that are screens a board above
// them which can be read from the back of a room. A console that takes no bytes holds nobody up. Safe for concurrent use.
type Screen struct {
	outs []*console

	mu     sync.Mutex // guards everything below, and the consoles' channels against Close
	closed bool
	last   map[string]string
	tail   []string // the last lines, for reports of failures

	displays []*display
	board    board.Board

	told   job.Screen // what the appliance was told last that the board says
	toldAt time.Time  // and when; zero is not in this boot
}

// console is one output with its own goroutine.
type console struct {
	lines chan string
	done  chan struct{}
}

// tailLines is how many lines a report of a failure carries.
const tailLines = 40

// NewScreen returns a screen that writes lines to outs, each on a goroutine of its own until Close. Consoles that show the board
// are added by AddDisplay.
func NewScreen(outs ...io.Writer) *Screen {
	s := &Screen{last: map[string]string{}}
	for _, w := range outs {
		c := &console{lines: make(chan string, 256), done: make(chan struct{})}
		s.outs = append(s.outs, c)
		go func() {
			defer close(c.done)
			for l := range c.lines {
				_, _ = io.WriteString(w, l) // nobody to tell
			}
		}()
	}
	return s
}

// Close waits until the consoles have taken what was said, but no longer than wait. What is said later is lost.
func (s *Screen) Close(wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		for _, c := range s.outs {
			close(c.lines)
		}
		for _, d := range s.displays {
			close(d.wake)
		}
	}
	var ends []chan struct{}
	for _, c := range s.outs {
		ends = append(ends, c.done)
	}
	for _, d := range s.displays {
		ends = append(ends, d.done)
	}
	s.mu.Unlock()
	for _, end := range ends {
		select {
		case <-end:
		case <-timer.C:
			return
		}
	}
}

// Say writes one line, "seedbed: " before it.
func (s *Screen) Say(format string, a ...any) {
	line := "seedbed: " + strings.ReplaceAll(fmt.Sprintf(format, a...), "\n", " ")
	s.mu.Lock()
	s.tail = append(s.tail, line)
	if len(s.tail) > tailLines {
		s.tail = s.tail[1:]
	}
	s.logged(line)
	s.mu.Unlock()
	s.put(line + "\r\n")
}

// SayOnce writes a line unless the last one about this subject was the same.
func (s *Screen) SayOnce(subject, format string, a ...any) {
	line := fmt.Sprintf(format, a...)
	s.mu.Lock()
	same := s.last[subject] == line
	s.last[subject] = line
	s.mu.Unlock()
	if !same {
		s.Say("%s", line)
	}
}

// Forget makes SayOnce say the next line about the subject in any case.
func (s *Screen) Forget(subject string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.last, subject)
}

// Alarm writes a message that must not be overlooked.
func (s *Screen) Alarm(sentence string) {
	rule := strings.Repeat("*", 78)
	s.put("\r\n" + rule + "\r\n")
	s.Say("%s", sentence)
	s.put(rule + "\r\n\r\n")
}

// Tail returns the last lines.
func (s *Screen) Tail() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.tail, "\n")
}

func (s *Screen) put(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	for _, c := range s.outs {
		select {
		case c.lines <- text:
		default: // a serial line without a listener: newer lines are worth no more than older ones
		}
	}
}

// Handler returns a log handler that writes state changes, warnings and errors to the screen.
func (s *Screen) Handler() slog.Handler { return screenHandler{s: s} }

// screenHandler writes a record as "message key value key value".
type screenHandler struct {
	s     *Screen
	attrs string
}

func (h screenHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (h screenHandler) Handle(_ context.Context, r slog.Record) error {
	line := r.Message + h.attrs
	r.Attrs(func(a slog.Attr) bool {
		line += fmt.Sprintf(" %s %v", a.Key, a.Value)
		return true
	})
	h.s.Say("%s", line)
	return nil
}

func (h screenHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		h.attrs += fmt.Sprintf(" %s %v", a.Key, a.Value)
	}
	return h
}

func (h screenHandler) WithGroup(string) slog.Handler { return h }
