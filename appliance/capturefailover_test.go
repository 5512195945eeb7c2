//go:build linux

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/job"
)

// carried is how many bytes the station's host was sent.
func (s *station) carried() int64 {
	s.lan.t.Helper()
	end := fmt.Sprintf("%sp%s", s.lan.bridge, s.addr[strings.LastIndexByte(s.addr, '.')+1:])
	_, rest, _ := strings.Cut(tools(s.lan.t, "", "ip", "-s", "-j", "link", "show", "dev", end), `"tx":{"bytes":`)
	rest, _, _ = strings.Cut(rest, ",")
	n, err := strconv.ParseInt(rest, 10, 64)
	if err != nil {
		s.lan.t.Fatal(err)
	}
	return n
}

// TestACaptureGoesOnAtTheOtherApplianceWhenItsOwnIsKilled has a machine upload its disk to one appliance of a site, which is killed.
// The other one takes the rest, and asks again for what the dead one had not put into the site's storage yet.
func TestACaptureGoesOnAtTheOtherApplianceWhenItsOwnIsKilled(t *testing.T) {
	l := newLAN(t)
	noise := full(24<<20, 96<<20)
	file := newReferenceDisk(t, noise, 5)
	before := sumOf(t, file)
	one, two := l.station(), l.station()
	one.start()
	one.ready()
	two.joins(one)
	two.start()
	two.ready()

	r := &reference{machine: machine{t: t, mac: "52:54:00:82:01:01", appliance: one.addr, own: lanMachines}, disk: file}
	r.firmware()
	must(t, one.data, "capture", r.mac, "--name", "golden")
	until(t, 20*time.Second, "the appliances name each other to machines", func() bool {
		r.bootAgent()
		return len(r.boot.Appliances) == 2 && strings.Contains(r.boot.Appliances[0], one.addr)
	})
	start, other := one.carried(), two.carried()
	out := r.work(t.Context())
	until(t, 60*time.Second, "a good part of the disk has travelled", func() bool { return one.carried()-start > noise*2/5 })
	one.kill()
	killed := time.Now()
	sent := one.carried() - start
	r.finish(out)
	t.Logf("%.1f MB of noise: %.1f MB went to the appliance that was killed, then %.1f MB to the other, which had the image after %.1f s",
		float64(noise)/1e6, float64(sent)/1e6, float64(two.carried()-other)/1e6, time.Since(killed).Seconds())

	if screen := r.console.String(); !strings.Contains(screen, "the disk is read again") {
		t.Errorf("the machine does not say that it reads its disk again:\n%s", screen)
	}
	list := jobs(t, two.data)
	if len(list) != 1 || list[0].State != job.Succeeded || list[0].ImageName != "golden:1" || list[0].Epoch != 1 || list[0].Done < noise {
		t.Fatalf("jobs %+v\n%s", list, r.console.String())
	}
	for kind, want := range map[string]int{"image.captured": 1, "job.claimed": 1, "job.succeeded": 1} {
		if n := countEvents(t, two.data, kind); n != want {
			t.Errorf("%d events %s", n, kind)
		}
	}
	must(t, two.data, "image", "verify", "golden")
	must(t, two.data, "image", "add", file, "--name", "same")
	if got, want := roots(t, two.data, "golden:1"), roots(t, two.data, "same:1"); len(want) != 2 || !slices.Equal(got, want) {
		t.Errorf("roots of the capture %v, of the file %v", got, want)
	}
	if sumOf(t, file) != before {
		t.Error("the source disk has changed")
	}
	one.start() // and takes up what it left, without a second image
	one.ready()
	if list := jobs(t, one.data); len(list) != 1 || list[0].State != job.Succeeded {
		t.Errorf("jobs of the one that came back: %+v", list)
	}
	must(t, one.data, "image", "verify", "golden")
}
