package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"seedbed/images"
	"seedbed/images/fsmap"
	"seedbed/images/intake"
	"seedbed/images/tile"
)

// stageNames are the stages of a capture, in their order.
var stageNames = []string{"read", "hash", "have", "compress zstd", "compress lz4", "store"}

// printStages takes 1 GiB of the disk through the stages of a capture, one after the other on one core, and prints the
// CPU time of each per GB of content.
func printStages(ctx context.Context, d *filled, folder string) error {
	f, err := os.Open(d.partition)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	m, err := fsmap.Scan(f, st.Size(), fsmap.Options{})
	if err != nil {
		return err
	}
	var spent [6]float64 // CPU seconds
	var total int64
	err = withSession(filepath.Join(folder, "stages"), func(sink intake.Sink) (err error) {
		total, err = stages(ctx, f, m.Used, sink, &spent)
		return err
	})
	if err != nil || total == 0 {
		return err
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "stage\tCPU seconds per GB")
	for i, name := range stageNames {
		fmt.Fprintf(t, "%s\t%.3f\n", name, spent[i]/(float64(total)/1e9))
	}
	return t.Flush()
}

// stages adds the CPU seconds of each stage to spent and returns how many bytes went through.
func stages(ctx context.Context, r io.ReaderAt, used []images.Extent, sink intake.Sink, spent *[6]float64) (total int64, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	buf, copied := make([]byte, 1<<20), make([]byte, 1<<20)
	for _, e := range used {
		for at := e.Offset; at+int64(len(buf)) <= e.End() && total < 1<<30; at += int64(len(buf)) {
			var tiles []intake.Tile
			var keys []images.TileKey
			for i, stage := range []func() error{
				func() error { _, err := r.ReadAt(buf, at); return err },
				func() error {
					for b := buf; len(b) > 0; b = b[images.TileLength:] {
						keys = append(keys, tile.KeyOf(b[:images.TileLength]))
					}
					return nil
				},
				func() error { _, err := sink.Have(ctx, keys); return err },
				func() error { tiles, err = encodeAll(tile.Zstd, keys, copied[:copy(copied, buf)]); return err },
				func() error { _, err := encodeAll(tile.LZ4, keys, buf); return err },
				func() error { return sink.Put(ctx, tiles) },
			} {
				before := threadSeconds()
				if err := stage(); err != nil {
					return total, err
				}
				spent[i] += threadSeconds() - before
			}
			total += int64(len(buf))
		}
	}
	return total, nil
}

func encodeAll(codec tile.Codec, keys []images.TileKey, b []byte) (tiles []intake.Tile, err error) {
	for i, k := range keys {
		e, err := tile.EncodeInPlace(codec, 0, b[i*images.TileLength:][:images.TileLength])
		if err != nil {
			return nil, err
		}
		tiles = append(tiles, intake.Tile{Key: k, Encoded: e})
	}
	return tiles, nil
}

// threadSeconds returns the CPU time of the calling thread.
func threadSeconds() float64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
