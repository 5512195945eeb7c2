package fleet_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

func TestMeasuresCountMachinesJobsAndBytes(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	if m := r.Measures(); m.Machines["idle"] != 0 || len(m.Machines) != 9 || len(m.Waits) != 12 || m.Jobs[fleet.JobKind{Kind: job.Deploy, State: job.Running}] != 0 {
		t.Fatalf("an empty site: %+v", m)
	}
	a := r.boot(macA, invA)
	r.powerOn(macB)
	if m := r.Measures(); m.Machines["idle"] != 2 || m.Boots != 1 {
		t.Errorf("two machines without a job: %+v", m)
	}
	r.deployAll()
	a.claim()
	a.mustReport(job.PhaseContent, 100)
	m := r.Measures()
	if m.Machines["running"] != 1 || m.Machines["waiting"] != 1 || m.Waits["machine"] != 1 ||
		m.Jobs[fleet.JobKind{Kind: job.Deploy, State: job.Running}] != 1 || m.Jobs[fleet.JobKind{Kind: job.Deploy, State: job.Waiting}] != 1 {
		t.Errorf("one at work, one waiting: %+v", m)
	}
	if !m.Office {
		t.Error("the only appliance of the site is not in office")
	}
	send := func(appliance, peers int64) {
		t.Helper()
		if _, err := r.Report(t.Context(), a.caller, job.Report{Job: a.job.ID, Epoch: a.job.Epoch, Phase: job.PhaseContent, State: job.Running,
			FromAppliance: appliance, FromPeers: peers}); err != nil {
			t.Fatal(err)
		}
	}
	before := r.Measures().Traffic
	for _, c := range [][2]int64{{10, 100}, {30, 300}, {30, 300}, {5, 50}, {6, 60}} { // in between it began anew
		send(c[0], c[1])
	}
	after := r.Measures().Traffic
	if got := [2]int64{after.FromAppliance - before.FromAppliance, after.FromPeers - before.FromPeers}; got != [2]int64{36, 260} {
		t.Errorf("bytes %v", got)
	}
}

// What a machine counts wrongly, or lies, makes no sum of the site's turn around.
func TestNumbersOfReportsAreBounded(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.boot(macA, invA)
	r.deployAll()
	a.claim()
	send := func(sign int64) {
		t.Helper()
		most := sign * math.MaxInt64
		if _, err := r.Report(t.Context(), a.caller, job.Report{Job: a.job.ID, Epoch: a.job.Epoch, Phase: job.PhaseContent, State: job.Running, Total: most, Held: most,
			Written: most, WriteNanos: most, FromAppliance: most, FromPeers: most, Tiles: 10, WrongTiles: most, Peers: int(most), Left: time.Duration(most),
			CPU: float64(sign) * math.MaxFloat64, BytesPerSecond: float64(sign) * math.MaxFloat64, Warnings: slices.Repeat([]string{strings.Repeat("w", 5000)}, 500)}); err != nil {
			t.Fatal(err)
		}
		v, err := r.Job(a.job.ID)
		if err != nil {
			t.Fatal(err)
		}
		if v.CPU < 0 || v.CPU > 1 || v.BytesPerSecond < 0 || v.BytesPerSecond > 1<<50 || v.Peers < 0 || v.Peers > 1<<16 || v.Left < 0 || v.Left > 365*24*time.Hour ||
			v.WrongTiles < 0 || v.WrongTiles > v.Tiles || v.Held < 0 || v.Held > 1<<50 || v.Total < 0 || v.WriteNanos < 0 {
			t.Errorf("told %d: %+v", most, v)
		}
		if warned := len(strings.Join(v.Warnings, "")); warned == 0 || warned > 32<<10 {
			t.Errorf("%d bytes of warnings are kept", warned)
		}
	}
	send(1)
	send(-1)
}

// What a machine got between its last report and its receipt is in the site's sums, and what its screen says in no record.
func TestAReceiptTellsTheLastNumbers(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	a := r.boot(macA, invA)
	r.deployAll()
	a.claim()
	a.mustReport(job.PhaseContent, 100)
	before := r.Measures().Traffic
	long := a.receipt(func(says *job.Receipt) { says.DiskSerial = strings.Repeat("S", 300) })
	if _, err := r.Receipt(t.Context(), a.caller, long); err == nil {
		t.Error("a disk with a serial number of 300 bytes is taken down")
	}
	signed := a.receipt(nil)
	signed.Final.FromAppliance, signed.Final.Screen = 700, &job.Screen{Message: strings.Repeat("m", 5000)}
	for range 2 { // its answer was lost
		if _, err := r.Receipt(t.Context(), a.caller, signed); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.Measures().Traffic.FromAppliance - before.FromAppliance; got != 700 {
		t.Errorf("%d bytes from the appliance, and it told of 700", got)
	}
	list, err := r.History(t.Context(), fleet.JobQuery{})
	if err != nil || len(list) != 1 || list[0].Last.Screen != nil || list[0].Last.FromAppliance != 700 {
		t.Errorf("the record is %+v, %v", list, err)
	}
}

// The site's sums only grow, whatever machines say ever anew.
func TestSumsOfTheSiteStayAtTheMostThatThereIs(t *testing.T) {
	sum := fleet.Traffic{Written: math.MaxInt64 - 10}
	fleet.Add(&sum, job.Report{}, job.Report{Written: 100})
	fleet.Add(&sum, job.Report{}, job.Report{Written: 100, FromPeers: 3})
	if sum != (fleet.Traffic{Written: math.MaxInt64, FromPeers: 3}) {
		t.Errorf("%+v", sum)
	}
}

// A device that forges boot packets of ever other machines gets so many tokens, and none of what it says is kept.
func TestAFloodOfRandomMACsIsBounded(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	known := r.boot(macA, invA)
	fleet.LimitPending(r.Fleet, 20)
	from := netip.MustParseAddr("10.77.0.66")
	refused := 0
	for i := range 40 {
		if _, err := r.BootToken(t.Context(), fmt.Sprintf("02:00:00:00:00:%02x", i), from); err != nil {
			if code(t, err) != fleet.CodeTooMany {
				t.Fatal(err)
			}
			refused++
		}
	}
	m := r.Measures()
	if refused != 20 || m.Boots != 21 {
		t.Errorf("%d tokens refused, %d boots kept", refused, m.Boots)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	machines, events := len(r.Machines()), len(r.events())
	for i := range 100 { // hellos with tokens that were never given
		a := &agent{r: r, mac: fmt.Sprintf("02:00:00:00:01:%02x", i), key: key, token: fmt.Sprint("forged", i)}
		if err := a.hello(); code(t, err) != fleet.CodeTokenUnknown {
			t.Fatal(err)
		}
	}
	if len(r.Machines()) != machines || len(r.events()) != events || r.Measures().Boots != 21 {
		t.Error("hellos with forged tokens left something in the records")
	}
	r.clock.add(16 * time.Minute)
	if err := fleet.Tidy(r.Fleet, t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.BootToken(t.Context(), known.mac, from); err != nil {
		t.Errorf("after the flood a machine gets no token: %v", err)
	}
}
