package agent

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/announce"
	"seedbed/initramfs/board"
	"seedbed/initramfs/disk"
	"seedbed/initramfs/disk/disktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// computer is a machine whose disks are files.
type computer struct {
	t    *testing.T
	dir  string
	idle time.Duration // how long it waits for a job; zero means a minute

	mu    sync.Mutex // guards everything below
	disks []disk.Disk
	clock time.Time
	open  func() // called before a disk is opened, may be nil
}

func newComputer(t *testing.T) *computer { return &computer{t: t, dir: t.TempDir()} }

// insert puts a disk full of noise into the machine.
func (c *computer) insert(name, serial string, length int64) (file string, content []byte) {
	c.t.Helper()
	content = make([]byte, length)
	rand.Read(content)
	file = filepath.Join(c.dir, name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.disks = append(c.disks, disk.Disk{Disk: job.Disk{Name: name, Serial: serial, Bus: "virtio", Length: length, SectorLength: 512}})
	return file, content
}

func (c *computer) remove(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.disks {
		if c.disks[i].Name == name {
			c.disks = append(append([]disk.Disk(nil), c.disks[:i]...), c.disks[i+1:]...)
			return
		}
	}
}

func (c *computer) SetClock(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock = t
	return nil
}

func (c *computer) Inventory() job.Inventory { return job.Inventory{UUID: "u", Firmware: "bios"} }

func (c *computer) Disks() ([]disk.Disk, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]disk.Disk(nil), c.disks...), nil
}

func (c *computer) Open(name string) (*disk.Device, error) {
	if c.open != nil {
		c.open()
	}
	return disk.Open(filepath.Join(c.dir, name), name)
}

func (c *computer) OpenSource(name string) (*disk.Source, error) {
	return disk.OpenSource(filepath.Join(c.dir, name), name)
}

// boot runs an agent on the machine until it ends; the error comes out of the channel.
type result struct {
	after string
	err   error
}

func (c *computer) boot(ctx context.Context, a *appliance) (<-chan result, *Screen) {
	c.t.Helper()
	return bootMachine(c.t, ctx, a, c, c.idle)
}

// bootMachine runs an agent on any machine.
func bootMachine(t *testing.T, ctx context.Context, a *appliance, m Machine, idle time.Duration) (<-chan result, *Screen) {
	t.Helper()
	screen := NewScreen(testWriter{t})
	agent, err := New(Config{Boot: a.boot(), Machine: m, Screen: screen, ListenAddr: "127.0.0.1:0", Version: "test", relayLeast: 1,
		timing: timing{rest: time.Millisecond, rescan: 20 * time.Millisecond, progress: time.Second, failed: 50 * time.Millisecond, alone: 2 * time.Second,
			idle: cmp.Or(idle, time.Minute)}})
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan result, 1)
	go func() {
		after, err := agent.Run(ctx)
		screen.Close(time.Second)
		out <- result{after, err}
	}()
	return out, screen
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	fmt.Fprint(w.t.Output(), strings.ReplaceAll(string(b), "\r\n", "\n"))
	return len(b), nil
}

func wait(t *testing.T, out <-chan result) result {
	t.Helper()
	select {
	case r := <-out:
		return r
	case <-time.After(2 * time.Minute):
		t.Fatal("the agent did not end")
		return result{}
	}
}

func bytesOf(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func zeros(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// TestDeployment follows one machine from its hello to its restart, and looks at the disk whenever the appliance is
// asked for something: the order on disk is what a power cut at that moment would leave.
func TestDeployment(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	file, before := c.insert("vda", "SN1", disktest.DiskLength+9<<20)
	start := func() []byte {
		f, err := os.Open(file)
		if err != nil {
			t.Error(err)
			return nil
		}
		defer f.Close()
		b := make([]byte, 34*512)
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Error(err)
		}
		return b
	}
	var tableSeen bool
	var early atomic.Bool
	a.on = func(path string) {
		switch path {
		case job.PathReceipt:
			tableSeen = bytes.Contains(start(), []byte("EFI PART"))
		case job.PathHello, job.PathFrame:
			if !bytes.Equal(bytesOf(t, file), before) {
				t.Errorf("at %s the disk has changed, and its old frame is not durable", path)
			}
		}
	}
	a.seed.look = func() {
		if b := start(); !zeros(b[:512]) || bytes.Contains(b, []byte("EFI PART")) {
			early.Store(true)
		}
	}
	out, _ := c.boot(t.Context(), a)
	if r := wait(t, out); r.err != nil || r.after != Reboot {
		t.Fatalf("%v, then %q", r.err, r.after)
	}
	after := bytesOf(t, file)
	a.img.Check(t, after, before)
	if early.Load() {
		t.Error("there was a table before the content was complete")
	}
	if !tableSeen {
		t.Error("the receipt came before the table")
	}
	if o, err := exec.Command("sgdisk", "-v", file).CombinedOutput(); err != nil || !strings.Contains(string(o), "No problems found") {
		t.Errorf("sgdisk: %v %s", err, o)
	}
	if !bytes.HasPrefix(after, []byte("boot code")) {
		t.Error("the boot code is missing")
	}
	if c.clock.IsZero() {
		t.Error("the clock was not set")
	}
	if len(a.receipts) != 1 || len(a.receipts[0].Roots) != 2 || a.receipts[0].Roots[1].Root != a.img.Manifest.Partitions[1].Root ||
		a.receipts[0].DiskSerial != "SN1" || a.receipts[0].DiskLength != int64(len(before)) {
		t.Errorf("receipt %+v", a.receipts)
	}
	total := a.img.Layout.DataLength()
	f := a.final
	if f.Total != total || f.Held != total || f.Verified != total || f.Resumed != 0 || f.FromAppliance <= 0 || f.Written < total/2 ||
		f.WriteNanos <= 0 || f.Disk != "vda" {
		t.Errorf("final report %+v", f)
	}
	if len(a.frames) != 1 || a.frames[0].DiskLength != int64(len(before)) || !bytes.Equal(a.frames[0].Regions[0].Bytes, before[:512]) {
		t.Errorf("%d frames", len(a.frames))
	}
	var phases []string
	for _, r := range a.reports {
		if p := string(r.Phase); len(phases) == 0 || phases[len(phases)-1] != p {
			phases = append(phases, p)
		}
	}
	if got := strings.Join(phases, " "); !strings.HasSuffix(got, "reboot") || !strings.Contains(got, "content") {
		t.Errorf("phases %s", got)
	}
}

// The appliance keeps what came last as what is.
func TestNoReportOvertakesALaterOne(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	c.insert("vda", "SN1", disktest.DiskLength+9<<20)
	another := make(chan struct{})
	var overlaps atomic.Int32
	a.on = func(path string) {
		if path != job.PathReport {
			return
		}
		select {
		case another <- struct{}{}:
			overlaps.Add(1)
		case <-another:
		case <-time.After(20 * time.Millisecond): // what must not happen has so long
		}
	}
	out, _ := c.boot(t.Context(), a)
	if r := wait(t, out); r.err != nil {
		t.Fatal(r.err)
	}
	if len(a.receipts) != 1 || a.reports[len(a.reports)-1].Phase != job.PhaseReboot {
		t.Errorf("%d receipts, the last report %+v", len(a.receipts), a.reports[len(a.reports)-1])
	}
	if n := overlaps.Load(); n > 0 {
		t.Errorf("%d reports were on their way while another one was", n)
	}
}

func TestDiskThatIsTooSmallIsLeftAloneUntilItIsExchanged(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	file, before := c.insert("vda", "SMALL", 8<<20)
	out, _ := c.boot(t.Context(), a)
	r := a.await(func(r job.Report) bool { return r.State == job.Paused })
	if r.Code != disk.CodeTooSmall || !strings.Contains(r.Reason, "8388608") || !strings.Contains(r.Reason, "bytes") {
		t.Errorf("paused with %s: %s", r.Code, r.Reason)
	}
	if !bytes.Equal(bytesOf(t, file), before) || len(a.frames) != 0 {
		t.Error("the small disk was touched")
	}
	c.remove("vda")
	larger, old := c.insert("vdb", "LARGE", disktest.DiskLength)
	if r := wait(t, out); r.err != nil {
		t.Fatal(r.err)
	}
	a.img.Check(t, bytesOf(t, larger), old)
	if !bytes.Equal(bytesOf(t, file), before) {
		t.Error("the small disk was touched")
	}
	if a.final.DiskSerial != "LARGE" {
		t.Errorf("final report names disk %s", a.final.DiskSerial)
	}
}

func TestAmbiguousDisksAreRefusedAndBothLeftAlone(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	one, was := c.insert("vda", "A", disktest.DiskLength)
	two, wasTwo := c.insert("vdb", "B", disktest.DiskLength)
	ctx, cancel := context.WithCancel(t.Context())
	out, screen := c.boot(ctx, a)
	r := a.await(func(r job.Report) bool { return r.State == job.Failed })
	if !strings.Contains(screen.Tail(), `type "reboot"`) {
		t.Errorf("the screen does not say how to go on: %s", screen.Tail())
	}
	if r.Code != disk.CodeAmbiguous || !strings.Contains(r.Reason, "serial A") || !strings.Contains(r.Reason, "serial B") || r.Log == "" {
		t.Errorf("failed with %s: %s", r.Code, r.Reason)
	}
	n := len(a.reports)
	a.await(func(job.Report) bool { n--; return n < -1 }) // it goes on saying so
	cancel()
	wait(t, out)
	if !bytes.Equal(bytesOf(t, one), was) || !bytes.Equal(bytesOf(t, two), wasTwo) {
		t.Error("a disk was touched")
	}
}

func TestNamedDiskIsWrittenAndTheOtherLeftAlone(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	one, was := c.insert("vda", "A", disktest.DiskLength)
	two, wasTwo := c.insert("vdb", "B", disktest.DiskLength)
	a.pin = "B"
	out, _ := c.boot(t.Context(), a)
	if r := wait(t, out); r.err != nil {
		t.Fatal(r.err)
	}
	a.img.Check(t, bytesOf(t, two), wasTwo)
	if !bytes.Equal(bytesOf(t, one), was) {
		t.Error("the other disk was touched")
	}
}

// TestDiskThatTakesThePlaceOfTheChosenOneIsLeftAlone: the disk is exchanged in the moment before it is opened, and the
// other one has its name.
func TestDiskThatTakesThePlaceOfTheChosenOneIsLeftAlone(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	c.insert("vda", "A", disktest.DiskLength)
	a.pin = "A"
	var other string
	var was []byte
	c.open = sync.OnceFunc(func() {
		c.remove("vda")
		other, was = c.insert("vda", "B", disktest.DiskLength)
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, _ := c.boot(ctx, a)
	r := a.await(func(r job.Report) bool { return r.State == job.Paused || r.Phase == job.PhaseContent })
	if r.Code != disk.CodeNoDisk || !strings.Contains(r.Reason, "serial B") {
		t.Errorf("in phase %s with %s: %s", r.Phase, r.Code, r.Reason)
	}
	cancel()
	wait(t, out)
	if !bytes.Equal(bytesOf(t, other), was) {
		t.Error("another disk than the chosen one was touched")
	}
}

func TestSeederIsFoundThroughTheTracker(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	file, before := c.insert("vda", "SN1", disktest.DiskLength)
	a.seeds = nil
	out, _ := c.boot(t.Context(), a)
	if r := wait(t, out); r.err != nil {
		t.Fatal(r.err)
	}
	a.img.Check(t, bytesOf(t, file), before)
	if n := len(a.announced); n < 2 || a.announced[0] != announce.Started || a.announced[n-1] != announce.Stopped {
		t.Errorf("announced %v", a.announced)
	}
	if a.lacked != a.img.Layout.DataLength() {
		t.Errorf("an empty machine announced that it lacks %d bytes of %d: it is told of nobody who is done", a.lacked, a.img.Layout.DataLength())
	}
}

// TestPowerCut ends an agent in the middle and boots the machine again.
func TestPowerCut(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	file, before := c.insert("vda", "SN1", disktest.DiskLength)
	total := a.img.Layout.DataLength()
	release := a.seed.hold(total / 2)
	ctx, cut := context.WithCancel(t.Context())
	out, _ := c.boot(ctx, a)
	a.await(func(r job.Report) bool { return r.Held > total/3 })
	cut()
	wait(t, out)
	half := bytesOf(t, file)
	if !zeros(half[:512]) || bytes.Contains(half[:34*512], []byte("EFI PART")) {
		t.Error("a half-written disk has a table")
	}
	release()
	a.mu.Lock()
	a.token, a.claimed, a.reports = strings.Repeat("ab", 32), false, nil
	a.mu.Unlock()
	given := a.seed.total()
	out, _ = c.boot(t.Context(), a)
	if r := wait(t, out); r.err != nil {
		t.Fatal(r.err)
	}
	a.img.Check(t, bytesOf(t, file), before)
	lacked := total - a.final.Resumed
	if a.final.Resumed <= total/4 || float64(a.seed.total()-given) > 1.1*float64(lacked) {
		t.Errorf("resumed %d of %d, then %d bytes came for %d that were lacking", a.final.Resumed, total, a.seed.total()-given, lacked)
	}
}

// TestDeployingTheSameImageAgainFetchesAndWritesNoContent: the old table is taken off and written anew, nothing else.
func TestDeployingTheSameImageAgainFetchesAndWritesNoContent(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	file, before := c.insert("vda", "SN1", disktest.DiskLength)
	for _, again := range []bool{false, true} {
		a.mu.Lock()
		a.token, a.claimed, a.reports = strings.Repeat("ab", 32), false, nil
		a.mu.Unlock()
		out, _ := c.boot(t.Context(), a)
		if r := wait(t, out); r.err != nil {
			t.Fatal(r.err)
		}
		f, total := a.final, a.img.Layout.DataLength()
		layers := int64(0)
		for _, b := range a.img.Layers {
			layers += int64(len(b))
		}
		if again && (f.Resumed != total || f.FromAppliance > layers || f.Written > 1<<20 || f.Verified != total) {
			t.Errorf("the second time %d of %d bytes were found, %d came and %d were written", f.Resumed, total, f.FromAppliance, f.Written)
		}
	}
	a.img.Check(t, bytesOf(t, file), before)
}

func TestApplianceThatGoesAwayIsWaitedFor(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	file, before := c.insert("vda", "SN1", disktest.DiskLength)
	release := a.seed.hold(a.img.Layout.DataLength() / 2)
	out, _ := c.boot(t.Context(), a)
	a.await(func(r job.Report) bool { return r.Phase == job.PhaseContent && r.Held > 0 })
	a.mu.Lock()
	a.away = true
	a.mu.Unlock()
	release() // all content comes while the appliance answers nothing
	time.AfterFunc(1500*time.Millisecond, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.away = false
	})
	if r := wait(t, out); r.err != nil {
		t.Fatal(r.err)
	}
	a.img.Check(t, bytesOf(t, file), before)
	if len(a.receipts) != 1 {
		t.Errorf("%d receipts", len(a.receipts))
	}
}

func TestCancelledJobLeavesADiskThatBootsNothing(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	file, _ := c.insert("vda", "SN1", disktest.DiskLength)
	release := a.seed.hold(a.img.Layout.DataLength() / 3)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	out, screen := c.boot(ctx, a)
	a.await(func(r job.Report) bool { return r.Phase == job.PhaseContent })
	a.mu.Lock()
	a.say = func(job.Report) job.Directive { return job.Directive{State: job.Cancelled} }
	a.mu.Unlock()
	for !strings.Contains(screen.Tail(), "was cancelled") {
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if b := bytesOf(t, file); !zeros(b[:512]) {
		t.Error("the disk has a table")
	}
	a.awaitBoard(ctx, screen, func(b board.Board) bool {
		return b.Word == "stopped" && b.Level == board.Waiting && strings.HasPrefix(b.Message, "Job j1 was cancelled; ") && strings.Contains(b.Message, "another job")
	})
	cancel() // it waits for another job
	if r := wait(t, out); r.err == nil {
		t.Error("the agent ended without an error")
	}
}

// TestJobThatEndsBeforeItsFirstWriteLeavesTheMachineFree: the frame is refused before a report tells of the cancelling.
func TestJobThatEndsBeforeItsFirstWriteLeavesTheMachineFree(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	file, before := c.insert("vda", "SN1", disktest.DiskLength)
	a.ended = true
	ctx, cancel := context.WithCancel(t.Context())
	out, screen := c.boot(ctx, a)
	for !strings.Contains(screen.Tail(), "nothing was written") && !strings.Contains(screen.Tail(), "FAILED") {
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(screen.Tail(), "FAILED") {
		t.Error("a cancelled job counts as failed, and the machine takes no other one")
	}
	cancel()
	wait(t, out)
	if !bytes.Equal(bytesOf(t, file), before) {
		t.Error("the disk was touched")
	}
}

// TestOwnPauseIsNotTakenForAPersons: the answer to a report of a pause comes when the machine is at work again.
func TestOwnPauseIsNotTakenForAPersons(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	agent, err := New(Config{Boot: a.boot(), Machine: c, Screen: NewScreen()})
	if err != nil {
		t.Fatal(err)
	}
	defer agent.client.http.CloseIdleConnections()
	d := newDeployment(agent, job.Job{ID: "j1"})
	a.say = func(r job.Report) job.Directive { return job.Directive{State: r.State} }
	if err := d.report(t.Context(), job.Report{Job: "j1", State: job.Paused}); err != nil || d.held {
		t.Errorf("held %v: %v", d.held, err)
	}
	a.say = func(r job.Report) job.Directive { return job.Directive{State: job.Paused} }
	if err := d.report(t.Context(), job.Report{Job: "j1", State: job.Running}); err != nil || !d.held {
		t.Errorf("held %v by a person: %v", d.held, err)
	}
}

func TestPausedJobGoesOn(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	file, before := c.insert("vda", "SN1", disktest.DiskLength)
	release := a.seed.hold(a.img.Layout.DataLength() / 3)
	out, _ := c.boot(t.Context(), a)
	a.await(func(r job.Report) bool { return r.Phase == job.PhaseContent && r.Held > 0 })
	a.mu.Lock()
	a.say = func(job.Report) job.Directive { return job.Directive{State: job.Paused} }
	a.mu.Unlock()
	paused := a.await(func(r job.Report) bool { return r.State == job.Paused })
	release()
	a.mu.Lock()
	a.say = func(r job.Report) job.Directive { return job.Directive{State: job.Waiting, Release: true} }
	a.mu.Unlock()
	if r := wait(t, out); r.err != nil {
		t.Fatal(r.err)
	}
	a.img.Check(t, bytesOf(t, file), before)
	if paused.Code != "operator" || a.final.FromAppliance < paused.FromAppliance {
		t.Errorf("paused %+v, final %+v", paused, a.final)
	}
}

func TestUsedTokenIsRefused(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	a.token = "another"
	out, _ := c.boot(t.Context(), a)
	if r := wait(t, out); !errors.Is(r.err, ErrRefused) || !strings.Contains(r.err.Error(), "start the machine again") {
		t.Errorf("%v", r.err)
	}
}

// TestMachineThatWaitedTooLongBootsAnew: with its certificate at an end it would never be given a job.
func TestMachineThatWaitedTooLongBootsAnew(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	a.lifetime, a.claimed = 2*time.Second, true // there is no job
	out, _ := c.boot(t.Context(), a)
	if r := wait(t, out); !errors.Is(r.err, ErrRefused) || !strings.Contains(r.err.Error(), "a new boot gets a new one") {
		t.Errorf("%v", r.err)
	}
}

// TestMachineWithoutAJobGoesBackToItsDisk, also when it was admitted only while it waited.
func TestMachineWithoutAJobGoesBackToItsDisk(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	a.claimed, a.unadmitted = true, 2 // there is no job, and two inventories go by before a person says yes
	c.idle = time.Millisecond
	file, before := c.insert("vda", "SN1", disktest.DiskLength)
	out, screen := c.boot(t.Context(), a)
	if r := wait(t, out); r.err != nil || r.after != Reboot {
		t.Errorf("after %q, error %v", r.after, r.err)
	}
	if s := screen.Tail(); !strings.Contains(s, "machine admit AB12") || !strings.Contains(s, "starts its own disk") {
		t.Errorf("the screen shows %q", s)
	}
	if !bytes.Equal(bytesOf(t, file), before) {
		t.Error("the disk was touched")
	}
}

// TestApplianceThatIsSwitchedOffLeavesTimeForTheNext: what is sent to it is answered by nobody.
func TestApplianceThatIsSwitchedOffLeavesTimeForTheNext(t *testing.T) {
	a := newAppliance(t)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	silent := fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
	for { // until its queue is full
		conn, err := net.DialTimeout("tcp", silent, 200*time.Millisecond)
		if err != nil {
			break
		}
		defer conn.Close()
	}
	boot := a.boot()
	boot.Appliances = append([]string{"https://" + silent}, boot.Appliances...)
	client, err := newClient(boot)
	if err != nil {
		t.Fatal(err)
	}
	defer client.http.CloseIdleConnections()
	key, err := client.publicKey()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second) // a report's time
	defer cancel()
	if _, err := client.post(ctx, job.PathHello, job.Hello{Token: a.token, PublicKey: key}, &job.Welcome{}); err != nil {
		t.Error(err)
	}
	if client.appliances[0] == boot.Appliances[0] {
		t.Error("the one that answered is not asked first")
	}
}

func TestImpostorIsNotTalkedTo(t *testing.T) {
	for name, impostor := range map[string]func(a *appliance) job.Boot{
		"another site": func(a *appliance) job.Boot {
			b := a.boot()
			b.Fingerprint = images.Sum([]byte("another"))
			return b
		},
		"a machine of the same site": func(a *appliance) job.Boot {
			a.serve(a.keyPair(job.URIMachine + "m2"))
			return a.boot()
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAppliance(t)
			client, err := newClient(impostor(a))
			if err != nil {
				t.Fatal(err)
			}
			defer client.http.CloseIdleConnections()
			if _, err := client.post(t.Context(), job.PathHello, job.Hello{Token: a.token}, nil); !errors.Is(err, ErrPin) {
				t.Errorf("said hello to an impostor: %v", err)
			}
			if a.token == "" {
				t.Error("the token was given away")
			}
		})
	}
}

func TestFaultyDiskEndsTheJobAndIsNotTouchedAgain(t *testing.T) {
	a, c := newAppliance(t), newComputer(t)
	file, _ := c.insert("vda", "SN1", disktest.DiskLength)
	release := a.seed.hold(a.img.Layout.DataLength() / 3)
	ctx, cancel := context.WithCancel(t.Context())
	out, _ := c.boot(ctx, a)
	a.await(func(r job.Report) bool { return r.Phase == job.PhaseContent && r.Held > 0 })
	if err := os.Truncate(file, 1<<20); err != nil { // reading back what was written will fail
		t.Fatal(err)
	}
	release()
	r := a.await(func(r job.Report) bool { return r.State == job.Failed })
	if !strings.HasSuffix(r.Code, "-error") || r.Reason == "" || r.Phase != job.PhaseVerify {
		t.Errorf("failed in %s with %s: %s", r.Phase, r.Code, r.Reason)
	}
	if b := bytesOf(t, file); !zeros(b[:512]) {
		t.Error("the faulty disk got a table")
	}
	cancel()
	wait(t, out)
}
