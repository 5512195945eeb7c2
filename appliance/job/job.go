// Package job is the contract between the appliance and the agent on a machine: what they say to each other over
// HTTPS, as JSON unless stated. It holds types, paths and no behaviour beyond encoding.
package job

import (
	"net/netip"
	"time"

	"seedbed/images"
)

// Paths of the agents' endpoints. All are HTTPS. PathHello asks for no client certificate; every other one wants the
// certificate that hello or claim returned.
const (
	PathHello     = "/agent/v1/hello"     // POST Hello -> Welcome
	PathInventory = "/agent/v1/inventory" // POST Inventory -> Admission
	PathClaim     = "/agent/v1/claim"     // POST Claim -> Job, or 204 when there is none (long poll, 20 s); see Job.Waits
	PathReport    = "/agent/v1/report"    // POST Report -> Directive
	PathFrame     = "/agent/v1/frame"     // POST OldFrame (CBOR) -> 204 when durable
	PathReceipt   = "/agent/v1/receipt"   // POST Receipt -> Countersigned
	PathManifest  = "/agent/v1/manifest/" // GET + digest -> canonical CBOR; header Seedbed-Signature: base64 of Ed25519
	PathLayer     = "/agent/v1/layer/"    // GET + digest -> bytes
	PathAnnounce  = "/announce"           // GET, BEP 3 with bencoded answer
	PathSources   = "/announce/sources"   // GET, announce.SourcesRequest: who has what describes the image (waits 10 s)
)

// SignatureHeader carries the manifest's detached signature, base64.
const SignatureHeader = "Seedbed-Signature"

// Boot is what the boot script's second initrd tells the agent, as /etc/seedbed/boot.json. Nothing else is secret.
type Boot struct {
	// Appliances are the base URLs of the site's appliances: "https://10.77.0.1:443".
	Appliances []string `json:"appliances"`
	// Fingerprint is the SHA-256 of the site's CA certificate (DER); the agent's TLS is pinned to it.
	Fingerprint images.Digest `json:"fingerprint"`
	// Token is redeemed once, at hello. 64 hexadecimal digits.
	Token string `json:"token"`
	// MAC of the NIC that the machine booted from: "52:54:00:77:00:10".
	MAC string `json:"mac"`
	// Trouble is where the agent says, over plain HTTP, why it cannot say hello: "http://10.77.0.1/boot/trouble"; "" is nowhere.
	Trouble string `json:"trouble,omitempty"`
}

// BootFile is where the agent finds Boot.
const BootFile = "/etc/seedbed/boot.json"

// Codes of what keeps an agent from its hello, which it tells at Boot.Trouble.
const (
	TroubleUnreachable = "unreachable" // no appliance answers
	TroubleCertificate = "certificate" // what answers is not the site's appliance, or its certificate is not good now
	TroubleRefused     = "refused"     // the appliance does not know this boot
)

// Hello redeems the boot token.
type Hello struct {
	Token string `json:"token"`
	MAC   string `json:"mac"`
	// PublicKey is the PKIX DER of a P-256 key made in RAM at this boot.
	PublicKey []byte `json:"public_key"`
	// Clock is what the machine's clock said; zero year clocks are normal.
	Clock   time.Time `json:"clock"`
	Version string    `json:"version"` // of the agent
	// Left is what kept the agent from the appliance in an earlier boot; nil is nothing that is known.
	Left *Left `json:"left,omitempty"`
}

// Welcome answers Hello.
type Welcome struct {
	// Time is the appliance's clock; the agent sets its own from it before anything else.
	Time time.Time `json:"time"`
	// Appliances are all appliances of the site, base URLs.
	Appliances []string `json:"appliances"`
	// Certificate is a short-lived client certificate (DER) on Hello.PublicKey, by the site's CA, that names this boot.
	Certificate []byte `json:"certificate"`
	// CA is the site's CA certificate (DER); SiteKey its Ed25519 key, which signs manifests and receipts.
	CA      []byte `json:"ca"`
	SiteKey []byte `json:"site_key"`
}

// Inventory is what a machine is.
type Inventory struct {
	UUID         string `json:"uuid"` // SMBIOS, as Linux prints it
	Manufacturer string `json:"manufacturer"`
	Product      string `json:"product"`
	Serial       string `json:"serial"`
	// Firmware is "bios" or "uefi".
	Firmware string `json:"firmware"`
	// SecureBoot is "on", "off" or "" (BIOS, unknown).
	SecureBoot  string `json:"secure_boot,omitempty"`
	MemoryBytes int64  `json:"memory_bytes"`
	Cores       int    `json:"cores"`
	Disks       []Disk `json:"disks"`
	NICs        []NIC  `json:"nics"`
	// LinkWait is how long the boot NIC took from link up to a DHCP answer.
	LinkWait time.Duration `json:"link_wait"`
	// Controllers are its storage controllers, NoDriver its network controllers that no driver took.
	Controllers []Controller `json:"controllers,omitempty"`
	NoDriver    []PCI        `json:"no_driver,omitempty"`
	// SecureBootDB are the names of the certificates by which its firmware starts programs (UEFI 2.10 §32.6, "db"); empty is unknown.
	SecureBootDB []string `json:"secure_boot_db,omitempty"`
}

// PCI is a device on the PCI bus.
type PCI struct {
	Slot string `json:"slot"` // "0000:02:00.0"
	ID   string `json:"id"`   // vendor and device, "8086:15f3"
}

// Controller is one storage controller (PCI class 01).
type Controller struct {
	PCI
	Class  string `json:"class"`            // PCI class and subclass: "0106" is SATA, "0108" NVMe, "0104" RAID
	Driver string `json:"driver,omitempty"` // "" is none
	// Mode is ModeRAID or ModeVMD where the firmware may hide disks behind the controller; else "".
	Mode string `json:"mode,omitempty"`
	// Hidden NVMe disks are behind it that no driver reaches (sysfs, remapped_nvme).
	Hidden int `json:"hidden,omitempty"`
}

// Modes of storage controllers.
const (
	ModeRAID = "raid" // Intel RST and others: PCI class 0104
	ModeVMD  = "vmd"  // Intel Volume Management Device
)

// Hides reports whether disks may be behind the controller that are not seen.
func (c *Controller) Hides() bool { return c.Hidden > 0 || c.Mode != "" }

// Disk is one block device that could hold a system.
type Disk struct {
	Name         string `json:"name"` // kernel name, "sda"
	Model        string `json:"model,omitempty"`
	Serial       string `json:"serial,omitempty"`
	WWN          string `json:"wwn,omitempty"`
	Length       int64  `json:"length"`        // bytes
	SectorLength int    `json:"sector_length"` // logical, bytes
	Bus          string `json:"bus"`           // "sata", "nvme", "virtio", "usb", "scsi", "mmc", ...
	Removable    bool   `json:"removable,omitempty"`
	ReadOnly     bool   `json:"read_only,omitempty"`
	Rotational   bool   `json:"rotational,omitempty"`
	// BIOSDrive is the INT 13h number (0x80...) that EDD tells, 0 if unknown.
	BIOSDrive int `json:"bios_drive,omitempty"`
}

// NIC is one network interface.
type NIC struct {
	Name   string `json:"name"`
	MAC    string `json:"mac"`
	Driver string `json:"driver,omitempty"`
	Mbit   int    `json:"mbit,omitempty"` // link speed, 0 if unknown
	Addr   string `json:"addr,omitempty"`
}

// Admission answers Inventory.
type Admission struct {
	Machine string `json:"machine"` // ID
	Name    string `json:"name"`    // for people
	// Admitted is false until a person admits the machine by Code.
	Admitted bool   `json:"admitted"`
	Code     string `json:"code,omitempty"`
}

// Kind of a job.
type Kind string

const (
	Deploy      Kind = "deploy"
	InventoryOf Kind = "inventory"
)

// State of a job.
type State string

const (
	Waiting   State = "waiting"
	Claimed   State = "claimed"
	Running   State = "running"
	Paused    State = "paused"
	Succeeded State = "succeeded"
	Failed    State = "failed"
	Cancelled State = "cancelled"
)

// Ended reports whether nothing more happens to a job in this state.
func (s State) Ended() bool { return s == Succeeded || s == Failed || s == Cancelled }

// Claim asks for the next job of the machine.
type Claim struct {
	Machine string `json:"machine"`
	// Screen is as in Report.
	Screen *Screen `json:"screen,omitempty"`
}

// Job is one piece of work for one machine, as the agent gets it.
type Job struct {
	ID         string `json:"id"`
	Kind       Kind   `json:"kind"`
	Machine    string `json:"machine"`
	Deployment string `json:"deployment"`
	Epoch      int64  `json:"epoch"`
	// Image is the digest of the manifest; ImageName is "name:version".
	Image     images.Digest   `json:"image"`
	ImageName string          `json:"image_name"`
	InfoHash  images.InfoHash `json:"info_hash"`
	// Certificate (DER) on the agent's key names this job and the InfoHash (URI SANs) and is the peer's identity in
	// the swarm.
	Certificate []byte `json:"certificate"`
	// Appliances are those of the site that are there, base URLs.
	Appliances []string `json:"appliances,omitempty"`
	// Seeds are addresses of the appliances' seeders, known before the first announce.
	Seeds []netip.AddrPort `json:"seeds"`
	// Capture says what a job of kind Capture makes; its Image and InfoHash are zero.
	Capture *CaptureOrder `json:"capture,omitempty"`
	// DiskSerial, where set, is the only disk that may be written, or captured.
	DiskSerial string `json:"disk_serial,omitempty"`
	// Hint is the last Bitmap that was reported for this job: pieces that the disk probably holds. It orders the search
	// and proves nothing; nil if there is none.
	Hint []byte `json:"hint,omitempty"`
	// Options are how a deployment writes the disk.
	Options Options `json:"options,omitzero"`
	// Method is how a job of kind WipeDisk does it.
	Method WipeMethod `json:"method,omitempty"`
	// Waits is set where there is no job to begin now, but one that waits: it says for what. Nothing else is set then but ID.
	Waits string `json:"waits,omitempty"`
	// SeedFor is how long a finished machine goes on seeding at most; zero means until no machine needs it.
	SeedFor time.Duration `json:"seed_for"`
	// After says what follows success: "reboot", "poweroff", "stay".
	After string `json:"after"`
	// ReportEvery is the interval of reports.
	ReportEvery time.Duration `json:"report_every"`
	// Transport says how the network is used.
	Transport Transport `json:"transport,omitzero"`
}

// URIs in a certificate's subject alternative names (RFC 5280 §4.2.1.6).
const (
	URIMachine = "urn:seedbed:machine:" // + ID
	URIJob     = "urn:seedbed:job:"     // + ID
	URIKept    = "urn:seedbed:kept:"    // + numbers of the partitions that the job keeps, ascending, with commas
	URISite    = "urn:seedbed:site:"    // + hexadecimal Ed25519 key, in the CA certificate
)

// Phase is where in a job's sequence an agent is, for people.
type Phase string

const (
	PhaseStart   Phase = "start"
	PhaseCheck   Phase = "check"   // choose disk, check space
	PhaseFrame   Phase = "frame"   // save the old table, wipe it
	PhaseHash    Phase = "hash"    // what does the disk hold already?
	PhaseContent Phase = "content" // the swarm
	PhaseVerify  Phase = "verify"  // flush, read-back
	PhaseTable   Phase = "table"   // new table
	PhaseSeed    Phase = "seed"    // done, serves others
	PhaseReboot  Phase = "reboot"
)

// Report is what an agent says about its job, each second. Counters are cumulative over this boot, in bytes.
type Report struct {
	Job   string `json:"job"`
	Epoch int64  `json:"epoch"`
	Phase Phase  `json:"phase"`
	// State is Running, Paused or Failed; success is said by the receipt.
	State State `json:"state"`
	// Reason is a sentence, set when Paused or Failed: what happened, to what, what to do.
	Reason string `json:"reason,omitempty"`
	// Code is a short fixed word for the reason: "too-small", "ambiguous-disk", "write-error".
	Code string `json:"code,omitempty"`

	Disk          string `json:"disk,omitempty"`        // kernel name of the chosen disk
	DiskSerial    string `json:"disk_serial,omitempty"` // of the chosen disk
	BIOSDrive     int    `json:"bios_drive,omitempty"`  // of the chosen disk, 0 if unknown
	Total         int64  `json:"total"`                 // bytes of data tiles in the image
	Held          int64  `json:"held"`                  // bytes of data tiles that the disk holds rightly
	Resumed       int64  `json:"resumed"`               // of those, held before this boot
	Verified      int64  `json:"verified"`              // bytes read back and right
	Written       int64  `json:"written"`               // bytes written to the disk
	WriteNanos    int64  `json:"write_nanos"`           // time spent in those writes
	FromAppliance int64  `json:"from_appliance"`        // encoded bytes received from seeders of appliances, layers among them
	FromPeers     int64  `json:"from_peers"`            // encoded bytes received from other machines, layers among them; not those of FromSeeds
	FromSeeds     int64  `json:"from_seeds,omitempty"`  // encoded bytes received from seed nodes; neither of the two above counts them
	ToPeers       int64  `json:"to_peers"`              // encoded bytes sent, layers among them
	Peers         int    `json:"peers"`                 // connections now
	Tiles         int64  `json:"tiles,omitempty"`       // tiles that came from others and were compared with their hashes
	WrongTiles    int64  `json:"wrong_tiles,omitempty"` // of those, tiles that were other than their hashes
	// CPU is the busy share of the processors over the last second or more, 0 to 1; 0 is not known.
	CPU        float64 `json:"cpu,omitempty"`
	Congestion string  `json:"congestion,omitempty"` // congestion control in use, as the kernel names it
	Bitmap     []byte  `json:"bitmap,omitempty"`     // durable pieces, bit 7 of byte 0 is piece 0; every 10 s; see Job.Hint
	Log        string  `json:"log,omitempty"`        // last lines, with State Failed
	Liars      []Liar  `json:"liars,omitempty"`      // peers that were barred in this boot

	// Screen is what the machine's screen says, nil where that was told in the last half minute.
	Screen *Screen `json:"screen,omitempty"`

	// Found is what a verify found, or what a repair has put right so far.
	Found *Finding `json:"found,omitempty"`

	// Of a capture, where Total are the bytes to be read, and of a wipe, where it is the length of the disk.
	Done int64 `json:"done,omitempty"` // bytes read, hashed and compared with what the repository holds, or wiped
	Sent int64 `json:"sent,omitempty"` // encoded bytes that the appliance has taken
	// BytesPerSecond is the rate of Done over the last seconds, Left how long the rest takes at it; 0 is not known.
	BytesPerSecond float64       `json:"bytes_per_second,omitempty"`
	Left           time.Duration `json:"left,omitempty"`
	// Warnings are sentences about the source: file systems that are copied in full, damage in the table.
	Warnings []string `json:"warnings,omitempty"`
}

// WarnNoSwarm begins the warning of a machine that reaches nobody who has its image.
const WarnNoSwarm = "no connection to "

// Liar is a peer that was barred by another one for what it sent, see swarm.Liar.
type Liar struct {
	Peer  netip.AddrPort `json:"peer"`
	Names []string       `json:"names,omitempty"` // URIs of its certificate
	What  string         `json:"what"`            // "sent a wrong tile"
}

// Directive answers Report.
type Directive struct {
	// State is what the appliance holds the job to be: Running, Paused, Cancelled.
	State State `json:"state"`
	// Again says that the job failed and is to be done again: the agent asks for it.
	Again bool `json:"again,omitempty"`
	// Release says that no machine of the deployment needs this one any more.
	Release bool `json:"release"`
}

// OldFrame is what lay outside the partitions before the job, sent as canonical CBOR before anything is wiped.
type OldFrame struct {
	Job        string           `cbor:"1,keyasint"`
	Disk       string           `cbor:"2,keyasint"`
	DiskSerial string           `cbor:"3,keyasint"`
	DiskLength int64            `cbor:"4,keyasint"`
	Regions    []OldFrameRegion `cbor:"5,keyasint"`
}

// OldFrameRegion is one saved byte range.
type OldFrameRegion struct {
	Kind   string `cbor:"1,keyasint"`
	Offset int64  `cbor:"2,keyasint"`
	Bytes  []byte `cbor:"3,keyasint"`
}

// Receipt is the signed proof of what a machine's disk held after the job, from a read-back.
type Receipt struct {
	Job     string `json:"job"`
	Machine string `json:"machine"`
	// Kind is that of the job; empty is a deployment.
	Kind       Kind          `json:"kind,omitempty"`
	Image      images.Digest `json:"image"`
	DiskSerial string        `json:"disk_serial"`
	DiskLength int64         `json:"disk_length"`
	// Roots are of the partitions that were read back as a whole.
	Roots []PartitionRoot `json:"roots"`
	// Level is how much was to be read back; empty is full. Unproven are the partitions of which not everything was, which makes
	// the disk unverified; Kept the numbers of those that the job left as they were.
	Level    Verify     `json:"level,omitempty"`
	Unproven []Unproven `json:"unproven,omitempty"`
	Kept     []int      `json:"kept,omitempty"`
	// Result says what was found or done, for people: "right", "repaired", "wiped"; empty of a deployment.
	Result string `json:"result,omitempty"`
	// Found is what a repair has put right, Wiped what a wipe did.
	Found *Finding `json:"found,omitempty"`
	Wiped *Wiped   `json:"wiped,omitempty"`
	// Table is the SHA-256 of the table's bytes as written: LBA 0, primary, backup.
	Table images.Digest `json:"table"`
	// Changes are sentences: every change after the proof.
	Changes []string  `json:"changes,omitempty"`
	At      time.Time `json:"at"`
}

// PartitionRoot is one partition as read back.
type PartitionRoot struct {
	Number int           `json:"number"`
	Root   images.Digest `json:"root"`
}

// SignedReceipt carries the exact JSON bytes that were signed.
type SignedReceipt struct {
	Receipt []byte `json:"receipt"`
	// Signature is ASN.1 ECDSA by the agent's job key over SHA-256 of Receipt.
	Signature []byte `json:"signature"`
	// Final are the job's last counters.
	Final Report `json:"final"`
}

// ReceiptContext keeps a countersignature from being taken for one over anything else: it stands before the receipt's
// bytes when they are signed.
const ReceiptContext = "seedbed receipt v1\x00"

// Countersigned answers SignedReceipt: Ed25519 by the site over ReceiptContext and the receipt's bytes.
type Countersigned struct {
	Signature []byte `json:"signature"`
}

// Problem is the body of every error answer: RFC 9457, application/problem+json.
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"` // a sentence for people
	Code   string `json:"code"`   // "token-used", "job-cancelled", ...
}
