package bootdoctor

import "fmt"

// onlyPackets reports whether a boot came no further than DHCP packets of its firmware or of iPXE.
func (v *view) onlyPackets() bool {
	return v.has(DHCP) && !v.has(TFTP, HTTP, Script, Kernel, Initramfs, Token, Local, NoDisk, AgentDHCP, Trouble) && !v.greeted() && v.still(PacketPatience)
}

// offered returns the last question that was answered with a loader, or nil.
func (v *view) offered() *Step {
	return v.find(func(s *Step) bool { return (s.Kind == DHCP || s.Kind == Proxy) && s.Loader != "" })
}

// unansweredAfter is from how many questions at 4011 on the answers do not arrive: firmware that got one asks once.
const unansweredAfter = 3

// packetCases are those of a machine that was offered a loader and did not come for it.
var packetCases = []Case{
	{
		Name: "no-loader-for-firmware", Level: Stopped, Stopped: DHCP,
		Wire:     "DISCOVER of an architecture (option 93) for which there is no loader; no offer of the appliance",
		Leaves:   "nothing; it is the same in each boot",
		Sentence: "the firmware of {name} asked as {firmware} and was offered nothing: {note}",
		Next:     "set its firmware to boot from the network as x64 UEFI or BIOS; a computer of another architecture cannot be imaged",
		match: func(v *view) map[string]string {
			s := v.last(DHCP)
			if !v.onlyPackets() || v.offered() != nil || s.Note == "" {
				return nil
			}
			return facts("firmware", or(v.b.Firmware, "?"), "note", s.Note)
		},
	},
	{
		Name: "no-proxy-answer", Level: Stopped, Stopped: Proxy,
		Wire:     "DISCOVER, offer, address; then the same question at UDP 4011 three times and more; nothing at TFTP",
		Leaves:   "nothing; it is the same in each boot",
		Sentence: "{name} asked this appliance {count} times at UDP port 4011 which file to load, and the answers did not reach it",
		Next:     "let answers of this appliance from UDP port 4011 through to the machines: look at the firewall of this host and at filters of switches and routers between",
		match: func(v *view) map[string]string {
			s := v.last(Proxy)
			if !v.onlyPackets() || s == nil || s.Count < unansweredAfter {
				return nil
			}
			return facts("count", fmt.Sprint(s.Count))
		},
	},
	{
		Name: "no-tftp", Level: Stopped, Stopped: TFTP,
		Wire:     "DISCOVER, offer, address, question at UDP 4011 and its answer; then nothing at UDP 69",
		Leaves:   "nothing; it is the same in each boot",
		Sentence: "{name} was told to load {loader} from this appliance, and no request for it arrived at UDP port 69",
		Next:     "open UDP port 69 to this appliance (and let its answers from other UDP ports through): look at the firewall of this host and at filters between it and the machine",
		match: func(v *view) map[string]string {
			s := v.last(Proxy)
			if !v.onlyPackets() || s == nil || s.Loader == "" {
				return nil
			}
			return facts("loader", s.Loader)
		},
	},
	{
		Name: "no-http", Level: Stopped, Stopped: HTTP,
		Wire:     "DISCOVER of iPXE or of firmware that boots from HTTP, offer of a URL, address; then nothing at TCP 80",
		Leaves:   "nothing; it is the same in each boot",
		Sentence: "{name} was offered a file of this appliance by HTTP, took an address, and did not fetch it",
		Next:     "open TCP port 80 to this appliance; then look at what the other DHCP server sends as boot file (option 67) and take it out",
		Causes:   []string{"TCP port 80 of this appliance cannot be reached from the machine", "another DHCP server named a boot file (option 67, file), and the machine took that"},
		match: func(v *view) map[string]string {
			s := v.last(DHCP)
			if !v.onlyPackets() || !v.has(Address) || v.offered() == nil || s.By != ByIPXE && !v.b.HTTPBoot {
				return nil
			}
			return facts()
		},
	},
	{
		Name: "other-server", Level: Stopped, Stopped: Proxy,
		Wire:     "DISCOVER, offer of the appliance, REQUEST to the DHCP server; then nothing at UDP 4011 nor UDP 69",
		Leaves:   "nothing; it is the same in each boot, and its screen shows the other server's file or \"PXE-E…\"",
		Sentence: "{name} took an address, but not this appliance's offer of {loader}: nothing came at UDP port 4011 or 69",
		Next: "take the boot file out of the other DHCP server (options 66, 67, file and next-server; `seedbed doctor --probe` says who answers), and open UDP port 4011 to this appliance; " +
			"where a switch filters DHCP answers (DHCP snooping), trust the appliance's port",
		Causes: []string{"another DHCP server named a boot file or said that it boots machines itself, and the machine took that", "UDP port 4011 of this appliance cannot be reached from the machine",
			"a switch drops the appliance's offers (DHCP snooping)"},
		match: func(v *view) map[string]string {
			s := v.offered()
			if !v.onlyPackets() || s == nil || !v.has(Address) {
				return nil
			}
			return facts("loader", s.Loader)
		},
	},
	{
		Name: "no-address", Level: Stopped, Stopped: Address,
		Wire:     "DISCOVER several times, offers of the appliance; no REQUEST",
		Leaves:   "nothing; it is the same in each boot, and its screen shows \"PXE-E51\" or \"PXE-E16\"",
		Sentence: "{name} asked {count} times for an address and took none",
		Next:     "look whether the DHCP server of this network runs, has free addresses, and knows the network of the machine; trust the ports of DHCP server and appliance at the switch (DHCP snooping)",
		Causes:   []string{"no DHCP server gives the machine an address", "a switch drops the answers on their way to it (DHCP snooping, spanning tree)"},
		match: func(v *view) map[string]string {
			if !v.onlyPackets() || v.has(Address) {
				return nil
			}
			n := 0
			for _, s := range v.b.Steps {
				n += s.Count
			}
			return facts("count", fmt.Sprint(n))
		},
	},
}
