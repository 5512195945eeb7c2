package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"

	"seedbed/images"
	"seedbed/images/capture"
	"seedbed/images/intake"
	"seedbed/images/repository"
	"seedbed/images/tile"
)

// contest is what a child process does.
type contest struct {
	Parts         []string
	Folder, Codec string
	Profile       string // file; "" makes none
}

type contestResult struct {
	Stored     int64 // encoded bytes of tiles
	PeakMemory int64 // VmHWM, bytes
}

// contend is the child process: one capture, its result on standard output.
func contend(args []string) {
	err := func() error {
		var order contest
		if err := json.Unmarshal([]byte(args[0]), &order); err != nil {
			return err
		}
		if order.Profile != "" {
			f, err := os.Create(order.Profile)
			if err != nil {
				return err
			}
			defer f.Close()
			if err := pprof.StartCPUProfile(f); err != nil {
				return err
			}
			defer pprof.StopCPUProfile()
		}
		result, err := captureOnce(order)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(result)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func captureOnce(order contest) (r contestResult, err error) {
	disk, length, err := openParts(order.Parts)
	if err != nil {
		return r, err
	}
	codec, err := tile.ParseCodec(order.Codec)
	if err != nil {
		return r, err
	}
	err = withSession(order.Folder, func(sink intake.Sink) error {
		result, err := capture.Disk(context.Background(), disk, length, 512, sink, capture.Options{Codec: codec})
		if err == nil {
			r.Stored = result.NewLength
		}
		return err
	})
	if err == nil {
		r.PeakMemory, err = peakResident()
	}
	return r, err
}

// withSession opens a repository and closes it behind fn.
func withSession(folder string, fn func(intake.Sink) error) error {
	bucket, err := repository.OpenDir(filepath.Join(folder, "repository"))
	if err != nil {
		return err
	}
	ctx := context.Background()
	repo, err := repository.Open(ctx, bucket, repository.Config{Spool: filepath.Join(folder, "spool")})
	if err != nil {
		return err
	}
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	session, err := repo.Begin(ctx, repository.SessionConfig{Name: "bench", Sign: func(m []byte) []byte { return images.Sign(key, m) }})
	if err != nil {
		return errors.Join(err, repo.Close())
	}
	return errors.Join(fn(session), session.Close(), repo.Close())
}

// joined are files that follow one another.
type joined struct {
	files   []*os.File
	lengths []int64
}

func openParts(names []string) (*joined, int64, error) {
	j, total := &joined{}, int64(0)
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return nil, 0, err
		}
		st, err := f.Stat()
		if err != nil {
			return nil, 0, err
		}
		j.files, j.lengths = append(j.files, f), append(j.lengths, st.Size())
		total += st.Size()
	}
	return j, total, nil
}

// ReadAt implements io.ReaderAt.
func (j *joined) ReadAt(b []byte, offset int64) (done int, err error) {
	for i, f := range j.files {
		if offset >= j.lengths[i] {
			offset -= j.lengths[i]
			continue
		}
		n := int(min(int64(len(b)-done), j.lengths[i]-offset))
		if n, err = f.ReadAt(b[done:done+n], offset); err != nil && err != io.EOF {
			return done + n, err
		}
		if done += n; done == len(b) {
			return done, nil
		}
		offset = 0
	}
	return done, io.EOF
}

// peakResident returns the most memory that this process had.
func peakResident() (int64, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			var kib int64
			_, err := fmt.Sscan(rest, &kib)
			return kib << 10, err
		}
	}
	return 0, errors.New("/proc/self/status has no VmHWM")
}
