package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// archive collects files of an initramfs: paths without a leading slash.
type archive struct{ records map[string]cpio.Record }

func newArchive() *archive { return &archive{records: map[string]cpio.Record{}} }

// add puts a file with its parent folders into the archive.
func (a *archive) add(name string, mode uint64, data []byte) {
	a.folder(path.Dir(name))
	a.records[name] = cpio.StaticFile(name, string(data), mode)
}

// folder puts a folder with its parents into the archive.
func (a *archive) folder(name string) {
	if name == "." || name == "/" {
		return
	}
	a.folder(path.Dir(name))
	a.records[name] = cpio.Directory(name, 0o755)
}

// device puts a character device into the archive.
func (a *archive) device(name string, perm, major, minor uint64) {
	a.folder(path.Dir(name))
	a.records[name] = cpio.CharDev(name, perm, major, minor)
}

// compress returns the archive as newc cpio, compressed by zstd and padded with zeros to a multiple of four, so that
// another archive can follow (Linux, early-userspace/buffer-format.rst). The same content gives the same bytes.
func (a *archive) compress(ctx context.Context) ([]byte, error) {
	var raw bytes.Buffer
	w := cpio.Newc.Writer(&raw)
	names := make([]string, 0, len(a.records))
	for name := range a.records {
		names = append(names, name)
	}
	slices.SortFunc(names, strings.Compare) // a folder comes before what is in it
	for i, name := range names {
		r := a.records[name]
		r.Ino = uint64(i + 1)
		if err := w.WriteRecord(cpio.MakeReproducible(r)); err != nil {
			return nil, fmt.Errorf("archive %s: %w", name, err)
		}
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return nil, err
	}
	// Level 19 has a window of 8 MiB; the kernel takes up to 128 MiB (Linux, lib/decompress_unzstd.c).
	cmd := exec.CommandContext(ctx, "zstd", "-19", "-T0", "-q", "--check", "-c")
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = io.Reader(&raw), &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run zstd: %w %s; apt-get install zstd", err, bytes.TrimSpace(errs.Bytes()))
	}
	for out.Len()%4 != 0 {
		out.WriteByte(0)
	}
	return out.Bytes(), nil
}
