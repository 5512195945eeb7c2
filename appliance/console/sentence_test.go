package console

import "testing"

func TestPagesTellNobodyToCancelAJobAtATerminal(t *testing.T) {
	for said, want := range map[string]string{
		"pc-1 has job 4b9f499862fa (deploy debian:2), which has not ended; wait for it, or end it with `seedbed job cancel 4b9f499862fa`": "pc-1 has job 4b9f499862fa (deploy debian:2), which has not ended; wait for it, or cancel it",
		"kept; cancel it (`seedbed job cancel 1`), or deploy without --keep":                                                              "kept; cancel it, or deploy without --keep",
		"the disk is too small": "the disk is too small",
	} {
		if got := new(look).say(said); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
