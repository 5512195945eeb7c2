package lab

import (
	"os"
	"regexp"
)

// Firmware is what a machine starts with.
type Firmware string

const (
	// BIOS is SeaBIOS with the iPXE in the NIC's ROM.
	BIOS Firmware = "BIOS"
	// UEFI is OVMF with its own PXE client and Secure Boot off, as a vendor's firmware behaves.
	UEFI Firmware = "UEFI"
	// SecureBoot is OVMF with Microsoft's keys and Secure Boot on.
	SecureBoot Firmware = "UEFI+SB"
	// OtherKeys is OVMF with Secure Boot on and a key of nobody's: it starts nothing that Microsoft signed.
	OtherKeys Firmware = "UEFI+SB other keys"
)

// Files of the Debian package ovmf.
const (
	codeFile       = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	secureCodeFile = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
	varsFile       = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	secureVarsFile = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
	otherKeysFile  = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd"
)

// acceleration returns QEMU's accelerator: KVM where this host's processor really has it, else software emulation
// ("tcg"). LAB_ACCEL=kvm|tcg overrides. /dev/kvm alone says nothing: on hosts which are guests of kvm_pvm, firmware dies
// under KVM.
func acceleration() string {
	switch os.Getenv("LAB_ACCEL") {
	case "kvm":
		return "kvm"
	case "tcg":
		return emulation
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return emulation
	}
	f.Close()
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
	flags, err := os.ReadFile("/proc/cpuinfo")
	hardware := err == nil && processorFlag.Match(flags) || exists("/sys/module/kvm_intel") || exists("/sys/module/kvm_amd")
	if hardware && !exists("/sys/module/kvm_pvm") {
		return "kvm"
	}
	return emulation
}

const emulation = "tcg,thread=multi"

var processorFlag = regexp.MustCompile(`(?m)^flags\s*:.*\b(vmx|svm)\b`)
