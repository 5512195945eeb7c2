package restore

import "golang.org/x/sys/windows"

// SyncFolder makes names in a folder durable: of which NTFS keeps a journal, and a folder cannot be flushed.
func SyncFolder(string) error { return nil }

// NameFile gives a whole file its name, in the same folder. One that exists is not replaced: fs.ErrExist.
func NameFile(from, to string) error {
	a, err := windows.UTF16PtrFromString(from)
	if err != nil {
		return err
	}
	b, err := windows.UTF16PtrFromString(to)
	if err != nil {
		return err
	}
	return windows.MoveFileEx(a, b, windows.MOVEFILE_WRITE_THROUGH)
}
