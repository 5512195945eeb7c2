//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/site"
	"seedbed/images"
	"seedbed/images/announce"
	"seedbed/images/layout"
	"seedbed/images/swarm"
	"seedbed/images/tile"
	"seedbed/images/torrent"
)

const testMAC = "52:54:00:77:00:10"

// machine is a machine as the appliance sees it on the network: firmware, loader, agent.
type machine struct {
	t       *testing.T
	mac     string // "" is testMAC
	key     *ecdsa.PrivateKey
	boot    job.Boot
	client  *http.Client
	welcome job.Welcome
	me      job.Admission
	job     job.Job
	disk    *memory
	peer    sync.WaitGroup // its part in the swarm
	// Addresses of the appliance that it boots from, and its own; "" are the usual ones.
	appliance, own string
}

// get fetches a boot file as the machine's loader does: from the address that its DHCP server gave it.
func (m *machine) get(path string) []byte {
	m.t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(or(m.own, machineAddr))}}
	transport := &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(m.t.Context(), "GET", "http://"+or(m.appliance, applianceAddr)+path, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		m.t.Fatalf("%s: %s, %v: %s", path, resp.Status, err, b)
	}
	return b
}

// firmware asks for a boot file by DHCP, fetches the script, and returns it.
func (m *machine) firmware() string {
	m.t.Helper()
	mac, err := net.ParseMAC(or(m.mac, testMAC))
	if err != nil {
		m.t.Fatal(err)
	}
	discover, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(or(m.own, machineAddr)))),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")),
		dhcpv4.WithGeneric(dhcpv4.OptionUserClassInformation, []byte("iPXE")),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 0}))
	if err != nil {
		m.t.Fatal(err)
	}
	relay := net.ParseIP(or(m.own, machineAddr)).To4()
	discover.GatewayIPAddr = relay // so that the answer comes to an address that is there
	shared := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1) })
	}}
	conn, err := shared.ListenPacket(m.t.Context(), "udp4", or(m.own, machineAddr)+":67")
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.WriteTo(discover.ToBytes(), &net.UDPAddr{IP: net.ParseIP(or(m.appliance, applianceAddr)), Port: 67}); err != nil {
		m.t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 1500)
	n, _, err := conn.ReadFrom(buf)
	if err != nil {
		m.t.Fatal(err)
	}
	offer, err := dhcpv4.FromBytes(buf[:n])
	if err != nil {
		m.t.Fatal(err)
	}
	path := strings.TrimPrefix(offer.BootFileNameOption()+strings.Trim(offer.BootFileName, "\x00"), "http://"+or(m.appliance, applianceAddr))
	path, _, _ = strings.Cut(path, "http://")
	return string(m.get(path))
}

// bootAgent boots the machine from the network as far as the start of its agent.
func (m *machine) bootAgent() {
	t := m.t
	t.Helper()
	if script := m.firmware(); !strings.Contains(script, "/boot/token") {
		t.Fatalf("the machine does not boot the agent:\n%s", script)
	}
	archive := m.get("/boot/token?mac=" + or(m.mac, testMAC))
	from, to := bytes.IndexByte(archive, '{'), bytes.LastIndexByte(archive, '}')
	if err := json.Unmarshal(archive[from:to+1], &m.boot); err != nil {
		t.Fatal(err)
	}
}

// powerOn boots the machine from the network as far as its inventory.
func powerOn(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t}
	m.bootAgent()
	m.hello()
	return m
}

// hello is the agent's beginning, as far as its inventory.
func (m *machine) hello() {
	t := m.t
	t.Helper()
	var err error
	if m.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	m.identify(nil)
	pub, err := x509.MarshalPKIXPublicKey(&m.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	m.post(job.PathHello, job.Hello{Token: m.boot.Token, MAC: m.boot.MAC, PublicKey: pub}, &m.welcome)
	m.identify(m.welcome.Certificate)
	m.post(job.PathInventory, job.Inventory{Firmware: "bios", Serial: "SN77" + m.mac, NICs: []job.NIC{{MAC: m.boot.MAC}}}, &m.me)
}

func (m *machine) identify(der []byte) {
	config := &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) != 2 || images.Sum(cs.PeerCertificates[1].Raw) != m.boot.Fingerprint {
			return errors.New("not the site")
		}
		return cs.PeerCertificates[0].CheckSignatureFrom(cs.PeerCertificates[1])
	}}
	if der != nil {
		config.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: m.key}}
	}
	m.client = &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}
	m.t.Cleanup(m.client.CloseIdleConnections)
}

// try sends one request.
func (m *machine) try(method, path string, body any, into any) (http.Header, error) {
	b, ok := body.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(m.t.Context(), method, m.boot.Appliances[0]+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	switch to := into.(type) {
	case *[]byte:
		*to = content
	case nil:
	default:
		err = errors.Join(err, json.Unmarshal(content, into))
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s: %s: %s", path, resp.Status, content)
	}
	return resp.Header, err
}

func (m *machine) post(path string, body, into any) {
	m.t.Helper()
	if _, err := m.try("POST", path, body, into); err != nil {
		m.t.Fatal(err)
	}
}

// report says where the job is, over and over while the appliance is away.
func (m *machine) report(phase job.Phase, stats swarm.Stats) (d job.Directive) {
	m.t.Helper()
	r := job.Report{Job: m.job.ID, Epoch: m.job.Epoch, Phase: phase, State: job.Running, Total: stats.Total, Held: stats.Held,
		FromAppliance: stats.FromAppliance, FromPeers: stats.FromPeers, Disk: "vda"}
	ctx, cancel := context.WithTimeout(m.t.Context(), 20*time.Second)
	defer cancel()
	for {
		_, err := m.try("POST", job.PathReport, r, &d)
		if err == nil {
			return d
		}
		select {
		case <-ctx.Done():
			m.t.Fatal(err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// claim takes the job and fetches what describes the image.
func (m *machine) claim() (*layout.Layout, *images.Manifest) {
	m.t.Helper()
	m.post(job.PathClaim, job.Claim{Machine: m.me.Machine}, &m.job)
	m.identify(m.job.Certificate)
	var raw []byte
	header, err := m.try("GET", job.PathManifest+m.job.Image.String(), nil, &raw)
	if err != nil {
		m.t.Fatal(err)
	}
	if sig, err := base64.StdEncoding.DecodeString(header.Get(job.SignatureHeader)); err != nil || len(sig) != 64 || images.Sum(raw) != m.job.Image {
		m.t.Fatalf("manifest: %v", err)
	}
	manifest, err := images.DecodeManifest(raw)
	if err != nil {
		m.t.Fatal(err)
	}
	if info, err := torrent.FromManifest(manifest); err != nil || info.InfoHash != m.job.InfoHash {
		m.t.Fatalf("the job's infohash is not the image's: %v", err)
	}
	shape, err := layout.Load(manifest, func(r images.Ref) (b []byte, err error) {
		_, err = m.try("GET", job.PathLayer+r.Digest.String(), nil, &b)
		return b, err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return shape, manifest
}

// join starts the machine's peer; it stops with ctx.
func (m *machine) join(ctx context.Context, shape *layout.Layout) *swarm.Swarm {
	m.t.Helper()
	ca, err := x509.ParseCertificate(m.welcome.CA)
	if err != nil {
		m.t.Fatal(err)
	}
	m.disk = newMemory(shape)
	peer, err := swarm.New(swarm.Config{
		InfoHash: m.job.InfoHash, Pieces: shape, Storage: m.disk, Seeds: m.job.Seeds, ListenAddr: netip.AddrPortFrom(netip.MustParseAddr(machineAddr), 0).String(),
		TLS: swarm.TLSConfig(tls.Certificate{Certificate: [][]byte{m.job.Certificate}, PrivateKey: m.key}, ca, m.job.InfoHash),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.peer.Go(func() {
		if err := peer.Run(ctx); err != nil && ctx.Err() == nil {
			m.t.Error(err)
		}
	})
	return peer
}

// finish sends the receipt.
func (m *machine) finish(manifest *images.Manifest, stats swarm.Stats) {
	m.t.Helper()
	r := job.Receipt{Job: m.job.ID, Machine: m.me.Machine, Image: m.job.Image, At: time.Now()}
	for i := range manifest.Partitions {
		r.Roots = append(r.Roots, job.PartitionRoot{Number: manifest.Partitions[i].Number, Root: manifest.Partitions[i].Root})
	}
	b, err := json.Marshal(r)
	if err != nil {
		m.t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	sig, err := ecdsa.SignASN1(rand.Reader, m.key, sum[:])
	if err != nil {
		m.t.Fatal(err)
	}
	final := job.Report{Phase: job.PhaseTable, Total: stats.Total, Held: stats.Held, Verified: stats.Total, FromAppliance: stats.FromAppliance}
	var c job.Countersigned
	m.post(job.PathReceipt, job.SignedReceipt{Receipt: b, Signature: sig, Final: final}, &c)
	if !site.VerifyReceipt(m.welcome.SiteKey, b, c.Signature) {
		m.t.Fatal("the countersignature is not the site's")
	}
}

func TestMachineIsImagedThoughTheApplianceIsKilledInTheMiddle(t *testing.T) {
	network(t)
	data, boot := t.TempDir(), bootFiles(t)
	disk, content := newDisk(t)
	p := serve(t, data, boot, "--admit", "auto")
	must(t, data, "image", "add", disk, "--name", "debian")
	must(t, data, "deploy", "debian", "--all")

	m := powerOn(t)
	shape, manifest := m.claim()
	frame, err := cbor.Marshal(job.OldFrame{Job: m.job.ID, Disk: "vda", DiskLength: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	m.post(job.PathFrame, frame, nil)
	m.report(job.PhaseContent, swarm.Stats{Total: 4 << 20})
	p.kill()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer m.peer.Wait()
	defer cancel()
	peer := m.join(ctx, shape) // the machine goes on while the appliance is away
	serve(t, data, boot, "--admit", "auto")
	select {
	case <-peer.Done():
	case <-ctx.Done():
		t.Fatalf("the content did not arrive: %+v", peer.Stats())
	}
	if !bytes.Equal(m.disk.content(), content) {
		t.Fatal("the content is not that of the disk")
	}
	tracker := &announce.Client{URL: m.boot.Appliances[0] + job.PathAnnounce, HTTP: m.client}
	found, err := tracker.Announce(ctx, announce.Request{InfoHash: m.job.InfoHash.Wire(), PeerID: peer.PeerID(), Port: peer.Addr().Port()})
	if err != nil || !slices.Contains(found.Peers, m.job.Seeds[0]) {
		t.Fatalf("announce: %+v, %v", found, err)
	}
	m.report(job.PhaseVerify, peer.Stats())
	m.finish(manifest, peer.Stats())

	list := jobs(t, data)
	if len(list) != 1 || list[0].State != job.Succeeded || list[0].MachineName != "pc-770010" || list[0].FromAppliance < 4<<20 ||
		list[0].Epoch != 1 || list[0].Firmware != "bios" || list[0].BootSeen.IsZero() || list[0].Succeeded.IsZero() {
		t.Fatalf("jobs %+v", list)
	}
	if script := (&machine{t: t}).firmware(); strings.Contains(script, "/boot/token") || !strings.Contains(script, "sanboot") {
		t.Fatalf("after its job the machine does not boot its disk:\n%s", script)
	}
	checkTables(t, data)
}

// checkTables looks at what the operator's commands say after the one machine's one job.
func checkTables(t *testing.T, data string) {
	t.Helper()
	kinds := ""
	for _, e := range decode[[]fleet.Event](t, data, "event", "ls") {
		kinds += e.Kind + " "
	}
	for _, want := range []string{"machine.seen", "job.waiting", "machine.hello", "job.claimed", "job.frame", "job.running", "job.phase", "job.succeeded"} {
		if !strings.Contains(kinds, want) {
			t.Errorf("no event %s among %s", want, kinds)
		}
	}
	for _, args := range [][]string{{"job", "ls"}, {"machine", "ls"}, {"deployment", "ls"}, {"event", "ls"}, {"image", "ls"}} {
		if out := must(t, data, args...); !strings.Contains(out, "debian:1") && args[0] != "image" {
			t.Errorf("seedbed %v does not name the image:\n%s", args, out)
		}
	}
}

// memory is a disk that keeps what the swarm writes.
type memory struct {
	shape *layout.Layout
	mu    sync.Mutex // guards all below
	held  map[int]images.TileSet
	known map[int][]images.Digest
	bytes map[[2]int][]byte // by piece and tile
}

func newMemory(shape *layout.Layout) *memory {
	return &memory{shape: shape, held: map[int]images.TileSet{}, known: map[int][]images.Digest{}, bytes: map[[2]int][]byte{}}
}

func (m *memory) Held(p int) images.TileSet { m.mu.Lock(); defer m.mu.Unlock(); return m.held[p] }
func (m *memory) TileHashes(p int) []images.Digest {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[p]
}
func (m *memory) Learn(p int, h []images.Digest) { m.mu.Lock(); defer m.mu.Unlock(); m.known[p] = h }
func (m *memory) Sync() error                    { return nil }

func (m *memory) Read(_ context.Context, piece int, tiles images.TileSet, _ []byte) (list []tile.Encoded, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for t := range tiles.All() {
		b := m.bytes[[2]int{piece, t}]
		list = append(list, tile.Encoded{Codec: tile.Stored, Length: int32(len(b)), Bytes: b})
	}
	return list, nil
}

func (m *memory) Write(piece, first int, raw [][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	set := m.held[piece]
	for i := range raw {
		m.bytes[[2]int{piece, first + i}] = bytes.Clone(raw[i])
		set.Add(first + i)
	}
	m.held[piece] = set
	return nil
}

// content returns the first partition.
func (m *memory) content() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := make([]byte, m.shape.Map(0).Length)
	for at, tile := range m.bytes {
		copy(b[m.shape.Span(at[0]).Offset+int64(at[1])*images.TileLength:], tile)
	}
	return b
}
