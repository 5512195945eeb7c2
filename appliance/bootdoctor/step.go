// Package bootdoctor says where a machine's boot stopped, why, and what to do: verdicts by what was seen on the wire, what the
// machine left for its next boot, and what its agent told. It is a pure function of that; others see, keep and show it.
package bootdoctor

import (
	"fmt"
	"strings"
	"time"
)

// Kind says what a step of a boot is. Their order on the road is that of Road.
type Kind string

const (
	DHCP      Kind = "dhcp"       // firmware or a loader asked for an address and a boot file (DISCOVER); Loader is what it was offered
	Address   Kind = "address"    // it took an address from its DHCP server (REQUEST)
	Proxy     Kind = "4011"       // it asked the appliance itself for the boot file (PXE 2.1 §2.2.3)
	TFTP      Kind = "tftp"       // it asked for a file by TFTP
	HTTP      Kind = "http"       // it asked for a loader by HTTP
	Script    Kind = "script"     // a loader runs, and fetched its script
	Kernel    Kind = "kernel"     // it fetched the kernel
	Initramfs Kind = "initramfs"  // it fetched the initramfs
	Token     Kind = "token"      // it fetched its boot token
	Local     Kind = "local"      // it was sent to its own disk
	NoDisk    Kind = "no-disk"    // GRUB found no disk that starts
	AgentDHCP Kind = "agent-dhcp" // the agent's kernel asked for an address
	Trouble   Kind = "trouble"    // the agent said, by the port of the boot files, why it cannot say hello
	Hello     Kind = "hello"      // the agent's first word
	Inventory Kind = "inventory"  // it told what the machine is
	Job       Kind = "job"        // it took a job
)

// Road is the way of a machine, in order.
var Road = []Kind{DHCP, Address, Proxy, TFTP, HTTP, Script, Kernel, Initramfs, Token, Local, NoDisk, AgentDHCP, Trouble, Hello, Inventory, Job}

// Who made a step.
const (
	ByFirmware = "firmware"
	ByIPXE     = "iPXE"
	ByGRUB     = "GRUB"
	ByAgent    = "agent"
)

// Problems of transfers.
const (
	ProblemMissing = "missing" // there is no such file here
	ProblemCut     = "cut"     // the transfer ended before its end
	ProblemRefused = "refused" // the appliance said no
)

// Step is one dated fact of a boot. Repeats of the same are one step.
type Step struct {
	At   time.Time `json:"at"`
	Kind Kind      `json:"kind"`
	By   string    `json:"by,omitempty"`
	// Loader offered, or running: "shim", "snponly", ...; File as it was asked for.
	Loader string `json:"loader,omitempty"`
	File   string `json:"file,omitempty"`
	// Bytes of Length were transferred.
	Bytes  int64 `json:"bytes,omitempty"`
	Length int64 `json:"length,omitempty"`
	// Count is how often the same came, Last when it came last.
	Count int       `json:"count"`
	Last  time.Time `json:"last"`
	// Problem is a short fixed word, Note what was said.
	Problem string `json:"problem,omitempty"`
	Note    string `json:"note,omitempty"`
	// Appliance is the name of the one that saw it, "" for the one that shows it.
	Appliance string `json:"appliance,omitempty"`
}

// Whole reports whether a transfer came to its end.
func (s *Step) Whole() bool { return s.Problem == "" && s.Length > 0 && s.Bytes >= s.Length }

// Boot is one boot of a machine as an appliance, or after Merge a site, saw it.
type Boot struct {
	MAC   string    `json:"mac"`
	Began time.Time `json:"began"`
	// Firmware is the architecture that the packets name: "BIOS", "UEFI x64". UEFI says whether it runs x64 UEFI programs.
	Firmware string `json:"firmware,omitempty"`
	UEFI     bool   `json:"uefi,omitempty"`
	// HTTPBoot says that the firmware boots from HTTP.
	HTTPBoot bool   `json:"http_boot,omitempty"`
	Addr     string `json:"addr,omitempty"`
	Steps    []Step `json:"steps"`
}

// Latest is when something was seen last; zero is never.
func (b *Boot) Latest() (at time.Time) {
	for _, s := range b.Steps {
		if s.Last.After(at) {
			at = s.Last
		}
	}
	return at
}

// texts say in words what a step is. Languages translate them; words in braces are facts, see Fill.
var texts = map[Kind]string{
	DHCP:      "{by} asks for an address and a boot file, and is offered {loader}",
	Address:   "it takes the address {note} of its DHCP server",
	Proxy:     "it asks this appliance for the boot file at UDP port 4011, and is told {loader}",
	TFTP:      "{by} fetches {file} by TFTP",
	HTTP:      "{by} fetches {file} by HTTP",
	Script:    "{by} runs and fetches its script",
	Kernel:    "the kernel is fetched",
	Initramfs: "the initramfs is fetched",
	Token:     "the boot token is fetched",
	Local:     "it is sent to its own disk",
	NoDisk:    "GRUB finds no disk that starts",
	AgentDHCP: "the agent's kernel runs and asks for an address",
	Trouble:   "the agent cannot say hello: {note}",
	Hello:     "the agent says hello",
	Inventory: "the agent tells what the machine is",
	Job:       "the agent takes its job: {note}",
}

const textNoOffer = "{by} asks for an address and a boot file, and is offered nothing: {note}"

// StepTexts are all texts of steps, for languages.
func StepTexts() (list []string) {
	for _, k := range Road {
		list = append(list, texts[k])
	}
	return append(list, textNoOffer)
}

// Said returns the text of a step and its facts.
func (s *Step) Said() (text string, facts map[string]string) {
	text = texts[s.Kind]
	if s.Kind == DHCP && s.Loader == "" {
		text = textNoOffer
	}
	return text, map[string]string{"by": or(s.By, ByFirmware), "loader": s.Loader, "file": s.File, "note": or(s.Note, "?")}
}

// String is a step in words.
func (s *Step) String() string { return Fill(s.Said()) }

// Fill puts facts in the place of words in braces; what a fact itself has in braces stays.
func Fill(text string, facts map[string]string) string {
	pairs := make([]string, 0, 2*len(facts))
	for k, v := range facts {
		pairs = append(pairs, "{"+k+"}", v)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// seconds prints a duration for people.
func seconds(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
