package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestDriversAreMatchedByModalias(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{
		"lib/modules/1.2.3/modules.dep": "kernel/virtio_net.ko:\nkernel/e1000e.ko:\nkernel/usb_storage.ko:\n",
		"lib/modules/1.2.3/modules.alias": "alias virtio:d00000001v* virtio_net\nalias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e\n" +
			"alias usb:v*p*d*dc*dsc*dp*ic08isc06ip50in* usb_storage\nalias acpi*:VMBUS:* hv_vmbus\nalias pci:v00008086d000010D[0-2]sv*sd*bc*sc*i* wrong\n",
		"lib/modules/1.2.3/modules.softdep":                    "softdep e1000e pre: other\n",
		"sys/devices/pci0000:00/0000:00:03.0/modalias":         "pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00\n",
		"sys/devices/pci0000:00/0000:00:04.0/virtio0/modalias": "virtio:d00000001v00001AF4\n",
		"sys/devices/LNXSYSTM:00/VMBUS:00/modalias":            "acpi:VMBUS:\n",
		"sys/devices/platform/empty/modalias":                  "\n",
		"sys/devices/platform/unknown/modalias":                "platform:nothing\n",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m, err := openModules(root, "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	found := m.wanted()
	slices.Sort(found)
	if got := strings.Join(found, " "); got != "e1000e hv_vmbus virtio_net" {
		t.Errorf("drivers %s", got)
	}
	if again := m.wanted(); len(again) != 0 {
		t.Errorf("devices were looked at twice: %v", again)
	}
	if got := strings.Join(m.soft["e1000e"], " "); got != "other" {
		t.Errorf("soft dependencies %s", got)
	}
	m.load(slog.New(slog.DiscardHandler), "absent") // a driver that is not there is no failure
}

func TestBootFileIsAskedForInASentence(t *testing.T) {
	if _, err := readBoot(filepath.Join(t.TempDir(), "boot.json")); err == nil || !strings.Contains(err.Error(), "boot script") {
		t.Error(err)
	}
}
