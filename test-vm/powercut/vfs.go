package powercut

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// The file layer is registered once for the process, as the default one; it hands files outside all disks to the driver's own
// without looking at them. The functions below have the signatures of sqlite3_vfs and sqlite3_io_methods (sqlite.org/c3ref).
var layer struct {
	once sync.Once
	err  error
	real uintptr // sqlite3_vfs of the driver

	mu      sync.Mutex          // guards what follows
	disks   map[string]*Disk    // by folder
	open    map[uintptr]*opened // by sqlite3_file
	methods map[uintptr]uintptr // ours by the driver's
}

// opened is a file that SQLite has open.
type opened struct {
	disk   *Disk
	file   *file
	driver *sqlite3.Tsqlite3_io_methods
}

// pointer turns an address that the database handed out, outside the heap of Go, into a pointer.
func pointer[T any](address uintptr) *T {
	return *(**T)(unsafe.Pointer(&address))
}

// function is the address of a function as transpiled C has it, and called is its reverse.
func function[F any](f F) uintptr                 { return *(*uintptr)(unsafe.Pointer(&f)) }
func called[F any](address uintptr) F             { return *(*F)(unsafe.Pointer(&address)) }
func path(address uintptr) string                 { return strings.Clone(libc.GoString(address)) }
func vfsOf(address uintptr) *sqlite3.Tsqlite3_vfs { return pointer[sqlite3.Tsqlite3_vfs](address) }

type (
	openFunction     = func(tls *libc.TLS, vfs, name, file uintptr, flags int32, outFlags uintptr) int32
	deleteFunction   = func(tls *libc.TLS, vfs, name uintptr, syncDir int32) int32
	closeFunction    = func(tls *libc.TLS, file uintptr) int32
	writeFunction    = func(tls *libc.TLS, file, from uintptr, length int32, offset int64) int32
	truncateFunction = func(tls *libc.TLS, file uintptr, size int64) int32
	syncFunction     = func(tls *libc.TLS, file uintptr, flags int32) int32
)

func mount(d *Disk) error {
	layer.once.Do(register)
	if layer.err != nil {
		return layer.err
	}
	layer.mu.Lock()
	defer layer.mu.Unlock()
	if layer.disks[d.dir] != nil {
		return fmt.Errorf("%s is the folder of another disk already", d.dir)
	}
	layer.disks[d.dir] = d
	return nil
}

func unmount(dir string) {
	layer.mu.Lock()
	defer layer.mu.Unlock()
	delete(layer.disks, dir)
}

func register() {
	layer.disks, layer.open, layer.methods = map[string]*Disk{}, map[uintptr]*opened{}, map[uintptr]uintptr{}
	tls := libc.NewTLS()
	defer tls.Close()
	if rc := sqlite3.Xsqlite3_initialize(tls); rc != sqlite3.SQLITE_OK {
		layer.err = fmt.Errorf("SQLite does not start: code %d", rc)
		return
	}
	layer.real = sqlite3.Xsqlite3_vfs_find(tls, 0)
	own := libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_vfs{})))
	name, err := libc.CString("powercut")
	if layer.real == 0 || own == 0 || err != nil {
		layer.err = fmt.Errorf("SQLite has no file layer: %v", err)
		return
	}
	v := vfsOf(own)
	*v = *vfsOf(layer.real)
	v.FpNext, v.FzName = 0, name
	v.FxOpen, v.FxDelete = function[openFunction](openFile), function[deleteFunction](deleteFile)
	if rc := sqlite3.Xsqlite3_vfs_register(tls, own, 1); rc != sqlite3.SQLITE_OK {
		layer.err = fmt.Errorf("SQLite does not take another file layer: code %d", rc)
	}
}

// diskOf returns the disk of a path, or nil.
func diskOf(path string) *Disk {
	layer.mu.Lock()
	defer layer.mu.Unlock()
	return layer.disks[filepath.Dir(path)]
}

// openFile has the driver open a file, and puts our methods in the place of its own.
func openFile(tls *libc.TLS, _, name, at uintptr, flags int32, outFlags uintptr) int32 {
	open := called[openFunction](vfsOf(layer.real).FxOpen)
	var d *Disk
	if name != 0 {
		d = diskOf(path(name))
	}
	if d == nil {
		return open(tls, layer.real, name, at, flags, outFlags)
	}
	if d.IsOff() {
		pointer[sqlite3.Tsqlite3_file](at).FpMethods = 0
		return sqlite3.SQLITE_IOERR
	}
	f := d.open(path(name), flags&(sqlite3.SQLITE_OPEN_WAL|sqlite3.SQLITE_OPEN_MAIN_JOURNAL) != 0)
	rc := open(tls, layer.real, name, at, flags, outFlags)
	if rc != sqlite3.SQLITE_OK {
		return rc
	}
	methods := &pointer[sqlite3.Tsqlite3_file](at).FpMethods
	layer.mu.Lock()
	defer layer.mu.Unlock()
	layer.open[at] = &opened{d, f, pointer[sqlite3.Tsqlite3_io_methods](*methods)}
	*methods = ours(tls, *methods)
	return rc
}

// ours returns the driver's methods with our own among them. The caller holds layer.mu.
func ours(tls *libc.TLS, driver uintptr) uintptr {
	if own := layer.methods[driver]; own != 0 {
		return own
	}
	own := libc.Xcalloc(tls, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_io_methods{})))
	m := pointer[sqlite3.Tsqlite3_io_methods](own)
	*m = *pointer[sqlite3.Tsqlite3_io_methods](driver)
	m.FiVersion = min(m.FiVersion, 2) // without memory maps of the database, whose writes nobody sees
	m.FxClose, m.FxWrite = function[closeFunction](closeFile), function[writeFunction](writeFile)
	m.FxTruncate, m.FxSync = function[truncateFunction](truncateFile), function[syncFunction](syncFile)
	layer.methods[driver] = own
	return own
}

func openedAt(at uintptr) *opened {
	layer.mu.Lock()
	defer layer.mu.Unlock()
	return layer.open[at]
}

func closeFile(tls *libc.TLS, at uintptr) int32 {
	layer.mu.Lock()
	o := layer.open[at]
	delete(layer.open, at)
	layer.mu.Unlock()
	return called[closeFunction](o.driver.FxClose)(tls, at)
}

func writeFile(tls *libc.TLS, at, from uintptr, length int32, offset int64) int32 {
	o := openedAt(at)
	bytes := append([]byte{}, unsafe.Slice(pointer[byte](from), length)...)
	if !o.disk.write(o.file, write{offset, bytes}) {
		return sqlite3.SQLITE_IOERR_WRITE
	}
	return called[writeFunction](o.driver.FxWrite)(tls, at, from, length, offset)
}

func truncateFile(tls *libc.TLS, at uintptr, size int64) int32 {
	o := openedAt(at)
	if !o.disk.write(o.file, write{offset: size}) {
		return sqlite3.SQLITE_IOERR_TRUNCATE
	}
	return called[truncateFunction](o.driver.FxTruncate)(tls, at, size)
}

// syncFile leaves the real disk in peace: what counts is what this one keeps.
func syncFile(_ *libc.TLS, at uintptr, _ int32) int32 {
	if o := openedAt(at); !o.disk.sync(o.file) {
		return sqlite3.SQLITE_IOERR_FSYNC
	}
	return sqlite3.SQLITE_OK
}

func deleteFile(tls *libc.TLS, _, name uintptr, syncDir int32) int32 {
	if d := diskOf(path(name)); d != nil && !d.remove(path(name), syncDir != 0) {
		return sqlite3.SQLITE_IOERR_DELETE
	}
	return called[deleteFunction](vfsOf(layer.real).FxDelete)(tls, layer.real, name, syncDir)
}
