package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"seedbed/appliance/fleet"
)

const (
	outUsage = "write it into a new `FILE` that only its owner may read, as --token-file wants it (default: standard output)"
	outHelp  = `With --out it goes into a new file of mode 0600. One that a shell makes of standard output ("> FILE") others may read, as a rule, and
--token-file refuses it then.`
)

// createSecret makes a file that only its owner may read; one that is there stays.
func createSecret(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, &fleet.Refusal{Code: codeFileExists, Detail: fmt.Sprintf("%s is there already; remove it, or take another name", path)}
	}
	return f, err
}

// fillSecret writes a secret into a file that was made for it. Where that fails, or err says that there is none, the file goes.
func fillSecret(f *os.File, b []byte, err error) error {
	if err == nil {
		_, err = f.Write(b)
		err = errors.Join(err, f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
	}
	return err
}

// secretOutput is where a secret goes that is told once: a new file, or standard output.
type secretOutput struct{ file *os.File } // nil is standard output

// newSecretOutput makes the file, "" is none: before there is a secret, which would be lost where that cannot be.
func newSecretOutput(path string) (s secretOutput, err error) {
	if path != "" {
		s.file, err = createSecret(path)
	}
	return s, err
}

// keep writes a secret into the file, if there is one; err is that of who made it, and is returned. what names it, revoke takes it back.
func (s secretOutput) keep(secret string, err error, what, revoke string) error {
	if s.file == nil {
		return err
	}
	made := err == nil
	if err = fillSecret(s.file, []byte(secret+"\n"), err); err != nil && made {
		err = fmt.Errorf("%s was made and cannot be written: %w; take it back with `%s`", what, err, revoke)
	}
	return err
}

// tell prints the secret, or v, of which it is a part, as JSON; of one in a file, where it is.
func (s secretOutput) tell(cmd *cobra.Command, asJSON bool, secret string, v any, what string) error {
	if s.file != nil {
		return tell(cmd, asJSON, v, "%s is in %s\n", what, s.file.Name())
	}
	return tell(cmd, asJSON, v, "%s\n", secret)
}
