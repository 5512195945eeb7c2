package lab

import (
	"bytes"
	"strings"
	"testing"
)

func TestSerialLeavesOutWhatMovesATerminalsCursor(t *testing.T) {
	var log bytes.Buffer
	s := newSerial(&log)
	// In pieces, as QEMU hands it over: a sequence may be cut anywhere.
	in := "\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe: start\r\n\x1b]104\x07\x1b[!pgolden \x1b[0mlogin\x1b(B: "
	for i := range len(in) {
		if _, err := s.Write([]byte(in[i : i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := s.String(), "BdsDxe: start\ngolden login: "; got != want {
		t.Errorf("the line holds %q, not %q", got, want)
	}
	s.end()
	if got := log.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, " golden login: \n") {
		t.Errorf("log %q", got)
	}
}

func TestArgumentsPutTheNetworkBeforeTheDisks(t *testing.T) {
	for _, f := range []Firmware{BIOS, UEFI, SecureBoot} {
		m := &Machine{Config: MachineConfig{Name: "m", Firmware: f, MemoryMiB: 1024, Disks: []Disk{
			{Path: "a,b.raw", Serial: "S1"}, {Path: "c.qcow2", Bus: USB, Serial: "S2"}}}, MAC: MAC(3), tap: "tap3", vars: "m.vars"}
		got := strings.Join(arguments(m, emulation, StartOptions{StopAtReboot: true}), " ")
		wants := []string{"-no-reboot", "ifname=tap3", "mac=52:54:00:77:00:13", "file=a,,b.raw,format=raw", "format=qcow2", "usb-storage"}
		if f == BIOS {
			wants = append(wants, "bootindex=1", "drive=d0,serial=S1,bootindex=2", "drive=d1,serial=S2,bootindex=3")
		} else {
			wants = append(wants, "addr=0x10,romfile=", "addr=0x11", "file=m.vars")
		}
		for _, w := range wants {
			if !strings.Contains(got, w) {
				t.Errorf("%s: no %q in %s", f, w, got)
			}
		}
		if f != BIOS && strings.Contains(got, "bootindex") {
			t.Errorf("%s: bootindex puts IPv6 and HTTP before the disk: %s", f, got)
		}
	}
}

func TestBootEntriesAreAppendedToTheStore(t *testing.T) {
	store := make([]byte, 4096)
	for i := range store {
		store[i] = 0xff
	}
	store[0x30], store[0x31] = 0x48, 0
	first := variable("Timeout", []byte{0, 0})
	copy(store[0x48+storeHeaderLength:], first)
	got, err := withBootEntries(store, MAC(0))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(store) {
		t.Fatalf("%d bytes became %d", len(store), len(got))
	}
	for _, name := range []string{"Timeout", "Boot0010", "Boot0011", "BootOrder"} {
		if !bytes.Contains(got, utf16z(name)) {
			t.Errorf("no variable %s", name)
		}
	}
	if _, err := withBootEntries(make([]byte, 10), MAC(0)); err == nil {
		t.Error("a file that is no variable store is taken")
	}
}
