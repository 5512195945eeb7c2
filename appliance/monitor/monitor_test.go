package monitor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/queue"
)

// room is a fleet of machines that a test moves on. Rates are bytes a second.
type room struct {
	now      time.Time
	jobs     []fleet.JobView
	machines []fleet.MachineView
	groups   []fleet.GroupView
	t        *Tracker
}

func (r *room) Jobs() []fleet.JobView           { return append([]fleet.JobView(nil), r.jobs...) }
func (r *room) Machines() []fleet.MachineView   { return append([]fleet.MachineView(nil), r.machines...) }
func (r *room) Groups() []fleet.GroupView       { return r.groups }
func (r *room) Deployments() []fleet.Deployment { return []fleet.Deployment{{ID: "d"}} }

// newRoom has machines m0, m1, ... in a room, each with a deployment of 20 GB under way.
func newRoom(n int) *room {
	r := &room{now: time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC), groups: []fleet.GroupView{{Group: fleet.Group{ID: "a1", Kind: fleet.Room}}}}
	for i := range n {
		id, mac := fmt.Sprint("m", i), fmt.Sprintf("52:54:00:77:%02x:%02x", i/256, i%256)
		m := fleet.MachineView{Machine: fleet.Machine{ID: id, Name: "pc-" + id, Groups: []string{"a1"}}, MAC: mac, JobID: "j" + id}
		m.Inventory = &job.Inventory{NICs: []job.NIC{{MAC: "02:00:00:00:00:01", Mbit: 10}, {MAC: mac, Mbit: 1000}}}
		r.machines = append(r.machines, m)
		r.jobs = append(r.jobs, fleet.JobView{ID: "j" + id, Kind: job.Deploy, Deployment: "d", Machine: id, MachineName: m.Name, State: job.Running, Phase: job.PhaseContent,
			Total: 20e9, Peers: 8, Claimed: r.now, Reported: r.now, CPU: 0.3})
	}
	r.t = New(Config{Fleet: r, Now: func() time.Time { return r.now }})
	return r
}

// run lets seconds pass, in each of which report says what a machine tells; one for which it returns false says nothing.
func (r *room) run(seconds int, report func(i int, v *fleet.JobView) bool) *Picture {
	var p *Picture
	for range seconds {
		r.now = r.now.Add(time.Second)
		for i := range r.jobs {
			if report(i, &r.jobs[i]) {
				r.jobs[i].Reported = r.now
			}
		}
		p = r.t.Look()
	}
	return p
}

// fetch moves a machine on by a second.
func fetch(v *fleet.JobView, app, peers, seeds int64) {
	v.FromAppliance, v.FromPeers, v.FromSeeds = v.FromAppliance+app, v.FromPeers+peers, v.FromSeeds+seeds
	all := app + peers + seeds
	v.Held, v.Written = min(v.Total, v.Held+all), v.Written+all
	v.WriteNanos += all * 5 // 200 MB/s
}

func steady(i int, v *fleet.JobView) bool { fetch(v, 5e6, 70e6, 5e6); return true }

func TestRatesAreOfWhatWasReported(t *testing.T) {
	r := newRoom(4)
	p := r.run(40, steady)
	m := p.Machines["m1"]
	if m.Word != Normal || !near(m.Rate, 80e6) || !near(m.Judged, 80e6) || !near(m.FromAppliance, 5e6) || !near(m.FromPeers, 70e6) || !near(m.FromSeeds, 5e6) ||
		!near(m.DiskRate, 200e6) || m.LinkMbit != 1000 || m.SiblingsMbit != 1000 {
		t.Errorf("%+v", m)
	}
	// 16.8 GB at 80 MB/s, and 20 GB are read back at the rate of the disk.
	if want := 210*time.Second + 100*time.Second; (m.Left - want).Abs() > 3*time.Second {
		t.Errorf("%s left, want %s", m.Left, want)
	}
	d, g := p.Deployments["d"], p.Groups["a1"]
	if !near(d.Rate, 320e6) || d.Machines != 4 || d.Words[Normal] != 4 || !near(d.Median, 80e6) || !near(d.Efficiency, 0.64) || d.Written != 4*3200e6 || d.Last == "" ||
		(d.LastAt.Sub(r.now)-m.Left).Abs() > time.Second || len(d.Series) < 39 || !near(d.Series[30].Rate, 320e6) {
		t.Errorf("%+v", d)
	}
	if !near(g.Rate, 320e6) || g.Machines != 4 || g.Series != nil {
		t.Errorf("%+v", g)
	}
	if !near(d.FromPeers, 280e6) || d.BytesFromSeeds != 4*200e6 || m.BytesFromPeers != 2800e6 {
		t.Errorf("%+v", d)
	}
	if q := r.t.Look(); q.Machines["m1"] != m || q.Deployments["d"] != d || q.Groups["a1"] != g {
		t.Error("what did not change was made anew")
	}
	// A machine that says nothing more has no rate before it is silent.
	p = r.run(20, func(i int, v *fleet.JobView) bool { return i != 1 && steady(i, v) })
	if m = p.Machines["m1"]; m.Rate != 0 || m.FromPeers != 0 {
		t.Errorf("%+v", m)
	}
}

func near(got, want float64) bool { return got > 0.95*want && got < 1.05*want }

// A machine is yellow within 35 s after its link has become slow, and not before 20; red 120 s after its last report.
func TestSlowThenSilent(t *testing.T) {
	r := newRoom(6)
	r.run(60, steady)
	slow := func(i int, v *fleet.JobView) bool {
		if i == 2 {
			fetch(v, 0, 2e6, 0)
			return true
		}
		return steady(i, v)
	}
	for s := 1; ; s++ {
		m := r.run(1, slow).Machines["m2"]
		if m.Word == Slow {
			if s < 20 || s > 35 || m.Cause != CausePeers || !strings.Contains(m.Why, "8 peers") || !m.Since.Equal(r.now) {
				t.Errorf("after %d s: %+v", s, m)
			}
			break
		}
		if s > 40 {
			t.Fatalf("never: %+v", m)
		}
	}
	if p := r.run(20, slow); p.Deployments["d"].Words[Slow] != 1 || p.Machines["m3"].Word != Normal || p.Deployments["d"].Last != "m2" {
		t.Errorf("%+v", p.Deployments["d"])
	}
	cut := func(i int, v *fleet.JobView) bool { return i != 2 && steady(i, v) }
	for s := 1; ; s++ {
		if s == 91 { // the fleet gives the job back
			r.jobs[2].State, r.jobs[2].Code, r.jobs[2].Reason, r.jobs[2].Wait = job.Waiting, "silent", "nothing was heard", queue.WaitsMachine
		}
		m := r.run(1, cut).Machines["m2"]
		if m.Word == Silent {
			if s < 119 || s > 122 || !strings.Contains(m.Why, "nothing was heard of it for 2 min") {
				t.Errorf("after %d s: %+v", s, m)
			}
			break
		}
		if m.Word != Slow || s > 130 {
			t.Fatalf("after %d s: %+v", s, m)
		}
	}
	r.machines[2].LastSeen = r.now // it boots again
	if m := r.run(1, cut).Machines["m2"]; m.Word != Waiting || m.Code != queue.WaitsMachine {
		t.Errorf("back: %+v", m)
	}
}

func TestBelowAQuarterOfTheRoomIsSlow(t *testing.T) {
	r := newRoom(6)
	p := r.run(40, func(i int, v *fleet.JobView) bool {
		if i == 0 {
			fetch(v, 0, 15e6, 0) // more than 10 MB/s
			return true
		}
		return steady(i, v)
	})
	if m := p.Machines["m0"]; m.Word != Slow || !near(m.Judged, 15e6) {
		t.Errorf("%+v", m)
	}
	r = newRoom(2) // of two machines none is usual
	p = r.run(40, func(i int, v *fleet.JobView) bool { fetch(v, 0, 15e6+int64(i)*100e6, 0); return true })
	if m := p.Machines["m0"]; m.Word != Normal {
		t.Errorf("%+v", m)
	}
}

// Who waits, looks at its disk, verifies, has nothing left to fetch, or is held by a limit is not slow.
func TestNotSlow(t *testing.T) {
	for name, c := range map[string]struct {
		report func(v *fleet.JobView)
		word   Word
		cause  Cause
	}{
		"looks at its disk":     {func(v *fleet.JobView) { v.Phase = job.PhaseHash }, Normal, CauseNone},
		"verifies":              {func(v *fleet.JobView) { v.Phase = job.PhaseVerify; v.Verified += 1e6 }, Normal, CauseNone},
		"has everything":        {func(v *fleet.JobView) { v.Held = v.Total }, Normal, CauseNone},
		"is paused":             {func(v *fleet.JobView) { v.State = job.Paused }, Paused, CauseNone},
		"waits":                 {func(v *fleet.JobView) { v.State, v.Wait = job.Waiting, queue.WaitsSite }, Waiting, CauseNone},
		"may not receive more":  {func(v *fleet.JobView) { v.DownloadLimit = 5e6; fetch(v, 1e6, 3.9e6, 0) }, Normal, CauseCap},
		"receives less than so": {func(v *fleet.JobView) { v.DownloadLimit = 5e6; fetch(v, 0, 2e6, 0) }, Slow, CausePeers},
		"captures":              {func(v *fleet.JobView) { v.Kind, v.Phase = job.Capture, job.PhaseRead; v.Done += 1e6 }, Normal, CauseNone},
		"is done":               {func(v *fleet.JobView) { v.State, v.Ended = job.Succeeded, v.Reported }, Done, CauseNone},
	} {
		r := newRoom(5)
		p := r.run(45, func(i int, v *fleet.JobView) bool {
			if i != 0 {
				return steady(i, v)
			}
			c.report(v)
			return true
		})
		if m := p.Machines["m0"]; m.Word != c.word || m.Cause != c.cause {
			t.Errorf("%s: %s, %q, %s", name, m.Word, m.Cause, m.Why)
		}
	}
	// The appliance's own limit: all machines share it, none has a peer that has more.
	r := newRoom(5)
	r.t = New(Config{Fleet: r, UploadLimit: 20e6, Now: func() time.Time { return r.now }})
	p := r.run(45, func(i int, v *fleet.JobView) bool { fetch(v, 4e6, 0, 0); return true })
	if m := p.Machines["m0"]; m.Word != Normal || m.Cause != CauseCap || !strings.Contains(m.Why, "limit") {
		t.Errorf("%+v", m)
	}
}

func TestCausesOfSlowMachines(t *testing.T) {
	base := facts{state: job.Running, judged: 5e6, wire: 5e6, fromPeers: 4e6, median: 60e6, link: 1000, siblings: 1000, peers: 8, others: 20, cpu: 0.2, diskRate: 200e6}
	for name, c := range map[string]struct {
		change func(f *facts)
		want   Cause
		why    string
	}{
		"link":                                 {func(f *facts) { f.link, f.wire, f.judged = 100, 11e6, 9e6 }, CauseLink, "its network card has negotiated 100 Mbit/s; its siblings have 1000: check cable and switch port"},
		"link of all":                          {func(f *facts) { f.link, f.siblings, f.wire = 100, 100, 9e6 }, CauseLink, "its network card has negotiated 100 Mbit/s"},
		"bad cable":                            {func(f *facts) { f.link = 100 }, CauseLink, "check cable"},
		"disk":                                 {func(f *facts) { f.diskBusy, f.diskRate = 0.95, 4.8e6 }, CauseDisk, "its disk takes no more than 4.8 MB/s"},
		"disk and link":                        {func(f *facts) { f.diskBusy, f.link = 0.95, 100 }, CauseDisk, "disk"},
		"cpu":                                  {func(f *facts) { f.cpu = 0.97 }, CauseCPU, "its processors are busy to 97 %"},
		"cpu, busier":                          {func(f *facts) { f.cpu, f.siblingsCPU = 0.97, 0.31 }, CauseCPU, "its processors are busy to 97 %, those of its siblings to 31 %"},
		"cpu of all, and slower than they are": {func(f *facts) { f.cpu, f.siblingsCPU = 0.97, 0.95 }, CausePeers, "its 8 peers"},
		"cpu of all, and a bad cable":          {func(f *facts) { f.cpu, f.siblingsCPU, f.link = 0.97, 0.95, 100 }, CauseLink, "check cable"},
		"cpu of all, and alone":                {func(f *facts) { f.cpu, f.siblingsCPU, f.peers, f.fromPeers = 0.97, 0.95, 0, 0 }, CauseAlone, "6881"},
		"cpu of all, and all are slow":         {func(f *facts) { f.cpu, f.siblingsCPU, f.median = 0.97, 0.95, 6e6 }, CauseCPU, "busy to 97 %, and so are those of its siblings"},
		"cpu of all, and the disk":             {func(f *facts) { f.cpu, f.siblingsCPU, f.diskBusy = 0.97, 0.95, 0.9 }, CauseDisk, "disk"},
		"idle siblings, and not busy":          {func(f *facts) { f.cpu, f.siblingsCPU = 0.6, 0.1 }, CausePeers, "its 8 peers"},
		"alone":                                {func(f *facts) { f.peers, f.fromPeers = 0, 0 }, CauseAlone, "6881"},
		"cut off":                              {func(f *facts) { f.peers, f.fromPeers = 1, 0 }, CauseAlone, "none of its siblings"},
		"first":                                {func(f *facts) { f.peers, f.fromPeers, f.others = 1, 0, 0 }, CauseSource, "the appliance alone sends, at 5.0 MB/s"},
		"source":                               {func(f *facts) { f.fromPeers = 0 }, CauseSource, "no other machine"},
		"peers":                                {func(*facts) {}, CausePeers, "its 8 peers send it 5.0 MB/s together"},
	} {
		f := base
		c.change(&f)
		if v := judge(f, Thresholds{}.Or()); v.word != Slow || v.cause != c.want || !strings.Contains(v.why, c.why) {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestWrongTilesOfTheLastMinute(t *testing.T) {
	r := newRoom(3)
	wrong := int64(7)
	report := func(i int, v *fleet.JobView) bool {
		v.Tiles += 100
		v.WrongTiles += wrong
		return steady(i, v)
	}
	p := r.run(100, report)
	if m := p.Machines["m0"]; m.Tiles < 5900 || m.Tiles > 6200 || m.WrongTiles*100 != m.Tiles*7 {
		t.Errorf("%d of %d", m.WrongTiles, m.Tiles)
	}
	wrong = 0
	if m := r.run(63, report).Machines["m0"]; m.WrongTiles != 0 || m.Tiles < 5900 {
		t.Errorf("%d of %d", m.WrongTiles, m.Tiles)
	}
}

// A machine that boots again counts from 0: that is no rate below nothing, and none of gigabytes a second.
func TestAMachineThatBootsAgain(t *testing.T) {
	r := newRoom(3)
	r.run(40, steady)
	v := &r.jobs[0]
	v.Epoch, v.FromAppliance, v.FromPeers, v.FromSeeds, v.Written, v.WriteNanos = 2, 0, 0, 0, 0, 0
	p := r.run(3, steady)
	if m := p.Machines["m0"]; m.Judged != -1 || m.Rate > 90e6 || m.Word != Normal {
		t.Errorf("%+v", m)
	}
}

func TestSeriesIsBounded(t *testing.T) {
	var s []Sample
	at := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	for i := range 20000 {
		before := s
		s = extend(s, Sample{At: at.Add(time.Duration(i) * time.Second), Rate: 100, AtWork: 3})
		if len(before) > 0 && (before[0].Rate != 100 || !before[0].At.Before(before[len(before)-1].At) && len(before) > 1) {
			t.Fatal("an earlier series was changed")
		}
	}
	if len(s) > seriesLength || s[0].Rate != 100 || s[len(s)-1].At.Sub(s[len(s)-2].At) != time.Second {
		t.Errorf("%d moments", len(s))
	}
	for i := 1; i < len(s); i++ {
		if !s[i].At.After(s[i-1].At) {
			t.Fatalf("moment %d", i)
		}
	}
}

func TestMachinesWithoutAJobAreIdle(t *testing.T) {
	r := newRoom(2)
	r.jobs, r.machines[0].JobID = r.jobs[1:], ""
	p := r.run(2, steady)
	if m := p.Machines["m0"]; m.Word != Idle || m.Name != "pc-m0" || m.Word.Colour() != "grey" {
		t.Errorf("%+v", m)
	}
	if len(p.Machines) != 2 || p.Groups["a1"].Words[Idle] != 1 || p.Deployments["d"].Machines != 1 {
		t.Errorf("%+v", p.Groups["a1"])
	}
}

func BenchmarkLook1000(b *testing.B) {
	r := newRoom(1000)
	r.run(70, steady)
	b.ReportAllocs()
	for b.Loop() {
		r.now = r.now.Add(500 * time.Millisecond)
		for i := range r.jobs {
			steady(i, &r.jobs[i])
			r.jobs[i].Reported = r.now
		}
		r.t.Look()
	}
}
