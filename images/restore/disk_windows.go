package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Requests of winioctl.h.
const (
	ioctlDiskGetGeometry     = 0x00070000 // IOCTL_DISK_GET_DRIVE_GEOMETRY
	ioctlDiskGetLength       = 0x0007405c // IOCTL_DISK_GET_LENGTH_INFO
	ioctlDiskUpdate          = 0x00070140 // IOCTL_DISK_UPDATE_PROPERTIES
	ioctlVolumeGetExtents    = 0x00560000 // IOCTL_VOLUME_GET_VOLUME_DISK_EXTENTS
	ioctlStorageDeviceNumber = 0x002d1080 // IOCTL_STORAGE_GET_DEVICE_NUMBER
)

var physicalDrive = regexp.MustCompile(`(?i)^\\\\[.?]\\PhysicalDrive\d+$`)

// IsDevice reports whether a path is a disk and not a file. Stat says nothing of a disk here: its name does.
func IsDevice(path string, _ os.FileInfo) bool { return physicalDrive.MatchString(path) }

// openFile opens a disk; to write, only one on which no volume is mounted: Windows refuses to write to others, but where no
// volume lies, which is where the partition table does.
func openFile(path string, write bool) (*os.File, error) {
	f, err := OpenShared(path, write, false)
	if !IsDevice(path, nil) {
		return f, err
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w; run it as an administrator", err)
	}
	if err != nil || !write {
		return f, err
	}
	if err := unmounted(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openInUse opens a disk to write. What is mounted is refused, whoever asks.
func openInUse(path string) (*os.File, error) { return openFile(path, true) }

// OpenShared opens a file so that it can be renamed meanwhile. create makes it, and fails where there is one.
func OpenShared(path string, write, create bool) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	access, how := uint32(windows.GENERIC_READ), uint32(windows.OPEN_EXISTING)
	if write {
		access |= windows.GENERIC_WRITE
	}
	if create {
		how = windows.CREATE_NEW
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	h, err := windows.CreateFile(name, access, share, nil, how, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(h), path), nil
}

// unmounted returns ErrInUse for a disk of which a volume has a file system.
func unmounted(f *os.File) error {
	var device struct{ kind, number, partition uint32 } // STORAGE_DEVICE_NUMBER
	if _, err := control(windows.Handle(f.Fd()), ioctlStorageDeviceNumber, nil, unsafe.Pointer(&device), unsafe.Sizeof(device)); err != nil {
		return fmt.Errorf("number of the disk: %w", err)
	}
	list, err := volumesOn(device.number)
	if err != nil {
		return fmt.Errorf("look for volumes of the disk: %w", err)
	}
	if len(list) > 0 {
		return fmt.Errorf("%w: it has %s; take the disk offline first (diskpart: select disk %d, offline disk, attributes disk clear readonly), or "+
			"clear it (clean); nothing was written", ErrInUse, strings.Join(list, ", "), device.number)
	}
	return nil
}

// volumesOn returns the volumes that have a part on a disk, by their letter where they have one.
func volumesOn(disk uint32) (list []string, err error) {
	name := make([]uint16, windows.MAX_PATH+1)
	find, err := windows.FindFirstVolume(&name[0], uint32(len(name)))
	if err != nil {
		return nil, err
	}
	defer windows.FindVolumeClose(find)
	for {
		volume := windows.UTF16ToString(name)
		on, err := volumeOn(volume, disk)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", volume, err)
		}
		if on {
			list = append(list, letterOf(volume))
		}
		switch err := windows.FindNextVolume(find, &name[0], uint32(len(name))); {
		case errors.Is(err, windows.ERROR_NO_MORE_FILES):
			return list, nil
		case err != nil:
			return nil, err
		}
	}
}

// volumeOn reports whether a volume ("\\?\Volume{...}\") has a part on a disk.
func volumeOn(volume string, disk uint32) (bool, error) {
	name, err := windows.UTF16PtrFromString(strings.TrimSuffix(volume, `\`))
	if err != nil {
		return false, err
	}
	h, err := windows.CreateFile(name, 0, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, nil, windows.OPEN_EXISTING, 0, 0)
	if errors.Is(err, windows.ERROR_FILE_NOT_FOUND) || errors.Is(err, windows.ERROR_NOT_READY) {
		return false, nil // it went away this moment, or has no medium
	}
	if err != nil {
		return false, err
	}
	defer windows.CloseHandle(h)
	var found struct { // VOLUME_DISK_EXTENTS; a volume of more disks than any
		count   uint32
		extents [64]struct {
			disk             uint32
			offset, distance int64
		}
	}
	_, err = control(h, ioctlVolumeGetExtents, nil, unsafe.Pointer(&found), unsafe.Sizeof(found))
	switch {
	case errors.Is(err, windows.ERROR_INVALID_FUNCTION), errors.Is(err, windows.ERROR_NOT_SUPPORTED), errors.Is(err, windows.ERROR_NOT_READY):
		return false, nil // a CD, which lies on no disk
	case err != nil:
		return false, err
	}
	for i := range min(int(found.count), len(found.extents)) {
		if found.extents[i].disk == disk {
			return true, nil
		}
	}
	return false, nil
}

// letterOf returns where a volume is mounted, or that it is nowhere.
func letterOf(volume string) string {
	name, err := windows.UTF16PtrFromString(volume)
	paths := make([]uint16, 1024)
	var n uint32
	if err == nil {
		err = windows.GetVolumePathNamesForVolumeName(name, &paths[0], uint32(len(paths)), &n)
	}
	if path := windows.UTF16ToString(paths); err == nil && path != "" {
		return "volume " + path
	}
	return "a volume without a letter"
}

// control asks a device; n bytes were answered.
func control(h windows.Handle, request uint32, in []byte, out unsafe.Pointer, length uintptr) (n uint32, err error) {
	var first *byte
	if len(in) > 0 {
		first = &in[0]
	}
	err = windows.DeviceIoControl(h, request, first, uint32(len(in)), (*byte)(out), uint32(length), &n, nil)
	return n, err
}

// MakeSparse makes a file whose holes take no room, where the file system has such.
func MakeSparse(f *os.File) {
	_, _ = control(windows.Handle(f.Fd()), windows.FSCTL_SET_SPARSE, nil, nil, 0)
}

func unused(*os.File, os.FileInfo) error { return nil }

func adviseSequential(*os.File) {}

// zeroRange makes a range of a file zeros without writing them, and of a sparse one a hole (FSCTL_SET_ZERO_DATA).
func zeroRange(f *os.File, sector int, offset, length int64) (done bool, err error) {
	if sector != 0 {
		return false, nil
	}
	arg := [2]int64{offset, offset + length} // FILE_ZERO_DATA_INFORMATION: BeyondFinalZero
	_, err = control(windows.Handle(f.Fd()), windows.FSCTL_SET_ZERO_DATA, unsafe.Slice((*byte)(unsafe.Pointer(&arg)), unsafe.Sizeof(arg)), nil, 0)
	return err == nil, nil // else they are written
}

// measure finds the length and the sectors of a disk, and has whole ones read and written.
func (d *File) measure() error {
	var geometry struct { // DISK_GEOMETRY
		cylinders                                 int64
		media, tracksPerCylinder, sectorsPerTrack uint32
		bytesPerSector                            uint32
	}
	h := windows.Handle(d.f.Fd())
	if _, err := control(h, ioctlDiskGetGeometry, nil, unsafe.Pointer(&geometry), unsafe.Sizeof(geometry)); err != nil {
		return fmt.Errorf("sectors of the disk: %w", err)
	}
	var length int64 // GET_LENGTH_INFORMATION
	if _, err := control(h, ioctlDiskGetLength, nil, unsafe.Pointer(&length), unsafe.Sizeof(length)); err != nil {
		return fmt.Errorf("length of the disk: %w", err)
	}
	return d.inSectors(int(geometry.bytesPerSector), length)
}

func (d *File) flush() error { return d.f.Sync() }

// directAlign is the unit of reads of files past the cache: the largest sector of a disk.
const directAlign = 4096

// uncached reads past the cache (CreateFile, FILE_FLAG_NO_BUFFERING).
type uncached struct {
	*sectors
	f *os.File
}

func (u uncached) Close() error { return u.f.Close() }

func (d *File) openDirect() (DirectReader, error) {
	name, err := windows.UTF16PtrFromString(d.f.Name())
	if err != nil {
		return nil, err
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	h, err := windows.CreateFile(name, windows.GENERIC_READ, share, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_NO_BUFFERING, 0)
	if errors.Is(err, windows.ERROR_INVALID_PARAMETER) || errors.Is(err, windows.ERROR_NOT_SUPPORTED) {
		return nil, errNotDirect
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: d.f.Name(), Err: err}
	}
	f := os.NewFile(uintptr(h), d.f.Name())
	if d.IsDevice() {
		return uncached{newSectors(f, d.SectorLength, d.Length), f}, nil
	}
	end := (d.Length + directAlign - 1) &^ (directAlign - 1) // it may be asked for the sector in which the file ends
	return uncached{newSectors(f, directAlign, end), f}, nil
}

// rereadTable makes Windows look at a disk anew.
func rereadTable(f *os.File) error {
	_, err := control(windows.Handle(f.Fd()), ioctlDiskUpdate, nil, nil, 0)
	return err
}
