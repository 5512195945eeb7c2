//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"

	"seedbed/appliance/api"
	"seedbed/appliance/job"
)

// nobody is a client without a certificate.
func (s *siege) nobody() *machine {
	return &machine{t: s.t, boot: s.victim.boot, client: s.web}
}

// newcomer is a machine that nobody admitted.
func (s *siege) newcomer(mac, addr string) *machine {
	m := &machine{t: s.t, mac: mac, own: addr}
	m.bootAgent()
	m.hello()
	return m
}

// greeted is a machine that said hello, and not yet what it is.
func (s *siege) greeted(mac, addr string) *machine {
	m := &machine{t: s.t, mac: mac, own: addr, key: s.newKey()}
	m.bootAgent()
	m.identify(nil)
	m.post(job.PathHello, job.Hello{Token: m.boot.Token, MAC: m.boot.MAC, PublicKey: s.public(m)}, &m.welcome)
	m.identify(m.welcome.Certificate)
	return m
}

// steal redeems the boot token of a machine once more, with another key.
func (s *siege) steal(m *machine) {
	thief := &machine{t: s.t, key: s.newKey()}
	got := knock(s.web, "POST", s.base+job.PathHello, encode(job.Hello{Token: m.boot.Token, MAC: m.boot.MAC, PublicKey: s.public(thief)}))
	if got != "403 token-used" {
		s.t.Errorf("a token that is used again: %s", got)
	}
}

// madeUpDisks are so many, with models of so many bytes.
func madeUpDisks(n, length int) (list []job.Disk) {
	for i := range n {
		list = append(list, job.Disk{Name: fmt.Sprint("sd", i), Model: strings.Repeat("m", length), Serial: fmt.Sprint("DISK-", i), Length: 1 << 40})
	}
	return list
}

func madeUpCards(first string, n int) []job.NIC {
	list := []job.NIC{{MAC: first}}
	for i := range n - 1 {
		list = append(list, job.NIC{MAC: fmt.Sprintf("02:00:00:03:00:%02x", i)})
	}
	return list
}

// inventories are the attacks by what machines tell of themselves.
func (s *siege) inventories() []attack {
	v, x := s.victim, s.stranger
	talker := s.newcomer("52:54:00:77:00:18", "10.77.0.24")
	tell := func(m *machine, change func(*job.Inventory)) func() string {
		return func() string {
			inv := inventoryOf(m)
			if change != nil {
				change(&inv)
			}
			return s.by(m, "POST", job.PathInventory, inv)
		}
	}
	with := func(n, length int) func(*job.Inventory) {
		return func(inv *job.Inventory) { inv.Disks = madeUpDisks(n, length) }
	}
	having := func(n int) func(*job.Inventory) {
		return func(inv *job.Inventory) { inv.NICs = madeUpCards(inv.NICs[0].MAC, n) }
	}
	product := func(name string) string {
		tell(x, func(inv *job.Inventory) { inv.Product = name })()
		if kept := decode[api.Machine](s.t, s.data, "machine", "show", x.me.Machine).Inventory.Product; kept != name {
			return fmt.Sprintf("cut to %d bytes", len(kept))
		}
		return "kept"
	}
	right := tell(x, nil)
	return []attack{
		{"an inventory without a certificate", tell(s.nobody(), nil), "401 unauthorised", right, "200"},
		{"an inventory by a guest", func() string { return s.by(s.guest, "POST", job.PathInventory, inventoryOf(x)) }, "401 unauthorised", right, "200"},
		{"an inventory of 78 KB by a machine that nobody admitted", tell(x, with(300, 150)), "413 too-large", tell(v, with(300, 150)), "200"},
		{"an inventory of 1.2 MB", tell(v, with(1000, 1100)), "413 too-large", tell(v, with(1000, 200)), "200"},
		{"an inventory with 1,025 disks", tell(v, with(1025, 10)), "400 invalid", tell(v, with(1024, 10)), "200"},
		{"an inventory with 65 network cards", tell(x, having(65)), "400 invalid", tell(x, having(64)), "200"},
		{"an inventory of other types", func() string { return s.by(x, "POST", job.PathInventory, []byte(`{"disks":7}`)) }, "400 invalid", right, "200"},
		{"an inventory with a word of 50 KB", func() string { return product(strings.Repeat("p", 50_000)) }, "cut to 256 bytes", func() string { return product("OptiPlex 7010") }, "kept"},
		{"an inventory that is another one each time", func() (last string) {
			for i := range 40 {
				last = tell(talker, func(inv *job.Inventory) { inv.MemoryBytes = int64(i) })()
			}
			return last
		}, "429 too-many", right, "200"},
	}
}

// claims are the attacks by those who ask for work.
func (s *siege) claims() []attack {
	x := s.stranger
	m := s.worker("52:54:00:77:00:17", "10.77.0.23", "other")
	out := s.newcomer("52:54:00:77:00:19", "10.77.0.25")
	s.steal(out)
	claim := func(who *machine, of string) func() string {
		return func() string { return s.by(who, "POST", job.PathClaim, job.Claim{Machine: of}) }
	}
	right := func() string {
		answer, b, _ := knocked(m.client, "POST", s.base+job.PathClaim, encode(job.Claim{Machine: m.me.Machine}))
		if err := json.Unmarshal(b, &m.job); err != nil {
			return err.Error()
		}
		return answer
	}
	return []attack{
		{"a claim without a certificate", claim(s.nobody(), m.me.Machine), "401 unauthorised", right, "200"},
		{"a claim by a guest", claim(s.guest, m.me.Machine), "401 unauthorised", right, "200"},
		{"a claim for a machine that is not there", claim(m, "nobody"), "404 machine-unknown", right, "200"},
		{"a claim by a boot whose token was used twice", claim(out, out.me.Machine), "403 revoked", right, "200"},
		{"twelve claims of one machine at once", func() string { return fmt.Sprint(s.atOnce(x, 12), " refused") }, "8 refused", right, "200"},
	}
}

// atOnce has a machine without a job ask for one so often at once, and counts those that are refused.
func (s *siege) atOnce(m *machine, n int) (refused int) {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
	defer cancel()
	var all sync.WaitGroup
	var mu sync.Mutex
	for range n {
		all.Go(func() {
			req, err := http.NewRequestWithContext(ctx, "POST", s.base+job.PathClaim, bytes.NewReader(encode(job.Claim{Machine: m.me.Machine})))
			if err != nil {
				s.t.Error(err)
				return
			}
			resp, err := m.client.Do(req)
			if err != nil { // it waits still
				return
			}
			resp.Body.Close()
			if resp.StatusCode == http.StatusTooManyRequests {
				mu.Lock()
				defer mu.Unlock()
				refused++
			}
		})
	}
	all.Wait()
	return refused
}

// identities are the attacks of machines that pass for others.
func (s *siege) identities() []attack {
	v, x := s.victim, s.stranger
	own := inventoryOf(v)
	own.UUID, own.Serial, own.Disks = "5d7c8f10-1111-4222-8333-0123456789ab", "VICTIM-1", []job.Disk{{Name: "vda", Serial: "VICTIM-DISK-1", Length: 1 << 30}}
	tells := func(m *machine, inv job.Inventory) string {
		answer, b, _ := knocked(m.client, "POST", s.base+job.PathInventory, encode(inv))
		var a job.Admission
		if err := json.Unmarshal(b, &a); answer != "200" || err != nil {
			return answer
		}
		return map[bool]string{true: "the victim", false: "another"}[a.Machine == v.me.Machine] + map[bool]string{true: ", admitted", false: ", waits"}[a.Admitted]
	}
	right := func() string { return tells(v, own) }
	if got := right(); got != "the victim, admitted" {
		s.t.Fatalf("the victim tells what it is: %s", got)
	}
	passes := func(name string, change func(*job.Inventory)) attack {
		return attack{name, func() string {
			inv := inventoryOf(x)
			change(&inv)
			return tells(x, inv)
		}, "another, waits", right, "the victim, admitted"}
	}
	shown := func(name string) *api.Machine {
		m := decode[api.Machine](s.t, s.data, "machine", "show", name)
		return &m
	}
	has := func(m *machine, mac string) string {
		if slices.Contains(shown(m.me.Machine).MACs, mac) {
			return "has it"
		}
		return "has it not"
	}
	second := own
	second.NICs = append(slices.Clone(own.NICs), job.NIC{MAC: "02:00:00:04:00:01"})
	known := s.worker("52:54:00:77:00:1c", "10.77.0.28", "other")
	return []attack{
		passes("a machine with the UUID of another", func(inv *job.Inventory) { inv.UUID = own.UUID }),
		passes("a machine with UUID and serial number of another", func(inv *job.Inventory) { inv.UUID, inv.Serial = own.UUID, own.Serial }),
		passes("a machine with the disks of another", func(inv *job.Inventory) { inv.Disks = own.Disks }),
		passes("a machine that names the network card of another", func(inv *job.Inventory) { inv.NICs = append(inv.NICs, own.NICs...) }),
		passes("a machine that tells all that another tells", func(inv *job.Inventory) { *inv = own }),
		{"a network card that is taken from another machine", func() string {
			tells(x, own)
			return has(x, v.boot.MAC) + ", the victim " + has(v, v.boot.MAC)
		}, "has it not, the victim has it", func() string {
			tells(v, second)
			return has(v, "02:00:00:04:00:01")
		}, "has it"},
		{"a serial number that is another machine's ID", func() string {
			inv := inventoryOf(x)
			inv.Serial = v.me.Machine
			tells(x, inv)
			return shown(v.me.Machine).ID
		}, v.me.Machine, func() string { return shown(own.Serial).ID }, v.me.Machine},
		{"another computer that boots by the network card of one that is known", func() string {
			other := s.greeted(known.mac, known.own) // whoever controls the boot network can do that
			inv := inventoryOf(other)
			inv.UUID, inv.Serial = "5d7c8f10-2222-4222-8333-0123456789ab", "OTHER-1"
			answer, b, _ := knocked(other.client, "POST", s.base+job.PathInventory, encode(inv))
			var a job.Admission
			if err := json.Unmarshal(b, &a); answer != "200" || err != nil {
				return answer
			}
			return map[bool]string{true: "admitted", false: "waits"}[a.Admitted]
		}, "waits", right, "the victim, admitted"},
	}
}

// frames are the attacks on the old partition tables that are kept.
func (s *siege) frames() []attack {
	w := s.worker("52:54:00:77:00:1a", "10.77.0.26", "other")
	later := &machine{t: s.t, mac: w.mac, own: w.own}
	table := func(disk string, n int) []byte {
		b, err := cbor.Marshal(job.OldFrame{Job: w.job.ID, Disk: disk, DiskLength: 1<<30 + int64(n)})
		if err != nil {
			s.t.Fatal(err)
		}
		return b
	}
	sends := func(m *machine, b []byte) string { return s.by(m, "POST", job.PathFrame, b) }
	right := func() string { return sends(w, table("vda", 0)) }
	return []attack{
		{"a saved table without a certificate", func() string { return sends(s.nobody(), table("vda", 0)) }, "401 unauthorised", right, "204"},
		{"a saved table by a guest", func() string { return sends(s.guest, table("vda", 0)) }, "401 unauthorised", right, "204"},
		{"a saved table of a disk with a long name", func() string { return sends(w, table(strings.Repeat("d", 300), 0)) }, "400 invalid", right, "204"},
		{"a saved table of no known length", func() string { return sends(w, slices.Concat([]byte{0xbf}, table("vda", 0)[1:], []byte{0xff})) }, "400 invalid", right, "204"}, // RFC 8949 §3.2.2
		{"nine saved tables for one job", func() (last string) {
			for i := range 9 {
				last = sends(w, table("vda", i))
			}
			return last
		}, "400 invalid", right, "204"},
		{"a saved table by an earlier boot of the machine", func() string {
			later.bootAgent()
			later.hello()
			later.claim()
			return right()
		}, "404 job-unknown", func() string { return sends(later, table("vda", 0)) }, "204"},
		{"a saved table for a job that has ended", func() string {
			must(s.t, s.data, "job", "cancel", w.job.ID)
			return sends(later, table("vda", 0))
		}, "409 job-ended", func() string { return sends(s.fellow, frameOf(s, s.fellow.job.ID)) }, "204"},
	}
}
