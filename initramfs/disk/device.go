package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Device is an open disk, or a file that stands for one. Safe for concurrent use.
type Device struct {
	// Name is for people: "vda". Length is in bytes, SectorLength the logical sector.
	Name         string
	Length       int64
	SectorLength int
	// Rotational says that the disk has heads to move.
	Rotational bool

	f     *os.File
	block bool   // a block device, not a file
	queue string // its folder "queue" in sysfs, of a block device

	fence   atomic.Pointer[error]
	written atomic.Int64 // bytes
	noZero  atomic.Bool  // the device refused to zero a range by itself
	observe func(Change) (ended func(), err error)

	mu     sync.Mutex // guards active, since and busy
	active int        // writes under way
	since  time.Time  // when active left 0
	busy   time.Duration
}

// ErrFenced says that a disk is not written any more, since something failed before.
var ErrFenced = errors.New("the disk is not touched any more after an error")

// Open opens a disk for this process alone: a disk that is mounted or part of an array is an error. A regular file is
// a disk of sectors of 512 bytes.
func Open(path, name string) (*Device, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", name, err)
	}
	d := &Device{Name: name, f: f, SectorLength: 512}
	if err := d.measure(); err != nil {
		f.Close()
		return nil, fmt.Errorf("open disk %s: %w", name, err)
	}
	return d, nil
}

func (d *Device) measure() error {
	info, err := d.f.Stat()
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() {
		d.Length = info.Size()
		return nil
	}
	d.block = true
	if d.SectorLength, err = unix.IoctlGetInt(int(d.f.Fd()), unix.BLKSSZGET); err != nil {
		return fmt.Errorf("ask for its sector length: %w", err)
	}
	if d.Length, err = d.f.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("ask for its length: %w", err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(d.f.Fd()), &stat); err != nil {
		return fmt.Errorf("ask for its number: %w", err)
	}
	d.queue = fmt.Sprintf("/sys/dev/block/%d:%d/queue", unix.Major(stat.Rdev), unix.Minor(stat.Rdev))
	d.Rotational = readInt(d.queue, "rotational") == 1
	return nil
}

// Close closes the disk.
func (d *Device) Close() error { return d.f.Close() }

// Fence makes every later write fail with ErrFenced and reason. The first reason is kept.
func (d *Device) Fence(reason error) {
	err := fmt.Errorf("%w: %w", ErrFenced, reason)
	d.fence.CompareAndSwap(nil, &err)
}

// Written returns the bytes written, zeros included, and the time in which at least one write or flush was under way.
func (d *Device) Written() (bytes int64, busy time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	busy = d.busy
	if d.active > 0 {
		busy += time.Since(d.since)
	}
	return d.written.Load(), busy
}

// Change is one change that a disk is asked for. Bytes are what is written at Offset, nil where Length bytes are made zero;
// a Flush makes durable what had ended before it began.
type Change struct {
	Offset, Length int64
	Bytes          []byte
	Flush          bool
}

// Observe has f called before each change, on the goroutine that makes it, and what f returns when the change has ended;
// an error of f takes the place of the change. Call it before anything is written. Tests learn by it what a power cut
// would leave.
func (d *Device) Observe(f func(Change) (ended func(), err error)) { d.observe = f }

// begin counts a write as under way; the function it returns counts it as over.
func (d *Device) begin(c Change) (end func(), err error) {
	if err := d.fence.Load(); err != nil {
		return nil, *err
	}
	ended := func() {}
	if d.observe != nil {
		if ended, err = d.observe(c); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.active++; d.active == 1 {
		d.since = time.Now()
	}
	return func() { d.end(); ended() }, nil
}

func (d *Device) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.active--; d.active == 0 {
		d.busy += time.Since(d.since)
	}
}

// ReadAt reads through the page cache (io.ReaderAt).
func (d *Device) ReadAt(b []byte, offset int64) (int, error) {
	n, err := d.f.ReadAt(b, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("read disk %s at byte %d: %w", d.Name, offset, err)
	}
	return n, err
}

// WriteAt writes through the page cache and asks the kernel to begin moving the bytes to the disk, so that they do not
// pile up in memory (io.WriterAt). Bytes outside the disk are an error and nothing is written.
func (d *Device) WriteAt(b []byte, offset int64) (int, error) {
	if err := d.inside(offset, int64(len(b))); err != nil {
		return 0, err
	}
	end, err := d.begin(Change{Offset: offset, Length: int64(len(b)), Bytes: b})
	if err != nil {
		return 0, err
	}
	defer end()
	n, err := d.f.WriteAt(b, offset)
	d.written.Add(int64(n))
	if err != nil {
		return n, fmt.Errorf("write disk %s at byte %d: %w", d.Name, offset, err)
	}
	// A hint only: errors of the write-back itself come out of Sync.
	_ = unix.SyncFileRange(int(d.f.Fd()), offset, int64(len(b)), unix.SYNC_FILE_RANGE_WRITE)
	return n, nil
}

// WriteParts is WriteAt of parts one behind the other.
func (d *Device) WriteParts(parts [][]byte, offset int64) error {
	if d.observe != nil && len(parts) > 1 { // who observes sees one write
		parts = [][]byte{bytes.Join(parts, nil)}
	}
	if len(parts) == 1 {
		_, err := d.WriteAt(parts[0], offset)
		return err
	}
	length := int64(0)
	for i := range parts {
		length += int64(len(parts[i]))
	}
	if err := d.inside(offset, length); err != nil {
		return err
	}
	if length == 0 {
		return nil
	}
	end, err := d.begin(Change{Offset: offset, Length: length})
	if err != nil {
		return err
	}
	defer end()
	for at := offset; len(parts) > 0; {
		n, err := d.pwritev(parts[:min(len(parts), maxParts)], at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return fmt.Errorf("write disk %s at byte %d: %w", d.Name, at, err)
		}
		d.written.Add(int64(n))
		at, parts = at+int64(n), after(parts, n)
	}
	_ = unix.SyncFileRange(int(d.f.Fd()), offset, length, unix.SYNC_FILE_RANGE_WRITE)
	return nil
}

func (d *Device) pwritev(parts [][]byte, offset int64) (n int, err error) {
	raw, err := d.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	closed := raw.Write(func(fd uintptr) bool {
		n, err = unix.Pwritev(int(fd), parts, offset)
		return true
	})
	return n, errors.Join(closed, err)
}

// maxParts is how many parts one pwritev(2) takes: IOV_MAX of limits.h.
const maxParts = 1024

// after returns what lies behind the first n bytes of parts.
func after(parts [][]byte, n int) [][]byte {
	for len(parts) > 0 && n >= len(parts[0]) {
		n, parts = n-len(parts[0]), parts[1:]
	}
	if n > 0 {
		parts = slices.Clone(parts)
		parts[0] = parts[0][n:]
	}
	return parts
}

func (d *Device) inside(offset, length int64) error {
	if offset < 0 || length < 0 || offset > d.Length-length {
		return fmt.Errorf("write disk %s: bytes [%d, %d) are outside its %d bytes", d.Name, offset, offset+length, d.Length)
	}
	return nil
}

// zeroPage is the unit in which zeros are written where the device cannot make them itself.
var zeroPage = make([]byte, 256<<10)

// Zero makes a byte range read as zeros: by BLKZEROOUT, which many disks do without moving data, else by writing them.
func (d *Device) Zero(offset, length int64) error {
	if err := d.inside(offset, length); err != nil {
		return err
	}
	sector := int64(d.SectorLength)
	if length > 0 && d.block && !d.noZero.Load() && offset%sector == 0 && length%sector == 0 {
		if done, err := d.zeroOut(offset, length); done || err != nil {
			return err
		}
		d.noZero.Store(true)
	}
	for length > 0 {
		n := min(length, int64(len(zeroPage)))
		if _, err := d.WriteAt(zeroPage[:n], offset); err != nil {
			return err
		}
		offset, length = offset+n, length-n
	}
	return nil
}

// zeroOut asks the kernel for zeros (BLKZEROOUT, linux/fs.h: two 64-bit numbers, offset and length in bytes). done is
// false where the device does not know the request.
func (d *Device) zeroOut(offset, length int64) (done bool, err error) {
	end, err := d.begin(Change{Offset: offset, Length: length})
	if err != nil {
		return false, err
	}
	defer end()
	arg := [2]uint64{uint64(offset), uint64(length)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.f.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&arg[0])))
	switch errno {
	case 0:
		d.written.Add(length)
		return true, nil
	case unix.EOPNOTSUPP, unix.ENOTTY, unix.EINVAL:
		return false, nil
	}
	return false, fmt.Errorf("zero disk %s at byte %d: %w", d.Name, offset, errno)
}

// Sync returns when everything written is durable: written back, and the disk's own cache flushed.
func (d *Device) Sync() error {
	end, err := d.begin(Change{Flush: true})
	if err != nil {
		return err
	}
	defer end()
	if err := d.f.Sync(); err != nil {
		return fmt.Errorf("flush disk %s: %w", d.Name, err)
	}
	return nil
}

// RereadTable makes the kernel read the partition table anew (BLKRRPART). Of a file there is nothing to read.
func (d *Device) RereadTable() error {
	if !d.block {
		return nil
	}
	if err := unix.IoctlSetInt(int(d.f.Fd()), unix.BLKRRPART, 0); err != nil {
		return fmt.Errorf("read the table of disk %s anew: %w", d.Name, err)
	}
	return nil
}
