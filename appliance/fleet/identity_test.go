package fleet

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
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
		"03000200-0400-0500-0006-000700080009", "00020003-0004-0005-0006-000700080009", "FEFEFEFE-FEFE-FEFE-FEFE-FEFEFEFEFEFE",
		"12345678-1234-1234-1234-123456789ABC", "78563412-3412-3412-1234-123456789ABC", "00112233-4455-6677-8899-AABBCCDDEEFF", "not a uuid"} {
		if got := canonicalUUID(s); got != "" {
			t.Errorf("UUID %q is %q", s, got)
		}
	}
	for _, s := range []string{"", " ", "0", "None", "To be filled by O.E.M.", "Default string", "00000000", "XXXXXX", "TO BE FILLED BY O.E.M", "System Serial Number ",
		"Not Available", "........", "QM00001", "12345678"} {
		if got := realSerial(s); got != "" {
			t.Errorf("serial %q is %q", s, got)
		}
	}
	for _, s := range []string{" CZC1234 ", "5CG2345XYZ", "VMware-56 4d 1f 00", "PF0ABCDE"} {
		if realSerial(s) != strings.TrimSpace(s) {
			t.Errorf("the real serial number %q is junk", s)
		}
	}
	for _, s := range []string{"4C4C4544-0043-3010-8052-B4C04F564231", "00000000-0000-0000-0000-AC1F6B4D1234"} {
		if canonicalUUID(s) == "" {
			t.Errorf("the real UUID %q is junk", s)
		}
	}
}

// TestTheIndexOfTraitsFindsWhomTheScoreKnows compares the index with a look at every machine, over machines that share parts, lose
// them and are merged.
func TestTheIndexOfTraitsFindsWhomTheScoreKnows(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	some := func(prefix string, n int) (list []string) {
		for range random.IntN(n) {
			list = append(list, fmt.Sprint(prefix, 100+random.IntN(12)))
		}
		return list
	}
	uuids := []string{"", "6f1d3c52-8f4a-4c1e-9b0a-5254a6c00001", "523c1d6f-4a8f-1e4c-9b0a-5254a6c00001", "6f1d3c52-8f4a-4c1e-9b0a-5254a6c00002"}
	identityOf := func() (identity, *job.Inventory) {
		inv := &job.Inventory{UUID: uuids[random.IntN(len(uuids))], Serial: strings.Join(some("S", 2), "")}
		for _, serial := range some("D", 3) {
			inv.Disks = append(inv.Disks, job.Disk{Serial: serial})
		}
		return inventoryIdentity("52:54:00:00:00:"+fmt.Sprint(10+random.IntN(12)), inv), inv
	}
	index, machines := traits{}, map[string]*Machine{}
	for range 3000 {
		key := fmt.Sprint("m", random.IntN(15))
		id, inv := identityOf()
		next := &Machine{ID: key, MACs: id.macs, UUID: inv.UUID, Inventory: inv}
		switch random.IntN(6) {
		case 0:
			next = nil
		case 1:
			next.Inventory = nil
		case 2:
			next.MergedInto = "other"
		}
		index.put(key, machines[key], next)
		if machines[key] = next; next == nil {
			delete(machines, key)
		}
		asks, _ := identityOf()
		found := index.sharing(asks)
		for _, m := range machines {
			if m.MergedInto == "" && (score(asks, m) >= pointsRecognised || shares(asks.macs, m.MACs)) && !slices.Contains(found, m.ID) {
				t.Fatalf("%+v is not found for %+v", m, asks)
			}
		}
		for _, id := range found {
			if m := machines[id]; m == nil || m.MergedInto != "" {
				t.Fatalf("%s is found, and is %+v", id, m)
			}
		}
	}
	for key, m := range machines {
		index.put(key, m, nil)
	}
	if len(index) > 0 {
		t.Errorf("of no machine there is left %v", index)
	}
}
