package source

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
)

// format is a kind of disk file.
type format struct {
	name string // "raw", "qcow2", ...
	qemu string // its name in QEMU
}

// compressed are kinds of packed files, which have no random access, by their first bytes.
var compressed = []struct{ magic, name, remedy string }{
	{"\x1f\x8b", "gzip", "gunzip"}, {"\x28\xb5\x2f\xfd", "zstd", "unzstd"}, {"\xfd7zXZ\x00", "xz", "unxz"}, {"BZh", "bzip2", "bunzip2"},
	{"PK\x03\x04", "zip", "unzip"}, {"7z\xbc\xaf\x27\x1c", "7z", "7z x"}, {"\x04\x22\x4d\x18", "lz4", "unlz4"},
}

// recognise tells the kind of a file by its content, never by its name, and refuses what must not be opened.
func recognise(f *os.File) (format, error) {
	st, err := f.Stat()
	if err != nil {
		return format{}, err
	}
	head := make([]byte, 64<<10)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return format{}, err
	}
	head = head[:n]
	if n == 0 {
		return format{}, fmt.Errorf("%w: it is empty", ErrFormat)
	}
	starts := func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) }
	for _, c := range compressed {
		if starts(c.magic) {
			return format{}, fmt.Errorf("%w: it is packed with %s; unpack it first (%s)", ErrFormat, c.name, c.remedy)
		}
	}
	switch {
	case starts("QFI\xfb"):
		return format{"qcow2", "qcow2"}, checkQcow2(head)
	case starts("vhdxfile"):
		return format{"vhdx", "vhdx"}, nil // QEMU refuses those with a parent
	case starts("KDMV"), starts("COWD"):
		return format{"vmdk", "vmdk"}, checkVMDK(f, head)
	case starts("# Disk DescriptorFile"):
		return format{}, fmt.Errorf("%w: it is the description of a VMDK whose content is elsewhere; make one file of it on the host it comes from "+
			"(vmkfstools -i, or qemu-img convert -O qcow2 where all its files are yours)", ErrForeign)
	case len(head) >= 0x44 && le.Uint32(head[0x40:]) == 0xbeda107f: // VDI signature
		return format{"vdi", "vdi"}, checkVDI(head)
	case starts("conectix"):
		return format{"vhd", "vpc"}, checkVHD(head)
	case starts("QED\x00"), starts("WithoutFreeSpace"), starts("WithouFreSpacExt"):
		return format{}, fmt.Errorf("%w: make a qcow2 of it first: qemu-img convert -O qcow2 OLD NEW", ErrFormat)
	case starts("EVF\x09\x0d\x0a\xff\x00"):
		return format{}, fmt.Errorf("%w: it is an EnCase image; make a raw file of it first (ewfexport)", ErrFormat)
	}
	// A fixed VHD is raw with a footer of 512 bytes behind it.
	if footer := make([]byte, 512); st.Size() > 512 && st.Size()%512 == 0 {
		if _, err := f.ReadAt(footer, st.Size()-512); err != nil {
			return format{}, err
		}
		if string(footer[:8]) == "conectix" {
			return format{"vhd", "vpc"}, checkVHD(footer)
		}
	}
	return format{"raw", "raw"}, nil
}

var errCutHeader = fmt.Errorf("%w: its header is cut off", ErrFormat)

// checkQcow2 refuses what makes QEMU open other files (docs/interop/qcow2.txt of QEMU, "Header").
func checkQcow2(b []byte) error {
	if len(b) < 72 {
		return errCutHeader
	}
	version := be.Uint32(b[4:])
	if version < 2 || version > 3 {
		return fmt.Errorf("%w: it is qcow version %d; versions 2 and 3 are read", ErrFormat, version)
	}
	if be.Uint64(b[8:]) != 0 {
		return fmt.Errorf("%w: it is only what differs from a backing file; make one file of both first: qemu-img convert -O qcow2 OLD NEW", ErrForeign)
	}
	if be.Uint32(b[32:]) != 0 {
		return fmt.Errorf("%w: it is encrypted; decrypt it first: qemu-img convert", ErrFormat)
	}
	if version == 2 {
		return nil
	}
	if len(b) < 104 {
		return errCutHeader
	}
	const corrupt, external = 1 << 1, 1 << 2
	switch features := be.Uint64(b[72:]); {
	case features&external != 0:
		return fmt.Errorf("%w: its content is in a data file of its own; make one file of both first: qemu-img convert -O qcow2 OLD NEW", ErrForeign)
	case features&corrupt != 0:
		return fmt.Errorf("%w: it is marked as corrupt; repair it first: qemu-img check -r all", ErrFormat)
	}
	return nil
}

// checkVHD refuses disks that are differences to a parent, which QEMU would read as zeros (VHD specification, "Hard Disk
// Footer Format").
func checkVHD(b []byte) error {
	if len(b) < 64 {
		return errCutHeader
	}
	if kind := be.Uint32(b[60:]); kind != 2 && kind != 3 { // fixed, dynamic
		return fmt.Errorf("%w: it is only what differs from its parent (kind %d); merge them first", ErrForeign, kind)
	}
	return nil
}

// checkVDI refuses disks that are differences to a parent.
func checkVDI(b []byte) error {
	if len(b) < 0x50 {
		return errCutHeader
	}
	if kind := le.Uint32(b[0x4c:]); kind != 1 && kind != 2 { // normal, fixed
		return fmt.Errorf("%w: it is only what differs from its parent (kind %d); merge them first: VBoxManage clonemedium", ErrForeign, kind)
	}
	return nil
}

var (
	vmdkType   = regexp.MustCompile(`(?m)^\s*createType\s*=\s*"([^"]*)"`)
	vmdkParent = regexp.MustCompile(`(?i)parentFileNameHint`)
)

// checkVMDK refuses disks whose description names other files (VMware Virtual Disk Format 5.0, "Hosted Sparse Extent Header"
// and "The Descriptor File").
func checkVMDK(f io.ReaderAt, head []byte) error {
	if len(head) < 512 || !bytes.HasPrefix(head, []byte("KDMV")) {
		return fmt.Errorf("%w: it is one extent of a VMDK; give it as one file (monolithicSparse or streamOptimized)", ErrFormat)
	}
	capacity, at, length := le.Uint64(head[12:]), le.Uint64(head[28:]), le.Uint64(head[36:]) // in sectors of 512 bytes
	if capacity == 0 || at == 0 || length == 0 || length > 2048 || at > 1<<40 {
		return fmt.Errorf("%w: it has no description of its own within 1 MiB", ErrForeign)
	}
	b := make([]byte, length*512)
	if _, err := f.ReadAt(b, int64(at)*512); err != nil {
		return fmt.Errorf("%w: its description at byte %d is cut off", ErrFormat, at*512)
	}
	kind := vmdkType.FindSubmatch(b)
	b = append(b, head[512:min(len(head), 512+20*512)]...) // where QEMU looks for a parent, whatever the header says
	if kind == nil || (string(kind[1]) != "monolithicSparse" && string(kind[1]) != "streamOptimized") || vmdkParent.Match(b) {
		return fmt.Errorf("%w: only a VMDK that is one file is read (monolithicSparse, streamOptimized) and has no parent; make one with qemu-img convert", ErrForeign)
	}
	return nil
}
