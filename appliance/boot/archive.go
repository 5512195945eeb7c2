package boot

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"seedbed/appliance/job"
)

// File modes of the archive (Linux, include/uapi/linux/stat.h).
const (
	modeDir  = 0o040755
	modeFile = 0o100600
)

// tokenArchive packs b as job.BootFile into an uncompressed cpio archive, which the kernel unpacks after the initramfs
// (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
func tokenArchive(b job.Boot) ([]byte, error) {
	content, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	var w bytes.Buffer
	name := strings.TrimPrefix(job.BootFile, "/")
	ino := 1
	for i, c := range name {
		if c == '/' {
			writeEntry(&w, ino, modeDir, name[:i], nil)
			ino++
		}
	}
	writeEntry(&w, ino, modeFile, name, content)
	writeEntry(&w, 0, 0, "TRAILER!!!", nil)
	return w.Bytes(), nil
}

// writeEntry appends one file in the "newc" form: 13 fields of 8 hexadecimal digits, name with a closing zero, content,
// the last two padded to 4 bytes (same source).
func writeEntry(w *bytes.Buffer, ino, mode int, name string, content []byte) {
	links := 1
	fmt.Fprintf(w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		ino, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	w.WriteString(name)
	w.WriteByte(0)
	pad(w)
	w.Write(content)
	pad(w)
}

func pad(w *bytes.Buffer) {
	for w.Len()%4 != 0 {
		w.WriteByte(0)
	}
}
