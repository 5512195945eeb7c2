//go:build !linux

package main

import "errors"

// askPassphrase is for systems on which no appliance runs.
func askPassphrase(bool) ([]byte, error) {
	return nil, usageError{errors.New("give the passphrase with --passphrase-file, - for standard input")}
}
