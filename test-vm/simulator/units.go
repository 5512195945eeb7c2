package main

import (
	"fmt"
	"strconv"
	"strings"
)

// units may stand behind a number, in any case.
var units = map[string]float64{
	"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40,
}

func parseNumber(s string) (float64, error) {
	lower := strings.ToLower(s)
	digits := strings.TrimRight(lower, "kmgti")
	n, err := strconv.ParseFloat(digits, 64)
	unit, ok := units[lower[len(digits):]]
	if err != nil || !ok || !(n > 0) || n*unit > 1e18 {
		return 0, fmt.Errorf("%q is no number above zero, with k, m, g, t, Ki, Mi, Gi or Ti behind it or nothing", s)
	}
	return n * unit, nil
}

// number and bytes set a value from a flag.
func number(to *float64) func(string) error {
	return func(s string) (err error) {
		*to, err = parseNumber(s)
		return err
	}
}

func bytes(to *int64) func(string) error {
	return func(s string) error {
		n, err := parseNumber(s)
		*to = int64(n)
		return err
	}
}
