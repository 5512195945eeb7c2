package lab

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"unicode/utf16"
)

// PCI slots of what a UEFI machine boots from, so that its boot entries can name them.
const (
	nicSlot  = 0x10
	diskSlot = 0x11 // of the first disk; the others follow
)

// Constants of OVMF's variable store (UEFI 2.10 §8.2; edk2 VariableFormat.h).
const (
	storeHeaderLength    = 28     // after the firmware volume's header
	variableHeaderLength = 60     // of an authenticated variable
	variableStart        = 0x55aa // first two bytes of a variable
	variableAdded        = 0x3f   // its state
	nonVolatile          = 0x7    // NON_VOLATILE | BOOTSERVICE_ACCESS | RUNTIME_ACCESS
)

var (
	// globalVariable is EFI_GLOBAL_VARIABLE (UEFI 2.10 §3.3), as it lies in memory.
	globalVariable = unhex("61dfe48bca93d211aa0d00e098032b8c")
	// createdByFirmware marks an entry as one that OVMF would make itself, by which it makes no second one.
	createdByFirmware = unhex("4eac0881119f594d850ee21a522c59b2")
	// pciRoot is PciRoot(0x0), endOfPath the end of a device path (UEFI 2.10 §10.3).
	pciRoot   = unhex("02010c00d041030a00000000")
	endOfPath = unhex("7fff0400")
)

// withBootEntries returns the firmware variables with two boot entries: PXE over IPv4 on the machine's NIC, then its
// first disk. Left alone, OVMF tries IPv6 and HTTP between the two and waits 60 s for each.
func withBootEntries(vars []byte, mac net.HardwareAddr) ([]byte, error) {
	if len(vars) < 0x34 {
		return nil, errors.New("firmware variables: too short")
	}
	at := int(binary.LittleEndian.Uint16(vars[0x30:])) + storeHeaderLength // EFI_FIRMWARE_VOLUME_HEADER.HeaderLength
	out := append([]byte(nil), vars...)
	for {
		at = (at + 3) &^ 3
		if at+variableHeaderLength > len(out) {
			return nil, errors.New("firmware variables: the store does not end")
		}
		if binary.LittleEndian.Uint16(out[at:]) != variableStart {
			break
		}
		at += variableHeaderLength + int(binary.LittleEndian.Uint32(out[at+36:])) + int(binary.LittleEndian.Uint32(out[at+40:]))
	}
	for _, v := range []struct {
		name string
		data []byte
	}{
		{"Boot0010", loadOption(fmt.Sprintf("UEFI PXEv4 (MAC:%X)", []byte(mac)), pciNode(nicSlot), macNode(mac), ipv4Node())},
		{"Boot0011", loadOption("UEFI Misc Device", pciNode(diskSlot))},
		{"BootOrder", []byte{0x10, 0, 0x11, 0}},
	} {
		b := variable(v.name, v.data)
		copy(out[at:], b)
		at = (at + len(b) + 3) &^ 3
	}
	return out, nil
}

func variable(name string, data []byte) []byte {
	n := utf16z(name)
	b := binary.LittleEndian.AppendUint16(nil, variableStart)
	b = append(b, variableAdded, 0)
	b = binary.LittleEndian.AppendUint32(b, nonVolatile)
	b = append(b, make([]byte, 8+16+4)...) // monotonic count, time stamp, public key
	b = binary.LittleEndian.AppendUint32(b, uint32(len(n)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	b = append(b, globalVariable...)
	return append(append(b, n...), data...)
}

// loadOption is EFI_LOAD_OPTION (UEFI 2.10 §3.1.3) for a device below the PCI root.
func loadOption(description string, nodes ...[]byte) []byte {
	path := append([]byte(nil), pciRoot...)
	for _, n := range nodes {
		path = append(path, n...)
	}
	path = append(path, endOfPath...)
	b := binary.LittleEndian.AppendUint32(nil, 1) // LOAD_OPTION_ACTIVE
	b = binary.LittleEndian.AppendUint16(b, uint16(len(path)))
	b = append(append(b, utf16z(description)...), path...)
	return append(b, createdByFirmware...)
}

func pciNode(slot byte) []byte { return []byte{1, 1, 6, 0, 0, slot} }

// macNode is the MAC address of an Ethernet device (UEFI 2.10 §10.3.4.10): 32 bytes of address, 1 for Ethernet.
func macNode(mac net.HardwareAddr) []byte {
	b := make([]byte, 37)
	copy(b, []byte{3, 11, 37, 0})
	copy(b[4:], mac)
	b[36] = 1
	return b
}

// ipv4Node is an IPv4 device path without addresses (UEFI 2.10 §10.3.4.12).
func ipv4Node() []byte {
	b := make([]byte, 27)
	copy(b, []byte{3, 12, 27, 0})
	return b
}

func utf16z(s string) (b []byte) {
	for _, u := range utf16.Encode([]rune(s + "\x00")) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err) // a constant
	}
	return b
}
