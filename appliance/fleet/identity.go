package fleet

import (
	"encoding/hex"
	"net"
	"slices"
	"strings"

	"seedbed/appliance/job"
)

// identity is what is known of a computer that asks to be recognised: from a boot packet (MAC, perhaps UUID) or from an
// inventory (everything).
type identity struct {
	macs        []string
	uuid        string // canonical, "" if junk
	serial      string // "" if junk
	diskSerials []string
}

// Points of the score. One MAC alone is enough (a machine known from its boot packets), a UUID alone is not: boards
// are sold with one UUID for all. A MAC with another UUID is a USB adapter that moved to another machine.
const (
	pointsUUID       = 4
	pointsSerial     = 3
	pointsMAC        = 3
	pointsDisk       = 2
	pointsNoMAC      = -2
	pointsNoPart     = -3 // neither a NIC nor a disk of it: boards are sold with one UUID and one serial number for all
	pointsOtherUUID  = -4
	pointsOtherSer   = -3
	pointsRecognised = 3
)

// score says how well an identity fits a machine; from pointsRecognised on it is the same computer. Pure.
func score(id identity, m *Machine) int {
	points := 0
	switch uuid := canonicalUUID(m.UUID); {
	case id.uuid == "" || uuid == "":
	case id.uuid == uuid:
		points += pointsUUID
	case m.Inventory == nil: // the UUID is of a boot packet, where some network cards make one up
	default:
		points += pointsOtherUUID
	}
	sameNIC := shares(id.macs, m.MACs)
	if sameNIC {
		points += pointsMAC
	} else {
		points += pointsNoMAC
	}
	if m.Inventory == nil {
		return points
	}
	switch serial := realSerial(m.Inventory.Serial); {
	case id.serial == "" || serial == "":
	case id.serial == serial:
		points += pointsSerial
	default:
		points += pointsOtherSer
	}
	switch disks := diskSerials(m.Inventory); {
	case shares(id.diskSerials, disks):
		points += pointsDisk
	case !sameNIC && len(id.diskSerials) > 0 && len(disks) > 0:
		points += pointsNoPart
	}
	return points
}

// recognise returns the machine that fits an inventory best and whether another fits as well as it. No machine fits: nil.
// What told its inventory before goes before what was only seen in boot packets: a record of these is made by the very
// boot that asks, also where a machine that is known has another NIC now.
func recognise(id identity, machines []*Machine) (best *Machine, ambiguous bool) {
	if best, ambiguous = fittest(id, machines, true); best != nil {
		return best, ambiguous
	}
	return fittest(id, machines, false)
}

// fittest is recognise among the machines that told their inventory, or among the others.
func fittest(id identity, machines []*Machine, told bool) (best *Machine, ambiguous bool) {
	most := pointsRecognised - 1
	for _, m := range machines {
		if (m.Inventory != nil) != told {
			continue
		}
		switch p := score(id, m); {
		case p > most:
			best, most, ambiguous = m, p, false
		case p == most && best != nil:
			ambiguous = true
			if m.FirstSeen.Before(best.FirstSeen) {
				best = m // the same answer whatever the order of the list
			}
		}
	}
	return best, ambiguous
}

// byMAC returns the machine that a boot packet comes from, or nil. A packet is no proof of identity: the MAC decides, and
// where an adapter was seen in several machines, the UUID.
func byMAC(id identity, machines []*Machine) (best *Machine) {
	for _, m := range machines {
		if !shares(id.macs, m.MACs) && !shares(id.macs, m.Booted) {
			continue
		}
		if best == nil {
			best = m
			continue
		}
		p, most := score(id, m), score(id, best)
		if p > most || p == most && m.FirstSeen.Before(best.FirstSeen) {
			best = m
		}
	}
	return best
}

// inventoryIdentity is the identity that an inventory shows. bootMAC is the NIC that the machine booted from.
func inventoryIdentity(bootMAC string, inv *job.Inventory) identity {
	id := identity{uuid: canonicalUUID(inv.UUID), serial: realSerial(inv.Serial), diskSerials: diskSerials(inv)}
	id.macs = append(id.macs, bootMAC)
	for _, n := range inv.NICs {
		if mac := canonicalMAC(n.MAC); mac != "" && !slices.Contains(id.macs, mac) {
			id.macs = append(id.macs, mac)
		}
	}
	return id
}

// canonicalMAC returns the address of a network card as records have it, "" for what is none.
func canonicalMAC(s string) string {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 || hw.String() == "00:00:00:00:00:00" {
		return ""
	}
	return hw.String()
}

// typedMAC returns the address of a network card that a person wrote as records have it, also where it is written without anything
// between its digits; "" for what is none, or is that of no one card.
func typedMAC(s string) string {
	if s = strings.TrimSpace(s); len(s) == 12 {
		s = s[:4] + "." + s[4:8] + "." + s[8:]
	}
	mac := canonicalMAC(s)
	if b, err := hex.DecodeString(mac[:min(2, len(mac))]); err != nil || mac != "" && b[0]&1 != 0 { // a group's, IEEE 802 §8.2
		return ""
	}
	return mac
}

func diskSerials(inv *job.Inventory) (list []string) {
	for _, d := range inv.Disks {
		if s := realSerial(d.Serial); s != "" && !d.Removable {
			list = append(list, s)
		}
	}
	return list
}

func shares(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			if x == y {
				return true
			}
		}
	}
	return false
}

// canonicalUUID returns the smaller of the two byte orders in which firmware gives one UUID (SMBIOS 2.6 §7.2.1: the
// first three fields are little-endian; a boot packet carries the raw bytes), or "" for junk that many boards share.
func canonicalUUID(s string) string {
	h := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(s), "-", ""))
	if len(h) != 32 || strings.Trim(h, "0123456789abcdef") != "" {
		return ""
	}
	swapped := h[6:8] + h[4:6] + h[2:4] + h[0:2] + h[10:12] + h[8:10] + h[14:16] + h[12:14] + h[16:]
	if strings.Repeat(h[:2], 16) == h || junkUUIDs[h] || junkUUIDs[swapped] {
		return "" // all zeros, all ones, or another byte again and again; what boards are shipped with
	}
	return min(h, swapped)
}

// junkUUIDs are counting patterns and the like that boards and virtual machines are shipped with, in either byte order.
var junkUUIDs = map[string]bool{
	"03000200040005000006000700080009": true, "00020003000400050006000700080009": true, "00010203040506070809101112131415": true,
	"000102030405060708090a0b0c0d0e0f": true, "0102030405060708090a0b0c0d0e0f10": true, "00112233445566778899aabbccddeeff": true,
	"112233445566778899aabbccddeeff00": true, "0123456789abcdef0123456789abcdef": true, "12345678123412341234123456789abc": true,
	"12345678123456781234567812345678": true, "12345678123456781234567890abcdef": true,
	"123456781234567890abcddeefaabbcc": true, "1234567890abcdef1234567890abcdef": true, "ffffffffffffffffffffffff00000000": true,
	"00000000000000000000000000000001": true, "4c4c4544000010108010808080808080": true,
}

// junkSerials are what manufacturers leave in the field, in lower case.
var junkSerials = map[string]bool{
	"none": true, "n/a": true, "na": true, "default string": true, "to be filled by o.e.m.": true, "not specified": true,
	"not applicable": true, "system serial number": true, "serial number": true, "chassis serial number": true,
	"oem": true, "o.e.m.": true, "o.e.m": true, "invalid": true, "unknown": true, "empty": true, "undefined": true, "standard": true,
	"not available": true, "not present": true, "no serial": true, "no serial number": true, "tbd": true, "tbd by oem": true, "test": true,
	"to be filled by o.e.m": true, "to be filled by oem": true, "filled by oem": true, "fill by oem": true, "default": true, "default_string": true,
	"$(default_string)": true, "system product name": true, "system name": true, "system manufacturer": true, "serial": true, "serialnumber": true,
	"base board serial number": true, "board serial number": true, "baseboard serial number": true, "no asset tag": true, "no enclosure": true,
	"system serial#": true, "sys-1234567890": true, "mb-1234567890": true, "bsn12345678901234567": true, "type1productconfigid": true,
	"type2 - board serial number": true, "1": true, "123": true, "1234": true, "12345": true, "123456": true, "1234567": true, "12345678": true,
	"123456789": true, "1234567890": true, "12345678901": true, "123456789012": true, "1234567890123": true, "12345678901234567890": true,
	"0123456789": true, "01234567890123456789": true, "0123456789abcdef": true, "123456789abcdef": true, "1234567890abcdef": true, "abcdefghijkl": true,
	"qm00001": true, "qm00002": true, "qm00003": true, "qm00004": true, "qm00005": true, // of every virtual machine of QEMU
}

// realSerial returns the serial number, or "" for junk.
func realSerial(s string) string {
	s = strings.TrimSpace(s)
	if len(s) < 3 || junkSerials[strings.ToLower(s)] || strings.Trim(s, s[:1]) == "" {
		return ""
	}
	return s
}
