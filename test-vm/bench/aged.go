package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// agedArg makes this program the child process that fills and updates a file system, in a mount namespace of its own.
const agedArg = "-make-aged"

// ageing is what that child does: fill a new file system while junk is written and deleted, or update what is there.
type ageing struct {
	Disk   string // a GPT disk with one partition
	FS     string // "ext4", "ntfs"
	Length int64  // of the partition in bytes
	Update bool
}

// updateReport says what an update changed, in bytes of files.
type updateReport struct {
	Files, Replaced, Deleted, Appended, Temporary int64
	Packages, ReplacedFiles                       int // replaced
}

// Shares of an update, of the bytes of all files: a monthly update of a Linux system.
const (
	replacedShare = 0.05
	deletedShare  = 0.0075 // of the number of files
	appendedShare = 0.0018
	tempShare     = 0.054
	fillShare     = 0.70 // of the partition
)

// makeAged makes a disk of a length with an aged file system.
func makeAged(ctx context.Context, disk, kind string, length int64) error {
	if err := truncate(disk, length); err != nil {
		return err
	}
	code := map[string]string{"ext4": "8300", "ntfs": "0700"}[kind]
	if err := tool(ctx, "gdisk", "sgdisk", "-n", fmt.Sprintf("1:%d:%d", partitionStart/512, (length-partitionTail)/512-1), "-t", "1:"+code, disk); err != nil {
		return err
	}
	_, err := runAged(ctx, ageing{Disk: disk, FS: kind, Length: length - partitionStart - partitionTail})
	return err
}

// updateAged changes the files on a disk of makeAged.
func updateAged(ctx context.Context, disk, kind string, length int64) (updateReport, error) {
	return runAged(ctx, ageing{Disk: disk, FS: kind, Length: length - partitionStart - partitionTail, Update: true})
}

func runAged(ctx context.Context, a ageing) (r updateReport, err error) {
	order, err := json.Marshal(a)
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", agedArg, string(order))
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("make or update a %s file system (as root): %w", a.FS, err)
	}
	return r, json.Unmarshal(out, &r)
}

// age is the child process.
func age(args []string) {
	err := func() (err error) {
		var a ageing
		if err := json.Unmarshal([]byte(args[0]), &a); err != nil {
			return err
		}
		ctx := context.Background()
		loop, err := exec.Command("losetup", "--find", "--show", "--offset", fmt.Sprint(partitionStart), "--sizelimit", fmt.Sprint(a.Length), a.Disk).Output()
		if err != nil {
			return fmt.Errorf("losetup: %w", err)
		}
		dev := strings.TrimSpace(string(loop))
		held, err := os.OpenFile(dev, os.O_RDWR, 0) // the loop lasts at least as long as this
		if err != nil {
			return err
		}
		defer func() {
			_ = tool(ctx, "mount", "losetup", "--detach", dev) // who detached it before us did no harm
			err = errors.Join(err, held.Close())
		}()
		if !a.Update {
			if err := format(ctx, a.FS, dev); err != nil {
				return err
			}
		}
		at := a.Disk + ".mounted"
		if err := os.Mkdir(at, 0o700); err != nil {
			return err
		}
		defer os.Remove(at)
		if err := mountAt(ctx, a.FS, dev, at); err != nil {
			return err
		}
		report, err := a.work(at)
		if err := errors.Join(err, tool(ctx, "mount", "umount", at), settled(held)); err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(report)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func format(ctx context.Context, kind, dev string) error {
	if kind == "ntfs" {
		return tool(ctx, "ntfs-3g", "mkfs.ntfs", "-Q", "-q", dev)
	}
	return tool(ctx, "e2fsprogs", "mkfs.ext4", "-q", "-F", dev)
}

func mountAt(ctx context.Context, kind, dev, at string) error {
	if err := tool(ctx, "mount", "mount", "--make-rprivate", "/"); err != nil {
		return err
	}
	if kind == "ntfs" {
		return tool(ctx, "ntfs-3g", "ntfs-3g", dev, at)
	}
	return tool(ctx, "mount", "mount", "-t", kind, dev, at)
}

// settled returns when everything is on the device. A file system in user space, which ends after umount does, keeps the
// device locked until then.
func settled(dev *os.File) error {
	if err := unix.FcntlFlock(dev.Fd(), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		return err
	}
	return dev.Sync()
}

func (a ageing) work(at string) (updateReport, error) {
	random := rand.New(rand.NewPCG(3, 14))
	if a.Update {
		return update(at, random)
	}
	return updateReport{}, fillAged(at, int64(fillShare*float64(a.Length)), random)
}

// fillAged copies files of this host, in the order of its folders, until there are limit bytes; one file in three is followed
// by junk, and half of the junk is deleted each time it is an eighth of the limit.
func fillAged(at string, limit int64, random *rand.Rand) error {
	type file struct {
		name   string
		length int64
	}
	var junk []file
	held, total := int64(0), int64(0)
	shrink := func(to int) error {
		for len(junk) > to {
			i := random.IntN(len(junk))
			if err := os.Remove(junk[i].name); err != nil {
				return err
			}
			held -= junk[i].length
			junk[i] = junk[len(junk)-1]
			junk = junk[:len(junk)-1]
		}
		return nil
	}
	litter := filepath.Join(at, "junk")
	if err := os.Mkdir(litter, 0o755); err != nil {
		return err
	}
	for round := 0; total < limit; round++ {
		before := total
		err := filepath.WalkDir("/usr", func(name string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return nil
			}
			if total >= limit {
				return filepath.SkipAll
			}
			n, err := copyFile(filepath.Join(at, fmt.Sprint(round), name), name, round*17)
			total += n
			if err != nil || random.IntN(3) > 0 {
				return err
			}
			j := file{filepath.Join(litter, fmt.Sprint(random.Uint64())), 4096 << random.IntN(8)}
			if err := os.WriteFile(j.name, make([]byte, j.length), 0o600); err != nil {
				return err
			}
			junk, held = append(junk, j), held+j.length
			if held > limit/8 {
				return shrink(len(junk) / 2)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if total == before {
			return errors.New("this host has no files in /usr")
		}
	}
	return errors.Join(shrink(0), os.Remove(litter))
}

// update replaces packages, folders with their files, by writing each file anew and renaming it over the old one, deletes
// single files, appends to logs, and writes temporary files that it deletes at the end.
func update(at string, random *rand.Rand) (r updateReport, err error) {
	lengths := map[string]int64{}
	var names []string
	err = filepath.WalkDir(at, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		r.Files += info.Size()
		lengths[name] = info.Size()
		names = append(names, name)
		return nil
	})
	if err != nil {
		return r, err
	}
	share := func(s float64) int64 { return int64(s * float64(r.Files)) }
	temp := filepath.Join(at, "tmp")
	if err := os.Mkdir(temp, 0o755); err != nil {
		return r, err
	}
	litter := func(limit int64) error {
		for r.Temporary < limit {
			n := int64(4096) << random.IntN(9)
			if err := os.WriteFile(filepath.Join(temp, fmt.Sprint(random.Uint64())), make([]byte, n), 0o600); err != nil {
				return err
			}
			r.Temporary += n
		}
		return nil
	}
	if err := litter(share(tempShare / 2)); err != nil {
		return r, err
	}
	packages, folders, err := packagesIn(at, lengths)
	if err != nil {
		return r, err
	}
	random.Shuffle(len(packages), func(i, j int) { packages[i], packages[j] = packages[j], packages[i] })
	random.Shuffle(len(folders), func(i, j int) { folders[i], folders[j] = folders[j], folders[i] })
	gone := map[string]bool{}
	for _, files := range append(packages, folders...) {
		if r.Replaced >= share(replacedShare) {
			break
		}
		total := int64(0)
		for _, name := range files {
			total += lengths[name]
		}
		if total > share(replacedShare/4) {
			continue // one package is not an update
		}
		r.Packages++
		for _, name := range files {
			n, err := copyFile(name+".new", name, 23)
			if err == nil {
				err = os.Rename(name+".new", name)
			}
			if err != nil {
				return r, err
			}
			r.Replaced += n
			r.ReplacedFiles++
			gone[name] = true
		}
	}
	if err := litter(share(tempShare)); err != nil {
		return r, err
	}
	random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names[:int(deletedShare*float64(len(names)))] {
		if !gone[name] {
			if err := os.Remove(name); err != nil {
				return r, err
			}
			r.Deleted += lengths[name]
		}
	}
	if err := appendLogs(at, share(appendedShare), &r); err != nil {
		return r, err
	}
	return r, os.RemoveAll(temp)
}

// packagesIn returns the files of each of this host's packages that were copied, in the order of names, and the others by
// folder, for hosts without packages.
func packagesIn(at string, lengths map[string]int64) (packages, rest [][]string, err error) {
	owned := map[string]bool{}
	lists, err := filepath.Glob("/var/lib/dpkg/info/*.list")
	if err != nil {
		return nil, nil, err
	}
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			return nil, nil, err
		}
		var files []string
		for name := range strings.Lines(string(b)) {
			name = filepath.Join(at, "0", strings.TrimSpace(name))
			if _, ok := lengths[name]; ok && !owned[name] {
				owned[name] = true
				files = append(files, name)
			}
		}
		if len(files) > 0 {
			packages = append(packages, files)
		}
	}
	folders := map[string][]string{}
	for name := range lengths {
		if !owned[name] {
			folders[filepath.Dir(name)] = append(folders[filepath.Dir(name)], name)
		}
	}
	for _, folder := range slices.Sorted(maps.Keys(folders)) {
		slices.Sort(folders[folder])
		rest = append(rest, folders[folder])
	}
	return packages, rest, nil
}

// appendLogs appends lines to twenty logs in turn.
func appendLogs(at string, limit int64, r *updateReport) error {
	for i := 0; r.Appended < limit; i++ {
		f, err := os.OpenFile(filepath.Join(at, fmt.Sprintf("log.%d", i%20)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		var lines strings.Builder
		for n := range 64 {
			fmt.Fprintf(&lines, "Nov 22 10:%02d:%02d host daemon[%d]: request %d answered in %d ms\n", n, i%60, i*7%5000, i*64+n, (i*n)%977)
		}
		n, err := f.WriteString(lines.String())
		r.Appended += int64(n)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
