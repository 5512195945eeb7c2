package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"seedbed/initramfs/agent"
	"seedbed/initramfs/network"
)

// TestAdapterThatShowsUpLateGetsItsDriver: a USB hub takes a second to show what is plugged into it.
func TestAdapterThatShowsUpLateGetsItsDriver(t *testing.T) {
	root := t.TempDir()
	put := func(name, content string) {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("lib/modules/1.2.3/modules.dep", "kernel/r8152.ko:\n")
	put("lib/modules/1.2.3/modules.alias", "alias usb:v0BDAp8153d*dc*dsc*dp*ic*isc*ip*in* r8152\n")
	put("lib/modules/1.2.3/modules.softdep", "")
	put("sys/devices/pci0000:00/modalias", "pci:none\n")
	m, err := openModules(root, "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if n := m.coldPlug(log); n != 0 {
		t.Fatalf("%d drivers before there was a device", n)
	}
	put("sys/devices/pci0000:00/usb1/1-1/1-1:1.0/modalias", "usb:v0BDAp8153d3000dc00dsc00dp00icFFiscFFip00in00\n")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	loaded := 0
	_, err = waitForNetwork(ctx, agent.NewScreen(), network.New(network.Config{}), nil, func() {
		loaded += m.coldPlug(log)
		cancel() // there is no network here to wait for
	})
	if err == nil || loaded != 1 {
		t.Errorf("%d drivers were loaded: %v", loaded, err)
	}
}

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
