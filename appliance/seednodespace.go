package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"seedbed/images/repository"
)

// space bounds what a seed node keeps on its disk. Safe for concurrent use.
type space struct {
	dir   string
	limit int64 // bytes for all images together; 0 leaves a share of the file system free, see reserve

	mu   sync.Mutex // guards what follows
	used int64      // bytes in dir, or about to be there
	// granted are bytes that may be written before the file system is asked again, without a limit.
	granted int64
}

// errNoRoom says that nothing more may be kept.
var errNoRoom = errors.New("there is no room for more")

// What is left free without a limit, a tenth of the file system and maxReserve at most, and how much is written before the file
// system is asked again; so much stays free with a limit too. minSpace is the least that a limit may be.
const (
	reserveShare = 10
	maxReserve   = 20 << 30
	grant        = 16 << 20
	minSpace     = 16 << 20
)

func newSpace(dir string, limit int64) (*space, error) {
	used, err := folderSize(dir)
	return &space{dir: dir, limit: limit, used: used}, err
}

// take makes n bytes part of what is kept; errNoRoom says that they do not fit. Less than nothing gives them back.
func (s *space) take(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > s.granted && n > 0 {
		left, err := s.rest()
		switch {
		case err != nil:
			return err
		case left < n:
			return errNoRoom
		}
		s.granted = min(left, max(n, grant))
	}
	s.used += n
	s.granted -= n
	return nil
}

// rest returns how many bytes may still be written, below zero where there is too much. The caller holds mu.
func (s *space) rest() (int64, error) {
	free, total, err := repository.RoomIn(s.dir)
	if s.limit > 0 { // which may be more than there is
		return min(s.limit-s.used, free-grant), err
	}
	return free - min(total/reserveShare, maxReserve), err
}

// add says that files of so many bytes were written without being asked for: the description of an image.
func (s *space) add(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used += n
}

// freed says that files of so many bytes are gone.
func (s *space) freed(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= n
	s.granted = 0
}

// state returns how many bytes are kept, and how many may be in all.
func (s *space) state() (used, total int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left, err := s.rest()
	return s.used, s.used + max(left, 0), err
}

// left returns how many bytes may still be written, below zero where there is too much.
func (s *space) left() (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rest()
}

// String says what the bound is.
func (s *space) String() string {
	if s.limit > 0 {
		return "the " + bytesText(s.limit) + " of --space"
	}
	return fmt.Sprintf("the file system of %s, of which a tenth stays free, or %s", s.dir, bytesText(maxReserve))
}

// folderSize returns the length of all files in a folder.
func folderSize(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return ignoreGone(err)
		}
		info, err := e.Info()
		if err == nil {
			n += info.Size()
		}
		return ignoreGone(err)
	})
	return n, err
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

var sizeText = regexp.MustCompile(`^(\d{1,12}(?:\.\d{1,3})?)([KMGT]?)(i?B)?$`)

// parseSpace reads a size that images fit in.
func parseSpace(s string) (int64, error) {
	n, err := parseSize(s)
	if err == nil && n < minSpace {
		return 0, fmt.Errorf("%s is too little for images; give at least %s", s, bytesText(minSpace))
	}
	return n, err
}

// parseSize reads "200GiB", "1.5T" or "500GB": K, M, G, T and KiB ... are powers of 1,024, KB ... of 1,000.
func parseSize(s string) (int64, error) {
	m := sizeText.FindStringSubmatch(strings.ReplaceAll(s, " ", ""))
	if m == nil {
		return 0, fmt.Errorf("%q is no size; say 200GiB, 1.5TiB or 500GB", s)
	}
	unit := 1024.0
	if m[3] == "B" {
		unit = 1000
	}
	n, err := strconv.ParseFloat(m[1], 64)
	for range strings.Index("KMGT", m[2]) + 1 {
		if m[2] != "" {
			n *= unit
		}
	}
	if err != nil || n >= 1<<60 {
		return 0, fmt.Errorf("%q is no size that a disk has", s)
	}
	return int64(n), nil
}
