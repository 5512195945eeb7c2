package network

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTune(t *testing.T) {
	runtime.LockOSThread() // the thread ends with its namespace
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("a network namespace: %v (run the tests as root)", err)
	}
	before := map[string]string{}
	read := func(name string) string {
		b, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	for name := range settings {
		before[name] = read(name)
	}
	Tune()
	for name, want := range settings {
		if got := read(name); got != want || got == before[name] {
			t.Errorf("%s is %s, was %s, want %s", name, got, before[name], want)
		}
	}
}
