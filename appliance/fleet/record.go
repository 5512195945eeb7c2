package fleet

import (
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
)

// Machine is one computer. A record is never changed once it is in the fleet; a changed copy replaces it.
type Machine struct {
	ID      string `json:"id"`
	Version int64  `json:"version"` // of the row; 0 is a record not yet stored
	Name    string `json:"name"`    // for people: "pc-770010"
	// MACs are of all NICs ever seen in it, the one it booted from last first: "52:54:00:77:00:10".
	MACs []string `json:"macs"`
	// Booted are the MACs from which its boots said hello, the last one first: what is proven, where MACs are what it told too.
	Booted []string `json:"booted,omitempty"`
	// Conflict says in a sentence what of its inventory is another machine's; "" is nothing. Like are the IDs of the machines that it
	// passes for, until a person has said what it is; Unlike of those that it is not, by a person's word.
	Conflict string   `json:"conflict,omitempty"`
	Like     []string `json:"like,omitempty"`
	Unlike   []string `json:"unlike,omitempty"`
	// UUID is the SMBIOS UUID as a boot packet or the inventory said it; see canonicalUUID.
	UUID string `json:"uuid,omitempty"`
	// Admitted says that jobs may run on it; Code is what a person types to admit it.
	Admitted bool   `json:"admitted"`
	Code     string `json:"code,omitempty"`
	// ByItself is when it was admitted at first sight (AdmitAuto), zero where a person did. Crowded says that it was not, since too
	// many were.
	ByItself  time.Time      `json:"by_itself,omitzero"`
	Crowded   bool           `json:"crowded,omitempty"`
	FirstSeen time.Time      `json:"first_seen"`
	Inventory *job.Inventory `json:"inventory,omitempty"` // of the last boot of the agent
	Deployed  *Deployed      `json:"deployed,omitempty"`  // what its disk holds, by its last receipt
	// Groups are the IDs of those that it belongs to; Seat is its place in the plan of its room.
	Groups []string `json:"groups,omitempty"`
	Seat   *Seat    `json:"seat,omitempty"`
	Notes  string   `json:"notes,omitempty"`
	// Boot is a person's word about what it boots; nil leaves that to its jobs.
	Boot *BootOverride `json:"boot,omitempty"`
	// Clean is how far the policy of a group has come that repairs the machine at every boot; nil is not yet.
	Clean *Clean `json:"clean,omitempty"`
	// Saved are the jobs for which old tables are kept, the last one at the end.
	Saved []Saved `json:"saved,omitempty"`
	// MergedInto is set on a record that turned out to be the same computer as another; it is kept for its history.
	MergedInto string `json:"merged_into,omitempty"`
}

// MAC is the address that the machine booted from last, "" if none is known.
func (m *Machine) MAC() string {
	if len(m.MACs) == 0 {
		return ""
	}
	return m.MACs[0]
}

// Deployed says what a machine's disk holds since its last successful job, and how its firmware boots it.
type Deployed struct {
	Image       images.Digest `json:"image"`
	ImageName   string        `json:"image_name"`
	Job         string        `json:"job"`
	Disk        string        `json:"disk"`
	DiskSerial  string        `json:"disk_serial,omitempty"`
	BIOSDrive   int           `json:"bios_drive,omitempty"`    // INT 13h number, 0 if unknown
	ESPVolumeID string        `json:"esp_volume_id,omitempty"` // "ABCD-1234", "" without an EFI system partition
	// ESPPartition is the GPT GUID of the EFI system partition, "" without one.
	ESPPartition string    `json:"esp_partition,omitempty"`
	At           time.Time `json:"at"`
	// Written is when the image came onto the disk; a verify or a repair to the same image changes At alone. Zero is At.
	Written time.Time `json:"written,omitzero"`
	// Unverified says that not all of it was read back, as its deployment said.
	Unverified bool `json:"unverified,omitempty"`
	// Kept are the numbers of the image's partitions that its deployment left as they were: they are not the image's, and no verify
	// or repair is about them.
	Kept []int `json:"kept,omitempty"`
}

// written is when the image came onto the disk.
func (d *Deployed) written() time.Time {
	if d.Written.IsZero() {
		return d.At
	}
	return d.Written
}

// Job is the record of one piece of work for one machine.
type Job struct {
	ID         string   `json:"id"`
	Version    int64    `json:"version"`
	Kind       job.Kind `json:"kind"`
	Machine    string   `json:"machine"`
	Deployment string   `json:"deployment"`
	// Epoch counts the claims: reports of an earlier claim are refused.
	Epoch int64     `json:"epoch"`
	State job.State `json:"state"`
	// Reason is a sentence for people and Code its short fixed word, for Waiting after a loss, Paused, Failed, Cancelled.
	Reason string `json:"reason,omitempty"`
	Code   string `json:"code,omitempty"`
	Log    string `json:"log,omitempty"` // last lines of a machine whose job failed
	// HeldByOperator says that a person paused the job; only a person lets it go on.
	HeldByOperator bool `json:"held_by_operator,omitempty"`

	Image     images.Digest   `json:"image"`
	ImageName string          `json:"image_name"` // "name:version"
	InfoHash  images.InfoHash `json:"info_hash"`
	// Priority orders the queue, higher first. NotBefore is when it may begin; zero is at once. Windowless lets it begin outside
	// the windows of its machine's groups.
	Priority   int       `json:"priority,omitempty"`
	NotBefore  time.Time `json:"not_before,omitzero"`
	Windowless bool      `json:"windowless,omitempty"`
	// Failures counts how often it failed and was tried again by itself; RetriedBy is the job that a person had done in its place.
	// Options are how the disk is written; Before is the image that the machine held when the job was claimed.
	Options   job.Options   `json:"options,omitzero"`
	Before    images.Digest `json:"before,omitzero"`
	Failures  int           `json:"failures,omitempty"`
	RetriedBy string        `json:"retried_by,omitempty"`
	// Work says what a job is to do that belongs to no deployment and is no capture.
	Work *Work `json:"work,omitempty"`
	// Unproven are the partitions of which not everything was read back, and Wiped is what a wipe did, of a job that has succeeded.
	Unproven []job.Unproven `json:"unproven,omitempty"`
	Wiped    *job.Wiped     `json:"wiped,omitempty"`
	// Capture says what a job of kind job.Capture makes; such a job has no Deployment, and an Image when it has succeeded.
	Capture *Capture `json:"capture,omitempty"`

	// Calls is how often its machine was woken since it had the job last, Called when at last. Uncalled is why no packet left then;
	// Unanswered says that it is woken no more.
	Calls      int       `json:"calls,omitempty"`
	Called     time.Time `json:"called,omitzero"`
	Uncalled   string    `json:"uncalled,omitempty"`
	Unanswered bool      `json:"unanswered,omitempty"`

	// Frames are the digests of the old tables that are kept of it, FramesLength their bytes.
	Frames       []images.Digest `json:"frames,omitempty"`
	FramesLength int64           `json:"frames_length,omitempty"`

	// Session is the boot of the agent that holds the claim.
	Session string `json:"session,omitempty"`
	// Last is the report at the last change of state or phase.
	Last job.Report `json:"last"`
	// Earlier are the bytes of claims before this one: each claim counts from 0.
	Earlier Moved `json:"earlier,omitzero"`

	Created  time.Time `json:"created"`
	BootSeen time.Time `json:"boot_seen"` // first boot packet of the boot that claimed it
	HelloAt  time.Time `json:"hello_at"`  // of that boot
	Claimed  time.Time `json:"claimed"`   // last claim
	Started  time.Time `json:"started"`   // first report as Running
	Ended    time.Time `json:"ended"`
}

// Moved are bytes that a machine counted at a job.
type Moved struct {
	FromAppliance int64 `json:"from_appliance,omitempty"`
	FromPeers     int64 `json:"from_peers,omitempty"`
	FromSeeds     int64 `json:"from_seeds,omitempty"`
	ToPeers       int64 `json:"to_peers,omitempty"`
	Written       int64 `json:"written,omitempty"`
}

// And returns the sums with what a report counts.
func (m Moved) And(r *job.Report) Moved {
	return Moved{m.FromAppliance + r.FromAppliance, m.FromPeers + r.FromPeers, m.FromSeeds + r.FromSeeds, m.ToPeers + r.ToPeers, m.Written + r.Written}
}

// Deployment is one image to a set of machines; its jobs share a swarm.
type Deployment struct {
	ID        string          `json:"id"`
	Version   int64           `json:"version"`
	Image     images.Digest   `json:"image"`
	ImageName string          `json:"image_name"`
	InfoHash  images.InfoHash `json:"info_hash"`
	// All says that each machine of the site gets a job, those seen later too, until the deployment is Closed.
	All     bool          `json:"all"`
	Closed  bool          `json:"closed"`
	Paused  bool          `json:"paused,omitempty"` // a job that a machine seen later gets is paused too
	SeedFor time.Duration `json:"seed_for"`
	After   string        `json:"after"` // "reboot", "poweroff", "stay"
	// Priority, NotBefore and Windowless are those of its jobs. Retries is how often a job that failed is tried again by itself;
	// nil is what the settings say.
	Priority   int       `json:"priority,omitempty"`
	NotBefore  time.Time `json:"not_before,omitzero"`
	Windowless bool      `json:"windowless,omitempty"`
	Retries    *int      `json:"retries,omitempty"`
	// Preload is the share of the image that seed nodes fetch before its jobs begin, from 0 to 1; Preloaded says that they have.
	Preload       float64     `json:"preload,omitempty"`
	Preloaded     bool        `json:"preloaded,omitempty"`
	SeedUntilDone bool        `json:"seed_until_done,omitempty"`
	Wake          bool        `json:"wake,omitempty"`
	Options       job.Options `json:"options,omitzero"`
	Instead       string      `json:"instead,omitempty"` // the deployment that it takes back
	By            string      `json:"by,omitempty"`      // who ordered it
	Created       time.Time   `json:"created"`
}

// Session is one boot of the agent, from the token in its boot script to the end of its certificates. ID is the SHA-256
// of the token in hexadecimal digits: the token itself is not kept.
type Session struct {
	ID       string    `json:"id"`
	Version  int64     `json:"version"`
	MAC      string    `json:"mac"`
	Addr     string    `json:"addr"`
	Minted   time.Time `json:"minted"`
	BootSeen time.Time `json:"boot_seen"` // first boot packet
	// Redeemed is when the agent said hello, Key the SHA-256 of its public key (PKIX DER), in hexadecimal digits.
	Redeemed time.Time `json:"redeemed"`
	Key      string    `json:"key,omitempty"`
	// PublicKey is the PKIX DER: it checks the receipt.
	PublicKey []byte `json:"public_key,omitempty"`
	Machine   string `json:"machine,omitempty"` // ID, after the inventory
	Told      string `json:"told,omitempty"`    // names the inventory that was told last
	Revoked   bool   `json:"revoked,omitempty"`
	// Left is what its hello told of an earlier boot that did not come as far, by the appliance's clock; nil is nothing.
	Left *job.Left `json:"left,omitempty"`
	// Guest is set on what is no boot, but the stay of a program that joined swarms.
	Guest *Guest `json:"guest,omitempty"`
}

// Event is a dated fact, never changed.
type Event struct {
	ID         int64     `json:"id"` // ascending; given by the records
	At         time.Time `json:"at"`
	Kind       string    `json:"kind"` // "machine.seen", "job.running", ...: small letters, digits, hyphens and one dot
	Machine    string    `json:"machine,omitempty"`
	Job        string    `json:"job,omitempty"`
	Deployment string    `json:"deployment,omitempty"`
	// Actor is who did it, From where from: "alice", "10.1.2.3"; empty is the fleet itself, or the machine.
	Actor string `json:"actor,omitempty"`
	From  string `json:"from,omitempty"`
	Text  string `json:"text"` // a sentence
}

// Frame is what a machine sent of its disk outside the partitions before it was wiped. The first of a job is the one
// that restores the machine; later ones are kept beside it.
type Frame struct {
	Job    string
	Digest images.Digest // of Bytes
	At     time.Time
	Bytes  []byte // canonical CBOR of job.OldFrame
}

// Saved says how many bytes of old tables are kept for a job.
type Saved struct {
	Job    string `json:"job"`
	Length int64  `json:"length"`
}

// Receipt is a countersigned receipt.
type Receipt struct {
	Job              string
	At               time.Time
	Receipt          []byte // exact JSON bytes
	Signature        []byte // ECDSA by the agent's key
	Countersignature []byte // Ed25519 by the site
}
