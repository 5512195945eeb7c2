//go:build unix

package main

import "runtime"

// dataFolder is where things last that are kept nowhere else.
func dataFolder() string {
	switch runtime.GOOS {
	case "darwin":
		return "/Library/Application Support/seedbed"
	case "freebsd":
		return "/var/db/seedbed"
	}
	return "/var/lib/seedbed"
}
