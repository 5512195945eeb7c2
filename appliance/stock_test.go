//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/tracker"
	"seedbed/images"
	"seedbed/images/announce"
	"seedbed/images/layout"
	"seedbed/images/swarm"
	"seedbed/images/torrent"
)

// openRoom is an appliance with an open image, and what its partitions are.
type openRoom struct {
	t          *testing.T
	data       string
	opened     api.OpenSwarm
	shape      *layout.Layout
	info       *torrent.Info
	name       string            // of the torrent's folder
	partitions map[string][]byte // by file name, free space as zeros
	appliance  netip.AddrPort    // of the seeder
	hosts      *atomic.Int32
}

// newOpenDisk makes a disk of 24 MiB: one partition of noise and zeros, one that ends within a leaf, an ext4 that is half
// empty, one of a single sector.
func newOpenDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	content := filepath.Join(dir, "content")
	if err := os.Mkdir(content, 0o755); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 24<<20)
	mathrand.NewChaCha8([32]byte{9}).Read(b)
	clear(b[4<<20 : 6<<20])
	if err := os.WriteFile(filepath.Join(content, "noise"), b[:4<<20], 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	tools(t, "label: gpt\nstart=2048, size=14336\nstart=16384, size=6147\nstart=24576, size=20480\nstart=47104, size=1\n", "sfdisk", "-q", "-w", "never", file)
	tools(t, "", "mkfs.ext4", "-q", "-F", "-b", "1024", "-E", "offset=12582912", "-d", content, file, "10240k")
	return file
}

// newOpenRoom captures a disk, opens the image while no appliance runs, and starts the appliance.
func newOpenRoom(t *testing.T) *openRoom {
	t.Helper()
	network(t)
	r := &openRoom{t: t, data: filepath.Join(t.TempDir(), "data"), name: "lab-1", partitions: map[string][]byte{}, hosts: new(atomic.Int32)}
	must(t, r.data, "image", "add", newOpenDisk(t), "--name", "lab", "--piece", "256KiB")
	if _, code := seedbed(t, r.data, "image", "torrent", "lab", filepath.Join(t.TempDir(), "x")); code != exitRefused {
		t.Errorf("the torrent of a closed image: exit code %d", code)
	}
	must(t, r.data, "image", "open", "lab")
	lib, err := openLibrary(t.Context(), r.data, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	image, err := lib.image(t.Context(), "lab")
	if err != nil {
		t.Fatal(err)
	}
	one, err := lib.openOf(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := lib.repo.OpenImage(t.Context(), image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	r.shape, r.info = reader.Layout(), one.info
	if err := lib.close(); err != nil {
		t.Fatal(err)
	}
	disk := output(t, r.data, 0, "image", "export", "lab", "-")
	for i := range image.Manifest.Partitions {
		p := &image.Manifest.Partitions[i]
		content := bytes.Clone(disk[p.Offset : p.Offset+p.Length])
		r.shape.Mask(i, content, 0)
		r.partitions[p.FileName()] = content
	}
	serve(t, r.data, bootFiles(t), "--no-dhcp")
	r.opened = decode[api.OpenSwarm](t, r.data, "image", "open", "lab")
	r.appliance = netip.MustParseAddrPort(applianceAddr + ":6881")
	return r
}

// host returns an address of its own for one more participant.
func (r *openRoom) host() netip.Addr {
	r.t.Helper()
	a := netip.AddrFrom4([4]byte{10, 77, 1, byte(r.hosts.Add(1))})
	tools(r.t, "", "ip", "addr", "replace", a.String()+"/24", "dev", "lo")
	return a
}

// trackerFor runs a tracker that names one peer, and those who announce themselves if they lack something. It returns the
// torrent with it.
func (r *openRoom) trackerFor(kind string, peer netip.AddrPort) (file string) {
	r.t.Helper()
	tr := tracker.New(tracker.Config{Interval: time.Second})
	tr.Open(r.info.InfoHash, r.info.V1, r.info.Plain)
	tr.AddSeed(r.info.InfoHash, peer)
	l, err := net.Listen("tcp", netip.AddrPortFrom(r.host(), 0).String())
	if err != nil {
		r.t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: tr}}
	server.Start()
	r.t.Cleanup(server.Close)
	file = filepath.Join(r.t.TempDir(), "lab.torrent")
	args := []string{"image", "torrent", "lab", file, "--announce", server.URL + "/announce"}
	if readsV1(kind) {
		args = append(args, "--v1")
	}
	must(r.t, r.data, args...)
	return file
}

// stockClient is a program that takes part in the swarm of a torrent file or magnet link.
type stockClient struct {
	address netip.AddrPort
	folder  string
}

// client starts a program.
func (r *openRoom) client(kind, file string) *stockClient {
	r.t.Helper()
	c := &stockClient{netip.AddrPortFrom(r.host(), 6999), r.t.TempDir()}
	cmd := kinds[kind](r.t, c, file)
	log := new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		r.t.Fatalf("%s: %v", kind, err)
	}
	r.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if r.t.Failed() {
			r.t.Logf("%s at %s:\n%s", kind, c.address, tail(log.Bytes()))
		}
	})
	return c
}

func tail(b []byte) []byte { return b[max(0, len(b)-4000):] }

// kinds are the programs, and the ways in which they are told of a torrent. Each uses its address alone, and no way to find
// peers but the tracker's.
var kinds = map[string]func(t *testing.T, c *stockClient, file string) *exec.Cmd{
	"aria2": func(t *testing.T, c *stockClient, file string) *exec.Cmd {
		return program(t, "aria2", "aria2c", "--no-conf", "--dir="+c.folder, "--interface="+c.address.Addr().String(), "--enable-dht=false", "--enable-dht6=false",
			"--bt-enable-lpd=false", "--enable-peer-exchange=false", "--disable-ipv6=true", "--seed-ratio=0.0", "--file-allocation=none", "--summary-interval=0",
			fmt.Sprintf("--listen-port=%d", c.address.Port()), file)
	},
	"transmission": func(t *testing.T, c *stockClient, file string) *exec.Cmd {
		config, watched := t.TempDir(), t.TempDir()
		settings, err := json.Marshal(map[string]any{
			"bind-address-ipv4": c.address.Addr().String(), "peer-port": c.address.Port(), "download-dir": c.folder, "dht-enabled": false, "pex-enabled": false,
			"lpd-enabled": false, "rpc-enabled": false, "port-forwarding-enabled": false, "utp-enabled": false, "watch-dir": watched, "watch-dir-enabled": true, "message-level": 2,
			"ratio-limit-enabled": false, "preallocation": 0,
		})
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for path, content := range map[string][]byte{filepath.Join(config, "settings.json"): settings, filepath.Join(watched, "lab.torrent"): b} {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return program(t, "transmission-daemon", "transmission-daemon", "--foreground", "--config-dir", config)
	},
	"libtorrent":             func(t *testing.T, c *stockClient, file string) *exec.Cmd { return libtorrentClient(t, c, "file", file) },
	"libtorrent, v1 torrent": func(t *testing.T, c *stockClient, file string) *exec.Cmd { return libtorrentClient(t, c, "file", file) },
	"libtorrent, v1 name": func(t *testing.T, c *stockClient, file string) *exec.Cmd {
		return libtorrentClient(t, c, "v1", file)
	},
	"libtorrent, v2 name": func(t *testing.T, c *stockClient, file string) *exec.Cmd {
		return libtorrentClient(t, c, "v2", file)
	},
}

// readsV1 reports whether a kind reads torrents of v1 alone.
func readsV1(kind string) bool {
	return kind == "aria2" || kind == "transmission" || kind == "libtorrent, v1 torrent"
}

// program returns a command; it is a failure not to have it.
func program(t *testing.T, pkg, name string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v (Debian: apt install %s)", err, pkg)
	}
	return exec.Command(path, args...)
}

// libtorrentScript takes part in a swarm under the names of a hybrid torrent, or under one of them: then it begins with a
// magnet link and gets the info dictionary from peers.
const libtorrentScript = `
import sys, time
import libtorrent as lt
way, file, folder, address, port = sys.argv[1:]
s = lt.session({
    "listen_interfaces": address + ":" + port, "outgoing_interfaces": address, "enable_dht": False, "enable_lsd": False,
    "enable_upnp": False, "enable_natpmp": False, "alert_mask": lt.alert.category_t.all_categories & ~lt.alert.category_t.session_log_notification,
})
info = lt.torrent_info(file)
if way == "file":
    p = lt.add_torrent_params()
    p.ti = info
else:
    name = "btih:" + str(info.info_hashes().v1) if way == "v1" else "btmh:1220" + str(info.info_hashes().v2)
    p = lt.parse_magnet_uri("magnet:?xt=urn:" + name)
    p.trackers = [t.url for t in info.trackers()]
p.save_path = folder
h = s.add_torrent(p)
while True:
    for a in s.pop_alerts():
        print(type(a).__name__, a.message(), flush=True)
    time.sleep(0.2)
`

func libtorrentClient(t *testing.T, c *stockClient, way, file string) *exec.Cmd {
	t.Helper()
	if err := exec.Command("/usr/bin/python3", "-c", "import libtorrent").Run(); err != nil {
		t.Fatalf("libtorrent: %v (Debian: apt install python3-libtorrent)", err)
	}
	return exec.Command("/usr/bin/python3", "-c", libtorrentScript, way, file, c.folder, c.address.Addr().String(), fmt.Sprint(c.address.Port()))
}

// has waits until the client's files are the partitions.
func (r *openRoom) has(ctx context.Context, c *stockClient) error {
	for {
		missing := r.missing(c)
		if missing == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the client at %s does not have the partitions: %s", c.address, missing)
		case <-time.After(100 * time.Millisecond): // files are all that these programs have in common
		}
	}
}

func (r *openRoom) missing(c *stockClient) string {
	for name, want := range r.partitions {
		got, err := os.ReadFile(filepath.Join(c.folder, r.name, name))
		if err != nil {
			return err.Error()
		}
		if !bytes.Equal(got, want) {
			return name + " differs"
		}
	}
	return ""
}

// seedbedPeer is a machine in the open swarm.
type seedbedPeer struct {
	*swarm.Swarm
	disk *memory
}

// peer starts an empty machine that knows the addresses given.
func (r *openRoom) peer(known ...netip.AddrPort) *seedbedPeer {
	r.t.Helper()
	p := &seedbedPeer{disk: newMemory(r.shape)}
	config := swarm.Config{
		InfoHash: r.info.InfoHash, Open: openConfig(r.info, r.shape), Pieces: r.shape, Storage: p.disk,
		ListenAddr: netip.AddrPortFrom(r.host(), 6882).String(),
	}
	if slices.Contains(known, r.appliance) {
		config.Seeds = []netip.AddrPort{r.appliance}
	}
	log := new(bytes.Buffer) // handlers write one line at a time
	config.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if p.Swarm, err = swarm.New(config); err != nil {
		r.t.Fatal(err)
	}
	p.AddPeers(known)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := p.Run(ctx); err != nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(func() {
		cancel()
		running.Wait()
		if r.t.Failed() {
			r.t.Logf("our machine at %s:\n%s", p.Addr(), tail(log.Bytes()))
		}
	})
	return p
}

// holds waits until a machine holds every partition, and compares the bytes.
func (r *openRoom) holds(ctx context.Context, p *seedbedPeer) error {
	select {
	case <-p.Done():
	case <-ctx.Done():
		return fmt.Errorf("the machine at %s does not have everything: %+v", p.Addr(), p.Stats())
	}
	for i := range r.shape.Partitions() {
		name := fmt.Sprintf("p%04d", i+1)
		if got := p.disk.partition(i); !bytes.Equal(got, r.partitions[name]) {
			return fmt.Errorf("the machine at %s has other bytes in %s", p.Addr(), name)
		}
	}
	return nil
}

// partition returns what was written of a partition, and zeros elsewhere.
func (m *memory) partition(i int) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := make([]byte, m.shape.Map(i).Length)
	for at, tile := range m.bytes {
		if s := m.shape.Span(at[0]); s.Partition == i {
			copy(b[s.Offset+int64(at[1])*images.TileLength:], tile)
		}
	}
	return b
}

func TestStockClientsTakePartInOpenSwarms(t *testing.T) {
	r := newOpenRoom(t)
	r.libtorrentAgrees()
	t.Run("all", func(t *testing.T) {
		for kind := range kinds {
			t.Run("chain of "+kind, func(t *testing.T) {
				t.Parallel()
				r.of(t).chain(kind)
			})
		}
		t.Run("mixed", func(t *testing.T) {
			t.Parallel()
			r.of(t).mixed()
		})
	})
	r.closes()
}

// of returns the room for a subtest.
func (r *openRoom) of(t *testing.T) *openRoom {
	copied := *r
	copied.t = t
	return &copied
}

// chain has a program twice in a chain in which everybody knows only the one before: the appliance seeds to the program, that to
// a machine of ours, that to the program again; all at once.
func (r *openRoom) chain(kind string) {
	first := r.client(kind, r.trackerFor(kind, r.appliance))
	middle := r.peer(first.address)
	last := r.client(kind, r.trackerFor(kind, middle.Addr()))
	ctx, cancel := context.WithTimeout(r.t.Context(), chainTime)
	defer cancel()
	for _, err := range []error{r.has(ctx, first), r.holds(ctx, middle), r.has(ctx, last)} {
		if err != nil {
			r.t.Error(err)
		}
	}
	if s := middle.Stats(); s.FromAppliance > 0 || s.FromPeers < s.Total {
		r.t.Errorf("our machine has %d bytes from the appliance, %d from others", s.FromAppliance, s.FromPeers)
	}
}

// mixed has one program of each kind and two machines of ours, which know the appliance's tracker and nothing else.
func (r *openRoom) mixed() {
	var clients []*stockClient
	for _, kind := range []string{"aria2", "libtorrent", "transmission"} {
		url := r.opened.Torrent
		if readsV1(kind) {
			url = r.opened.PlainTorrent
		}
		status, b := r.fetch(url)
		if status != http.StatusOK {
			r.t.Fatalf("%s: %d %s", url, status, b)
		}
		file := filepath.Join(r.t.TempDir(), "lab.torrent")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			r.t.Fatal(err)
		}
		clients = append(clients, r.client(kind, file))
	}
	machines := []*seedbedPeer{r.peer(r.appliance), r.peer()}
	for _, m := range machines {
		r.announce(m)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), chainTime)
	defer cancel()
	for _, m := range machines {
		if err := r.holds(ctx, m); err != nil {
			r.t.Error(err)
		}
	}
	for _, c := range clients {
		if err := r.has(ctx, c); err != nil {
			r.t.Error(err)
		}
	}
}

// fetch gets a page of the appliance's HTTP port.
func (r *openRoom) fetch(url string) (int, []byte) {
	r.t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.StatusCode, b
}

// announce makes a machine known to the appliance's tracker, from its own address.
func (r *openRoom) announce(p *seedbedPeer) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: p.Addr().Addr().AsSlice()}}
	transport := &http.Transport{DialContext: dialer.DialContext}
	client := &announce.Client{URL: r.opened.Announce, HTTP: &http.Client{Transport: transport}}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		client.Run(ctx, func() announce.Request {
			s := p.Stats()
			return announce.Request{InfoHash: r.info.V1, PeerID: p.PeerID(), Port: p.Addr().Port(), Left: s.Total - s.Held}
		}, p.AddPeers)
	})
	r.t.Cleanup(func() { cancel(); running.Wait(); transport.CloseIdleConnections() })
}

// closes expects that an open image is not removed, and that a closed one is not served.
func (r *openRoom) closes() {
	if out, code := seedbed(r.t, r.data, "image", "rm", "lab:1"); code != exitRefused || !strings.Contains(out, "image close") {
		r.t.Errorf("removing an open image: exit code %d: %s", code, out)
	}
	must(r.t, r.data, "image", "close", "lab")
	if _, code := seedbed(r.t, r.data, "image", "close", "lab"); code != exitRefused {
		r.t.Errorf("closing twice: exit code %d", code)
	}
	for _, url := range []string{r.opened.Torrent, r.opened.PlainTorrent} {
		if status, _ := r.fetch(url); status != http.StatusNotFound {
			r.t.Errorf("%s of a closed image: %d", url, status)
		}
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	client := &announce.Client{URL: r.opened.Announce}
	for {
		_, err := client.Announce(ctx, announce.Request{InfoHash: r.info.V1, Port: 1})
		if errors.Is(err, announce.ErrRefused) {
			break
		}
		if ctx.Err() != nil {
			r.t.Fatalf("an announce to a closed image: %v", err)
		}
	}
	must(r.t, r.data, "image", "rm", "lab:1")
}

// chainTime is what a chain may take; on an idle host transmission, which chooses whom to serve every 10 s, takes 30 s.
const chainTime = 120 * time.Second

// libtorrentAgrees has libtorrent make the torrent from the exported partitions.
func (r *openRoom) libtorrentAgrees() {
	r.t.Helper()
	dir := r.t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, r.name), 0o700); err != nil {
		r.t.Fatal(err)
	}
	var adds strings.Builder
	for i := range r.shape.Partitions() {
		name := fmt.Sprintf("p%04d", i+1)
		if err := os.WriteFile(filepath.Join(dir, r.name, name), r.partitions[name], 0o600); err != nil {
			r.t.Fatal(err)
		}
		fmt.Fprintf(&adds, "s.add_file(%q, %d)\n", r.name+"/"+name, len(r.partitions[name]))
	}
	script := "import hashlib\nimport libtorrent as lt\ns = lt.file_storage()\n" + adds.String() +
		fmt.Sprintf("t = lt.create_torrent(s, %d)\nt.set_priv(True)\nlt.set_piece_hashes(t, %q)\n", r.shape.PieceLength(), dir) +
		"b = lt.bencode(t.generate()[b'info'])\nprint(hashlib.sha1(b).hexdigest(), hashlib.sha256(b).hexdigest())\n"
	out, err := exec.Command("/usr/bin/python3", "-c", script).CombinedOutput()
	if err != nil {
		r.t.Fatalf("libtorrent: %v %s (Debian: apt install python3-libtorrent)", err, out)
	}
	if want := r.opened.V1 + " " + r.opened.InfoHash.String(); strings.TrimSpace(string(out)) != want {
		r.t.Errorf("libtorrent makes %s of the exported partitions, want %s", out, want)
	}
}
