package repository

import (
	"errors"
	"fmt"
	"strings"

	"seedbed/images/intake"
)

// explainFull turns the error of a full file system into one that wraps intake.ErrFull and has the figures. need is the
// number of bytes still to be written, 0 if it is not known.
func (r *Repository) explainFull(err error, need int64) error {
	if !isFull(err) {
		return err
	}
	var free []string
	for _, folder := range []struct{ name, path string }{{"spool", r.cfg.Spool}, {"repository", r.folder()}} {
		if folder.path == "" {
			continue
		}
		if n, _, e := roomIn(folder.path); e == nil {
			free = append(free, fmt.Sprintf("%d bytes are free in the %s %s", n, folder.name, folder.path))
		}
	}
	if need == 0 {
		need = r.waiting()
	}
	return fmt.Errorf("%w: %s; at least %d are needed; make room and capture again, what was stored stays: %w", intake.ErrFull,
		strings.Join(free, ", "), need, err)
}

// maxReserve is how many bytes tiles leave free in spool and folder, at most, so that there is room for what it takes to
// remove images and to prune: claims, marks, tombstones. Of a small file system it is a 128th.
const maxReserve = 64 << 20

// expectRoom returns an error of a full disk where a tile would take what is left free for pruning.
func (r *Repository) expectRoom() error {
	if r.cfg.files != nil {
		return nil // not of the operating system
	}
	for _, path := range []string{r.cfg.Spool, r.folder()} {
		if path == "" {
			continue
		}
		free, total, err := roomIn(path)
		if reserve := min(maxReserve, total/128); err == nil && free < reserve {
			return fmt.Errorf("%d bytes of %s stay free for pruning: %w", reserve, path, fullErrors[0])
		}
	}
	return nil
}

// folder returns the bucket's folder, "" if it is none.
func (r *Repository) folder() string {
	if r.dir != nil {
		return r.dir.path
	}
	return ""
}

// waiting returns the bytes in the spool that are to become packs.
func (r *Repository) waiting() (n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.pending {
		n += s.length()
	}
	if r.current != nil {
		n += r.current.length()
	}
	return n
}

// isFull reports whether an error says that a file system, or a quota on it, is full.
func isFull(err error) bool {
	for _, full := range fullErrors {
		if errors.Is(err, full) {
			return true
		}
	}
	return false
}

// RoomIn returns the bytes that an unprivileged process can still write to the file system of path, and those it has in all.
func RoomIn(path string) (free, total int64, err error) { return roomIn(path) }
