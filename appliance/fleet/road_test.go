package fleet_test

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
)

func TestUnknownMachineWithoutADeploymentBootsItsDiskUnderAuto(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	if a := r.powerOn(macA); a.Agent || a.Known {
		t.Fatalf("assignment %+v", a)
	}
	if list := r.Machines(); len(list) != 1 || list[0].MAC != macA || list[0].Firmware != "uefi" || !list[0].Admitted {
		t.Fatalf("machines %+v", list)
	}
}

func TestUnknownMachineShowsItsInventoryUnderAskUntilAdmitted(t *testing.T) {
	r := newRoom(t, fleet.AdmitAsk)
	r.deployAll()
	if a := r.powerOn(macA); !a.Agent {
		t.Fatal("the machine does not boot the agent")
	}
	a := r.boot(macA, invA)
	if a.me.Admitted || len(a.me.Code) != 9 {
		t.Fatalf("admission %+v", a.me)
	}
	if a.claim() != nil {
		t.Fatal("a machine that nobody admitted got a job")
	}
	if _, err := r.Admit(t.Context(), "WRONG-CODE"); code(t, err) != fleet.CodeCodeUnknown {
		t.Fatal(err)
	}
	if _, err := r.Admit(t.Context(), a.me.Code); err != nil {
		t.Fatal(err)
	}
	if j := a.claim(); j == nil || j.ImageName != "debian:1" {
		t.Fatalf("job %+v", j)
	}
}

func TestDeploymentToAllReachesAMachineSeenLater(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	if a := r.powerOn(macA); !a.Agent {
		t.Fatal("the machine does not boot the agent")
	}
	r.clock.add(15 * time.Second)
	a := r.boot(macA, invA)
	j := a.claim()
	if j == nil {
		t.Fatal("no job")
	}
	if j.Epoch != 1 || j.SeedFor != time.Minute || j.After != "reboot" || len(j.Seeds) != 1 || j.ReportEvery != time.Second {
		t.Fatalf("job %+v", j)
	}
	v := r.jobOf(macA)
	if v.State != job.Claimed || v.SecureBoot != "on" || v.HelloAt.Sub(v.BootSeen) != 15*time.Second {
		t.Fatalf("view %+v", v)
	}
	a.mustReport(job.PhaseContent, 400)
	if v = r.jobOf(macA); v.State != job.Running || v.Held != 400 || v.FromPeers != 400 || v.Disk != "vda" || v.Phase != job.PhaseContent {
		t.Fatalf("view %+v", v)
	}
	a.finish()
	v = r.jobOf(macA)
	if v.State != job.Succeeded || v.Verified != 1000 || v.Succeeded.IsZero() {
		t.Fatalf("view %+v", v)
	}
	want := fleet.Assignment{Known: true, SecureBoot: "on", BIOSDrive: 0x80, ESPVolumeID: "ABCD-1234", ESPPartition: "5F3F2A1C-0000-4000-8000-000000000002"}
	if got := r.powerOn(macA); got != want {
		t.Fatalf("after success the machine boots %+v, want %+v", got, want)
	}
	if len(r.Swarms()) != 0 {
		t.Fatal("a swarm without a job is kept")
	}
}

func TestReportsChangeRecordsOnlyAtTransitions(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	a.claim()
	a.mustReport(job.PhaseContent, 1)
	before := len(r.events())
	changed := r.Changed()
	for held := int64(2); held < 100; held++ {
		a.mustReport(job.PhaseContent, held)
	}
	select {
	case <-changed:
		t.Fatal("a report without a transition changed a record")
	default:
	}
	if n := len(r.events()); n != before {
		t.Fatalf("%d events more", n-before)
	}
	a.mustReport(job.PhaseVerify, 100)
	if got := r.events()[before:]; !slices.Equal(got, []string{"job.phase"}) {
		t.Fatalf("events %v", got)
	}
}

func TestRunningJobSurvivesTheAppliance(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	a.claim()
	a.mustReport(job.PhaseContent, 400)
	r.kill()
	a.authenticate() // the same certificate on a new connection
	if d := a.mustReport(job.PhaseContent, 500); d.State != job.Running {
		t.Fatalf("directive %+v", d)
	}
	if v := r.jobOf(macA); v.Held != 500 || v.Epoch != 1 {
		t.Fatalf("view %+v", v)
	}
	a.finish()
	r.kill()
	if got := r.powerOn(macA); got.Agent || got.ESPVolumeID != "ABCD-1234" {
		t.Fatalf("assignment %+v", got)
	}
}

func TestMachineWhosePowerWasCutClaimsTheSameJob(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	first := r.boot(macA, invA)
	id := first.claim().ID
	first.mustReport(job.PhaseContent, 400)
	if got := r.powerOn(macA); !got.Agent {
		t.Fatal("the machine does not boot the agent again")
	}
	second := r.boot(macA, invA)
	if j := second.claim(); j == nil || j.ID != id || j.Epoch != 2 {
		t.Fatalf("job %+v", j)
	}
	if _, err := first.report(job.PhaseContent, 500); code(t, err) != fleet.CodeClaimLost {
		t.Fatalf("the first boot's report: %v", err)
	}
	if _, err := r.Receipt(t.Context(), first.caller, first.receipt(nil)); code(t, err) != fleet.CodeClaimLost {
		t.Fatalf("the first boot's receipt: %v", err)
	}
	second.mustReport(job.PhaseContent, 500)
	second.finish()
}

func TestLastBitmapIsTheHintOfTheNextBoot(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	if j := a.claim(); j.Hint != nil {
		t.Fatalf("a first boot gets the hint %x", j.Hint)
	}
	send := func(bitmap []byte) {
		t.Helper()
		rep := job.Report{Job: a.job.ID, Epoch: a.job.Epoch, Phase: job.PhaseContent, State: job.Running, Bitmap: bitmap}
		if _, err := r.Report(t.Context(), a.caller, rep); err != nil {
			t.Fatal(err)
		}
	}
	send([]byte{0x80})
	send([]byte{0xc0})
	send(nil)                                // most reports carry none
	send(make([]byte, images.MaxPieces/8+1)) // no image has so many
	for range 2 {
		a = r.boot(macA, invA)
		if j := a.claim(); !bytes.Equal(j.Hint, []byte{0xc0}) {
			t.Fatalf("the hint is %x", j.Hint)
		}
	}
	other := r.boot(macB, invB)
	if j := other.claim(); j.Hint != nil {
		t.Fatalf("another machine gets the hint %x", j.Hint)
	}
	a.finish()
	if n := fleet.Hints(r.Fleet); n != 0 {
		t.Fatalf("%d bitmaps are kept of jobs that have ended", n)
	}
}

func TestClaimOfASilentMachineExpiresAndItsNextReportIsTaken(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	a.claim()
	a.mustReport(job.PhaseContent, 400)
	r.clock.add(91 * time.Second)
	if err := fleet.Tidy(r.Fleet, t.Context()); err != nil {
		t.Fatal(err)
	}
	if v := r.jobOf(macA); v.State != job.Waiting || v.Code != "silent" {
		t.Fatalf("view %+v", v)
	}
	a.mustReport(job.PhaseContent, 401)
	if v := r.jobOf(macA); v.State != job.Running || v.Reason != "" {
		t.Fatalf("view %+v", v)
	}
}

func TestPausedJobGoesOnWithAnotherDisk(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	a.claim()
	rep := job.Report{Job: a.job.ID, Epoch: 1, Phase: job.PhaseCheck, State: job.Paused, Code: "too-small",
		Reason: "disk vda has 100 bytes, the image needs 200: put in a larger disk"}
	if _, err := r.Report(t.Context(), a.caller, rep); err != nil {
		t.Fatal(err)
	}
	if v := r.jobOf(macA); v.State != job.Paused || v.Code != "too-small" || v.Reason != rep.Reason {
		t.Fatalf("view %+v", v)
	}
	if got := r.powerOn(macA); !got.Agent {
		t.Fatal("with another disk the machine does not boot the agent")
	}
	b := r.boot(macA, invA)
	if j := b.claim(); j == nil || j.ID != a.job.ID {
		t.Fatalf("job %+v", j)
	}
	b.mustReport(job.PhaseContent, 1)
	if v := r.jobOf(macA); v.State != job.Running || v.Reason != "" {
		t.Fatalf("view %+v", v)
	}
}

func TestFailedJobKeepsItsReasonAndTheMachineBootsItsDisk(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	a.claim()
	d, err := r.Report(t.Context(), a.caller, job.Report{Job: a.job.ID, Epoch: 1, Phase: job.PhaseContent, State: job.Failed,
		Code: "write-error", Reason: "disk vda refused a write; replace it", Log: "line"})
	if err != nil || d.State != job.Failed {
		t.Fatalf("directive %+v, %v", d, err)
	}
	if v := r.jobOf(macA); v.State != job.Failed || v.Code != "write-error" || v.Log != "line" || v.Ended.IsZero() {
		t.Fatalf("view %+v", v)
	}
	if got := r.powerOn(macA); got.Agent {
		t.Fatal("a machine whose job failed boots the agent")
	}
}

func TestFinishedMachineIsReleasedWhenNoOtherNeedsIt(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a, b := r.boot(macA, invA), r.boot(macB, invB)
	a.claim()
	a.mustReport(job.PhaseContent, 1000)
	if d := a.mustReport(job.PhaseVerify, 1000); d.Release {
		t.Fatal("released while another machine is on its way to its claim")
	}
	b.claim()
	b.mustReport(job.PhaseContent, 10)
	a.finish()
	if d := a.mustReport(job.PhaseSeed, 1000); d.Release || d.State != job.Succeeded {
		t.Fatalf("directive %+v while another machine lacks data", d)
	}
	b.mustReport(job.PhaseVerify, 1000)
	if d := a.mustReport(job.PhaseSeed, 1000); !d.Release {
		t.Fatal("not released though no machine lacks data")
	}
	b.finish()
}

func TestOperatorPausesResumesAndCancels(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	a.claim()
	a.mustReport(job.PhaseContent, 1)
	if err := r.Pause(t.Context(), a.job.ID); err != nil {
		t.Fatal(err)
	}
	if d := a.mustReport(job.PhaseContent, 2); d.State != job.Paused {
		t.Fatalf("directive %+v", d)
	}
	if err := r.Resume(t.Context(), a.job.ID); err != nil {
		t.Fatal(err)
	}
	if d := a.mustReport(job.PhaseContent, 3); d.State != job.Running {
		t.Fatalf("directive %+v", d)
	}
	if err := r.Cancel(t.Context(), a.job.ID); err != nil {
		t.Fatal(err)
	}
	if d := a.mustReport(job.PhaseContent, 4); d.State != job.Cancelled {
		t.Fatalf("directive %+v", d)
	}
	if err := r.Cancel(t.Context(), a.job.ID); code(t, err) != fleet.CodeJobEnded {
		t.Fatal(err)
	}
}

func TestReceiptMustProveTheImage(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	a.claim()
	a.mustReport(job.PhaseTable, 1000)
	wrong := map[string]func(*job.Receipt){
		"a root":    func(r *job.Receipt) { r.Roots[1].Root[0] ^= 1 },
		"too few":   func(r *job.Receipt) { r.Roots = r.Roots[:1] },
		"the image": func(r *job.Receipt) { r.Image[0] ^= 1 },
	}
	for what, change := range wrong {
		if _, err := r.Receipt(t.Context(), a.caller, a.receipt(change)); code(t, err) != fleet.CodeReceiptWrong {
			t.Fatalf("%s: %v", what, err)
		}
	}
	forged := a.receipt(nil)
	forged.Signature[len(forged.Signature)-1] ^= 1
	if _, err := r.Receipt(t.Context(), a.caller, forged); code(t, err) != fleet.CodeReceiptWrong {
		t.Fatal(err)
	}
	signed := a.receipt(nil)
	one, err := r.Receipt(t.Context(), a.caller, signed)
	if err != nil {
		t.Fatal(err)
	}
	two, err := r.Receipt(t.Context(), a.caller, signed) // the answer was lost
	if err != nil || !slices.Equal(one.Signature, two.Signature) {
		t.Fatalf("the same receipt again: %v", err)
	}
}

func TestFrameIsKeptThroughALaterBoot(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	for i, content := range []string{"the old table", "a wiped table"} {
		a := r.boot(macA, invA)
		a.claim()
		raw := encodeFrame(t, job.OldFrame{Job: a.job.ID, Disk: "vda", DiskLength: 1 << 30,
			Regions: []job.OldFrameRegion{{Kind: "lba0", Bytes: []byte(content)}}})
		for range 2 { // the answer was lost once
			if err := r.Frame(t.Context(), a.caller, raw); err != nil {
				t.Fatal(err)
			}
		}
		r.clock.add(time.Minute)
		r.kill()
		kept, err := r.store.Frames(t.Context(), a.job.ID)
		if err != nil || len(kept) != i+1 || kept[i].Digest != images.Sum(raw) {
			t.Fatalf("%d frames, %v", len(kept), err)
		}
	}
	a := r.boot(macB, invB)
	a.claim()
	if err := r.Frame(t.Context(), a.caller, encodeFrame(t, job.OldFrame{Job: "other"})); code(t, err) != fleet.CodeJobUnknown {
		t.Fatal(err)
	}
	if err := r.Frame(t.Context(), a.caller, []byte("junk")); code(t, err) != fleet.CodeInvalid {
		t.Fatal(err)
	}
}

func TestLaterDeploymentTakesThePlaceOfOneNotBegun(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	r.powerOn(macA)
	r.deployAll()
	var states []job.State
	for _, j := range r.Jobs() {
		states = append(states, j.State)
	}
	slices.Sort(states)
	if !slices.Equal(states, []job.State{job.Cancelled, job.Waiting}) {
		t.Fatalf("states %v", states)
	}
	r.powerOn(macB)
	if n := len(r.Jobs()); n != 3 {
		t.Fatalf("%d jobs: the machine seen later got one of each deployment", n)
	}
}

// A machine that got its image long ago is known by that job: it may not get the image a second time, when a new network
// card makes it look like a new machine for a moment.
func TestOpenDeploymentReachesAMachineOnceHoweverLongAgo(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	a.claim()
	a.mustReport(job.PhaseContent, 1000)
	a.finish()
	r.clock.add(60 * 24 * time.Hour)
	r.kill()
	inv := invA
	inv.NICs = []job.NIC{{Name: "eth0", MAC: macB}}
	b := r.boot(macB, inv)
	if j := b.claim(); j != nil {
		t.Fatalf("job %s before a person said which machine it is", j.ID)
	}
	if err := r.MergeMachines(t.Context(), b.me.Machine, a.me.Machine); err != nil {
		t.Fatal(err)
	}
	b.tells(inv)
	if b.me.Machine != a.me.Machine {
		t.Fatalf("machine %s, want %s", b.me.Machine, a.me.Machine)
	}
	if j := b.claim(); j != nil {
		t.Fatalf("job %s: the machine's disk would be written again", j.ID)
	}
}

func TestLaterDeploymentTakesThePlaceOfAJobThatTheMachinePaused(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.deployAll()
	a := r.boot(macA, invA)
	a.claim()
	rep := job.Report{Job: a.job.ID, Epoch: 1, Phase: job.PhaseCheck, State: job.Paused, Code: "too-small", Reason: "put in a larger disk"}
	if _, err := r.Report(t.Context(), a.caller, rep); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Deploy(t.Context(), fleet.Order{Image: "debian", Machines: []string{macA}}); err != nil {
		t.Fatal(err)
	}
	if d, err := r.Report(t.Context(), a.caller, rep); err != nil || d.State != job.Cancelled {
		t.Fatalf("directive %+v, %v", d, err)
	}
	old := a.job.ID
	if j := a.claim(); j == nil || j.ID == old {
		t.Fatalf("job %+v after the other deployment", j)
	}
}

func TestWhatAMachineTellsInALoopIsRecordedOnce(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	r.powerOn(macA)
	before := len(r.events())
	for range 50 {
		for _, s := range []fleet.Sighting{
			{MAC: macA, Stage: "dhcp", Note: "no loader for UEFI ARM64"}, {MAC: macA, Stage: "dhcp"}, {MAC: macB, Stage: "script"}, {MAC: macB, Stage: "local"},
		} {
			if err := r.Sighted(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		r.clock.add(100 * time.Millisecond)
	}
	if got := r.events()[before:]; !slices.Equal(got, []string{"machine.dhcp", "machine.seen", "machine.local-boot"}) {
		t.Fatalf("events %v", got)
	}
	r.clock.add(time.Hour)
	if err := r.Sighted(t.Context(), fleet.Sighting{MAC: macA, Stage: "dhcp", Note: "no loader for UEFI ARM64"}); err != nil {
		t.Fatal(err)
	}
	if n := len(r.events()) - before; n != 4 {
		t.Fatalf("%d events after the next boot", n)
	}
}

// A job names a seeder only to a machine that may reach it, known by its names and by where it claims from.
func TestJobsNameSeedersThatMayBeReached(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	at := netip.MustParseAddr("10.77.9.9")
	var asked []string
	may := false
	r.mayReach = func(names []string, from netip.Addr, seeder netip.AddrPort) bool {
		asked = names
		if from != at || seeder.String() != "10.77.0.1:6881" {
			t.Errorf("asked about %v and %v", from, seeder)
		}
		return may
	}
	r.kill()
	r.deployAll()
	for _, may = range []bool{false, true} {
		a := r.boot(macA, invA)
		a.caller = a.caller.At(netip.MustParseAddr("::ffff:10.77.9.9"))
		if j := a.claim(); j == nil || (len(j.Seeds) == 1) != may {
			t.Errorf("a machine that may reach the seeder: %v; its job is %+v", may, j)
		}
		if !slices.Contains(asked, a.me.Machine) || !slices.Contains(asked, a.me.Name) || !slices.Contains(asked, macA) {
			t.Errorf("the machine is known as %q", asked)
		}
	}
}
