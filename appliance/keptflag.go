package main

import (
	"fmt"
	"strconv"
	"strings"

	"seedbed/appliance/fleet"
)

// keptDays is for how many days something is kept, or fleet.KeepForever. It is a pflag.Value.
type keptDays int

// String implements pflag.Value; 0 is a flag that was not given.
func (k *keptDays) String() string {
	switch *k {
	case 0:
		return ""
	case fleet.KeepForever:
		return "forever"
	}
	return fmt.Sprintf("%dd", *k)
}

// Set implements pflag.Value.
func (k *keptDays) Set(text string) error {
	if text == "forever" {
		*k = fleet.KeepForever
		return nil
	}
	days, err := strconv.Atoi(strings.TrimSuffix(text, "d"))
	if err != nil || days <= 0 {
		return fmt.Errorf("%q is no number of days; write 365d, or forever", text)
	}
	*k = keptDays(days)
	return nil
}

// Type implements pflag.Value.
func (k *keptDays) Type() string { return "days" }

// text says it to people.
func (k keptDays) text() string {
	if k == fleet.KeepForever {
		return "for ever"
	}
	return fmt.Sprintf("%d days", int(k))
}
