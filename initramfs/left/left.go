// Package left keeps, where the next boot finds it, why an agent could not reach its appliance: on UEFI machines in a variable of the
// firmware, never on a disk. BIOS machines have no such place. The memory for variables wears and is small, so that a reason is written
// once in a boot at most, and only where it is another one than what stands there.
package left

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"seedbed/appliance/job"
)

// Folder is where Linux shows the firmware's variables (efivarfs).
const Folder = "/sys/firmware/efi/efivars"

// variable is the name of the variable, and Seedbed's own vendor GUID (UEFI 2.10 §8.2: each vendor makes its own).
const variable = "SeedbedLeft-7b2f4c0e-93d1-4c57-8a5e-5eedbed0b007"

// attributes are non-volatile, boot service and runtime access (UEFI 2.10 §8.2), which efivarfs has before the data.
const attributes uint32 = 1 | 2 | 4

// maxBytes bounds the variable's data, maxText the reason in it.
const (
	maxBytes = 1024
	maxText  = 400
)

// Store is the place. A nil one is that of a machine that has none. Safe for concurrent use.
type Store struct {
	file  string
	found *job.Left // of an earlier boot; never changed

	mu    sync.Mutex
	tried bool // in this boot
	gone  bool // what stood there was taken away in this boot
}

// Open reads what an earlier boot left in a folder of variables. A folder that is not there is a place where nothing is kept.
func Open(folder string) *Store {
	s := &Store{file: filepath.Join(folder, variable)}
	b, err := os.ReadFile(s.file)
	if err != nil || len(b) < 4 || len(b) > 4+maxBytes {
		return s
	}
	var l job.Left
	if json.NewDecoder(bytes.NewReader(b[4:])).Decode(&l) == nil && l.Code != "" {
		s.found = &l
	}
	return s
}

// Found returns what an earlier boot left, or nil.
func (s *Store) Found() *job.Left {
	if s == nil {
		return nil
	}
	return s.found
}

// Keep leaves a reason for the next boot, where none was left in this boot, and reports whether it stands there now. An error says that
// the firmware does not take it: it is not tried again in this boot.
func (s *Store) Keep(l job.Left) (kept bool, err error) {
	if s == nil {
		return false, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tried {
		return false, nil
	}
	if _, err := os.Stat(filepath.Dir(s.file)); err != nil {
		return false, nil // BIOS
	}
	s.tried = true
	if len(l.Text) > maxText {
		l.Text = strings.ToValidUTF8(l.Text[:maxText], "")
	}
	if s.found != nil && !s.gone && s.found.Code == l.Code && s.found.Text == l.Text {
		return true, nil
	}
	if err := s.write(l); err != nil {
		return false, fmt.Errorf("the firmware does not keep a variable: %w", err)
	}
	return true, nil
}

// write is one write: that is how efivarfs wants it.
func (s *Store) write(l job.Left) error {
	l.At = l.At.UTC().Truncate(time.Second)
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if len(text) > maxBytes {
		return fmt.Errorf("a reason of %d bytes is longer than %d", len(text), maxBytes)
	}
	_, err = os.Stat(s.file)
	isNew := errors.Is(err, fs.ErrNotExist)
	s.release()
	f, err := os.OpenFile(s.file, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(binary.LittleEndian.AppendUint32(nil, attributes), text...))
	err = errors.Join(err, f.Close())
	if err != nil && isNew {
		s.release()
		_ = os.Remove(s.file) // an empty one that no variable belongs to
	}
	return err
}

// Told takes away what stands there: the appliance knows it, or it came to nothing.
func (s *Store) Told() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release()
	if err := os.Remove(s.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the firmware does not take its variable back: %w", err)
	}
	s.gone = true
	return nil
}

// release takes away that efivarfs lets nobody change a variable that it does not know (FS_IMMUTABLE_FL, ioctl_iflags(2)). Best effort:
// what is done after it says what is wrong.
func (s *Store) release() {
	f, err := os.Open(s.file)
	if err != nil {
		return
	}
	defer f.Close()
	const immutable = 0x10 // FS_IMMUTABLE_FL, linux/fs.h
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil && flags&immutable != 0 {
		_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags&^immutable)
	}
}
