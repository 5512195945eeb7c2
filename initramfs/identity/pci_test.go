package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// device puts a device on the PCI bus of a tree.
func device(t *testing.T, root, slot, id, class, driver string) {
	t.Helper()
	dir := "sys/bus/pci/devices/" + slot + "/"
	put(t, root, map[string]string{dir + "class": "0x" + class + "\n", dir + "vendor": "0x" + id[:4] + "\n", dir + "device": "0x" + id[5:] + "\n"})
	if driver != "" {
		if err := os.Symlink("../../../bus/pci/drivers/"+driver, filepath.Join(root, dir, "driver")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestControllersThatHideDisksAreTold(t *testing.T) {
	root := t.TempDir()
	device(t, root, "0000:00:00.0", "8086:1237", "060000", "")
	device(t, root, "0000:00:0e.0", "8086:9a0b", "010400", "")
	device(t, root, "0000:00:17.0", "8086:2822", "010400", "ahci")
	device(t, root, "0000:01:00.0", "144d:a808", "010802", "nvme")
	device(t, root, "0000:02:00.0", "1000:005d", "010400", "megaraid_sas")
	device(t, root, "0000:03:00.0", "14e4:1234", "020000", "")
	device(t, root, "0000:04:00.0", "8086:15f3", "020000", "igc")
	put(t, root, map[string]string{"sys/bus/pci/devices/0000:00:17.0/remapped_nvme": "2\n"})
	inv := Read(root)
	var got []string
	for _, c := range inv.Controllers {
		got = append(got, fmt.Sprintf("%s %s %s %s %d %v", c.ID, c.Class, c.Driver, c.Mode, c.Hidden, c.Hides()))
	}
	want := []string{"8086:9a0b 0104  vmd 0 true", "8086:2822 0104 ahci raid 2 true", "144d:a808 0108 nvme  0 false", "1000:005d 0104 megaraid_sas  0 false"}
	if !slices.Equal(got, want) {
		t.Errorf("controllers\n%q, want\n%q", got, want)
	}
	if len(inv.NoDriver) != 1 || inv.NoDriver[0].ID != "14e4:1234" || inv.NoDriver[0].Slot != "0000:03:00.0" {
		t.Errorf("without a driver: %+v", inv.NoDriver)
	}
}

// signatureList makes an EFI_SIGNATURE_LIST of one signature.
func signatureList(kind, data []byte) []byte {
	b := slices.Clone(kind)
	for _, n := range []int{28 + 16 + len(data), 0, 16 + len(data)} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	return append(append(b, make([]byte, 16)...), data...)
}

func TestNamesOfTheFirmwaresCertificatesAreRead(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	named := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Microsoft UEFI CA 2023"}}
	der, err := x509.CreateCertificate(rand.Reader, named, named, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	sha256 := []byte("\x26\x16\xc4\xc1\x4c\x50\x92\x40\xac\xa9\x41\xf9\x36\x93\x43\x28") // EFI_CERT_SHA256_GUID
	db := append([]byte{0x27, 0, 0, 0}, signatureList(sha256, make([]byte, 32))...)
	db = append(db, signatureList(certX509, der)...)
	for n := range len(db) + 1 { // cut anywhere
		root := t.TempDir()
		if n < len(db) && n%37 != 0 {
			continue
		}
		put(t, root, map[string]string{"sys/firmware/efi/efivars/" + dbVariable: string(db[:n])})
		want := 0
		if n == len(db) {
			want = 1
		}
		if got := Read(root).SecureBootDB; len(got) != want || want == 1 && got[0] != "Microsoft UEFI CA 2023" {
			t.Errorf("of %d bytes: %q", n, got)
		}
	}
}
