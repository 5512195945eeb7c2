//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/store"
	"seedbed/images/repository/s3/s3test"
	"seedbed/initramfs/agent"
	"seedbed/initramfs/disk"
	"seedbed/test-vm/postgres"
)

// lan is a network with the machines of a room, all at one address, and the site's database and object store. Appliances are hosts on it.
type lan struct {
	t          *testing.T
	bridge     string
	location   string // of the records
	repository string
	records    *store.Store
	hosts      int
}

// lanMachines is the address of the machines, the database and the object store.
const lanMachines = "10.82.0.254"

var lanCount int

func newLAN(t *testing.T) *lan {
	t.Helper()
	network(t)
	lanCount++
	l := &lan{t: t, bridge: fmt.Sprintf("sblan%d", lanCount)}
	tools(t, "", "ip", "link", "add", l.bridge, "type", "bridge")
	t.Cleanup(func() { tools(t, "", "ip", "link", "del", l.bridge) })
	tools(t, "", "ip", "addr", "add", lanMachines+"/24", "dev", l.bridge)
	tools(t, "", "ip", "link", "set", l.bridge, "up")
	l.location = postgres.Start(t).Database()
	l.repository = "s3://images/site?endpoint=" + s3test.StartAt(t, lanMachines, "images")
	return l
}

// office returns who schedules the site.
func (l *lan) office() fleet.Office {
	l.t.Helper()
	if l.records == nil {
		var err error
		if l.records, err = store.Open(l.t.Context(), l.location); err != nil {
			l.t.Fatal(err)
		}
		l.t.Cleanup(func() { l.records.Close() })
	}
	o, err := l.records.Office(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	return o
}

// until waits for a condition and returns how long it took.
func until(t *testing.T, most time.Duration, what string, is func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !is() {
		if time.Since(began) > most {
			t.Fatalf("after %v still not: %s", most, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(began)
}

// station is an appliance on a host of its own.
type station struct {
	*process
	lan         *lan
	space, addr string
	data, boot  string
	operator    *client.Client // see client
}

func (l *lan) station() *station {
	t := l.t
	t.Helper()
	l.hosts++
	s := &station{lan: l, space: fmt.Sprintf("sbsite%d-%d-%d", os.Getpid(), lanCount, l.hosts), addr: fmt.Sprintf("10.82.0.%d", l.hosts), data: t.TempDir(), boot: bootFiles(t)}
	end := fmt.Sprintf("%sp%d", l.bridge, l.hosts)
	ip := func(args ...string) { tools(t, "", "ip", args...) }
	ip("netns", "add", s.space)
	t.Cleanup(func() { ip("netns", "del", s.space) })
	ip("link", "add", end, "type", "veth", "peer", "name", "nic0", "netns", s.space)
	ip("link", "set", end, "master", l.bridge, "up")
	ip("-n", s.space, "link", "set", "lo", "up")
	ip("-n", s.space, "addr", "add", s.addr+"/24", "dev", "nic0")
	ip("-n", s.space, "link", "set", "nic0", "up")
	return s
}

// start starts the appliance.
func (s *station) start(args ...string) {
	t := s.lan.t
	t.Helper()
	s.process = startProcess(t, exec.Command("ip", append([]string{"netns", "exec", s.space, os.Args[0], "--data", s.data, "--store", s.lan.location,
		"--repository", s.lan.repository, "serve", "--boot-dir", s.boot, "--address", s.addr, "--admit", "auto"}, args...)...))
}

// ready waits until the appliance answers.
func (s *station) ready() {
	t := s.lan.t
	t.Helper()
	client := s.client()
	until(t, 30*time.Second, s.addr+" answers", func() bool {
		select {
		case <-s.ended:
			t.Fatalf("the appliance ended: %s", s.log)
		default:
		}
		_, err := client.Jobs(t.Context(), api.JobQuery{})
		return err == nil
	})
}

// client speaks with the appliance for as long as the test runs.
func (s *station) client() *client.Client {
	if s.operator == nil {
		s.operator = client.Local(filepath.Join(s.data, "seedbed.sock"))
		s.lan.t.Cleanup(s.operator.Close)
	}
	return s.operator
}

// id is the appliance's name in the records.
func (s *station) id() string {
	s.lan.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.data, "appliance-id"))
	if err != nil {
		s.lan.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// joins brings the identity of another appliance over.
func (s *station) joins(other *station) {
	t := s.lan.t
	t.Helper()
	dir := t.TempDir()
	pass, file := filepath.Join(dir, "pass"), filepath.Join(dir, "site.pem")
	if err := os.WriteFile(pass, []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, other.data, "site", "export", file, "--passphrase-file", pass)
	must(t, s.data, "site", "import", file, "--passphrase-file", pass)
}

// target is a machine whose disk is a file that the real agent writes.
type target struct {
	reference
	out <-chan ended
}

func (m *target) Open(name string) (*disk.Device, error) { return disk.Open(m.disk, name) }

// newTarget makes a machine whose disk has a table and nothing else, which boots from an appliance.
func newTarget(t *testing.T, n int, length int64, from *station) *target {
	t.Helper()
	m := &target{reference: reference{machine: machine{t: t, mac: fmt.Sprintf("52:54:00:82:00:%02x", n), appliance: from.addr, own: lanMachines}}}
	m.disk = filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(m.disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(m.disk, length); err != nil {
		t.Fatal(err)
	}
	tools(t, "label: dos\nstart=2048, size=2048, type=83\n", "sfdisk", "-q", m.disk) // its old table, which is to be saved
	return m
}

// work runs the machine's agent, which was booted before, until ctx ends.
func (m *target) work(ctx context.Context) {
	m.t.Helper()
	screen := agent.NewScreen(&m.console)
	a, err := agent.New(agent.Config{Boot: m.boot, Machine: m, Screen: screen, Version: "test", ListenAddr: lanMachines + ":0"})
	if err != nil {
		m.t.Fatal(err)
	}
	out := make(chan ended, 1)
	m.out = out
	go func() {
		after, err := a.Run(ctx)
		screen.Close(time.Second)
		out <- ended{after, err}
	}()
}

// written is how many bytes of the disk hold something.
func (m *target) written() int64 {
	var s syscall.Stat_t
	if err := syscall.Stat(m.disk, &s); err != nil {
		return 0
	}
	return s.Blocks * 512
}

// sample is what the disks of a room held at a moment.
type sample struct {
	at    time.Time
	bytes int64
}

// watchDisks samples what the machines' disks hold until stop.
func watchDisks(machines []*target) (stop func() []sample) {
	var list []sample
	quit := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			s := sample{at: time.Now()}
			for _, m := range machines {
				s.bytes += m.written()
			}
			list = append(list, s)
			select {
			case <-tick.C:
			case <-quit:
				return
			}
		}
	})
	return func() []sample {
		close(quit)
		group.Wait()
		return list
	}
}

// rate is how many bytes a second came in the time before a moment.
func rateAt(list []sample, at time.Time, over time.Duration) float64 {
	var first, last sample
	for _, s := range list {
		if s.at.Before(at.Add(-over)) {
			first = s
		}
		if !s.at.After(at) {
			last = s
		}
	}
	if first.at.IsZero() || !last.at.After(first.at) {
		return 0
	}
	return float64(last.bytes-first.bytes) / last.at.Sub(first.at).Seconds()
}

// outage returns how long after a moment content came at no less than half the rate of before, and the longest time without any.
func outage(list []sample, at time.Time) (before float64, recovered, gap time.Duration) {
	before = rateAt(list, at, 3*time.Second)
	end := list[len(list)-1].bytes
	recovered = -1
	moved := sample{at: at}
	for _, s := range list {
		if s.at.Before(at) {
			moved.bytes = s.bytes
			continue
		}
		if s.bytes > moved.bytes {
			gap = max(gap, s.at.Sub(moved.at))
			moved = s
		}
		if recovered < 0 && s.at.Sub(at) >= time.Second && rateAt(list, s.at, time.Second) >= before/2 {
			recovered = s.at.Sub(at) - time.Second // the window lies after the moment
		}
		if s.bytes == end {
			return before, recovered, gap
		}
	}
	return before, recovered, gap
}

// count counts the events of a kind.
func countEvents(t *testing.T, data, kind string) (n int) {
	t.Helper()
	for _, e := range decode[[]fleet.Event](t, data, "event", "ls") {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// TestOneOfTwoAppliancesIsKilledInTheMiddleOfADeployment has the other one go on: the room's content at once, the schedule within
// seconds, and nothing is done twice. Then the one in office stands still for a while, and is relieved when it wakes up.
func TestOneOfTwoAppliancesIsKilledInTheMiddleOfADeployment(t *testing.T) {
	const machines = 6
	l := newLAN(t)
	noise := full(20<<20, 64<<20)
	file := newReferenceDisk(t, noise, 3)
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	one, two := l.station(), l.station()
	one.start("--machine-limit", "1300k")
	one.ready()
	two.joins(one)
	two.start("--machine-limit", "1300k")
	must(t, one.data, "image", "add", file, "--name", "debian")
	two.ready()
	if o := l.office(); o.Holder != one.id() {
		t.Fatalf("%+v is in office, not %s", o, one.id())
	}
	must(t, one.data, "deploy", "debian", "--all")

	var room []*target
	for i := range machines {
		room = append(room, newTarget(t, i, info.Size(), []*station{one, two}[i%2])) // all hear their DHCP, either answers
	}
	until(t, 20*time.Second, "the appliances name each other to machines", func() bool {
		room[0].bootAgent()
		room[1].bootAgent()
		return len(room[0].boot.Appliances) == 2 && len(room[1].boot.Appliances) == 2
	})
	stop := watchDisks(room)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i, m := range room {
		if i > 1 {
			m.bootAgent()
		}
		m.work(ctx)
	}
	until(t, 60*time.Second, "each machine has a third of the content", func() bool {
		list, err := two.client().Jobs(t.Context(), api.JobQuery{})
		return err == nil && !slices.ContainsFunc(list, func(j api.Job) bool { return j.Total == 0 || j.Held < j.Total/3 })
	})
	one.kill()
	killed := time.Now()
	if list := jobs(t, two.data); len(list) != machines {
		t.Errorf("%d jobs", len(list))
	}
	answered := time.Since(killed)
	took := until(t, 30*time.Second, "the other schedules the site", func() bool { return l.office().Holder == two.id() }) + answered
	for _, m := range room {
		m.finish(m.out)
	}
	all := time.Since(killed)
	before, recovered, gap := outage(stop(), killed)
	t.Logf("%d machines of %d MB at %.1f MB/s; after the kill: the API answered in %.2f s, content came again at half the rate within %.1f s (longest pause %.2f s), "+
		"the schedule was taken over in %.1f s, all had finished in %.1f s", machines, noise/1e6, before/1e6, answered.Seconds(), recovered.Seconds(), gap.Seconds(),
		took.Seconds(), all.Seconds())
	if before < 1e6 || recovered < 0 || recovered > 5*time.Second || gap > 5*time.Second {
		t.Errorf("content did not come on within 5 s")
	}
	onceEach(t, two, machines)
	for _, m := range room {
		must(t, two.data, "verify", "debian", m.disk)
	}

	one.start()
	one.ready()
	pausedIsRelieved(t, l, two, one)
}

// onceEach demands that each machine's one job was claimed and succeeded once.
func onceEach(t *testing.T, s *station, machines int) {
	t.Helper()
	list := jobs(t, s.data)
	if len(list) != machines {
		t.Errorf("%d jobs of %d machines", len(list), machines)
	}
	for _, j := range list {
		if j.State != job.Succeeded || j.Epoch != 1 {
			t.Errorf("job %s is %s after %d claims: %s", j.ID, j.State, j.Epoch, j.Reason)
		}
	}
	for _, kind := range []string{"job.waiting", "job.claimed", "job.running", "job.frame", "job.succeeded", "machine.seen", "machine.inventory", "machine.hello"} {
		if n := countEvents(t, s.data, kind); n != machines {
			t.Errorf("%d events %s of %d machines", n, kind, machines)
		}
	}
}

// pausedIsRelieved stops the appliance in office for as long as the other needs to take over, and wakes it up.
func pausedIsRelieved(t *testing.T, l *lan, holder, other *station) {
	t.Helper()
	if err := holder.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	took := until(t, 30*time.Second, "the other schedules the site", func() bool { return l.office().Holder == other.id() })
	epoch := l.office().Epoch
	must(t, other.data, "image", "ls")
	if err := holder.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	beat := l.office().Beat
	until(t, 20*time.Second, "two more beats", func() bool { return l.office().Beat >= beat+2 })
	if o := l.office(); o.Holder != other.id() || o.Epoch != epoch {
		t.Errorf("after it woke up %+v is in office, want %s in epoch %d", o, other.id(), epoch)
	}
	must(t, holder.data, "deploy", "debian", "--machine", "52:54:00:82:00:00") // it stands by, and takes orders
	known := len(jobs(t, holder.data))
	until(t, 10*time.Second, "the other knows of it", func() bool { return len(jobs(t, other.data)) == known })
	t.Logf("the one in office stood still for %.1f s; the other took over after %.1f s and keeps the office", time.Since(began).Seconds(), took.Seconds())
	holder.kill()
	if !bytes.Contains(holder.log.Bytes(), []byte("another appliance schedules the site now")) {
		t.Errorf("the one that woke up did not learn that it is relieved:\n%s", holder.log)
	}
}

func TestAnApplianceOfAnotherSiteDoesNotOpenTheRecords(t *testing.T) {
	l := newLAN(t)
	one, two := l.station(), l.station()
	one.start("--no-boot")
	one.ready()
	two.start("--no-boot")
	<-two.ended
	if code := two.cmd.ProcessState.ExitCode(); code != exitFailure || !strings.Contains(two.log.String(), "seedbed site import") {
		t.Fatalf("exit code %d: %s", code, two.log)
	}
	dir := t.TempDir()
	pass, file := filepath.Join(dir, "pass"), filepath.Join(dir, "site.pem")
	if err := os.WriteFile(pass, []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, one.data, "site", "export", file, "--passphrase-file", pass)
	if out, code := seedbed(t, two.data, "site", "import", file, "--passphrase-file", pass); code != exitRefused || !strings.Contains(out, "another site") {
		t.Fatalf("over another identity: exit code %d: %s", code, out)
	}
	if err := os.RemoveAll(two.data); err != nil {
		t.Fatal(err)
	}
	must(t, two.data, "site", "import", file, "--passphrase-file", pass)
	if a, b := decode[siteView](t, one.data, "site", "show"), decode[siteView](t, two.data, "site", "show"); a.Fingerprint != b.Fingerprint || a.Key != b.Key {
		t.Fatalf("identities %+v and %+v", a, b)
	}
	two.start("--no-boot")
	two.ready()
}

func TestSiteCommandsRefuseWithASentence(t *testing.T) {
	dir := t.TempDir()
	pass, short, file := filepath.Join(dir, "pass"), filepath.Join(dir, "short"), filepath.Join(dir, "site.pem")
	for path, content := range map[string]string{pass: "correct horse battery\n", short: "horse\n", filepath.Join(dir, "other"): "another long passphrase"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data, empty := filepath.Join(dir, "data"), filepath.Join(dir, "empty")
	source, _ := newDisk(t)
	must(t, data, "image", "add", source, "--name", "one") // makes the identity
	must(t, data, "site", "export", file, "--passphrase-file", pass)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the export: %v, %v", info, err)
	}
	for _, c := range []struct {
		data string
		args []string
		code int
		says string
	}{
		{empty, []string{"show"}, exitNotFound, "holds no identity"},
		{empty, []string{"export", filepath.Join(dir, "x"), "--passphrase-file", pass}, exitNotFound, "holds no identity"},
		{data, []string{"export", filepath.Join(dir, "x"), "--passphrase-file", short}, exitUsage, "fewer than"},
		{data, []string{"export", file, "--passphrase-file", pass}, exitRefused, "is there already"},
		{empty, []string{"import", file, "--passphrase-file", filepath.Join(dir, "other")}, exitRefused, "passphrase is another"},
		{empty, []string{"import", pass, "--passphrase-file", pass}, exitFailure, "no exported identity"},
		{empty, []string{"import", filepath.Join(dir, "nowhere"), "--passphrase-file", pass}, exitFailure, "nowhere"},
	} {
		out, code := seedbed(t, c.data, append([]string{"site"}, c.args...)...)
		if code != c.code || !strings.Contains(out, c.says) {
			t.Errorf("seedbed site %v: exit code %d, want %d: %s", c.args, code, c.code, out)
		}
	}
	if _, err := os.Stat(filepath.Join(empty, "site", "site.key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused import left a key: %v", err)
	}
	must(t, data, "site", "import", file, "--passphrase-file", pass) // the same one again
	if !slices.Contains(strings.Fields(must(t, data, "site", "show")), decode[siteView](t, data, "site", "show").Fingerprint.String()) {
		t.Error("site show does not print the fingerprint")
	}
}
