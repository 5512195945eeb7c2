//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/initramfs/agent"
)

func TestMachineIsCapturedThoughApplianceAndAgentAreKilledInTheMiddle(t *testing.T) {
	network(t)
	data, boot := t.TempDir(), bootFiles(t)
	noise := full(40<<20, 96<<20)
	file := newReferenceDisk(t, noise, 1)
	before := sumOf(t, file)
	p := serve(t, data, boot, "--admit", "auto")
	r := newReference(t, "", file)
	must(t, data, "capture", testMAC, "--name", "debian")
	start := traffic(t)
	began := time.Now()

	killed, kill := context.WithCancel(t.Context())
	out := r.work(killed)
	passed(t, start, noise*2/5)
	kill() // the machine's power is cut
	<-out
	halfway := traffic(t)
	out = r.work(t.Context())
	passed(t, halfway, noise*2/5)
	p.kill()
	serve(t, data, boot, "--admit", "auto")
	r.finish(out)

	sent := traffic(t) - start
	t.Logf("%d MB of noise, %d MB travelled in %.1f s", noise/1000000, sent/1000000, time.Since(began).Seconds())
	// Lost at each kill: what was on its way, 12 MiB at most; 3 % are headers and acknowledgements.
	if most := noise + noise*3/100 + 2*12<<20; sent > most {
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
	j := await(t, data, func(j api.Job) bool { return j.State.Ended() })
	cancel()
	<-out
	if j.State != job.Failed || j.Code != "source-dirty" || !strings.Contains(j.Reason, "e2fsck") || !strings.Contains(j.Reason, "partition 1") {
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
	j = jobs(t, data)[1]
	if j.State != job.Succeeded || len(j.Warnings) == 0 {
		t.Errorf("job with --full: %+v", j)
	}
}

func TestEightMachinesAreCapturedAtOnceInBoundedMemoryAndOnlyOnceWhatTheyShare(t *testing.T) {
	network(t)
	data := t.TempDir()
	noise := full(6<<20, 16<<20)
	file := newReferenceDisk(t, noise, 3)
	p := serve(t, data, bootFiles(t), "--admit", "auto")
	var machines []*reference
	for i := range 8 {
		machines = append(machines, newReference(t, fmt.Sprintf("52:54:00:77:00:%02x", 0x10+i), file))
		order(t, data, machines[i].mac, "room")
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
	if stored := packedTiles(t, data); stored < noise || stored > noise+noise/10 {
		t.Errorf("%d bytes are stored of %d of noise", stored, noise)
	}
	want := roots(t, data, "room:1")
	for i := range machines {
		if got := roots(t, data, fmt.Sprintf("room:%d", i+1)); !slices.Equal(got, want) {
			t.Errorf("roots %v and %v of one disk", got, want)
		}
	}
}

// order has a machine captured, as the command does.
func order(t *testing.T, data, mac, name string) {
	t.Helper()
	c := client.Local(filepath.Join(data, "seedbed.sock"))
	defer c.Close()
	if _, err := c.Capture(t.Context(), fleet.CaptureOrder{Machine: mac, CaptureOrder: job.CaptureOrder{Name: name}}); err != nil {
		t.Fatal(err)
	}
}

// full returns the length of content that a test works with: much with SEEDBED_FULL=1.
func full(few, much int64) int64 {
	if os.Getenv("SEEDBED_FULL") != "" {
		return much
	}
	return few
}

// packedTiles is the length of all packs.
func packedTiles(t *testing.T, data string) (stored int64) {
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
func await(t *testing.T, data string, ok func(api.Job) bool) api.Job {
	t.Helper()
	c := client.Local(filepath.Join(data, "seedbed.sock"))
	defer c.Close()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		list, err := c.Jobs(t.Context(), api.JobQuery{})
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
	file := newReferenceDisk(t, 8<<20, 5)
	serve(t, data, bootFiles(t), "--admit", "auto")
	r := newReference(t, "", file)
	c := client.Local(filepath.Join(data, "seedbed.sock"))
	defer c.Close()
	operate := func(id, verb string) (at time.Time) {
		t.Helper()
		if _, err := c.Operate(t.Context(), id, verb); err != nil {
			t.Fatal(err)
		}
		return time.Now()
	}
	must(t, data, "capture", testMAC, "--name", "debian")
	r.hold = make(chan struct{})
	out := r.work(t.Context())
	j := await(t, data, func(j api.Job) bool { return j.State == job.Running && j.Phase == job.PhaseCheck })
	paused := operate(j.ID, "pause")
	heard := await(t, data, func(j api.Job) bool { return j.Reported.After(paused) })
	await(t, data, func(j api.Job) bool { return j.Reported.After(heard.Reported) })
	close(r.hold)
	j = await(t, data, func(j api.Job) bool { return j.Reported.After(heard.Reported.Add(time.Second)) })
	if j.State != job.Paused || j.Sent != 0 {
		t.Errorf("the job is %s, %d bytes were sent", j.State, j.Sent)
	}
	operate(j.ID, "resume")
	r.finish(out)

	must(t, data, "capture", testMAC, "--name", "debian")
	r.hold = make(chan struct{})
	out = r.work(t.Context())
	j = await(t, data, func(j api.Job) bool { return j.State == job.Running })
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
	tools(t, "", "mount", "-t", "tmpfs", "-o", "size=24m", "seedbed-test", data)
	t.Cleanup(func() { tools(t, "", "umount", "-l", data) })
	file := newReferenceDisk(t, 32<<20, 6)
	serve(t, data, bootFiles(t), "--admit", "auto")
	r := newReference(t, "", file)
	must(t, data, "capture", testMAC, "--name", "debian")
	ctx, cancel := context.WithCancel(t.Context())
	out := r.work(ctx)
	j := await(t, data, func(j api.Job) bool { return j.State.Ended() })
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
