package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// askPassphrase asks on the terminal, without showing what is typed; twice where it is fresh, for nobody sees a slip.
func askPassphrase(fresh bool) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, usageError{errors.New("there is no terminal to ask for the passphrase; give it with --passphrase-file, - for standard input")}
	}
	defer tty.Close()
	first, err := askOnce(tty, "Passphrase: ")
	if err != nil || !fresh {
		return first, err
	}
	again, err := askOnce(tty, "Again: ")
	if err == nil && !bytes.Equal(first, again) {
		err = usageError{errors.New("the two passphrases differ")}
	}
	return first, err
}

func askOnce(tty *os.File, prompt string) (line []byte, err error) {
	fd := int(tty.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("ask for the passphrase: %w", err)
	}
	silent := *before
	silent.Lflag = silent.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &silent); err != nil {
		return nil, fmt.Errorf("ask for the passphrase: %w", err)
	}
	defer func() {
		err = errors.Join(err, unix.IoctlSetTermios(fd, unix.TCSETS, before))
		fmt.Fprintln(tty)
	}()
	fmt.Fprint(tty, prompt)
	buf := make([]byte, maxPassphrase+2)
	n, err := tty.Read(buf) // a line, as long as the terminal is in its usual mode
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	return firstLine(bytes.NewReader(buf[:n]))
}
