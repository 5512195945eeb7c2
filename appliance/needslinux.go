//go:build !linux

package main

import (
	"fmt"
	"runtime"

	"seedbed/appliance/fleet"
)

// codeNeedsLinux is the code of refusals of what only Linux can.
const codeNeedsLinux = "needs-linux"

// needsLinux refuses what this program cannot do on this system.
func needsLinux(what, remedy string) error {
	return &fleet.Refusal{Code: codeNeedsLinux, Detail: fmt.Sprintf("%s needs Linux, and this is %s; %s", what, runtime.GOOS, remedy)}
}
