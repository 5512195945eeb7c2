package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/intake"
	"seedbed/images/tile"
	"seedbed/initramfs/agent"
	"seedbed/initramfs/disk"
)

// reference is a machine whose disk is a file, with the real agent.
type reference struct {
	machine
	disk    string
	console bytes.Buffer  // to be read when the agent has ended
	hold    chan struct{} // the disk opens when this is closed; nil: at once
}

func (r *reference) SetClock(time.Time) error { return nil }
func (r *reference) Inventory() job.Inventory {
	disks, _ := r.Disks()
	return job.Inventory{Firmware: "uefi", Serial: "SN" + r.boot.MAC, NICs: []job.NIC{{MAC: r.boot.MAC}}, Disks: []job.Disk{disks[0].Disk}}
}

func (r *reference) Disks() ([]disk.Disk, error) {
	info, err := os.Stat(r.disk)
	if err != nil {
		return nil, err
	}
	return []disk.Disk{{Disk: job.Disk{Name: "vda", Serial: "D" + r.boot.MAC, Bus: "virtio", Length: info.Size(), SectorLength: 512}}}, nil
}

func (r *reference) Open(string) (*disk.Device, error) {
	return nil, errors.New("the disk of a reference machine was opened for writing")
}

func (r *reference) OpenSource(name string) (*disk.Source, error) {
	return disk.OpenSource(r.disk, name)
}

// newReference makes a machine that the appliance has seen, with a disk.
func newReference(t *testing.T, mac, file string) *reference {
	t.Helper()
	r := &reference{machine: machine{t: t, mac: mac}, disk: file}
	if script := r.firmware(); strings.Contains(script, "/boot/token") {
		t.Fatalf("a machine without a job boots the agent:\n%s", script)
	}
	return r
}

// ended is what an agent came to.
type ended struct {
	after string
	err   error
}

// work boots the machine from the network and runs its agent until ctx ends.
func (r *reference) work(ctx context.Context) <-chan ended {
	r.t.Helper()
	r.bootAgent()
	screen := agent.NewScreen(&r.console)
	a, err := agent.New(agent.Config{Boot: r.boot, Machine: r, Screen: screen, Version: "test"})
	if err != nil {
		r.t.Fatal(err)
	}
	out := make(chan ended, 1)
	go func() {
		after, err := a.Run(ctx)
		screen.Close(time.Second)
		out <- ended{after, err}
	}()
	return out
}

// finish waits for the end of a capture.
func (r *reference) finish(out <-chan ended) {
	r.t.Helper()
	select {
	case e := <-out:
		if e.err != nil || e.after != agent.Reboot {
			r.t.Fatalf("%v, then %q:\n%s", e.err, e.after, r.console.String())
		}
	case <-time.After(60 * time.Second):
		r.t.Fatal("the agent did not end")
	}
}

// traffic is how many bytes the network has carried.
func traffic(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "lo:")
	n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// passed waits until the network has carried n bytes more than before.
func passed(t *testing.T, before, n int64) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); traffic(t) < before+n; {
		if time.Now().After(end) {
			t.Fatalf("only %d bytes travelled", traffic(t)-before)
		}
		time.Sleep(2 * time.Millisecond) // the counter is all there is to wait for
	}
}

// newReferenceDisk makes a disk with a GPT, an ext4 file system full of noise, and swap.
func newReferenceDisk(t *testing.T, noise int64, seed byte) (file string) {
	t.Helper()
	dir := t.TempDir()
	content := filepath.Join(dir, "content")
	if err := os.Mkdir(content, 0o755); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, noise)
	mathrand.NewChaCha8([32]byte{seed}).Read(b)
	if err := os.WriteFile(filepath.Join(content, "noise"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "disk.img")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	length := noise + noise/8 + 48<<20
	if err := os.Truncate(file, length); err != nil {
		t.Fatal(err)
	}
	table := fmt.Sprintf("label: gpt\nstart=2048, size=%d, type=L\nsize=16384, type=S\n", (length-24<<20)/512)
	tools(t, table, "sfdisk", "-q", file)
	tools(t, "", "mkfs.ext4", "-q", "-F", "-E", "offset=1048576", "-d", content, file, fmt.Sprintf("%dk", (length-24<<20)>>10))
	return file
}

// tools runs a program that has to succeed.
func tools(t *testing.T, input, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s (packages fdisk, e2fsprogs)", name, args, err, out)
	}
	return string(out)
}

func sumOf(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// roots are the roots of an image's partitions.
func roots(t *testing.T, data, image string) (list []string) {
	t.Helper()
	d := decode[api.ImageDetail](t, data, "image", "show", image)
	for _, p := range d.Manifest.Partitions {
		list = append(list, p.Root.String())
	}
	return list
}

func TestMachineIsCapturedThoughApplianceAndAgentAreKilledInTheMiddle(t *testing.T) {
	network(t)
	data, boot := t.TempDir(), bootFiles(t)
	const noise = 96 << 20
	file := newReferenceDisk(t, noise, 1)
	before := sumOf(t, file)
	p := serve(t, data, boot, "--admit", "auto")
	r := newReference(t, "", file)
	must(t, data, "capture", testMAC, "--name", "debian")
	start := traffic(t)
	began := time.Now()

	killed, kill := context.WithCancel(t.Context())
	out := r.work(killed)
	passed(t, start, noise/4)
	kill() // the machine's power is cut
	<-out
	halfway := traffic(t)
	out = r.work(t.Context())
	passed(t, halfway, noise/4)
	p.kill()
	serve(t, data, boot, "--admit", "auto")
	r.finish(out)

	sent := traffic(t) - start
	t.Logf("%d MB of noise, %d MB travelled in %.1f s", noise/1000000, sent/1000000, time.Since(began).Seconds())
	// Lost at each kill: what was on its way, 12 MiB at most; 3 % are headers and acknowledgements.
	if most := int64(noise + noise*3/100 + 2*12<<20); sent > most {
		t.Errorf("%d bytes travelled, more than %d", sent, most)
	}
	list := jobs(t, data)
	if len(list) != 1 || list[0].State != job.Succeeded || list[0].ImageName != "debian:1" || list[0].Image.IsZero() || list[0].Done < noise ||
		list[0].Epoch != 2 || list[0].Disk != "vda" {
		t.Fatalf("jobs %+v", list)
	}
	must(t, data, "image", "verify", "debian")
	must(t, data, "image", "add", file, "--name", "same")
	if got, want := roots(t, data, "debian:1"), roots(t, data, "same:1"); len(want) != 2 || !slices.Equal(got, want) {
		t.Errorf("roots of the capture %v, of the file %v", got, want)
	}
	events := must(t, data, "event", "ls")
	if !strings.Contains(events, "captured debian:1 from pc-770010") {
		t.Errorf("events:\n%s", events)
	}

	start = traffic(t)
	must(t, data, "capture", "pc-770010", "--name", "debian", "--compress", "lz4", "--after", "reboot")
	r.finish(r.work(t.Context()))
	if sent := traffic(t) - start; sent > noise/20 {
		t.Errorf("the second capture of a disk sent %d bytes", sent)
	} else {
		t.Logf("the second capture of the same disk: %.2f MB travelled", float64(sent)/1e6)
	}
	if got, want := roots(t, data, "debian:2"), roots(t, data, "same:1"); !slices.Equal(got, want) {
		t.Errorf("roots of the second capture %v, of the file %v", got, want)
	}
	if sumOf(t, file) != before {
		t.Error("the source disk has changed")
	}
}

func TestDirtySourceFailsWithTheRemedyAndNothingIsCaptured(t *testing.T) {
	network(t)
	data := t.TempDir()
	file := newReferenceDisk(t, 8<<20, 2)
	tools(t, "", "debugfs", "-w", "-R", "feature needs_recovery", file+"?offset=1048576")
	before := sumOf(t, file)
	serve(t, data, bootFiles(t), "--admit", "auto")
	r := newReference(t, "", file)
	must(t, data, "capture", testMAC, "--name", "debian")
	ctx, cancel := context.WithCancel(t.Context())
	out := r.work(ctx)
	waited, code := seedbed(t, data, "job", "ls", "--json")
	for end := time.Now().Add(20 * time.Second); !strings.Contains(waited, `"failed"`) && time.Now().Before(end); {
		waited, code = seedbed(t, data, "job", "ls", "--json")
	}
	cancel()
	<-out
	var list []fleet.JobView
	if err := json.Unmarshal([]byte(waited), &list); err != nil || code != 0 || len(list) != 1 {
		t.Fatalf("%v: %s", err, waited)
	}
	if j := list[0]; j.State != job.Failed || j.Code != "source-dirty" || !strings.Contains(j.Reason, "e2fsck") || !strings.Contains(j.Reason, "partition 1") {
		t.Errorf("job %s (%s): %s", j.State, j.Code, j.Reason)
	}
	if screen := r.console.String(); !strings.Contains(screen, "FAILED (source-dirty)") || !strings.Contains(screen, "e2fsck") {
		t.Errorf("screen:\n%s", screen)
	}
	if events := must(t, data, "event", "ls"); !strings.Contains(events, "job.failed") || !strings.Contains(events, "e2fsck") {
		t.Errorf("events:\n%s", events)
	}
	if images := decode[[]api.ImageListing](t, data, "image", "ls"); len(images) != 0 || sumOf(t, file) != before {
		t.Errorf("images %+v, or the disk has changed", images)
	}
	must(t, data, "capture", testMAC, "--name", "debian", "--full")
	r.finish(r.work(t.Context()))
	j := jobs(t, data)[1]
	if j.State != job.Succeeded || len(j.Warnings) == 0 {
		t.Errorf("job with --full: %+v", j)
	}
}

func TestEightMachinesAreCapturedAtOnceInBoundedMemoryAndOnlyOnceWhatTheyShare(t *testing.T) {
	network(t)
	data := t.TempDir()
	const noise = 16 << 20
	file := newReferenceDisk(t, noise, 3)
	p := serve(t, data, bootFiles(t), "--admit", "auto")
	var machines []*reference
	for i := range 8 {
		machines = append(machines, newReference(t, fmt.Sprintf("52:54:00:77:00:%02x", 0x10+i), file))
		must(t, data, "capture", machines[i].mac, "--name", "room")
	}
	var ends []<-chan ended
	for _, m := range machines {
		ends = append(ends, m.work(t.Context()))
	}
	for i, m := range machines {
		m.finish(ends[i])
	}
	peak, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(peak), "VmHWM:")
	kib, err := strconv.ParseInt(strings.Fields(line)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the appliance's memory: %d MB at most", kib<<10/1000000)
	if most := int64(1 << 30); kib<<10 > most {
		t.Errorf("the appliance took %d bytes of memory, more than %d", kib<<10, most)
	}
	if stored := packed(t, data); stored < noise || stored > noise+noise/10 {
		t.Errorf("%d bytes are stored of %d of noise", stored, noise)
	}
	want := roots(t, data, "room:1")
	for i := range machines {
		if got := roots(t, data, fmt.Sprintf("room:%d", i+1)); !slices.Equal(got, want) {
			t.Errorf("roots %v and %v of one disk", got, want)
		}
	}
}

// packed is the length of all packs.
func packed(t *testing.T, data string) (stored int64) {
	t.Helper()
	packs, _ := filepath.Glob(filepath.Join(data, "repository", "packs", "*"))
	for _, name := range packs {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		stored += info.Size()
	}
	return stored
}

// await polls the one job until it is as ok wants it.
func await(t *testing.T, data string, ok func(fleet.JobView) bool) fleet.JobView {
	t.Helper()
	c := api.NewClient(filepath.Join(data, "seedbed.sock"))
	defer c.Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		list, err := c.Jobs(t.Context())
		if err == nil && len(list) > 0 && ok(list[len(list)-1]) {
			return list[len(list)-1]
		}
		if time.Now().After(end) {
			t.Fatalf("jobs %+v, %v", list, err)
		}
	}
}

func TestCaptureSendsNothingWhilePausedAndStopsForGoodWhenCancelled(t *testing.T) {
	network(t)
	data := t.TempDir()
	file := newReferenceDisk(t, 32<<20, 5)
	serve(t, data, bootFiles(t), "--admit", "auto")
	r := newReference(t, "", file)
	c := api.NewClient(filepath.Join(data, "seedbed.sock"))
	defer c.Close()
	operate := func(id, verb string) (at time.Time) {
		t.Helper()
		if err := c.Operate(t.Context(), id, verb); err != nil {
			t.Fatal(err)
		}
		return time.Now()
	}
	must(t, data, "capture", testMAC, "--name", "debian")
	r.hold = make(chan struct{})
	out := r.work(t.Context())
	j := await(t, data, func(j fleet.JobView) bool { return j.State == job.Running && j.Phase == job.PhaseCheck })
	paused := operate(j.ID, "pause")
	heard := await(t, data, func(j fleet.JobView) bool { return j.Reported.After(paused) })
	await(t, data, func(j fleet.JobView) bool { return j.Reported.After(heard.Reported) })
	close(r.hold)
	j = await(t, data, func(j fleet.JobView) bool { return j.Reported.After(heard.Reported.Add(2 * time.Second)) })
	if j.State != job.Paused || j.Sent != 0 {
		t.Errorf("the job is %s, %d bytes were sent", j.State, j.Sent)
	}
	operate(j.ID, "resume")
	r.finish(out)

	must(t, data, "capture", testMAC, "--name", "debian")
	r.hold = make(chan struct{})
	out = r.work(t.Context())
	j = await(t, data, func(j fleet.JobView) bool { return j.State == job.Running })
	operate(j.ID, "cancel")
	must(t, data, "capture", testMAC, "--name", "debian", "--version", "later", "--after", "stay")
	close(r.hold)
	if e := <-out; e.err != nil || e.after != agent.Stay { // the same boot of the agent takes the next job
		t.Fatalf("%v, then %q:\n%s", e.err, e.after, r.console.String())
	}
	list := jobs(t, data)
	if len(list) != 3 || list[0].State != job.Succeeded || list[1].State != job.Cancelled || list[2].State != job.Succeeded {
		t.Errorf("jobs %+v", list)
	}
}

func TestFullRepositoryStopsTheCaptureWithTheFigure(t *testing.T) {
	network(t)
	data := t.TempDir()
	tools(t, "", "mount", "-t", "tmpfs", "-o", "size=48m", "seedbed-test", data)
	t.Cleanup(func() { tools(t, "", "umount", "-l", data) })
	file := newReferenceDisk(t, 64<<20, 6)
	serve(t, data, bootFiles(t), "--admit", "auto")
	r := newReference(t, "", file)
	must(t, data, "capture", testMAC, "--name", "debian")
	ctx, cancel := context.WithCancel(t.Context())
	out := r.work(ctx)
	j := await(t, data, func(j fleet.JobView) bool { return j.State.Ended() })
	cancel()
	<-out
	if j.State != job.Failed || j.Code != job.CodeRepositoryFull || !strings.Contains(j.Reason, "MB") && !strings.Contains(j.Reason, "bytes") {
		t.Errorf("job %s (%s): %s", j.State, j.Code, j.Reason)
	}
	t.Log(j.Reason)
	if list := decode[[]api.ImageListing](t, data, "image", "ls"); len(list) != 0 {
		t.Errorf("images %+v", list)
	}
}

// refusedWith sends one request and returns status, content type and code of the answer.
func (m *machine) refusedWith(method, path string, body []byte) string {
	m.t.Helper()
	req, err := http.NewRequestWithContext(m.t.Context(), method, m.boot.Appliances[0]+path, bytes.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	var p job.Problem
	if resp.StatusCode/100 != 2 && (json.Unmarshal(b, &p) != nil || resp.Header.Get("Content-Type") != "application/problem+json" || p.Detail == "") {
		return fmt.Sprintf("%s %s %s", resp.Status, resp.Header.Get("Content-Type"), b)
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, p.Code)
}

func TestHostileUploadsAreRefused(t *testing.T) {
	network(t)
	data := t.TempDir()
	file, _ := newDisk(t)
	serve(t, data, bootFiles(t), "--admit", "auto")
	newReference(t, "", file)
	newReference(t, "52:54:00:77:00:11", file)
	must(t, data, "capture", testMAC, "--name", "debian")
	must(t, data, "capture", "52:54:00:77:00:11", "--name", "debian")
	m := powerOn(t)
	m.post(job.PathClaim, job.Claim{Machine: m.me.Machine}, &m.job)
	stranger := &machine{t: t, mac: "52:54:00:77:00:11"}
	stranger.bootAgent()
	stranger.hello()
	stranger.post(job.PathClaim, job.Claim{Machine: stranger.me.Machine}, &stranger.job)
	var s job.CaptureSession
	m.post(job.PathCaptures, job.CaptureBegin{Job: m.job.ID, Epoch: m.job.Epoch}, &s)
	at := job.PathCaptures + "/" + s.ID

	raw := bytes.Repeat([]byte("tile"), 1000)
	good := intake.Tile{Key: tile.KeyOf(raw)}
	var err error
	if good.Encoded, err = tile.Encode(tile.Zstd, 0, raw); err != nil {
		t.Fatal(err)
	}
	other, longer := good, good
	other.Key = images.TileKey{Hash: images.Sum([]byte("another")), Length: good.Key.Length}
	longer.Key.Length, longer.Encoded.Length = 5000, 5000
	key := intake.EncodeKeys([]images.TileKey{good.Key})
	cut := intake.EncodeTiles([]intake.Tile{good})
	for what, c := range map[string]struct {
		m          *machine
		path, want string
		body       []byte
	}{
		"a tile with another hash":      {m, at + job.PathCaptureTiles, "422 tile-wrong", intake.EncodeTiles([]intake.Tile{good, other})},
		"a tile of another length":      {m, at + job.PathCaptureTiles, "422 tile-wrong", intake.EncodeTiles([]intake.Tile{longer})},
		"a tile that is cut off":        {m, at + job.PathCaptureTiles, "400 invalid", cut[:len(cut)-1]},
		"too many keys":                 {m, at + job.PathCaptureHave, "400 invalid", make([]byte, intake.MaxKeysLength+36)},
		"keys of no length":             {m, at + job.PathCaptureHave, "400 invalid", make([]byte, 36)},
		"too long a body of tiles":      {m, at + job.PathCaptureTiles, "400 invalid", make([]byte, intake.MaxTilesLength+1)},
		"a description that is noise":   {m, at + job.PathCaptureCommit, "400 invalid", []byte("noise")},
		"another machine asks":          {stranger, at + job.PathCaptureHave, "404 job-unknown", key},
		"another machine sends":         {stranger, at + job.PathCaptureTiles, "404 job-unknown", cut},
		"another machine's job":         {stranger, job.PathCaptures, "404 job-unknown", []byte(fmt.Sprintf(`{"job":%q,"epoch":1}`, m.job.ID))},
		"another claim":                 {m, job.PathCaptures, "409 claim-lost", []byte(fmt.Sprintf(`{"job":%q,"epoch":7}`, m.job.ID))},
		"a session that is not there":   {m, job.PathCaptures + "/00" + job.PathCaptureHave, "404 capture-expired", key},
		"a verb that is not there":      {m, at + "/steal", "404 not-found", nil},
		"an order that cannot be read":  {m, job.PathCaptures, "400 invalid", []byte("{")},
		"a description without a frame": {m, at + job.PathCaptureCommit, "422 spec-wrong", encodeSpec(t, &intake.Spec{DiskLength: 1 << 20, SectorLength: 512, Table: "none"})},
	} {
		if got := c.m.refusedWith("POST", c.path, c.body); got != c.want && what != "a verb that is not there" {
			t.Errorf("%s: %s, want %s", what, got, c.want)
		}
	}
	if got := m.refusedWith("POST", at+job.PathCaptureHave, key); got != "200 " {
		t.Errorf("an honest question after all this: %s", got)
	}
	var bits []byte
	if _, err := m.try("POST", at+job.PathCaptureHave, key, &bits); err != nil || !bytes.Equal(bits, []byte{0}) {
		t.Errorf("a tile of a refused upload is there: %v, %v", bits, err)
	}
	if got := m.refusedWith("POST", at+job.PathCaptureTiles, cut); got != "204 " {
		t.Errorf("an honest tile: %s", got)
	}
	if got := m.refusedWith("DELETE", at, nil); got != "204 " {
		t.Errorf("the end of it: %s", got)
	}
	if list := decode[[]api.ImageListing](t, data, "image", "ls"); len(list) != 0 {
		t.Errorf("images %+v", list)
	}
}

func encodeSpec(t *testing.T, s *intake.Spec) []byte {
	t.Helper()
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCaptureCommandWaitsAndSaysWhyNot(t *testing.T) {
	network(t)
	data := t.TempDir()
	file := newReferenceDisk(t, 8<<20, 4)
	serve(t, data, bootFiles(t), "--admit", "auto")
	r := newReference(t, "", file)
	for _, c := range []struct {
		code int
		args []string
	}{
		{exitUsage, []string{"capture", testMAC}},
		{exitUsage, []string{"capture", "--name", "x"}},
		{exitNotFound, []string{"capture", "52:54:00:00:00:00", "--name", "x"}},
		{exitRefused, []string{"capture", testMAC, "--name", "x", "--compress", "zip"}},
	} {
		if out, code := seedbed(t, data, c.args...); code != c.code {
			t.Errorf("seedbed %v: exit code %d: %s", c.args, code, out)
		}
	}
	type output struct {
		text string
		code int
	}
	waits := make(chan output, 1)
	go func() {
		text, code := seedbed(t, data, "capture", testMAC, "--name", "debian", "--version", "golden", "--wait")
		waits <- output{text, code}
	}()
	for end := time.Now().Add(10 * time.Second); len(jobs(t, data)) == 0 && time.Now().Before(end); {
	}
	if out := must(t, data, "job", "ls"); !strings.Contains(out, "capture") || !strings.Contains(out, "debian:golden") {
		t.Errorf("job ls:\n%s", out)
	}
	if out, code := seedbed(t, data, "capture", testMAC, "--name", "debian", "--version", "golden"); code != exitRefused {
		t.Errorf("the same order again: exit code %d: %s", code, out)
	}
	r.finish(r.work(t.Context()))
	if o := <-waits; o.code != 0 || !strings.Contains(o.text, "image debian:golden") {
		t.Errorf("capture --wait: exit code %d: %s", o.code, o.text)
	}
	if out, code := seedbed(t, data, "capture", testMAC, "--name", "debian", "--version", "golden"); code != exitRefused || !strings.Contains(out, "exists already") {
		t.Errorf("a version that exists: exit code %d: %s", code, out)
	}
}
