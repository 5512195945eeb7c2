package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"

	"seedbed/images/restore"
)

// checkName refuses what is no name of a file here, although it looks like one: devices, streams of a file, and names that
// Windows changes.
func checkName(path string) error {
	name := filepath.Base(path)
	if strings.HasPrefix(path, `\\.\`) {
		return fmt.Errorf(`%s is no disk; name a file, or a whole disk as in \\.\PhysicalDrive1 (diskpart lists them: list disk)`, path)
	}
	if !filepath.IsLocal(name) || strings.ContainsAny(name, `<>:"|?*`) || strings.TrimRight(name, ". ") != name {
		return fmt.Errorf("%q cannot be the name of a file on Windows; choose another", name)
	}
	return nil
}

// mayWriteIn returns why no file can be made in a folder.
func mayWriteIn(dir string) error {
	f, err := os.CreateTemp(dir, ".seedbed-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// isOwn reports whether a file is this user's, or the administrators', as what one of them makes is.
func isOwn(path string, _ fs.FileInfo) bool {
	d, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return false
	}
	owner, _, err := d.Owner()
	if err != nil {
		return false
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	return err == nil && owner.Equals(user.User.Sid) || owner.IsWellKnown(windows.WinBuiltinAdministratorsSid)
}

// openPart opens the file in the making, or makes it, which fails where there is one.
func openPart(path string, create bool) (*os.File, error) {
	return restore.OpenShared(path, true, create)
}

// roomFor returns the bytes that are free in the file system of a file, and those that the file has of it.
func roomFor(f *os.File) (free, allocated int64, err error) {
	dir, err := windows.UTF16PtrFromString(filepath.Dir(f.Name()))
	if err != nil {
		return 0, 0, err
	}
	var left uint64
	if err := windows.GetDiskFreeSpaceEx(dir, &left, nil, nil); err != nil {
		return 0, 0, err
	}
	var info struct { // FILE_STANDARD_INFO
		allocation, end int64
		links           uint32
		deleting, dir   bool
	}
	err = windows.GetFileInformationByHandleEx(windows.Handle(f.Fd()), windows.FileStandardInfo, (*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	return int64(left), info.allocation, err
}

// isFull reports whether an error says that a file system has no room.
func isFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) || errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}

// keepPrivate makes a file that only its owner may read: there are no modes here, and folders pass on who may read.
func keepPrivate(path string) error {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return err
	}
	// All access for this user, the system and administrators, and nothing from the folder.
	d, err := windows.SecurityDescriptorFromString("D:P(A;;FA;;;" + user.User.Sid.String() + ")(A;;FA;;;SY)(A;;FA;;;BA)")
	if err != nil {
		return err
	}
	list, _, err := d.DACL()
	if err != nil {
		return err
	}
	const what = windows.DACL_SECURITY_INFORMATION | windows.PROTECTED_DACL_SECURITY_INFORMATION
	return windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, what, nil, nil, list, nil)
}
