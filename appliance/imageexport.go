package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"seedbed/appliance/api"
	"seedbed/images/packed"
	"seedbed/images/restore"
)

func imageExport(o *options) *cobra.Command {
	var split, length int64
	var compress, asJSON bool
	cmd := &cobra.Command{Use: "export IMAGE FILE", Short: "Write an image as a bootable raw disk: a sparse file, volumes, or - for standard output",
		Args: cobra.ExactArgs(2), ValidArgsFunction: o.completesBefore(1, cobra.ShellCompDirectiveDefault, imageNames), Long: `Export writes the whole disk, its partition table included; every tile is compared with its hash on the way. Free space
and zeros are holes. FILE gets its name when it is whole and durable; a file that exists is not replaced. A FILE that ends
in .zst is compressed (zstd), in which free space costs nothing either; "seedbed image import" takes it back as it is.`}
	f := cmd.Flags()
	f.Int64Var(&split, "split", 0, "write volumes FILE.001, FILE.002, ... of so many `MiB`")
	f.Int64Var(&length, "length", 0, "length of the disk in `BYTES` (default: as captured); the partition table is made for it")
	f.BoolVar(&compress, "compress", false, "write one zstd stream, also to standard output; a FILE that ends in .zst is one anyway")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		compress := compress || strings.HasSuffix(args[1], ".zst")
		if compress && split > 0 {
			return usageError{errors.New("volumes are not compressed; leave out --split, or --compress and .zst")}
		}
		if split < 0 || length < 0 {
			return usageError{errors.New("--split and --length are numbers from 1")}
		}
		return o.withImages(cmd.Context(), func(lib api.Images) error {
			e := &exported{path: args[1], split: split << 20, packed: compress, show: newMeter(os.Stderr, "exported")}
			if args[1] == "-" {
				if split > 0 || asJSON {
					return usageError{errors.New("--split and --json need a FILE")}
				}
				if isTerminal(os.Stdout) {
					return usageError{errors.New("a disk is not written to a terminal; redirect it, or name a file")}
				}
				e.out = cmd.OutOrStdout()
			}
			err := lib.Export(cmd.Context(), args[0], length, e)
			if err == nil {
				err = e.finish()
			}
			e.show.end()
			if err != nil {
				return errors.Join(err, e.abort())
			}
			switch {
			case asJSON:
				return printJSON(cmd.OutOrStdout(), map[string]any{"image": args[0], "files": e.names(), "disk_length": e.length, "data_length": e.data})
			case e.out == nil && e.packed:
				fmt.Fprintf(cmd.OutOrStdout(), "image %s is in %s, compressed: a disk of %s with %s of data\n", args[0], args[1], bytesText(e.length), bytesText(e.data))
			case e.out == nil:
				fmt.Fprintf(cmd.OutOrStdout(), "image %s is in %s: a disk of %s with %s of data\n", args[0], strings.Join(e.names(), ", "), bytesText(e.length), bytesText(e.data))
			}
			return nil
		})
	}
	return cmd
}

func isTerminal(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0 && st.Name() != "null"
}

// diskStream takes a disk from its beginning to its end: *restore.Sequential or *packed.Writer.
type diskStream interface {
	Write(offset int64, b []byte) error
	Finish(length int64) error
}

// exported is a disk being written. It implements api.DiskOutput.
type exported struct {
	path   string
	split  int64 // bytes; 0: one file
	packed bool
	out    io.Writer  // standard output; nil: path
	stream diskStream // nil: file as it is
	file   *restore.Output
	show   *meter

	length, data, done int64 // bytes
}

// Begin implements api.DiskOutput.
func (e *exported) Begin(length, data int64) (err error) {
	e.length, e.data = length, data
	out := e.out
	switch {
	case out != nil && !e.packed:
		e.stream = &restore.Sequential{W: out}
		return nil
	case out == nil && e.packed:
		if e.file, err = restore.CreateFile(e.path); err != nil {
			return err
		}
		out = e.file.Stream()
	case out == nil:
		e.file, err = restore.CreateOutput(e.path, length, e.split)
		return err
	}
	e.stream, err = packed.NewWriter(out, length)
	return err
}

// Write implements api.DiskOutput.
func (e *exported) Write(offset int64, b []byte) error {
	e.done += int64(len(b))
	e.show.update(api.Progress{Done: min(e.done, e.data), Total: e.data})
	if e.stream != nil {
		return e.stream.Write(offset, b)
	}
	return e.file.Write(offset, b)
}

// finish makes the disk whole and durable.
func (e *exported) finish() error {
	if e.stream != nil {
		if err := e.stream.Finish(e.length); err != nil {
			return err
		}
	}
	if e.file == nil {
		return nil
	}
	return e.file.Commit()
}

func (e *exported) abort() error {
	if e.file == nil {
		return nil
	}
	return e.file.Abort()
}

// names returns the files.
func (e *exported) names() (list []string) {
	if e.split == 0 {
		return []string{e.path}
	}
	for n := int64(0); n*e.split < e.length; n++ {
		list = append(list, restore.VolumeName(e.path, int(n+1)))
	}
	return list
}

const imageImportHelp = `FILE is what "seedbed image export" wrote: a raw disk, compressed or not, the first of its volumes (NAME.001), or - for standard input, of
which a sparse copy is kept in the data directory while it is captured. Tiles that the repository has are not stored
again. The options are those of "seedbed image add"; an image that was captured with --keep-contents or --full needs
them here too.`

func imageImport(o *options) *cobra.Command {
	cmd := imageAdd(o)
	cmd.Use, cmd.Short, cmd.Long = "import FILE", "Take an exported disk back", imageImportHelp
	add := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if args[0] != "-" || cmd.Flag("name").Value.String() == "" {
			return add(cmd, args)
		}
		path, remove, err := o.spoolDisk(interruptible(cmd.Context(), cmd.InOrStdin()))
		if err != nil {
			return err
		}
		defer remove()
		return add(cmd, []string{path})
	}
	return cmd
}

// spoolDisk keeps a disk that is a stream as a sparse file.
func (o *options) spoolDisk(r io.Reader) (path string, remove func(), err error) {
	data, err := filepath.Abs(o.data)
	if err != nil {
		return "", nil, err
	}
	dir := importSpool(data)
	f, err := createSpooled(dir)
	if err != nil {
		return "", nil, fmt.Errorf("keep the disk that is read: %w", err)
	}
	remove = func() {
		os.Remove(f.Name())
		f.Close()
	}
	show := newMeter(os.Stderr, "read")
	err = spool(f, r, func(n int64) { show.update(api.Progress{Done: n, Total: n + 1}) })
	show.end()
	if err != nil {
		remove()
		return "", nil, fmt.Errorf("keep the disk that is read in %s: %w", dir, err)
	}
	return f.Name(), remove, nil
}

// interruptible returns a reader that ends with ctx, even while r waits.
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	in, out := io.Pipe()
	context.AfterFunc(ctx, func() { in.CloseWithError(ctx.Err()) })
	go func() { // ends with the program, if r never returns
		_, err := io.Copy(out, r)
		out.CloseWithError(err)
	}()
	return in
}

// spool writes a stream into a file, leaving holes where it is zero.
func spool(f *os.File, r io.Reader, progress func(done int64)) error {
	buf := make([]byte, 1<<20)
	done := int64(0)
	for {
		n, err := io.ReadFull(r, buf)
		if writeErr := restore.WriteSparse(f, buf[:n], done); writeErr != nil {
			return writeErr
		}
		done += int64(n)
		progress(done)
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return f.Truncate(done)
		default:
			return err
		}
	}
}
