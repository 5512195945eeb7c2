package identity

import (
	"os"
	"path/filepath"
	"testing"
)

func put(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadBIOSMachine(t *testing.T) {
	root := t.TempDir()
	put(t, root, map[string]string{
		"sys/class/dmi/id/product_uuid": "00000001-1111-2222-3333-444455556666\n", "sys/class/dmi/id/sys_vendor": "LabCo\n",
		"sys/class/dmi/id/product_name": "LabBox\n", "sys/class/dmi/id/product_serial": "SN1\n",
		"proc/meminfo": "MemTotal:        1000448 kB\nMemFree:  1 kB\nMemAvailable:   700000 kB\n", "proc/cpuinfo": "processor\t: 0\nmodel\t: x\n\nprocessor\t: 1\n",
	})
	inv := Read(root)
	if inv.UUID != "00000001-1111-2222-3333-444455556666" || inv.Manufacturer != "LabCo" || inv.Product != "LabBox" || inv.Serial != "SN1" {
		t.Errorf("%+v", inv)
	}
	if got := MemoryAvailable(root); got != 700000<<10 {
		t.Errorf("%d bytes are available", got)
	}
	if inv.Firmware != "bios" || inv.SecureBoot != "" || inv.MemoryBytes != 1000448<<10 || inv.Cores != 2 {
		t.Errorf("%+v", inv)
	}
}

func TestSecureBootIsReadFromTheFirmware(t *testing.T) {
	for content, want := range map[string]string{"\x06\x00\x00\x00\x01": "on", "\x06\x00\x00\x00\x00": "off", "\x06\x00": ""} {
		root := t.TempDir()
		put(t, root, map[string]string{"sys/firmware/efi/efivars/" + secureBootVariable: content})
		if inv := Read(root); inv.Firmware != "uefi" || inv.SecureBoot != want {
			t.Errorf("%q is read as %q", content, inv.SecureBoot)
		}
	}
}

func TestFirmwareWithoutTheVariableDoesNotCheckSignatures(t *testing.T) {
	root := t.TempDir()
	put(t, root, map[string]string{"sys/firmware/efi/efivars/BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c": "\x07\x00\x00\x00\x00\x00"})
	if inv := Read(root); inv.SecureBoot != "off" {
		t.Errorf("read as %q", inv.SecureBoot)
	}
	empty := t.TempDir()
	if err := os.MkdirAll(filepath.Join(empty, "sys/firmware/efi/efivars"), 0o755); err != nil {
		t.Fatal(err)
	}
	if inv := Read(empty); inv.Firmware != "uefi" || inv.SecureBoot != "" {
		t.Errorf("variables that cannot be read are read as %q", inv.SecureBoot)
	}
}

func TestMachineThatTellsNothing(t *testing.T) {
	if inv := Read(t.TempDir()); inv.UUID != "" || inv.Firmware != "bios" || inv.MemoryBytes != 0 {
		t.Errorf("%+v", inv)
	}
}
