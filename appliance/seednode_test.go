//go:build linux

package main

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
)

// background starts a command as on a machine that is not the appliance's, in a data directory of its own.
func background(t *testing.T, data string, args ...string) *process {
	t.Helper()
	return startProcess(t, exec.Command(os.Args[0], append([]string{"--data", data}, args...)...))
}

// nodes waits until the seed nodes are as they have to be.
func nodes(t *testing.T, data, what string, right func([]fleet.NodeView) bool) []fleet.NodeView {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // what the command says is all there is to wait for
		list := decode[[]fleet.NodeView](t, data, "seed", "ls")
		if right(list) {
			return list
		}
		if time.Now().After(end) {
			t.Fatalf("not in 20 s: %s; %+v", what, list)
		}
	}
}

// hold reports whether n nodes hold what they are to hold of one image, together at least a share of it.
func hold(n int, share float64) func([]fleet.NodeView) bool {
	return func(list []fleet.NodeView) bool {
		held, total := int64(0), int64(1)
		for _, v := range list {
			if len(v.Images) != 1 || v.Images[0].Held == 0 || v.Images[0].Held != v.Images[0].Wanted {
				return false
			}
			held, total = held+v.Images[0].Held, v.Images[0].Total
		}
		return len(list) == n && float64(held) >= share*float64(total)
	}
}

func TestSeedNodesShareAPreloadAndServeWhenTheApplianceIsGone(t *testing.T) {
	s := newTestSite(t, 24<<20)
	token := s.token("--for", "seed", "--uses", "2")
	homes := []string{t.TempDir(), t.TempDir()}
	start := func(i int) *process {
		return background(t, homes[i], "seed", "debian", "--preload", "20%", "--token-file", token, "--listen", []string{":6882", ":6883"}[i])
	}
	running := []*process{start(0), start(1)}
	list := nodes(t, s.data, "a fifth of the image", hold(2, 0.18))
	a, b := list[0].Images[0], list[1].Images[0]
	together, total := float64(a.Held+b.Held)/float64(a.Total), a.Total
	if together > 0.23 || float64(a.Held) < 0.4*float64(a.Held+b.Held) || float64(b.Held) < 0.4*float64(a.Held+b.Held) {
		t.Errorf("%d and %d bytes are held of %d", a.Held, b.Held, total)
	}
	if a.Received+b.Received > a.Held+b.Held+1<<20 {
		t.Errorf("%d bytes travelled for %d", a.Received+b.Received, a.Held+b.Held)
	}
	if out := must(t, s.data, "seed", "ls"); !strings.Contains(out, "debian:1") || !strings.Contains(out, "1 of 2") || !strings.Contains(out, "serves") {
		t.Errorf("seed ls:\n%s", out)
	}
	if out := must(t, s.data, "seed", "warm", "debian"); !strings.Contains(out, "2 seed nodes") {
		t.Errorf("seed warm: %s", out)
	}
	nodes(t, s.data, "all of the image", hold(2, 1))

	out := filepath.Join(t.TempDir(), "disk.img")
	get := background(t, t.TempDir(), "get", "debian", out, "--token-file", s.token("--for", "get"), "--limit", "8M", "--json")
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) { // the file is all there is to wait for
		var st syscall.Stat_t
		if err := syscall.Stat(out+".part", &st); err == nil && st.Blocks*512 > 3<<20 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing was fetched")
		}
	}
	s.kill()
	running[1].kill()
	running[1] = start(1) // it serves what it held, without an appliance
	select {
	case <-get.ended:
	case <-time.After(60 * time.Second):
		t.Fatal("the image did not come from the seed nodes")
	}
	same(t, out, s.exported)
}

func TestASeedNodeServesADiskAndNotWhatIsWrongOnIt(t *testing.T) {
	s := newTestSite(t, 8<<20)
	disk, err := os.ReadFile(s.exported)
	if err != nil {
		t.Fatal(err)
	}
	disk[4<<20] ^= 1 // in the middle of the noise
	wrong := filepath.Join(t.TempDir(), "wrong.img")
	if err := os.WriteFile(wrong, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	background(t, t.TempDir(), "seed", "debian", "--device", wrong, "--listen", ":6882", "--token-file", s.token("--for", "seed"))
	list := nodes(t, s.data, "the disk is served", hold(1, 0.5))
	held := list[0].Images[0]
	if lacks := held.Total - held.Held; !held.FromDisk || lacks <= 0 || lacks > 256<<10 {
		t.Errorf("%+v", held)
	}
	out := filepath.Join(t.TempDir(), "disk.img")
	r := report(t, must(t, s.data, "get", "debian", out, "--json"))
	same(t, out, s.exported)
	if r.FromPeers == 0 || r.FromAppliance == 0 {
		t.Errorf("%+v", r)
	}
	empty := filepath.Join(t.TempDir(), "empty.img")
	if err := os.WriteFile(empty, make([]byte, len(disk)), 0o600); err != nil {
		t.Fatal(err)
	}
	text, code := elsewhere(t, "seed", "debian", "--device", empty, "--listen", ":6884", "--token-file", s.token("--for", "seed"))
	if code != exitWrong || !strings.Contains(text, "does not hold image debian:1") {
		t.Errorf("exit code %d: %s", code, text)
	}
}

func TestASeedNodeServesWhatIsDeployed(t *testing.T) {
	s := newTestSite(t, 4<<20, "--admit", "auto")
	(&machine{t: t}).firmware() // the appliance knows it
	background(t, t.TempDir(), "seed", "--listen", ":6882", "--preload", "50%", "--prefix", "--token-file", s.token("--for", "seed"))
	nodes(t, s.data, "the node waits", func(l []fleet.NodeView) bool { return len(l) == 1 && len(l[0].Images) == 0 })
	must(t, s.data, "deploy", "debian", "--machine", testMAC)
	list := nodes(t, s.data, "half of the image", hold(1, 0.5))
	if i := list[0].Images[0]; i.Held > i.Total*3/4 {
		t.Errorf("%+v", i)
	}
	j := jobs(t, s.data)
	must(t, s.data, "job", "cancel", j[0].ID)
	nodes(t, s.data, "the node waits again", func(l []fleet.NodeView) bool { return len(l) == 1 && len(l[0].Images) == 0 })
	text, code := elsewhere(t, "seed", "nothing", "--listen", ":6884", "--token-file", s.token("--for", "seed"))
	if code != exitNotFound {
		t.Errorf("exit code %d: %s", code, text)
	}
	for _, args := range [][]string{{"--preload", "much"}, {"--stripe", "--prefix"}, {"--device", "/x"}} {
		if text, code := elsewhere(t, append([]string{"seed"}, args...)...); code != exitUsage {
			t.Errorf("seedbed seed %v: exit code %d: %s", args, code, text)
		}
	}
}

// A seed node with two network cards fetches and serves by both.
func TestASeedNodeUsesEachInterface(t *testing.T) {
	s := newTestSite(t, 24<<20)
	h := newHost(t, 2)
	h.start(t.TempDir(), "seed", "debian", "--interface", "nic0,nic1", "--token-file", s.token("--for", "seed"))
	list := nodes(t, s.data, "all of the image", hold(1, 1))
	if list[0].Addr.Addr() != h.addrs[0] {
		t.Errorf("the node is known at %s, its first interface has %s", list[0].Addr, h.addrs[0])
	}
	if i := list[0].Images[0]; i.Received > i.Held+1<<20 {
		t.Errorf("%d bytes travelled for %d", i.Received, i.Held)
	}
	for _, nic := range h.nics {
		if n := h.received(nic); n < 2<<20 {
			t.Errorf("%s received %d bytes", nic, n)
		}
	}
	before := []int64{h.sent("nic0"), h.sent("nic1")}
	out := filepath.Join(t.TempDir(), "disk.img")
	r := report(t, must(t, s.data, "get", "debian", out, "--json"))
	same(t, out, s.exported)
	if r.FromPeers == 0 || h.sent("nic0")-before[0]+h.sent("nic1")-before[1] < r.FromPeers {
		t.Errorf("%+v; the node sent %d and %d bytes", r, h.sent("nic0")-before[0], h.sent("nic1")-before[1])
	}
	wrong, _ := elsewhere(t, "seed", "debian", "--interface", "nic7", "--token-file", s.token("--for", "seed"))
	if !strings.Contains(wrong, "nic7") {
		t.Errorf("an interface that is not there: %s", wrong)
	}
}

// A get goes by the interface that is named alone, also to the appliance: the route that would be taken leads nowhere.
func TestAGetUsesTheInterfaceThatIsNamed(t *testing.T) {
	s := newTestSite(t, 4<<20)
	h := newHost(t, 2)
	tools(t, "", "ip", "-n", h.space, "route", "replace", "blackhole", "default", "metric", "50")
	out := filepath.Join(t.TempDir(), "disk.img")
	h.start(t.TempDir(), "get", "debian", out, "--interface", "nic1", "--token-file", s.token("--for", "get")).finish()
	same(t, out, s.exported)
	if n := h.received("nic1"); n < 4<<20 {
		t.Errorf("nic1 received %d bytes", n)
	}
}

// warm adds an image of so much noise, has the seed nodes fetch it, and waits until one has it.
func (s *testSite) warm(name string, noise int64) {
	s.t.Helper()
	must(s.t, s.data, "image", "add", newReferenceDisk(s.t, noise, byte(len(name)*7)+name[0]), "--name", name, "--compress", "none")
	must(s.t, s.data, "seed", "warm", name)
	nodes(s.t, s.data, name+" is held", func(l []fleet.NodeView) bool {
		i := slices.IndexFunc(l[0].Images, func(i job.NodeImage) bool { return i.ImageName == name+":1" })
		return i >= 0 && l[0].Images[i].Held > 0 && l[0].Images[i].Held == l[0].Images[i].Total
	})
}

// names returns what a node serves, and what else lies on its disk.
func names(v fleet.NodeView) (served, kept []string) {
	for _, i := range v.Images {
		served = append(served, strings.TrimSuffix(i.ImageName, ":1"))
	}
	for _, k := range v.Kept {
		kept = append(kept, strings.TrimSuffix(k.ImageName, ":1"))
	}
	slices.Sort(served)
	return served, kept
}

func TestASeedNodeKeepsToItsSpace(t *testing.T) {
	s := newTestSite(t, 8<<20, "--admit", "auto")
	(&machine{t: t}).firmware()
	home := t.TempDir()
	token := s.token("--for", "seed")
	start := func(space string) *process {
		return background(t, home, "seed", "debian", "--preload", "none", "--listen", ":6882", "--space", space, "--token-file", token)
	}
	p := start("32MiB")
	nodes(t, s.data, "the node is there", func(l []fleet.NodeView) bool { return len(l) == 1 && len(l[0].Images) == 1 && l[0].Space == 32<<20 })
	s.warm("one", 10<<20)
	s.warm("two", 11<<20)
	must(t, s.data, "get", "one", filepath.Join(t.TempDir(), "one.img")) // it is used after two
	s.warm("three", 12<<20)
	list := nodes(t, s.data, "two made room", func(l []fleet.NodeView) bool {
		served, kept := names(l[0])
		return slices.Equal(served, []string{"debian", "one", "three"}) && len(kept) == 0
	})
	onDisk, err := folderSize(filepath.Join(home, "seed"))
	if err != nil || onDisk > 32<<20 || list[0].Used < 20<<20 || list[0].Used > 32<<20 {
		t.Errorf("%d bytes on the disk, %d by the node's account, %v", onDisk, list[0].Used, err)
	}
	out := must(t, s.data, "seed", "ls")
	if !strings.Contains(out, " of 32.0 MiB") || !strings.Contains(out, "pinned") {
		t.Errorf("seed ls:\n%s", out)
	}

	// What a deployment uses stays, and so does what the node was started with; what does not fit is said.
	must(t, s.data, "deploy", "one", "--machine", testMAC)
	nodes(t, s.data, "one is in use", func(l []fleet.NodeView) bool {
		return slices.ContainsFunc(l[0].Images, func(i job.NodeImage) bool { return i.InUse && i.ImageName == "one:1" })
	})
	if text, code := seedbed(t, s.data, "seed", "drop", "one"); code != exitRefused || !strings.Contains(text, "a deployment uses image one:1") {
		t.Errorf("what is deployed was dropped: exit code %d: %s", code, text)
	}
	must(t, s.data, "image", "add", newReferenceDisk(t, 40<<20, 99), "--name", "large", "--compress", "none")
	must(t, s.data, "seed", "warm", "large")
	list = nodes(t, s.data, "large does not fit", func(l []fleet.NodeView) bool {
		i := slices.IndexFunc(l[0].Images, func(i job.NodeImage) bool { return i.ImageName == "large:1" })
		served, _ := names(l[0])
		return i >= 0 && strings.Contains(l[0].Images[i].Problem, "no room for more of large:1") && l[0].Images[i].Held > 8<<20 && !slices.Contains(served, "three")
	})
	if served, _ := names(list[0]); !slices.Equal(served, []string{"debian", "large", "one"}) {
		t.Errorf("served: %v", served)
	}
	if n, err := folderSize(filepath.Join(home, "seed")); err != nil || n > 32<<20 {
		t.Errorf("%d bytes on the disk, %v", n, err)
	}
	must(t, s.data, "get", "large", filepath.Join(t.TempDir(), "large.img")) // what is held is served

	if out := must(t, s.data, "seed", "drop", "large"); !strings.Contains(out, "1 seed nodes remove image large:1") {
		t.Errorf("seed drop: %s", out)
	}
	if out := must(t, s.data, "seed", "drop", "debian"); !strings.Contains(out, "1 keep it") {
		t.Errorf("seed drop: %s", out)
	}
	nodes(t, s.data, "large is gone", func(l []fleet.NodeView) bool {
		served, kept := names(l[0])
		return slices.Equal(served, []string{"debian", "one"}) && len(kept) == 0 && l[0].Used < 20<<20
	})
	must(t, s.data, "job", "cancel", jobs(t, s.data)[0].ID)
	must(t, s.data, "seed", "warm", "three")
	p.kill()
	start("16MiB") // one makes room at the start, or for three
	nodes(t, s.data, "the node keeps to less", func(l []fleet.NodeView) bool {
		return len(l) == 1 && l[0].Space == 16<<20 && l[0].Used <= 16<<20
	})
	for _, args := range [][]string{{"--space", "1MiB"}, {"--space", "much"}} {
		if text, code := elsewhere(t, append([]string{"seed"}, args...)...); code != exitUsage {
			t.Errorf("seedbed seed %v: exit code %d: %s", args, code, text)
		}
	}
}

func TestParseSpace(t *testing.T) {
	for text, want := range map[string]int64{"200GiB": 200 << 30, "200G": 200 << 30, "1.5T": 3 << 39, "500GB": 500e9, "67108864": 64 << 20, "20000 MB": 20e9,
		"": 0, "-1G": 0, "1Q": 0, "15MiB": 0, "9999999999T": 0, "1G1": 0} {
		if n, err := parseSpace(text); n != want || (err == nil) != (want > 0) {
			t.Errorf("%q is %d, %v; want %d", text, n, err, want)
		}
	}
}

// What a node was told to hold and cannot have is no reason to end: an image that was removed, or is not what its token is good for.
func TestASeedNodeOutlivesAnImageThatItCannotHave(t *testing.T) {
	s := newTestSite(t, 4<<20)
	must(t, s.data, "image", "add", newReferenceDisk(t, 2<<20, 7), "--name", "gone")
	must(t, s.data, "image", "add", newReferenceDisk(t, 2<<20, 8), "--name", "other")
	token := s.token("--for", "seed", "--image", "debian")
	must(t, s.data, "seed", "warm", "gone")
	must(t, s.data, "seed", "warm", "other")
	must(t, s.data, "image", "rm", "gone:1")
	background(t, t.TempDir(), "seed", "--listen", ":6882", "--token-file", token)
	nodes(t, s.data, "the node is there", func(l []fleet.NodeView) bool { return len(l) == 1 && l[0].Order != 0 })
	must(t, s.data, "seed", "warm", "debian")
	nodes(t, s.data, "what it can have", hold(1, 1))
}

func TestASeedNodeHasLessRoomThanItMayTake(t *testing.T) {
	s := newTestSite(t, 4<<20)
	home := t.TempDir()
	tools(t, "", "mount", "-t", "tmpfs", "-o", "size=48m", "seedbed-test", home)
	t.Cleanup(func() { tools(t, "", "umount", "-l", home) })
	background(t, home, "seed", "--listen", ":6882", "--space", "1GiB", "--token-file", s.token("--for", "seed"))
	nodes(t, s.data, "the node is there", func(l []fleet.NodeView) bool { return len(l) == 1 && l[0].Space < 48<<20 })
	s.warm("one", 20<<20)
	s.warm("two", 20<<20)
	if served, kept := names(nodes(t, s.data, "", func([]fleet.NodeView) bool { return true })[0]); !slices.Equal(served, []string{"two"}) || len(kept) > 0 {
		t.Errorf("served: %v, on the disk: %v", served, kept)
	}
	must(t, s.data, "image", "add", newReferenceDisk(t, 60<<20, 99), "--name", "large", "--compress", "none")
	must(t, s.data, "seed", "warm", "large")
	nodes(t, s.data, "large does not fit", func(l []fleet.NodeView) bool {
		return len(l[0].Images) == 1 && strings.Contains(l[0].Images[0].Problem, "less than the 1.0 GiB of --space; what fits is held. Make room there")
	})
}

// What deployments use is not known before the first order, so nothing is removed.
func TestASeedNodeRemovesNothingBeforeItKnowsWhatIsInUse(t *testing.T) {
	dir := t.TempDir()
	image := images.Sum([]byte("image"))
	if err := os.Mkdir(filepath.Join(dir, image.String()), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, image.String(), "tiles"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	room, err := newSpace(dir, 1<<19)
	if err != nil {
		t.Fatal(err)
	}
	n := &seedNode{order: &seedOrder{}, dir: dir, log: slog.New(slog.DiscardHandler), space: room, images: map[images.Digest]*nodeImage{}}
	for _, told := range []bool{false, true} {
		n.told = told
		if err := n.makeRoom(); err != nil {
			t.Fatal(err)
		}
		if kept := n.kept(); (len(kept) == 0) != told {
			t.Errorf("told %v: %v is kept", told, kept)
		}
	}
}
