package fleet

import (
	"testing"

	"seedbed/appliance/job"
)

func TestRecognise(t *testing.T) {
	const uuid, other = "11112222-3333-4444-5555-666677778888", "99999999-3333-4444-5555-666677778888"
	known := &Machine{ID: "known", MACs: []string{"m1"}, UUID: uuid, Inventory: &job.Inventory{Serial: "SN-1",
		Disks: []job.Disk{{Serial: "DISK-1"}}}}
	for what, c := range map[string]struct {
		id   identity
		want bool
	}{
		"one MAC":                              {identity{macs: []string{"m1"}}, true},
		"UUID in the packet's byte order":      {identity{macs: []string{"m1"}, uuid: canonicalUUID("22221111-3333-4444-5555-666677778888")}, true},
		"new NIC, same UUID and serial":        {identity{macs: []string{"m2"}, uuid: canonicalUUID(uuid), serial: "SN-1"}, true},
		"new board and NIC, same disk":         {identity{macs: []string{"m2"}, diskSerials: []string{"DISK-1"}}, false},
		"a board with everyone's UUID":         {identity{macs: []string{"m2"}, uuid: canonicalUUID(uuid)}, false},
		"the same UUID, another serial number": {identity{macs: []string{"m2"}, uuid: canonicalUUID(uuid), serial: "SN-2"}, false},
		"an adapter in another machine":        {identity{macs: []string{"m1"}, uuid: canonicalUUID(other), serial: "SN-2"}, false},
		"a board with everyone's UUID and serial number": {identity{macs: []string{"m2"}, uuid: canonicalUUID(uuid),
			serial: "SN-1", diskSerials: []string{"DISK-2"}}, false},
		"another disk": {identity{macs: []string{"m1"}, diskSerials: []string{"DISK-2"}}, true},
		"nothing":      {identity{}, false},
	} {
		if m, _ := recognise(c.id, []*Machine{known}); (m != nil) != c.want {
			t.Errorf("%s: %v", what, m)
		}
	}
}

func TestRecogniseTakesAKnownMachineBeforeTheRecordOfItsBootPackets(t *testing.T) {
	const uuid = "11112222-3333-4444-5555-666677778888"
	known := &Machine{ID: "known", MACs: []string{"m1"}, UUID: uuid, Inventory: &job.Inventory{Serial: "SN-1"}}
	packets := &Machine{ID: "packets", MACs: []string{"m2"}, UUID: uuid}
	id := identity{macs: []string{"m2"}, uuid: canonicalUUID(uuid), serial: "SN-1"}
	for _, list := range [][]*Machine{{known, packets}, {packets, known}} {
		if m, ambiguous := recognise(id, list); m != known || ambiguous {
			t.Errorf("machine %+v, ambiguous %t", m, ambiguous)
		}
	}
}

func TestJunkNeverMatches(t *testing.T) {
	for _, s := range []string{"", "00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
		"03000200-0400-0500-0006-000700080009", "00020003-0004-0005-0006-000700080009", "not a uuid"} {
		if got := canonicalUUID(s); got != "" {
			t.Errorf("UUID %q is %q", s, got)
		}
	}
	for _, s := range []string{"", " ", "0", "None", "To be filled by O.E.M.", "Default string", "00000000", "XXXXXX"} {
		if got := realSerial(s); got != "" {
			t.Errorf("serial %q is %q", s, got)
		}
	}
	if realSerial(" CZC1234 ") != "CZC1234" {
		t.Error("a real serial number is junk")
	}
}
