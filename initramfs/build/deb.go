package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"strings"

	"github.com/ulikunitz/xz"
)

// debContent is what was taken out of a package, by path without a leading slash.
type debContent struct {
	files map[string][]byte
	links map[string]string // symbolic link -> the path it points to, resolved inside the package
}

// readDeb takes the files for which want says yes out of a package.
func readDeb(ctx context.Context, file string, want func(path string) bool) (*debContent, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", file)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("run dpkg-deb: %w; apt-get install dpkg", err)
	}
	c := &debContent{files: map[string][]byte{}, links: map[string]string{}}
	err = c.readTar(tar.NewReader(bufio.NewReaderSize(pipe, 1<<20)), want)
	if err == nil {
		_, err = io.Copy(io.Discard, pipe) // the padding behind the archive
	}
	if err != nil {
		cancel()
	}
	if werr := cmd.Wait(); err == nil {
		err = werr
	}
	if err != nil {
		return nil, fmt.Errorf("read package %s: %w", file, err)
	}
	return c, nil
}

func (c *debContent) readTar(t *tar.Reader, want func(path string) bool) error {
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path.Clean(h.Name), "/")
		if !want(name) {
			continue
		}
		switch h.Typeflag {
		case tar.TypeReg:
			b := make([]byte, h.Size)
			if _, err := io.ReadFull(t, b); err != nil {
				return err
			}
			c.files[name] = b
		case tar.TypeSymlink:
			c.links[name] = path.Join(path.Dir(name), h.Linkname)
		case tar.TypeLink:
			c.links[name] = path.Clean(h.Linkname)
		}
	}
}

// resolve returns a file's bytes, following links inside the package.
func (c *debContent) resolve(name string) ([]byte, bool) {
	for range 8 {
		if b, ok := c.files[name]; ok {
			return b, true
		}
		next, ok := c.links[name]
		if !ok {
			return nil, false
		}
		name = next
	}
	return nil, false
}

// unpack decompresses a module file by its name's ending.
func unpack(name string, b []byte) ([]byte, error) {
	switch path.Ext(name) {
	case ".ko":
		return b, nil
	case ".xz":
		r, err := xz.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	}
	return nil, fmt.Errorf("compression of %s is not known", name)
}
