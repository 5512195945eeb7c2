package lab

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
)

// arguments returns QEMU's command line for one start of a machine. Pure.
func arguments(m *Machine, accel string, o StartOptions) []string {
	c := m.Config
	a := []string{"-name", c.Name, "-accel", accel, "-cpu", processor(accel), "-smp", "1", "-m", fmt.Sprint(c.MemoryMiB), "-nodefaults", "-display", "none",
		"-serial", "stdio", "-device", "virtio-rng-pci", "-uuid", m.UUID,
		"-smbios", "type=1,manufacturer=Seedbed,product=Lab " + string(c.Firmware) + ",serial=LAB" + fmt.Sprintf("%03d", m.index)}
	a = append(a, firmwareArguments(c.Firmware, m.vars)...)
	a = append(a, displayArguments(c)...)
	if o.StopAtReboot {
		a = append(a, "-no-reboot")
	}
	if o.Unplugged {
		a = append(a, "-nic", "none")
	} else {
		a = append(a, nicArguments(c.Firmware, m.tap, m.MAC)...)
	}
	if needsUSB(c.Disks) {
		a = append(a, "-device", "qemu-xhci,id=usb")
	}
	if needsSATA(c.Disks) {
		a = append(a, "-device", "ich9-ahci,id=sata")
	}
	for i, d := range c.Disks {
		a = append(a, diskArguments(c.Firmware, i, d)...)
	}
	return a
}

// processor returns QEMU's processor model. Under software emulation QEMU 7.2 spoils the flags after CMPXCHG16B, by which
// Linux 6.12 dies at random (double fault in __kmalloc). It emulates AES at 20 MB/s, and Go's TLS takes ChaCha20 at 37 MB/s
// where the processor has no AES. Without fast string instructions Linux copies in loops, which takes a fifth off the
// boot of Debian (26 s of processor time instead of 33).
func processor(accel string) string {
	if accel == "kvm" {
		return "host"
	}
	return "max,-cx16,-aes,-pclmulqdq,-erms,-fsrm"
}

func firmwareArguments(f Firmware, vars string) []string {
	flash := func(code string) []string {
		return []string{"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + code, "-drive", "if=pflash,format=raw,unit=1,file=" + vars,
			"-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n"}
	}
	switch f {
	case UEFI:
		return append([]string{"-machine", "q35"}, flash(codeFile)...)
	case SecureBoot, OtherKeys:
		return append([]string{"-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on",
			"-global", "ICH9-LPC.disable_s3=1"}, flash(secureCodeFile)...)
	}
	// graphics=off puts the text of SeaBIOS, iPXE and GRUB on the serial line.
	return []string{"-machine", "pc,graphics=off"}
}

// displayArguments give a machine a screen, or none.
func displayArguments(c MachineConfig) []string {
	if c.Display {
		return []string{"-vga", "std"}
	}
	return []string{"-vga", "none"}
}

// nicArguments plug the machine into the switch and make the network its first boot device. The ROM of QEMU's NICs is
// iPXE, on UEFI too: there it is left out, so that the firmware's own PXE client is what is tested.
func nicArguments(f Firmware, tap string, mac net.HardwareAddr) []string {
	device := "virtio-net-pci,netdev=n0,mac=" + mac.String()
	if f == BIOS {
		device += ",bootindex=1"
	} else {
		device += fmt.Sprintf(",addr=0x%x,romfile=", nicSlot)
	}
	return []string{"-netdev", "tap,id=n0,ifname=" + tap + ",script=no,downscript=no", "-device", device}
}

func needsUSB(disks []Disk) bool  { return has(disks, USB) }
func needsSATA(disks []Disk) bool { return has(disks, SATA) }

func has(disks []Disk, b Bus) bool {
	for _, d := range disks {
		if d.Bus == b {
			return true
		}
	}
	return false
}

// diskArguments attach a disk. On BIOS their order is the order in which the firmware numbers them; UEFI boots the first
// one by the entry that withBootEntries made.
func diskArguments(f Firmware, i int, d Disk) []string {
	format := "raw"
	if filepath.Ext(d.Path) == ".qcow2" {
		format = "qcow2"
	}
	drive := fmt.Sprintf("if=none,id=d%d,file=%s,format=%s,cache=unsafe,discard=unmap", i, strings.ReplaceAll(d.Path, ",", ",,"), format)
	device := ""
	switch d.Bus {
	case SATA:
		device = fmt.Sprintf("ide-hd,bus=sata.%d,drive=d%d,serial=%s", i, i, d.Serial)
	case NVMe:
		device = fmt.Sprintf("nvme,drive=d%d,serial=%s", i, d.Serial)
	case USB:
		device = fmt.Sprintf("usb-storage,bus=usb.0,removable=%s,drive=d%d,serial=%s", d.removable(), i, d.Serial)
	default:
		device = fmt.Sprintf("virtio-blk-pci,drive=d%d,serial=%s", i, d.Serial)
		if f != BIOS {
			device += fmt.Sprintf(",addr=0x%x", diskSlot+i)
		}
	}
	if f == BIOS {
		device += fmt.Sprintf(",bootindex=%d", i+2)
	}
	return []string{"-drive", drive, "-device", device}
}
