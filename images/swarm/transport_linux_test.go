package swarm

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"seedbed/images"
	"seedbed/images/trust/trusttest"
)

// wire is a network of its own: a seeder's namespace with a bridge, and a machine's with two links to it, both shaped in
// both directions.
type wire struct {
	*testing.T
	seeder, machine string // names of the namespaces
	dir             string // the site's authority, for the processes within
	site            *site
}

// sh runs a program and fails the test with its words.
func (w *wire) sh(words ...string) string {
	w.Helper()
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		w.Fatalf("%s: %v: %s", strings.Join(words, " "), err, out)
	}
	return string(out)
}

// at runs a program in a namespace.
func (w *wire) at(ns string, words ...string) string {
	w.Helper()
	return w.sh(append([]string{"ip", "netns", "exec", ns}, words...)...)
}

func newWire(t *testing.T) *wire {
	t.Helper()
	for tool, pkg := range map[string]string{"ip": "iproute2", "ss": "iproute2", "tc": "iproute2", "tshark": "tshark", "sysctl": "procps"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is missing: apt-get install %s", tool, pkg)
		}
	}
	w := &wire{T: t, seeder: fmt.Sprintf("sbtrs%d", os.Getpid()), machine: fmt.Sprintf("sbtrm%d", os.Getpid()), dir: t.TempDir(), site: newSite(t)}
	for _, ns := range []string{w.seeder, w.machine} {
		w.sh("ip", "netns", "add", ns)
		t.Cleanup(func() { w.sh("ip", "netns", "del", ns) })
		w.sh("ip", "-n", ns, "link", "set", "lo", "up")
	}
	w.sh("ip", "-n", w.seeder, "link", "add", "bridge", "type", "bridge")
	// Two interfaces in one subnet: each is to answer for its own address alone.
	w.at(w.machine, "sysctl", "-q", "-w", "net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
	for i, nic := range []string{"one", "two"} {
		w.sh("ip", "-n", w.machine, "link", "add", nic, "type", "veth", "peer", "name", nic, "netns", w.seeder)
		w.sh("ip", "-n", w.seeder, "link", "set", nic, "master", "bridge", "up")
		w.sh("ip", "-n", w.machine, "addr", "add", fmt.Sprintf("10.98.0.%d/24", i+2), "dev", nic)
		w.sh("ip", "-n", w.machine, "addr", "add", fmt.Sprintf("fd98::%d/64", i+2), "dev", nic, "nodad")
		w.sh("ip", "-n", w.machine, "link", "set", nic, "up")
		for _, ns := range []string{w.seeder, w.machine} {
			w.at(ns, "tc", "qdisc", "add", "dev", nic, "root", "tbf", "rate", "100mbit", "burst", "128k", "latency", "40ms")
		}
	}
	w.sh("ip", "-n", w.seeder, "addr", "add", "10.98.0.1/24", "dev", "bridge")
	w.sh("ip", "-n", w.seeder, "addr", "add", "fd98::1/64", "dev", "bridge", "nodad")
	w.sh("ip", "-n", w.seeder, "link", "set", "bridge", "up")
	key, err := x509.MarshalECPrivateKey(w.site.ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"ca": w.site.ca.Certificate.Raw, "key": key, "hash": w.site.hash[:]} {
		if err := os.WriteFile(filepath.Join(w.dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// role is what a process in a namespace is to be.
type role struct {
	Dir       string
	Bytes     int
	Seeder    bool
	Seeds     []netip.AddrPort
	Transport Transport
}

// played is what a process says: once when it runs, and again when it holds everything.
type played struct {
	Stats Stats
	Took  time.Duration // from the first link
}

// actor is a process in a namespace.
type actor struct {
	w     *wire
	lines *bufio.Scanner
	quit  io.Closer
	cmd   *exec.Cmd
}

// start runs a peer in a namespace, which has to be there to serve when it returns.
func (w *wire) start(ns string, r role) *actor {
	w.Helper()
	r.Dir = w.dir
	order, err := json.Marshal(r)
	if err != nil {
		w.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", ns, os.Args[0], "-test.run=^TestPartOnTheWire$", "-test.v")
	cmd.Env, cmd.Stderr = append(os.Environ(), "SEEDBED_SWARM_PART="+string(order)), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		w.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	a := &actor{w, bufio.NewScanner(out), in, cmd}
	w.Cleanup(func() {
		in.Close()
		io.Copy(io.Discard, out)
		cmd.Wait()
	})
	a.heard()
	return a
}

// heard waits for the next word of a peer.
func (a *actor) heard() (p played) {
	a.w.Helper()
	for a.lines.Scan() {
		if b, ok := strings.CutPrefix(a.lines.Text(), "PLAYED "); ok {
			if err := json.Unmarshal([]byte(b), &p); err != nil {
				a.w.Fatal(err)
			}
			return p
		}
	}
	a.w.Fatal("a peer ended early")
	return p
}

// TestPartOnTheWire is a peer in a namespace; see actor. It ends when its standard input does.
func TestPartOnTheWire(t *testing.T) {
	order := os.Getenv("SEEDBED_SWARM_PART")
	if order == "" {
		return
	}
	var p role
	if err := json.Unmarshal([]byte(order), &p); err != nil {
		t.Fatal(err)
	}
	s := openSite(t, p.Dir)
	c := newContent(p.Bytes, 256<<10)
	uris, storage := []string{}, emptyStore(c)
	if p.Seeder {
		uris, storage = []string{URIRoleAppliance}, fullStore(c)
	}
	sw := s.run(c, storage, func(cfg *Config) {
		cfg.TLS, cfg.ListenAddr, cfg.Transport, cfg.HandOut, cfg.Seeds = s.tls(uris...), ":6881", p.Transport, p.Seeder, p.Seeds
	})
	say := func(took time.Duration) {
		b, err := json.Marshal(played{sw.Stats(), took})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("PLAYED %s\n", b)
	}
	say(0)
	if !p.Seeder {
		until(t, 20*time.Second, "a link for each interface", func() bool { return sw.Stats().Peers >= max(1, len(p.Transport.Interfaces)) })
		begin := time.Now()
		wait(t, sw, time.Minute)
		say(time.Since(begin))
	}
	io.Copy(io.Discard, os.Stdin)
}

func openSite(t *testing.T, dir string) *site {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ca, err := x509.ParseCertificate(read("ca"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParseECPrivateKey(read("key"))
	if err != nil {
		t.Fatal(err)
	}
	return &site{t: t, ca: &trusttest.Authority{Certificate: ca, Key: key}, hash: images.InfoHash(read("hash"))}
}

// capture starts tshark in a namespace and returns what gives its lines once so many packets with data were seen.
func (w *wire) capture(ns, nic string, packets int, fields ...string) (lines func() []string) {
	w.Helper()
	args := []string{"netns", "exec", ns, "tshark", "-l", "-n", "-i", nic, "-f", "tcp port 6881", "-c", strconv.Itoa(packets), "-T", "fields"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := exec.CommandContext(ctx, "ip", args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.Fatal(err)
	}
	words, err := cmd.StderrPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	said := bufio.NewScanner(words)
	for ready := false; !ready; ready = strings.Contains(said.Text(), "Capturing on") {
		if !said.Scan() {
			w.Fatal("tshark captures nothing")
		}
	}
	go io.Copy(io.Discard, words)
	return func() (list []string) {
		defer cancel()
		for s := bufio.NewScanner(out); s.Scan(); {
			list = append(list, s.Text())
		}
		if err := cmd.Wait(); err != nil {
			w.Errorf("tshark: %v", err)
		}
		return list
	}
}

// A machine with two interfaces is two machines to the others: both carry content, from marked sockets under the
// congestion control that was asked for, as ss and tshark see it.
func TestTwoInterfacesMarkedAndControlled(t *testing.T) {
	w := newWire(t)
	const machineMark, seederMark = 8, 10
	for family, seed := range map[string]string{"IPv4": "10.98.0.1:6881", "IPv6": "[fd98::1]:6881"} {
		t.Run(family, func(t *testing.T) {
			w := &wire{t, w.seeder, w.machine, w.dir, w.site}
			seeds := []netip.AddrPort{netip.MustParseAddrPort(seed)}
			w.start(w.seeder, role{Bytes: 16 << 20, Seeder: true, Transport: Transport{DSCP: seederMark}})
			lines := w.capture(w.seeder, "bridge", 400, "ip.src", "ip.dsfield.dscp", "ipv6.src", "ipv6.tclass.dscp", "tcp.flags.syn")
			m := w.start(w.machine, role{Bytes: 16 << 20, Seeds: seeds,
				Transport: Transport{Interfaces: []string{"one", "two"}, Congestion: "bbr", DSCP: machineMark}})
			got := m.heard()
			t.Logf("%d bytes in %v over two links of 100 Mbit/s: %.0f Mbit/s", got.Stats.Total, got.Took.Round(time.Millisecond),
				float64(got.Stats.Total)*8/got.Took.Seconds()/1e6)
			if len(got.Stats.Transports) != 2 {
				t.Fatalf("%d transports", len(got.Stats.Transports))
			}
			for i, nic := range []string{"one", "two"} {
				s := got.Stats.Transports[i]
				if s.Interface != nic || s.Congestion != "bbr" || s.DSCP != machineMark || s.Links != 1 || s.Received < got.Stats.Total/10 {
					t.Errorf("%+v", s)
				}
				// The kernel's own count: it was not all routed over one of them.
				b := strings.TrimSpace(w.at(w.machine, "cat", "/sys/class/net/"+nic+"/statistics/rx_bytes"))
				if n, err := strconv.ParseInt(b, 10, 64); err != nil || n < got.Stats.Total/10 {
					t.Errorf("interface %s received %s bytes, %v", nic, b, err)
				}
			}
			w.sockets(w.machine, "bbr", 2)
			w.sockets(w.seeder, "cubic", 2)
			marks := map[string]int{}
			for _, line := range lines() {
				f := strings.Split(line, "\t")
				from, mark := f[0]+f[2], f[1]+f[3]
				want := machineMark
				if from == seeds[0].Addr().String() {
					want = seederMark
				}
				if mark != strconv.Itoa(want) {
					t.Errorf("a packet of %s is marked %q, not %d (SYN %s)", from, mark, want, f[4])
				}
				marks[from]++
			}
			if len(marks) != 3 {
				t.Errorf("packets by sender: %v", marks)
			}
		})
	}
}

// sockets fails the test unless ss shows so many connections of the swarm in a namespace, all under one congestion
// control.
func (w *wire) sockets(ns, congestion string, n int) {
	w.Helper()
	out := w.at(ns, "ss", "-Htin", "state", "established", "( sport = :6881 or dport = :6881 )")
	found := 0
	for _, word := range strings.Fields(out) {
		if word == congestion {
			found++
		}
	}
	if found != n {
		w.Errorf("ss shows %d connections under %s, not %d:\n%s", found, congestion, n, out)
	}
}

// A congestion control that the kernel does not have costs a warning, and no link.
func TestUnknownCongestionControl(t *testing.T) {
	s, c := newSite(t), newContent(1<<20, 256<<10)
	heard := &listener{}
	a := s.appliance(c, fullStore(c), nil)
	m := s.run(c, emptyStore(c), func(cfg *Config) { cfg.Transport.Congestion, cfg.Log = "none-such", heard.log() })
	meet(a, m)
	wait(t, m, 10*time.Second)
	if used := m.Stats().Transports[0].Congestion; used == "" || used == "none-such" {
		t.Errorf("%q is in use", used)
	}
	if n := heard.count("WARN", "congestion control", "none-such"); n != 1 {
		t.Errorf("%d warnings", n)
	}
	if used := a.Stats().Transports[0].Congestion; used != DefaultCongestion {
		t.Errorf("%q is in use by default", used)
	}
}
