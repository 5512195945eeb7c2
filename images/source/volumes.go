package source

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

var volumeName = regexp.MustCompile(`^(.*\.)(\d{3,})$`)

// firstVolume reports whether a name ends like a volume's (".001"), and returns the part before the number.
func firstVolume(name string) (stem string, ok bool) {
	m := volumeName.FindStringSubmatch(name)
	if m == nil {
		return "", false
	}
	n, err := strconv.Atoi(m[2])
	return m[1], err == nil && (n == 1 || exists(m[1]+"001"))
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// openVolumes joins STEM001, STEM002, ... A hole in the numbers is an error.
func (s *Source) openVolumes(stem string) error {
	j := &joined{}
	s.ReaderAt, s.Format = j, "volumes"
	for n := 1; ; n++ {
		name := fmt.Sprintf("%s%03d", stem, n)
		if !exists(name) {
			return noneBehind(stem, n)
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		s.close = append(s.close, f.Close)
		length, err := s.add(f)
		if err != nil {
			return err
		}
		if length == 0 {
			return fmt.Errorf("%w: the volume %s is empty", ErrFormat, name)
		}
		j.parts = append(j.parts, volume{f, length})
		s.Length += length
	}
}

// noneBehind is an error if a volume with a number above missing exists.
func noneBehind(stem string, missing int) error {
	found, err := filepath.Glob(globQuote.ReplaceAllString(stem, `\$0`) + "[0-9][0-9][0-9]*")
	if err != nil {
		return err
	}
	for _, name := range found {
		m := volumeName.FindStringSubmatch(name)
		if m == nil || m[1] != stem {
			continue
		}
		if n, err := strconv.Atoi(m[2]); err == nil && n > missing {
			return fmt.Errorf("%w: the volume %s%03d is missing, %s is there", ErrFormat, stem, missing, name)
		}
	}
	return nil
}

var globQuote = regexp.MustCompile(`[*?\[\\]`)

// joined are files that follow one another.
type joined struct{ parts []volume }

type volume struct {
	r      io.ReaderAt
	length int64
}

// ReadAt implements io.ReaderAt.
func (j *joined) ReadAt(b []byte, offset int64) (done int, err error) {
	for _, v := range j.parts {
		if offset >= v.length {
			offset -= v.length
			continue
		}
		n, err := v.r.ReadAt(b[done:done+int(min(int64(len(b)-done), v.length-offset))], offset)
		done, offset = done+n, offset+int64(n)
		if done == len(b) {
			return done, nil
		}
		if offset < v.length {
			return done, err
		}
		offset = 0
	}
	return done, io.EOF
}
