package source

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// isDisk reports whether a name, of which Stat says st, is a block device.
func isDisk(_ string, st os.FileInfo) bool {
	return st != nil && st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0
}

// openDisk opens a block device and sets it read-only for as long as it is open, so that nobody changes it meanwhile.
func (s *Source) openDisk() error {
	use, err := diskInUse(s.name)
	switch {
	case err != nil:
		return err
	case use != "" && !s.live:
		return fmt.Errorf("%w: %s", ErrInUse, use)
	case use != "":
		s.Warnings = append(s.Warnings, "the disk is in use ("+use+"): the image may contradict itself")
	}
	f, err := os.Open(s.name)
	if err != nil {
		return err
	}
	s.close = append(s.close, f.Close)
	if use == "" && writtenByQEMU(f) {
		if !s.live {
			return errMachineRuns
		}
		use = machineRuns
		s.Warnings = append(s.Warnings, use+": the image may contradict itself")
	}
	s.ReaderAt, s.Format = f, "disk"
	if s.Length, err = f.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	if s.SectorLength, err = unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET); err != nil {
		return fmt.Errorf("ask for its sector: %w", err)
	}
	if use != "" {
		return nil
	}
	if err := s.protect(f); err != nil {
		return err
	}
	if use, err = diskInUse(s.name); use != "" { // by who came between
		return fmt.Errorf("%w: %s", ErrInUse, use)
	}
	return err
}

// locks counts the sources of this process that keep a disk read-only, by its number.
var locks = struct {
	sync.Mutex
	disks map[uint64]int
}{disks: map[uint64]int{}}

// protect sets the read-only flag of a disk, if it is not set, and takes it away when the last source on it is closed.
func (s *Source) protect(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	locks.Lock()
	defer locks.Unlock()
	was, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET)
	if err != nil {
		return fmt.Errorf("ask whether it is read-only: %w", err)
	}
	if was != 0 && locks.disks[st.Rdev] == 0 {
		return nil
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.BLKROSET, 1); err != nil {
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			s.Warnings = append(s.Warnings, "the disk was not set read-only for the time of the capture, which needs root: let nothing write to it")
			return nil
		}
		return fmt.Errorf("set it read-only: %w", err)
	}
	locks.disks[st.Rdev]++
	s.close = append([]func() error{func() error {
		locks.Lock()
		defer locks.Unlock()
		if locks.disks[st.Rdev]--; locks.disks[st.Rdev] > 0 {
			return nil
		}
		delete(locks.disks, st.Rdev)
		if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.BLKROSET, 0); err != nil {
			return fmt.Errorf("make %s writable again: %w; do it with blockdev --setrw", s.name, err)
		}
		return nil
	}}, s.close...)
	return nil
}

// diskInUse says how a disk, a partition of it or what is made of them is written to; "" if it is not.
func diskInUse(name string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return "", err
	}
	numbers := map[string]string{}
	gather(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), name, numbers)
	use, quiet, err := numbersInUse(numbers)
	if use != "" || quiet || err != nil {
		return use, err
	}
	// Who writes to a disk without a mount of that very disk, such as a pool of several, has claimed it (open(2), O_EXCL).
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return "the kernel holds " + name + " as a part of a pool or an array, such as btrfs, ZFS or mdraid; unmount and stop that", nil
	}
	if err == nil {
		unix.Close(fd)
	}
	return "", nil // other errors are those of the disk, which is opened next
}

// gather enters the number ("8:1") of a device, of its partitions and of what is stacked on them, with their names. What
// sysfs does not know has no such.
func gather(sys, name string, numbers map[string]string) {
	b, err := os.ReadFile(filepath.Join(sys, "dev"))
	if err != nil {
		return
	}
	number := strings.TrimSpace(string(b))
	if numbers[number] != "" {
		return
	}
	numbers[number] = name
	entries, _ := os.ReadDir(sys + "/")
	for _, e := range entries {
		if below := filepath.Join(sys, e.Name()); isFile(filepath.Join(below, "partition")) {
			gather(below, "/dev/"+e.Name(), numbers)
		}
	}
	holders, _ := os.ReadDir(filepath.Join(sys, "holders"))
	for _, e := range holders {
		gather(filepath.Join("/sys/class/block", e.Name()), "/dev/"+e.Name(), numbers)
	}
}

func isFile(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.Mode().IsRegular()
}

// numbersInUse looks for file systems mounted for writing and swap space on devices given by number. quiet says that
// something which does not write holds one of them: a file system mounted read-only, the device mapper.
func numbersInUse(numbers map[string]string) (use string, quiet bool, err error) {
	for _, name := range numbers {
		quiet = quiet || strings.HasPrefix(name, "/dev/dm-")
	}
	f, err := os.Open("/proc/self/mountinfo") // proc_pid_mountinfo(5)
	if err != nil {
		return "", quiet, fmt.Errorf("see what is mounted: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		own, super, _ := strings.Cut(lines.Text(), " - ")
		fields, last := strings.Fields(own), strings.Fields(super)
		if len(fields) < 6 || len(last) < 3 || numbers[deviceOf(fields[2], last[1])] == "" {
			continue
		}
		if strings.HasPrefix(last[2], "rw") {
			return fmt.Sprintf("%s is mounted for writing on %s; unmount it, or start the machine for a capture over the network",
				numbers[deviceOf(fields[2], last[1])], fields[4]), quiet, nil
		}
		quiet = true
	}
	if err := lines.Err(); err != nil {
		return "", quiet, err
	}
	use, err = swapInUse(numbers)
	return use, quiet, err
}

// deviceOf returns the number of a mounted device. btrfs has numbers of its own, so its device's name counts.
func deviceOf(number, source string) string {
	var st unix.Stat_t
	if strings.HasPrefix(number, "0:") && strings.HasPrefix(source, "/dev/") && unix.Stat(source, &st) == nil {
		return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	return number
}

func swapInUse(numbers map[string]string) (string, error) {
	b, err := os.ReadFile("/proc/swaps")
	if errors.Is(err, os.ErrNotExist) {
		return "", nil // a kernel without swap
	}
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		var st unix.Stat_t
		name, _, _ := strings.Cut(line, " ")
		if unix.Stat(strings.ReplaceAll(name, `\040`, " "), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
			continue
		}
		if is := numbers[fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))]; is != "" {
			return is + " is used as swap space; switch it off with swapoff", nil
		}
	}
	return "", nil
}

// fileInUse refuses a file that a loop device writes to.
func fileInUse(name string) error {
	path, err := filepath.EvalSymlinks(name)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return err
	}
	found, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return err
	}
	for _, file := range found {
		b, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(b)) != path {
			continue
		}
		sys := filepath.Dir(filepath.Dir(file))
		numbers := map[string]string{}
		gather(sys, "/dev/"+filepath.Base(sys), numbers)
		if use, _, err := numbersInUse(numbers); err != nil || use != "" {
			return errors.Join(err, fmt.Errorf("%w: %s", ErrInUse, use))
		}
	}
	return nil
}

// writtenByQEMU reports whether a virtual machine of QEMU may write to a file or disk: it then holds a lock on byte 101, for
// the right to write (block/file-posix.c of QEMU, RAW_LOCK_PERM_BASE; block-common.h, BLK_PERM_WRITE).
func writtenByQEMU(f *os.File) bool {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: 101, Len: 1}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock) == nil && lock.Type != unix.F_UNLCK
}

// inode names a file of this host, and tells when its inode changed last.
func inode(st os.FileInfo) (name string, changed time.Time) {
	u, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return "", time.Time{}
	}
	return fmt.Sprintf("%d:%d", u.Dev, u.Ino), time.Unix(u.Ctim.Unix()).UTC()
}
