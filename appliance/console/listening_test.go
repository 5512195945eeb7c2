package console

import "testing"

func TestOneUserDoesNotTakeAllListeners(t *testing.T) {
	var p perUser
	for range maxListenersOfOne {
		if !p.enter("anna") {
			t.Fatal("refused too early")
		}
	}
	if p.enter("anna") || !p.enter("otto") {
		t.Error("the bound is not that of one user")
	}
	if p.leave("anna"); !p.enter("anna") {
		t.Error("what left still counts")
	}
}
