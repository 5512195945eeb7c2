// Package script holds the iPXE and GRUB scripts that machines read on their way, and renders them.
//
// Two rules bind every script: it asks again when the network is not there yet, and it ends on the machine's own disk
// within a bounded time when the appliance does not answer.
package script

import (
	"embed"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

// Name of a script. The file is templates/NAME.
type Name string

const (
	IPXEStart Name = "start.ipxe" // autoexec.ipxe: network up, then the machine's own script
	IPXEAgent Name = "agent.ipxe" // kernel and initramfs
	IPXELocal Name = "local.ipxe" // the machine's own disk
	GRUBStart Name = "start.cfg"  // grub.cfg: says whether Secure Boot is on, then the machine's own script
	GRUBAgent Name = "agent.cfg"  // kernel and initramfs, by GRUB itself
	GRUBChain Name = "chain.cfg"  // iPXE takes over; GRUB goes on itself where that fails
	GRUBLocal Name = "local.cfg"  // the machine's own disk
)

// Names are all scripts.
var Names = []Name{IPXEStart, IPXEAgent, IPXELocal, GRUBStart, GRUBAgent, GRUBChain, GRUBLocal}

// Params are what a script says. Fields that are malformed are errors of Render, never part of a script.
type Params struct {
	// Server is the appliance's HTTP address towards the machine; port 80 is left out of URLs.
	Server netip.AddrPort
	// Others are where the other appliances of the site serve the same; a script turns to them where Server does not answer. MaxOthers of
	// them are named.
	Others []netip.AddrPort
	// MAC is the machine's, "52:54:00:77:00:10"; empty in the start scripts.
	MAC string
	// KernelArgs are the kernel's, without secrets: every program of the machine can read them.
	KernelArgs string
	// UEFI is false for BIOS machines.
	UEFI bool
	// BIOSDrive is the INT 13h number of the machine's system disk; 0 means 0x80, the first.
	BIOSDrive int
	// ESPVolumeID is the FAT serial of its EFI system partition, "ABCD-1234"; empty means any.
	ESPVolumeID string
	// ESPPartition is the GPT partition GUID of the same; empty means any.
	ESPPartition string
}

// KernelArgs are the kernel arguments when nobody says otherwise. The last console is /dev/console (kernel
// Documentation/admin-guide/serial-console.rst). A panic shows for 30 s and then boots again.
const KernelArgs = "console=tty0 console=ttyS0,115200 loglevel=4 panic=30"

// Attempts, pauses and time-outs of the scripts. The sum bounds how long a machine waits for an appliance that does not
// answer. Measured on OVMF with an appliance that vanished right after the loader: see README.
const (
	StartAttempts = 4    // of iPXE's start script
	StartPause    = 3    // seconds between attempts
	StartTimeout  = 6000 // milliseconds for the machine's script; iPXE alone would try for 20 s
	GRUBAttempts  = 2    // of GRUB's start script; GRUB tries each connection for 17 s, also a refused one
	AgentAttempts = 5    // of the kernel's download: the appliance just answered, it is coming back
	AgentPause    = 5    // seconds between attempts
	MaxOthers     = 2    // appliances beside the first: each that does not answer costs its time
)

//go:embed templates
var files embed.FS

var templates = template.Must(template.New("").Option("missingkey=error").Delims("<<", ">>").ParseFS(files, "templates/*"))

var (
	volumeID = regexp.MustCompile(`^[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}$`)
	guid     = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)
	mac      = regexp.MustCompile(`^[0-9a-f]{2}(:[0-9a-f]{2}){5}$`)
	args     = regexp.MustCompile(`^[A-Za-z0-9=,._:/@+ -]*$`) // nothing that a loader's shell reads as its own
)

// check says which field cannot go into a script.
func (p Params) check() error {
	switch {
	case !p.Server.Addr().Is4() || p.Server.Port() == 0:
		return fmt.Errorf("appliance address %s is not an IPv4 address with a port", p.Server)
	case slices.ContainsFunc(p.Others, func(a netip.AddrPort) bool { return !a.Addr().Is4() || a.Port() == 0 }):
		return fmt.Errorf("one of the appliance addresses %v is not an IPv4 address with a port", p.Others)
	case p.MAC != "" && !mac.MatchString(p.MAC):
		return fmt.Errorf("%q is not an Ethernet address", p.MAC)
	case !args.MatchString(p.KernelArgs):
		return fmt.Errorf("kernel arguments %q hold characters that loaders read as their own", p.KernelArgs)
	case p.ESPVolumeID != "" && !volumeID.MatchString(p.ESPVolumeID):
		return fmt.Errorf("%q is not a FAT volume ID", p.ESPVolumeID)
	case p.ESPPartition != "" && !guid.MatchString(p.ESPPartition):
		return fmt.Errorf("%q is not a partition GUID", p.ESPPartition)
	case p.BIOSDrive != 0 && (p.BIOSDrive < 0x80 || p.BIOSDrive > 0xff):
		return fmt.Errorf("BIOS drive %#x is not a disk", p.BIOSDrive)
	}
	return nil
}

// Render returns a script's text. Safe for concurrent use.
func Render(n Name, p Params) (string, error) {
	if p.KernelArgs == "" {
		p.KernelArgs = KernelArgs
	}
	if p.BIOSDrive == 0 {
		p.BIOSDrive = 0x80
	}
	if err := p.check(); err != nil {
		return "", fmt.Errorf("script %s: %w", n, err)
	}
	p.Others = slices.DeleteFunc(slices.Clone(p.Others), func(a netip.AddrPort) bool { return a == p.Server })
	p.Others = p.Others[:min(len(p.Others), MaxOthers)]
	// FAT volume IDs are upper case in GRUB, GUIDs lower case in iPXE.
	p.ESPVolumeID, p.ESPPartition = strings.ToUpper(p.ESPVolumeID), strings.ToLower(p.ESPPartition)
	var b strings.Builder
	if err := templates.ExecuteTemplate(&b, string(n), p); err != nil {
		return "", fmt.Errorf("script %s: %w", n, err)
	}
	return b.String(), nil
}

// Base is the beginning of the appliance's URLs.
func (p Params) Base() string { return "http://" + p.Host() }

// Host is the appliance as URLs and GRUB name it: without port 80.
func (p Params) Host() string { return host(p.Server) }

func host(a netip.AddrPort) string {
	if a.Port() == 80 {
		return a.Addr().String()
	}
	return a.String()
}

// Name is another appliance as Host has it.
func (Params) Name(a netip.AddrPort) string { return host(a) }

// Hosts are all appliances as Host has them, Server first.
func (p Params) Hosts() []string {
	list := []string{p.Host()}
	for _, a := range p.Others {
		list = append(list, host(a))
	}
	return list
}

// From is Base in iPXE's scripts: a setting where there are several appliances to turn to.
func (p Params) From() string {
	if len(p.Others) == 0 {
		return p.Base()
	}
	return "http://${appliance}"
}

// Next are the appliances in pairs, each with the one that is tried after it.
func (p Params) Next() (pairs [][2]string) {
	hosts := p.Hosts()
	for i, h := range hosts {
		pairs = append(pairs, [2]string{h, hosts[(i+1)%len(hosts)]})
	}
	return pairs
}

// turns are the hosts that GRUB asks one after the other, n attempts in all, and each host once at least.
func (p Params) turns(n int) string {
	hosts, list := p.Hosts(), []string{}
	for i := range max(n, len(hosts)) {
		list = append(list, hosts[i%len(hosts)])
	}
	return strings.Join(list, " ")
}

func (p Params) StartTurns() string { return p.turns(GRUBAttempts) }
func (p Params) AgentTurns() string { return p.turns(AgentAttempts) }

// Drive is the BIOS drive as iPXE writes it.
func (p Params) Drive() string { return fmt.Sprintf("%#x", p.BIOSDrive) }

// Constants for the templates. GRUB counts in lists of words.
func (Params) StartAttempts() int { return StartAttempts }
func (Params) StartPause() int    { return StartPause }
func (Params) StartTimeout() int  { return StartTimeout }
func (Params) AgentAttempts() int { return AgentAttempts }
func (Params) AgentPause() int    { return AgentPause }
func (Params) GRUBAttempts() int  { return GRUBAttempts }
func (Params) GRUBStart() string  { return count(GRUBAttempts) }
func (Params) GRUBAgent() string  { return count(AgentAttempts) }

// count is "1 2 3" for 3.
func count(n int) string {
	var words []string
	for i := range n {
		words = append(words, strconv.Itoa(i+1))
	}
	return strings.Join(words, " ")
}

// Dir is the folder under which the machine's own loaders are named, so that every request tells the machine:
// "525400770010".
func (p Params) Dir() string { return strings.ReplaceAll(p.MAC, ":", "") }
