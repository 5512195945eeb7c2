package lab

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Serial is what a machine wrote to its first serial port in one run, without the sequences that move a terminal's
// cursor. Safe for concurrent use.
type Serial struct {
	start time.Time

	mu      sync.Mutex
	log     io.Writer     // each line with the seconds since the start
	text    []byte        // all of it
	partial []byte        // an escape sequence whose end did not come yet
	logged  int           // bytes of text which are in the log
	changed chan struct{} // closed and replaced at each write
}

func newSerial(log io.Writer) *Serial {
	return &Serial{start: time.Now(), log: log, changed: make(chan struct{})}
}

// Control sequences and strings of ECMA-48 §5.4 and §5.6, and the resets that firmware sends.
var (
	sequencePattern = regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][A-Z0-9]|[=>c78])|[\x00\x07\x08\r]`)
	unfinished      = regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[()])?$`)
)

// Write takes what QEMU prints.
func (s *Serial) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := append(s.partial, b...)
	s.partial = nil
	if at := unfinished.FindIndex(in); at != nil {
		s.partial = append([]byte(nil), in[at[0]:]...)
		in = in[:at[0]]
	}
	s.text = append(s.text, sequencePattern.ReplaceAll(in, nil)...)
	s.logLines(false)
	close(s.changed)
	s.changed = make(chan struct{})
	return len(b), nil
}

// logLines writes finished lines to the log, at the end the last one too. A log that cannot be written ends no test.
func (s *Serial) logLines(all bool) {
	for {
		rest := string(s.text[s.logged:])
		line, _, ok := strings.Cut(rest, "\n")
		if !ok && (!all || rest == "") {
			return
		}
		fmt.Fprintf(s.log, "%8.2f %s\n", time.Since(s.start).Seconds(), line)
		s.logged += len(line)
		if ok {
			s.logged++
		}
	}
}

func (s *Serial) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logLines(true)
}

// Contains reports whether the machine wrote text so far.
func (s *Serial) Contains(text string) bool { return strings.Contains(s.String(), text) }

// String returns everything so far.
func (s *Serial) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.text)
}

// Tail returns the last n lines that are not empty.
func (s *Serial) Tail(n int) string {
	var lines []string
	for line := range strings.Lines(s.String()) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// find returns the first of texts that was written, and a channel which is closed when more is written.
func (s *Serial) find(texts []string) (string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range texts {
		if strings.Contains(string(s.text), t) {
			return t, nil
		}
	}
	return "", s.changed
}
