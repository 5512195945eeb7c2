package fleet

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestAnOutageIsToldWhenItBeginsAndEnds, and not at each try.
func TestAnOutageIsToldWhenItBeginsAndEnds(t *testing.T) {
	var out bytes.Buffer
	log, o := slog.New(slog.NewTextHandler(&out, nil)), outage{}
	lost := errors.New("no connection")
	for _, err := range []error{nil, lost, lost, lost, nil, nil, lost} {
		o.note(t.Context(), log, slog.LevelError, "records lost", "records back", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	o.note(ended, log, slog.LevelError, "records lost", "records back", nil) // the program ends
	var said []string
	for line := range strings.Lines(out.String()) {
		_, line, _ = strings.Cut(strings.TrimSpace(line), " level=")
		said = append(said, line)
	}
	if got, want := strings.Join(said, "\n"), "ERROR msg=\"records lost\" err=\"no connection\"\nINFO msg=\"records back\"\nERROR msg=\"records lost\" err=\"no connection\""; got != want {
		t.Errorf("the log says\n%s\nwant\n%s", got, want)
	}
}
