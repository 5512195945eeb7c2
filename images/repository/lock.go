package repository

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// ErrLocked says that another process works on the repository.
var ErrLocked = errors.New("the repository is in use")

// locked names the process that holds the lock.
func locked(f *os.File) error {
	owner := make([]byte, 32)
	n, _ := f.ReadAt(owner, 0)
	return fmt.Errorf("%w by process %s; stop it, or let it do the work", ErrLocked, strings.TrimSpace(string(owner[:n])))
}

// writeOwner writes this process's id into the lock file, for people: on a full disk it is missing.
func writeOwner(f *os.File) {
	if f.Truncate(0) == nil {
		_, _ = io.WriteString(io.NewOffsetWriter(f, 0), fmt.Sprintln(os.Getpid()))
	}
}
