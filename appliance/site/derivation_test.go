package site

import "testing"

// Tests derive with little memory: what takes the time is known to do so.
func init() { usualDerivation.Memory = 64 }

func TestUsualDerivationIsKnown(t *testing.T) {
	if d, err := parseDerivation("argon2id t=3 m=65536 p=4"); err != nil || d.Memory != 64<<10 {
		t.Errorf("%+v, %v", d, err)
	}
}
