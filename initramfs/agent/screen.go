package agent

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Screen is what a person before the machine sees: the same lines on every console, screen and serial line. A console
// that takes no bytes holds nobody up. Safe for concurrent use.
type Screen struct {
	outs []*console

	mu     sync.Mutex // guards everything below, and the consoles' channels against Close
	closed bool
	last   map[string]string
	tail   []string // the last lines, for reports of failures
}

// console is one output with its own goroutine.
type console struct {
	lines chan string
	done  chan struct{}
}

// tailLines is how many lines a report of a failure carries.
const tailLines = 40

// NewScreen returns a screen that writes to outs, each on a goroutine of its own until Close.
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
	}
	s.mu.Unlock()
	for _, c := range s.outs {
		select {
		case <-c.done:
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

// Handler returns a log handler that writes warnings and errors, and what changes at the network, to the screen.
func (s *Screen) Handler() slog.Handler {
	return slog.NewTextHandler(screenWriter{s}, &slog.HandlerOptions{Level: slog.LevelInfo,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
				return slog.Attr{}
			}
			return a
		}})
}

type screenWriter struct{ s *Screen }

func (w screenWriter) Write(b []byte) (int, error) {
	w.s.Say("%s", strings.TrimRight(string(b), "\n"))
	return len(b), nil
}
