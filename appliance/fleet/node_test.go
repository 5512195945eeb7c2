package fleet_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
)

// tellsOf reports as a seed node that serves n images, and does not wait for another order.
func (r *room) tellsOf(c fleet.Caller, n int, change func(*job.NodeImage)) error {
	report := job.NodeReport{Name: "node", Port: 6881, All: true}
	for i := range n {
		image := job.NodeImage{Image: images.Sum([]byte{byte(i), byte(i >> 8)}), ImageName: fmt.Sprint("image:", i), Held: 7}
		if change != nil {
			change(&image)
		}
		report.Images = append(report.Images, image)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	cancel()
	_, err := r.NodeReport(ctx, c, visitorAddr, report)
	return err
}

func TestWhatASeedNodeReportsIsBounded(t *testing.T) {
	r := newRoom(t, fleet.AdmitAuto)
	c := r.seedNode(newToken(r, job.RoleSeed, "", 1))
	if err := r.tellsOf(c, 401, nil); codeOf(err) != fleet.CodeInvalid {
		t.Errorf("401 images: %v", err)
	}
	liar := job.Liar{Peer: netip.MustParseAddrPort("10.77.0.9:6881"), What: "sent a wrong tile"}
	if err := r.tellsOf(c, 3, func(i *job.NodeImage) { i.Problem, i.Liars = strings.Repeat("x", 100000), []job.Liar{liar} }); err != nil {
		t.Fatal(err)
	}
	list := r.Nodes()
	if len(list) != 1 || len(list[0].Images) != 3 || len(list[0].Images[0].Problem) > 300 || list[0].Images[0].Liars != nil {
		t.Errorf("%d nodes, of the first %d images, %d bytes of a problem", len(list), len(list[0].Images), len(list[0].Images[0].Problem))
	}
	if !r.said("sent a wrong tile of image:0") {
		t.Error("whom it barred is not told")
	}
}

// TestWhatDoesNotChangeOfASeedNodeIsNotToldAgainAndAgain to the other appliances, which know of it all the same.
func TestWhatDoesNotChangeOfASeedNodeIsNotToldAgainAndAgain(t *testing.T) {
	r, early, late := newRoom(t, fleet.AdmitAuto), newRoom(t, fleet.AdmitAuto), newRoom(t, fleet.AdmitAuto)
	c := r.seedNode(newToken(r, job.RoleSeed, "", 1))
	held := int64(7)
	long := 0
	exchange := func(to ...*room) {
		t.Helper()
		if err := r.tellsOf(c, 100, func(i *job.NodeImage) { i.Held = held }); err != nil {
			t.Fatal(err)
		}
		if err := fleet.Exchange(r.Fleet, t.Context()); err != nil {
			t.Fatal(err)
		}
		list, err := r.store.Attendance(t.Context())
		if err != nil || len(list) != 1 {
			t.Fatalf("%d tell, %v", len(list), err)
		}
		if len(list[0].Doc) > 4096 {
			long++
		}
		for _, o := range to {
			o.clock.add(5 * time.Second)
			if err := fleet.Hear(o.Fleet, list[0]); err != nil {
				t.Fatal(err)
			}
			if err := fleet.Tidy(o.Fleet, t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	knows := func(o *room) bool {
		n := o.Nodes()
		return len(n) == 1 && len(n[0].Images) == 100 && n[0].Images[99].Held == held
	}
	exchange(early)
	for i := range 30 {
		exchange(early)
		if !knows(early) {
			t.Fatalf("at telling %d the other appliance knows %+v", i, early.Nodes())
		}
	}
	if long > 6 {
		t.Errorf("of 31 tellings %d had all of a report that did not change", long)
	}
	for range 13 { // the first may be the last words of one that is gone
		exchange(early, late)
	}
	if !knows(late) {
		t.Error("an appliance that came later does not know what the seed node holds")
	}
	held++
	exchange(early, late)
	if !knows(early) || !knows(late) {
		t.Error("a change is not told")
	}
}
