package bootdoctor

import (
	"fmt"
	"slices"
)

// transfer returns the last transfer of a file that a boot needs which did not come to its end, and after which none of
// another file did; or nil.
func (v *view) transfer(problem string) *Step {
	if v.has(Script, Kernel, Local) || v.greeted() || !v.still(PacketPatience) {
		return nil
	}
	s := v.find(func(s *Step) bool { return s.Kind == TFTP || s.Kind == HTTP })
	if s == nil || s.Problem != problem {
		return nil
	}
	return s
}

// trusts returns whether the machine's firmware holds a certificate by which the loaders of this appliance are signed; known is false
// where nobody told.
func (v *view) trusts() (trusts, known bool) {
	if v.Inventory == nil || len(v.Inventory.SecureBootDB) == 0 {
		return false, false
	}
	return slices.ContainsFunc(v.Inventory.SecureBootDB, func(name string) bool {
		return name == "Microsoft Corporation UEFI CA 2011" || name == "Microsoft UEFI CA 2023"
	}), true
}

const nextSecureBoot = "in its firmware allow the \"Microsoft 3rd party UEFI CA\", or switch Secure Boot off; then start it again"

// loaderCases are those of a machine that asked for a loader.
var loaderCases = []Case{
	{
		Name: "wrong-loader", Level: Stopped, Stopped: TFTP,
		Wire:     "TFTP or HTTP of a loader that is not for the architecture of the DISCOVER, and that the appliance did not offer; no script after it",
		Leaves:   "nothing; it is the same in each boot",
		Sentence: "{name} has {firmware} firmware and fetched {file}, which is for other firmware; this appliance offered {loader}",
		Next: "another DHCP server names that file: take options 66 and 67 (file, next-server, \"boot file name\") out of it, or have it tell architectures apart (option 93); " +
			"`seedbed doctor --probe` says who answers",
		match: func(v *view) map[string]string {
			s := v.loader()
			if s == nil || v.b.Firmware == "" || v.fits(s.Loader) || !v.still(PacketPatience) && v.goneOn(s) < 0 {
				return nil
			}
			offered := nothing
			if o := v.offered(); o != nil {
				offered = o.Loader
			}
			return facts("firmware", v.b.Firmware, "file", s.File, "loader", offered)
		},
	},
	{
		Name: "loader-missing", Level: Stopped, Stopped: TFTP,
		Wire:     "TFTP or HTTP of a file that the appliance does not have; error 1 or status 404; no loader after it",
		Leaves:   "nothing; it is the same in each boot, and its screen shows \"PXE-T01\" or \"PXE-E3B\"",
		Sentence: "{name} asked this appliance for {file}, which is no file of a boot",
		Next:     "another DHCP server names that file: take options 66 and 67 (file, next-server) out of it; `seedbed doctor --probe` says who answers",
		match: func(v *view) map[string]string {
			s := v.transfer(ProblemMissing)
			if s == nil || v.loader() != nil {
				return nil
			}
			return facts("file", s.File)
		},
	},
	{
		Name: "loader-cut", Level: Stopped, Stopped: TFTP,
		Wire:     "TFTP or HTTP of a loader that ends before its end: blocks that nobody acknowledges, or an error that the machine sent",
		Leaves:   "nothing but a new DISCOVER, and the same file again",
		Sentence: "{name} got {bytes} of the {length} bytes of {file}, and then nothing more arrived: {note}",
		Next:     "let UDP from any port of this appliance through to the machine (TFTP answers from a port of its own); then look at its cable and its switch port",
		Causes:   []string{"a firewall lets the request at UDP port 69 through and not the answers", "the network between loses packets, or the machine was switched off"},
		match: func(v *view) map[string]string {
			s := v.transfer(ProblemCut)
			if s == nil || v.loader() != nil {
				return nil
			}
			return facts("file", s.File, "bytes", fmt.Sprint(s.Bytes), "length", fmt.Sprint(s.Length), "note", or(s.Note, whyVanished))
		},
	},
	{
		Name: "secure-boot", Level: Stopped, Stopped: Script,
		Wire:     "a loader is fetched whole, no request after it, and the firmware's next question within 30 s: the next boot entry; Secure Boot is on, or its keys lack Microsoft's UEFI CA",
		Leaves:   "nothing but a DISCOVER of the next boot entry (HTTP boot, other card) seconds after the loader",
		Sentence: "{name} fetched the loader {loader} and its firmware did not start it: Secure Boot refuses it ({why})",
		Next:     nextSecureBoot,
		match: func(v *view) map[string]string {
			s := v.loader()
			if s == nil || s.By == ByGRUB || !v.b.UEFI || v.started(s) || !v.still(LoaderPatience) && v.goneOn(s) < 0 {
				return nil
			}
			trusts, known := v.trusts()
			switch {
			case v.secureBoot() == "on" && s.Loader != "shim":
				return facts("loader", s.Loader, "why", whyUnsigned)
			case v.secureBoot() == "on" && known && !trusts:
				return facts("loader", s.Loader, "why", whyNoKey)
			case v.secureBoot() == "on" && s.Loader == "shim":
				return facts("loader", s.Loader, "why", whyNotBegun)
			}
			return nil
		},
	},
	{
		Name: "secure-boot-or-broken", Level: Stopped, Stopped: Script,
		Wire:     "a loader is fetched whole, no request after it, and the firmware's next question within 30 s; nobody told whether Secure Boot is on",
		Leaves:   "nothing but a DISCOVER of the next boot entry seconds after the loader",
		Sentence: "{name} fetched the loader {loader}, did not start it, and went on to its next boot entry {after} later",
		Next:     nextSecureBoot + "; if it is off already, set network boot to the other of BIOS and UEFI, and renew the firmware",
		Causes:   []string{"Secure Boot is on and refuses the loader", "the firmware cannot run the loader, which gave up at once"},
		match: func(v *view) map[string]string {
			s := v.refused()
			if s == nil || !v.b.UEFI || v.secureBoot() == "off" {
				return nil
			}
			return facts("loader", s.Loader, "after", seconds(v.goneOn(s)))
		},
	},
	{
		Name: "secure-boot-or-hang", Level: Stopped, Stopped: Script,
		Wire:     "a loader for UEFI is fetched whole, and then nothing for 60 s; nobody told whether Secure Boot is on",
		Leaves:   "nothing: no packet until somebody starts it anew; then the appliance offers the next loader",
		Sentence: "{name} fetched the loader {loader} and made no request since",
		Next:     "look at its screen: \"Access Denied\" or \"Security Violation\" is Secure Boot (" + nextSecureBoot + "); \"initialising devices\" is the loader: start the machine again, which gets the next loader",
		Causes:   []string{"Secure Boot refuses the loader", "the loader hangs as it starts the network card"},
		match: func(v *view) map[string]string {
			s := v.loader()
			if s == nil || s.By == ByGRUB || !v.b.UEFI || v.started(s) || v.secureBoot() == "off" || !v.still(LoaderPatience) {
				return nil
			}
			return facts("loader", s.Loader)
		},
	},
	{
		Name: "loader-hangs", Level: Stopped, Stopped: Script,
		Wire:     "a loader that fits is fetched whole, and then nothing for 60 s; Secure Boot is off, or the firmware is BIOS",
		Leaves:   "nothing: no packet until somebody starts it anew; then the appliance offers the next loader",
		Sentence: "{name} fetched the loader {loader}, which made no request since: it hangs as it starts (\"initialising devices\")",
		Next:     "start the machine again: it gets the next loader; if all hang, renew its firmware, or use another network card",
		match: func(v *view) map[string]string {
			s := v.loader()
			if s == nil || !v.still(LoaderPatience) {
				return nil
			}
			return facts("loader", s.Loader)
		},
	},
}
