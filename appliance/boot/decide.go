package boot

import (
	"fmt"
	"slices"
)

// Arch is the client system architecture type of option 93 (RFC 4578 §2.1, IANA "Processor Architecture Types").
type Arch uint16

const (
	ArchBIOS     Arch = 0x00 // x86 BIOS
	ArchEFIIA32  Arch = 0x06 // x86 UEFI, 32 bit
	ArchEFIX64   Arch = 0x07 // x64 UEFI
	ArchEFIBC    Arch = 0x09 // EBC; x64 firmware sends it too
	ArchEFIARM64 Arch = 0x0b // ARM 64-bit UEFI
	ArchHTTPX64  Arch = 0x10 // x64 UEFI boot from HTTP
)

// String names a as people do.
func (a Arch) String() string {
	switch a {
	case ArchBIOS:
		return "BIOS"
	case ArchEFIIA32:
		return "UEFI 32 bit"
	case ArchEFIX64, ArchEFIBC:
		return "UEFI x64"
	case ArchEFIARM64:
		return "UEFI ARM64"
	case ArchHTTPX64:
		return "UEFI x64 HTTP"
	}
	return fmt.Sprintf("architecture %d", uint16(a))
}

// UEFI reports whether firmware of this type runs x64 UEFI programs.
func (a Arch) UEFI() bool { return a == ArchEFIX64 || a == ArchEFIBC || a == ArchHTTPX64 }

// Loader is a program that takes a machine from its firmware to a script.
type Loader string

const (
	LoaderNone     Loader = ""
	LoaderScript   Loader = "script"   // no program: iPXE is there already and gets the script
	LoaderUndionly Loader = "undionly" // iPXE on the BIOS card's own UNDI driver
	LoaderShim     Loader = "shim"     // shim -> signed GRUB
	LoaderSNPOnly  Loader = "snponly"  // iPXE on the UEFI firmware's own network driver
	LoaderIPXE     Loader = "ipxe"     // iPXE for UEFI with its own drivers
)

// Facts are everything that decides what a machine's firmware gets.
type Facts struct {
	Arch Arch
	// HTTP is true when the firmware boots from HTTP (option 60 is HTTPClient): it wants URLs.
	HTTP bool
	// IPXE is true when the packet came from iPXE (option 77 "iPXE" or option 175).
	IPXE bool
	// Known, SecureBoot and Run are the Assignment's.
	Known      bool
	SecureBoot string
	Run        Run
	// Worked is the loader that worked last on this machine; LoaderNone if none did.
	Worked Loader
	// Failed are loaders that this machine fetched and that came to nothing, oldest first.
	Failed []Loader
	// Blind is true when GRUB found no disk to boot on this machine.
	Blind bool
}

// Decision is what a machine's firmware gets.
type Decision struct {
	// Loader is the program, or LoaderNone when the machine gets no answer.
	Loader Loader
	// Reason is why, in a few words for the log.
	Reason string
}

// Decide says what a machine's firmware gets. Pure; every combination of Facts has an answer.
//
// Secure Boot cannot be seen in a DHCP packet, so that a UEFI machine gets what starts in both states until its agent
// has told. iPXE is never offered to iPXE.
func Decide(f Facts) Decision {
	if f.IPXE {
		return Decision{LoaderScript, "iPXE is there already"}
	}
	if f.Blind && f.Run != RunAgent && f.Arch.UEFI() {
		return Decision{LoaderNone, "GRUB finds no disk here, the firmware goes on by its own order"}
	}
	candidates := order(f)
	if len(candidates) == 0 {
		return Decision{LoaderNone, "no loader for " + f.Arch.String()}
	}
	for _, l := range candidates {
		if !slices.Contains(f.Failed, l) {
			return Decision{l, reason(f, l, candidates[0])}
		}
	}
	return Decision{candidates[0], "every loader came to nothing, from the start again"}
}

// order lists the loaders that may start on the machine, best first.
func order(f Facts) []Loader {
	var all []Loader
	switch {
	case f.Arch == ArchBIOS:
		return []Loader{LoaderUndionly}
	case !f.Arch.UEFI():
		return nil
	case f.SecureBoot == SecureBootOn:
		return []Loader{LoaderShim} // the firmware refuses everything else
	case f.Known && f.SecureBoot == SecureBootOff:
		all = []Loader{LoaderSNPOnly, LoaderIPXE, LoaderShim}
	default:
		all = []Loader{LoaderShim, LoaderSNPOnly, LoaderIPXE}
	}
	if i := slices.Index(all, f.Worked); i > 0 {
		all = append([]Loader{f.Worked}, slices.Delete(all, i, i+1)...)
	}
	return all
}

func reason(f Facts, l, first Loader) string {
	switch {
	case l != first:
		return "the loader before it came to nothing"
	case l == f.Worked:
		return "worked the last time"
	case f.Arch == ArchBIOS:
		return "BIOS"
	case f.SecureBoot == SecureBootOn:
		return "Secure Boot is on"
	case f.Known && f.SecureBoot == SecureBootOff:
		return "Secure Boot is off"
	}
	return "Secure Boot is not known yet"
}
