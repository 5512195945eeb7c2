package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"os"
	"path/filepath"
)

// dbVariable is the firmware's list of what may start (UEFI 2.10 §32.6.1, EFI_IMAGE_SECURITY_DATABASE).
const dbVariable = "db-d719b2cb-3d3a-4596-a3bc-dad00e67656f"

// certX509 is EFI_CERT_X509_GUID as bytes (UEFI 2.10 §32.4.1), a5c059a1-94e4-4aa7-87b5-ab155c2bf072.
var certX509 = []byte{0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72}

// maxNames bounds the names that are told.
const maxNames = 32

// secureBootDB returns the names of the certificates by which the firmware starts programs; none if it cannot be read.
func secureBootDB(dir string) (names []string) {
	b, err := os.ReadFile(filepath.Join(dir, dbVariable))
	if err != nil || len(b) < 4 {
		return nil
	}
	b = b[4:] // attributes, as efivarfs puts them before
	// EFI_SIGNATURE_LIST: type (16), length of the list, of its header, of a signature (4 each); a signature is its owner (16) and data.
	for len(b) >= 28 && len(names) < maxNames {
		length, header, one := int64(binary.LittleEndian.Uint32(b[16:])), int64(binary.LittleEndian.Uint32(b[20:])), int64(binary.LittleEndian.Uint32(b[24:]))
		if length < 28 || length > int64(len(b)) || header > length-28 {
			return names
		}
		list := b[28+header : length]
		for bytes.Equal(b[:16], certX509) && one > 16 && int64(len(list)) >= one && len(names) < maxNames {
			if c, err := x509.ParseCertificate(list[16:one]); err == nil {
				names = append(names, c.Subject.CommonName)
			}
			list = list[one:]
		}
		b = b[length:]
	}
	return names
}
