// Package boot decides what a machine boots next: which loader its firmware gets, what the loader's script says, and
// whether the road ends in the agent or on the machine's own disk.
//
// The decision itself (Decide, Plan) is a pure function of Facts. Server joins it to the network: AnswerDHCP plugs into
// package dhcp, OpenTFTP into package tftp, Handler is the HTTP side. All of them ask the Fleet what a machine is for.
package boot

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"seedbed/appliance/job"
)

// MAC is an Ethernet address; the identity by which the boot path knows a machine.
type MAC [6]byte

// String prints m as Linux does: "52:54:00:77:00:10".
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// ParseMAC reads what String prints; also with dashes or upper case, as loaders and people write it.
func ParseMAC(s string) (MAC, error) {
	h, err := net.ParseMAC(s)
	if err != nil || len(h) != 6 {
		return MAC{}, fmt.Errorf("%q is not an Ethernet address", s)
	}
	return MAC(h), nil
}

// Run is what a machine's boot ends in.
type Run string

const (
	RunAgent Run = "agent" // kernel and initramfs of the appliance
	RunLocal Run = "local" // the machine's own disk
)

// Values of Assignment.SecureBoot and Facts.SecureBoot; the empty string is "nobody told".
const (
	SecureBootOn  = "on"
	SecureBootOff = "off"
)

// Fleet is what the boot path asks of the fleet. Implementations are safe for concurrent use.
type Fleet interface {
	// Sighted tells that a machine was seen on its way. It is called on the goroutine that handles the packet or
	// request, at most a few times per boot and stage; it may block for a record write, not for longer.
	Sighted(ctx context.Context, s Sighting)
	// NextBoot says what the machine with this MAC is for. uuid is the SMBIOS UUID as Linux prints it, or empty. A
	// machine that nobody knows gets Assignment{Run: RunAgent}: the agent shows it to a person. An error makes the
	// machine boot its own disk: the absence of an answer never stops a room.
	NextBoot(ctx context.Context, mac MAC, uuid string) (Assignment, error)
	// BootToken makes the second initrd's content for a machine that boots the agent. The caller has checked that
	// mac and addr took part in a DHCP exchange of the last 120 s.
	BootToken(ctx context.Context, mac MAC, addr netip.Addr) (job.Boot, error)
}

// Assignment is the Fleet's answer for one machine. The zero value boots the local disk by generic rules.
type Assignment struct {
	// Run is RunAgent or RunLocal; empty means RunLocal.
	Run Run
	// Known is true when an agent's hello has come from this machine before.
	Known bool
	// SecureBoot is what the last hello reported: "on", "off" or "" (BIOS, unknown).
	SecureBoot string
	// Loader is the last Sighting.Loader of this machine at StageScript, remembered; empty if none. It is a hint:
	// Server remembers for itself until it restarts.
	Loader Loader
	// BIOSDrive is the INT 13h number (0x80...) of the disk that was written; 0 means unknown: 0x80.
	BIOSDrive int
	// ESPVolumeID is the FAT serial of the written disk's EFI system partition, "ABCD-1234"; empty if none is known.
	ESPVolumeID string
	// ESPPartition is the GPT partition GUID of the same, "5f3f2a1c-...", lower or upper case; empty if none is known.
	ESPPartition string
}

// Stage is how far on its way a machine was seen.
type Stage string

const (
	StageDHCP   Stage = "dhcp"   // its firmware or loader asked for an address
	StageLoader Stage = "loader" // it fetched a loader
	StageScript Stage = "script" // its loader runs and fetched a script: Sighting.Loader works on this machine
	StageKernel Stage = "kernel" // it fetches the kernel
	StageLocal  Stage = "local"  // it was sent to its own disk
	StageStuck  Stage = "stuck"  // a loader that it fetched came to nothing within LoaderTimeout
)

// Sighting is one dated fact about a machine on its way.
type Sighting struct {
	At    time.Time
	Stage Stage
	MAC   MAC
	// UUID is SMBIOS as Linux prints it, lower case; empty when the packet had none or junk.
	UUID string
	// Addr is the machine's address where the packet or request told it.
	Addr netip.Addr
	// Relay is the relay agent's address where one forwarded the packet (giaddr).
	Relay netip.Addr
	// Arch is option 93; meaningful at StageDHCP only.
	Arch Arch
	// Class is option 60 as sent: "PXEClient:Arch:00007:UNDI:003001".
	Class string
	// IPXE is true when the packet came from iPXE.
	IPXE bool
	// Loader is the loader offered, fetched or running.
	Loader Loader
	// Note is a sentence for people where there is something to say.
	Note string
}

// normalUUID returns s in lower case, or "" for junk that must never match: all zeros, all ones, not a UUID.
func normalUUID(s string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	if len(s) != 36 {
		return ""
	}
	for i, c := range s {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && !strings.ContainsRune("0123456789abcdef", c) {
			return ""
		}
	}
	digits := strings.ReplaceAll(s, "-", "")
	if strings.Trim(digits, "0") == "" || strings.Trim(digits, "f") == "" {
		return ""
	}
	return s
}
