package tftp

import (
	"path"
	"strings"
)

// cleanName turns a file name as firmware sends it into a slash-separated path without a leading slash.
//
// Deviations: shim writes double slashes and, from some paths, backslashes; several UNDI cards append a byte 0xFF to
// the name of the DHCP answer; Windows-minded firmware writes backslashes throughout.
func cleanName(name string) string {
	name = strings.TrimRight(name, "\xff\x00 ")
	name = strings.ReplaceAll(name, `\`, "/")
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}
