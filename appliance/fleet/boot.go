package fleet

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
)

// Sighting says that a machine was seen on its way to a boot.
type Sighting struct {
	MAC  string // "52:54:00:77:00:10"
	UUID string // SMBIOS, "" if the packet had none
	Addr netip.Addr
	// Stage is "dhcp", "loader", "script", "kernel", "local" or "stuck".
	Stage string
	// Firmware is "bios" or "uefi" where the stage tells, else "".
	Firmware string
	// Loader is the loader concerned, "" if none.
	Loader string
	// Note is a sentence for people, "" if there is nothing to say.
	Note string
}

// sight is how far a machine is in its present boot.
type sight struct {
	first, last time.Time
	// over says that this boot reached its end: an agent's hello or the local disk. The next packet begins a new one.
	over     bool
	stage    string
	firmware string
	loader   string // that last came as far as its script
	// note is the last sentence recorded of this boot; local is when a boot of the own disk was recorded last.
	note  string
	local time.Time
}

// bootGap separates two boots of one machine when the first came to no end: loaders repeat their packets within
// seconds, a power cut and the firmware's start take longer.
const bootGap = 2 * time.Minute

// localGap is how far apart the records of two boots of a machine's own disk are at least: no firmware starts faster.
const localGap = 10 * time.Second

// maxUnknown bounds the machines that were only ever seen in boot packets, so that forged packets fill no disk. Where they
// have filled the bound, a machine whose agent says hello still gets a record, up to maxGreeted.
const (
	maxUnknown = 10000
	maxGreeted = 2 * maxUnknown
)

// Sighted remembers that a machine was seen. One that was never seen before gets a record; under AdmitAuto it is admitted
// at once, and gets a job of the open deployment to all machines.
func (f *Fleet) Sighted(ctx context.Context, s Sighting) error {
	mac := strings.ToLower(s.MAC)
	said := f.note(mac, s)
	id := identity{macs: []string{mac}, uuid: canonicalUUID(s.UUID)}
	m := f.lookup(id)
	if m != nil {
		f.mu.Lock()
		f.seen[m.ID] = f.now()
		f.mu.Unlock()
		once := m.Boot != nil && m.Boot.Once && (s.Stage == "local" || s.Stage == "kernel")
		once = once || m.Clean != nil && m.Clean.Local.IsZero() && s.Stage == "local"
		if (said || s.Note == "" && s.Stage != "local") && !once {
			return nil
		}
	} else if !f.tellers.sights.AllowN(f.now(), 1) {
		return refuse(CodeTooMany, "more machines are seen for the first time than are recorded, which is %d a second; %s is when it comes again", sightsRate, mac)
	}
	return f.change(ctx, func(d *draft) error {
		m, err := d.sighted(id, s.UUID, maxUnknown)
		if err != nil {
			return err
		}
		noted := d.cleaned(m, s.Stage)
		switch {
		case noted && said:
		case d.usesUp(m, s.Stage):
			d.event(Event{Kind: "machine.boot", Machine: m.ID, Text: m.Name + " boots " + string(m.Boot.To) + " this once, as a person said"})
		case s.Stage == "local":
			d.event(Event{Kind: "machine.local-boot", Machine: m.ID, Text: m.Name + " boots its own disk"})
		case s.Note != "":
			d.event(Event{Kind: "machine." + s.Stage, Machine: m.ID, Text: m.Name + ": " + s.Note})
		}
		return nil
	})
}

// usesUp ends a person's word about the next boot when the machine has come to that.
func (d *draft) usesUp(m *Machine, stage string) bool {
	if m.Boot == nil || !m.Boot.Once || (m.Boot.To == BootLocal) != (stage == "local") || m.Boot.To == BootAgent && stage != "kernel" {
		return false
	}
	d.editMachine(m).Boot = nil
	return true
}

// note keeps how far a machine is. said is true where the records have what this sighting tells: a machine that asks in
// a loop, for a loader that nobody has, fills no disk.
func (f *Fleet) note(mac string, s Sighting) (said bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	t, ok := f.sights[mac]
	if !ok || t.over || now.Sub(t.last) > bootGap {
		if !ok && len(f.sights) >= maxUnknown {
			for k, old := range f.sights {
				if now.Sub(old.last) > bootGap {
					delete(f.sights, k)
				}
			}
			if len(f.sights) >= maxUnknown {
				return false
			}
		}
		t = sight{first: now, loader: t.loader, local: t.local}
	}
	t.last, t.stage = now, s.Stage
	if s.Firmware != "" {
		t.firmware = s.Firmware
	}
	if s.Stage == "script" && s.Loader != "" {
		t.loader = s.Loader
	}
	t.over = s.Stage == "local"
	switch {
	case t.over && now.Sub(t.local) < localGap:
		said = true
	case t.over:
		t.local = now
	case s.Note != "":
		said, t.note = s.Note == t.note, s.Note
	}
	f.sights[mac] = t
	return said
}

// lookup returns the machine that a boot packet comes from, or nil.
func (f *Fleet) lookup(id identity) *Machine {
	f.mu.RLock()
	defer f.mu.RUnlock()
	list := make([]*Machine, 0, 4)
	for _, other := range f.traits.sharing(identity{macs: id.macs}) {
		list = append(list, f.state.machines[other])
	}
	return byMAC(id, list)
}

// sighted returns the machine that a boot packet comes from, recorded now if it is new and fewer than limit machines never
// said what they are.
func (d *draft) sighted(id identity, uuid string, limit int) (*Machine, error) {
	if m := byMAC(id, d.like(id)); m != nil {
		return m, nil
	}
	if unknown := d.crowd().packets; unknown >= limit {
		return nil, refuse(CodeInvalid, "%d machines were seen that never said what they are; %s is not recorded",
			unknown, id.macs[0])
	}
	return d.record(id, uuid), nil
}

// record makes a machine that was never seen before. Under AdmitAuto it is admitted and gets the jobs of open deployments.
func (d *draft) record(id identity, uuid string) *Machine {
	m := &Machine{
		ID: newID(), Name: nameOf(id.macs[0]), MACs: slices.Clone(id.macs), UUID: uuid, FirstSeen: d.f.now().UTC(),
		Admitted: d.f.config.Admit == AdmitAuto,
	}
	if m.Admitted {
		m.ByItself = m.FirstSeen
	} else {
		m.Code = newCode()
	}
	d.add(m)
	d.event(Event{Kind: "machine.seen", Machine: m.ID, Text: m.Name + " (" + m.MAC() + ") was seen for the first time"})
	d.enlist(m)
	return m
}

// nameOf makes a name for people from a MAC: "pc-770010".
func nameOf(mac string) string {
	h := strings.ReplaceAll(mac, ":", "")
	return "pc-" + h[max(0, len(h)-6):]
}

// newCode returns a code to be read from a screen and typed: "K7PQ-4XWM", without letters and digits that look alike.
func newCode() string {
	const alphabet = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ" // 32, so that a byte has no bias
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	for i := range b {
		b[i] = alphabet[b[i]%32]
	}
	return string(b[:4]) + "-" + string(b[4:])
}

// Assignment is what a machine boots next.
type Assignment struct {
	// Agent says that the machine boots the agent, else its own disk.
	Agent bool
	// Known says that the machine's agent told what it is before.
	Known      bool
	SecureBoot string // "on", "off", "" as the last inventory said
	Loader     string // that last worked in this run of the appliance, "" if none
	// BIOSDrive, ESPVolumeID and ESPPartition say how the deployed disk boots; zero if nothing was deployed.
	BIOSDrive    int
	ESPVolumeID  string
	ESPPartition string // GPT partition GUID
}

// NextBoot says what a machine boots next: the agent if there is a job for it, if nobody has admitted it yet, or if it may be a machine
// for which there is a job; else its own disk. A machine of a group that is kept clean gets the repair of this boot here.
func (f *Fleet) NextBoot(ctx context.Context, mac, uuid string) Assignment {
	mac = strings.ToLower(mac)
	m := f.lookup(identity{macs: []string{mac}, uuid: canonicalUUID(uuid)})
	if m != nil && len(m.Groups) > 0 {
		if err := f.keepClean(ctx, m); err != nil {
			f.log.Error("a machine is not kept clean at this boot", "machine", m.Name, "err", err)
		}
	}
	turns, _ := f.decide()
	f.mu.RLock()
	defer f.mu.RUnlock()
	a := Assignment{Loader: f.sights[mac].loader}
	now := f.now()
	awaited := func(own string) bool { return f.awaited(canonicalUUID(uuid), own) }
	if m == nil {
		a.Agent = f.config.Admit == AdmitAsk || awaited("")
		for _, dep := range f.state.deployments {
			a.Agent = a.Agent || dep.All && !dep.Closed
		}
		return a
	}
	a.Agent = !m.Admitted
	for _, j := range f.todo[m.ID] {
		if m.Admitted && !j.HeldByOperator && (j.begun() || !turns.later(j.ID, now)) {
			a.Agent = true
		}
	}
	a.Agent = a.Agent || m.Inventory == nil && awaited(m.ID)
	if m.Boot != nil {
		a.Agent = m.Boot.To == BootAgent
	}
	if m.Inventory != nil {
		a.Known, a.SecureBoot = true, m.Inventory.SecureBoot
	}
	if m.Deployed != nil {
		a.BIOSDrive, a.ESPVolumeID, a.ESPPartition = m.Deployed.BIOSDrive, m.Deployed.ESPVolumeID, m.Deployed.ESPPartition
	}
	return a
}

// awaited reports whether a job waits for another machine that has the UUID of a boot packet: the computer may be that one, with a network
// card that nobody knows. Its agent tells, and a person decides. The caller holds mu.
func (f *Fleet) awaited(uuid, own string) bool {
	if uuid == "" {
		return false
	}
	for _, id := range f.traits.sharing(identity{uuid: uuid}) {
		if id != own && len(f.todo[id]) > 0 {
			return true
		}
	}
	return false
}

// BootToken makes the second initrd's content for a machine that boots the agent: a token that is redeemed once. The
// caller has checked that MAC and address took part in a DHCP exchange just now. A token takes the place of an earlier
// one of the same MAC that nobody redeemed.
func (f *Fleet) BootToken(ctx context.Context, mac string, addr netip.Addr) (job.Boot, error) {
	mac = strings.ToLower(mac)
	var secret [32]byte
	rand.Read(secret[:]) // never fails (crypto/rand)
	token := hex.EncodeToString(secret[:])
	now := f.now().UTC()
	s := &Session{ID: tokenID(token), MAC: mac, Addr: addr.String(), Minted: now, BootSeen: now}
	f.mu.RLock()
	if t, ok := f.sights[mac]; ok && !t.over {
		s.BootSeen = t.first.UTC()
	}
	f.mu.RUnlock()
	err := f.change(ctx, func(d *draft) error {
		all, waiting := d.sessions(), 0
		if err := d.hasRoomFor(mac, len(all)); err != nil {
			return err
		}
		for _, old := range all {
			switch {
			case !old.Redeemed.IsZero() || old.Guest != nil:
			case old.MAC == mac && !old.Revoked:
				d.editSession(old).Revoked = true
			default:
				waiting++
			}
		}
		if waiting >= f.maxPending {
			return refuse(CodeTooMany, "%d boots have not said hello yet, and no more are begun; start the machine again in %v", waiting, tokenLifetime)
		}
		d.add(s)
		return nil
	})
	if err != nil {
		return job.Boot{}, err
	}
	return job.Boot{
		Appliances: f.addresses(), Fingerprint: f.config.Authority.Fingerprint(), Token: token, MAC: mac,
	}, nil
}

// maxBoots bounds the boots that are remembered, so that forged packets fill neither memory nor records: beyond it only machines
// that said what they are get a boot token.
const maxBoots = 5 * maxUnknown

// hasRoomFor refuses a boot token to a machine that never said what it is where too many boots are known.
func (d *draft) hasRoomFor(mac string, boots int) error {
	if boots < maxBoots {
		return nil
	}
	id := identity{macs: []string{mac}}
	if m := byMAC(id, d.like(id)); m != nil && m.Inventory != nil {
		return nil
	}
	return refuse(CodeTooMany, "%d boots are known, and %s, which never said what it is, gets no token; look for a strange device on the boot network", boots, mac)
}

func tokenID(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// espTypes are the partition types of an EFI system partition: GPT (UEFI 2.10 §5.3.3) and MBR (§5.2.2).
var espTypes = []string{"c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ef"}

// esp returns the FAT serial and the partition GUID of an image's EFI system partition, "" if it has none.
func esp(m *images.Manifest) (volumeID, partition string) {
	for i := range m.Partitions {
		if p := &m.Partitions[i]; slices.Contains(espTypes, strings.ToLower(p.Type)) {
			return p.FSUUID, p.GUID
		}
	}
	return "", ""
}
