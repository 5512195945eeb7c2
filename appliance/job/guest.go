package job

import (
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"time"

	"seedbed/images"
)

// Paths for guests: programs outside a boot that fetch an image, or serve some as seed nodes. Manifest, layers and
// announces are asked for as agents do, with the certificate that a join returned.
const (
	PathJoin = "/agent/v1/join" // POST Join -> Joined; with a token, or the certificate of an earlier join
	PathNode = "/agent/v1/node" // POST NodeReport -> NodeOrder (long poll); certificate of a seed node
)

// Role is what a guest is there for.
type Role string

const (
	RoleGet  Role = "get"  // it fetches one image
	RoleSeed Role = "seed" // a seed node: it fetches and serves images
)

// Ticket is what a person gives a program on another machine, so that it can join: base64 of this as JSON, on one line.
type Ticket struct {
	Appliances  []string      `json:"appliances"`  // base URLs: "https://10.77.0.1:443"
	Fingerprint images.Digest `json:"fingerprint"` // of the site's CA certificate, to which the guest pins its TLS
	Token       string        `json:"token"`       // 64 hexadecimal digits
}

// Join asks for a certificate: by a token, or anew with the certificate of an earlier join, on the same key.
type Join struct {
	Token     string `json:"token,omitempty"`
	PublicKey []byte `json:"public_key"` // PKIX DER, P-256
	Role      Role   `json:"role"`
	Name      string `json:"name,omitempty"` // of the host, for people
	// Image is NAME, NAME:VERSION or digits of a digest. Empty asks for the image of the earlier join; a seed node that
	// has not chosen one gets a certificate that names no swarm.
	Image string `json:"image,omitempty"`
	// Part says that only a part of the image is wanted, see swarm.Config.Part.
	Part bool `json:"part,omitempty"`
	// Unverified says that what is written will not be read back and compared: a person asked for that.
	Unverified bool `json:"unverified,omitempty"`
}

// Joined answers Join.
type Joined struct {
	Guest string    `json:"guest"` // ID
	Time  time.Time `json:"time"`  // the appliance's clock
	// Certificate (DER) on Join.PublicKey is good until Expires.
	Certificate []byte    `json:"certificate"`
	Expires     time.Time `json:"expires"`
	CA          []byte    `json:"ca"`       // the site's CA certificate (DER)
	SiteKey     []byte    `json:"site_key"` // Ed25519: signs manifests
	Appliances  []string  `json:"appliances"`
	// Of the image; zero where none was asked for. Seeds are the addresses of the appliances' seeders and of seed nodes.
	Image     images.Digest    `json:"image"`
	ImageName string           `json:"image_name,omitempty"` // "debian:1"
	InfoHash  images.InfoHash  `json:"info_hash"`
	Seeds     []netip.AddrPort `json:"seeds,omitempty"`
}

// URIGuest and a guest's ID stand in its certificate.
const URIGuest = "urn:seedbed:guest:"

// NodeReport is what a seed node says of itself, every few seconds. The appliance answers when there is a new order, or
// after a while.
type NodeReport struct {
	Name  string `json:"name"`
	Port  uint16 `json:"port"`  // where it serves
	Order int64  `json:"order"` // Number of the last order
	// All says that it serves what the site deploys; else it serves the images that it was started with.
	All    bool        `json:"all"`
	Images []NodeImage `json:"images"`
	// Kept are images that are on its disk and not served now.
	Kept []NodeKept `json:"kept,omitempty"`
	// Used are the bytes that all images take on its disk, Space what they may take.
	Used  int64 `json:"used"`
	Space int64 `json:"space"`
}

// NodeKept is an image on the disk of a seed node.
type NodeKept struct {
	Image     images.Digest `json:"image"`
	ImageName string        `json:"image_name"`
	Size      int64         `json:"size"` // bytes on the disk
	LastUse   time.Time     `json:"last_use"`
}

// NodeImage is what a seed node holds of an image. Lengths are bytes of decoded data tiles.
type NodeImage struct {
	Image     images.Digest   `json:"image"`
	ImageName string          `json:"image_name"`
	InfoHash  images.InfoHash `json:"info_hash"`
	Total     int64           `json:"total"`  // of the image
	Wanted    int64           `json:"wanted"` // what it is to hold
	Held      int64           `json:"held"`
	// Cumulative bytes on the wire, and rates over the last seconds.
	Received     int64   `json:"received"`
	Sent         int64   `json:"sent"`
	ReceivedRate float64 `json:"received_rate"` // bytes a second
	SentRate     float64 `json:"sent_rate"`     // bytes a second
	Peers        int     `json:"peers"`
	FromDisk     bool    `json:"from_disk,omitempty"` // it is served from a disk that holds the image
	Problem      string  `json:"problem,omitempty"`   // a sentence
	// Size are the bytes on the node's disk. LastUse is when something of it was last fetched or sent.
	Size    int64     `json:"size"`
	LastUse time.Time `json:"last_use,omitzero"`
	// Pinned says that the node was started with the image, InUse that a deployment uses it: it is not evicted.
	Pinned bool   `json:"pinned,omitempty"`
	InUse  bool   `json:"in_use,omitempty"`
	Liars  []Liar `json:"liars,omitempty"` // peers that were barred
}

// NodeOrder says what a seed node is to hold.
type NodeOrder struct {
	Number int64 `json:"number"`
	// Rank of Count says which stripe is this node's; Count 0: wait, others may be about to come.
	Rank  int `json:"rank"`
	Count int `json:"count"`
	// Serve are the images to take part in, beside those that the node was started with.
	Serve []NodeTask `json:"serve"`
	// InUse are the images that deployments use, Drop those of which nothing is to be kept.
	InUse []images.Digest `json:"in_use,omitempty"`
	Drop  []images.Digest `json:"drop,omitempty"`
}

// NodeTask is one image of an order.
type NodeTask struct {
	Image     images.Digest `json:"image"`
	ImageName string        `json:"image_name"`
	// Preload is the share to hold, of all seed nodes together, where it is more than the node's own; 0 to 1.
	Preload float64 `json:"preload"`
	// Warmed is when a person last ordered it. What a node evicted is fetched again after a later order.
	Warmed time.Time `json:"warmed,omitzero"`
}

// Sum returns a number that follows from the content of the order, never 0.
func (o NodeOrder) Sum() int64 {
	o.Number = 0
	b, err := json.Marshal(o)
	if err != nil {
		panic(err) // plain types
	}
	sum := images.Sum(b)
	return int64(binary.BigEndian.Uint64(sum[:8])>>1 | 1)
}
