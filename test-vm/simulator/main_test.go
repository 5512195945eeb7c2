package main

import (
	"io"
	"strings"
	"testing"
)

func TestNumbers(t *testing.T) {
	for s, want := range map[string]float64{"1g": 1e9, "60G": 60e9, "256Mi": 256 << 20, "1.5k": 1500, "7": 7, "2Ti": 2 << 40} {
		if got, err := parseNumber(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "g", "-1", "0", "1x", "1gg", "nan", "inf", "1e30"} {
		if got, err := parseNumber(s); err == nil {
			t.Errorf("%q gives %v", s, got)
		}
	}
}

func TestLine(t *testing.T) {
	var b strings.Builder
	c := small(3, nil)
	c.Length = 16 << 20
	if err := line(&b, "", c); err != nil || !strings.HasPrefix(b.String(), "3, 64 pieces of 256 KiB ") {
		t.Errorf("%q, %v", b.String(), err)
	}
	if err := run([]string{"-peers", "2", "-size", "x"}); err == nil {
		t.Error("a wrong size passes")
	}
	c.Rate = 0
	if err := line(io.Discard, "", c); err == nil {
		t.Error("a rate of zero passes")
	}
}
