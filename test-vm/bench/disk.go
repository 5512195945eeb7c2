package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Where the one partition of the disk begins, in bytes, and what is left behind it for the backup table.
const (
	partitionStart = 1 << 20
	partitionTail  = 1 << 20
)

// filled is a disk with a GPT and one ext4 file system that holds files of this host. It lies in three files that follow one
// another, so that the file system is also a file alone, which partclone can read.
type filled struct {
	parts     []string
	partition string // the second of parts
	length    int64  // of the disk in bytes
	used      int64  // bytes of files
}

// fillDisk makes a filled disk in folder: files of /usr and of the folders behind it until two thirds of it are used. If there
// are not enough files they are taken again, each with another prefix, so that nothing repeats at the same place in a tile.
func fillDisk(ctx context.Context, folder string, length int64) (*filled, error) {
	name := filepath.Join(folder, "disk")
	d := &filled{parts: []string{name + ".001", name + ".002", name + ".003"}, partition: name + ".002", length: length}
	tree := filepath.Join(folder, "tree")
	var err error
	if d.used, err = fillTree(ctx, tree, length*2/3); err != nil {
		return nil, fmt.Errorf("fill the disk: %w", err)
	}
	if err := truncate(d.partition, length-partitionStart-partitionTail); err != nil {
		return nil, err
	}
	if err := tool(ctx, "e2fsprogs", "mkfs.ext4", "-q", "-F", "-m", "0", "-d", tree, d.partition); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(tree); err != nil {
		return nil, err
	}
	if err := truncate(name, length); err != nil {
		return nil, err
	}
	if err := tool(ctx, "gdisk", "sgdisk", "-n", fmt.Sprintf("1:%d:%d", partitionStart/512, (length-partitionTail)/512-1), "-t", "1:8300", name); err != nil {
		return nil, err
	}
	if err := cut(d.parts[0], name, 0, partitionStart); err != nil {
		return nil, err
	}
	return d, cut(d.parts[2], name, length-partitionTail, partitionTail)
}

// cut copies a range of a file into one of its own.
func cut(to, from string, offset, length int64) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, length)
	if _, err := f.ReadAt(b, offset); err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// fillTree writes files into tree until they have limit bytes, and returns how many they have.
func fillTree(ctx context.Context, tree string, limit int64) (total int64, err error) {
	for round := 0; total < limit; round++ {
		before := total
		for _, root := range []string{"/usr", "/opt", "/var/lib"} {
			to := filepath.Join(tree, fmt.Sprint(round), root)
			err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
				switch {
				case err != nil || !e.Type().IsRegular():
					return nil // another user's, or gone
				case total >= limit:
					return filepath.SkipAll
				case ctx.Err() != nil:
					return ctx.Err()
				}
				n, err := copyFile(filepath.Join(to, strings.TrimPrefix(name, root)), name, round*17)
				total += n
				return err
			})
			if err != nil {
				return total, err
			}
		}
		if total == before {
			return total, errors.New("this host has no files to fill a disk with")
		}
	}
	return total, nil
}

// copyFile copies what can be read of a file, behind a prefix of so many bytes.
func copyFile(to, from string, prefix int) (int64, error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, nil
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return 0, err
	}
	out, err := os.Create(to)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, io.MultiReader(bytes.NewReader(bytes.Repeat([]byte{'#'}, prefix)), in))
	return n, errors.Join(err, out.Close())
}

func truncate(name string, length int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(length), f.Close())
}

// tool runs a program of a Debian package.
func tool(ctx context.Context, pkg, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is missing (Debian: apt install %s)", name, pkg)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return nil
}
