package upload

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/intake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	macA = "52:54:00:77:00:0a"
	macB = "52:54:00:77:00:0b"
)

// send puts all tiles that the repository lacks, and returns their number.
func (b *bed) send(m *booted, id string, r *recorder) (sent int) {
	b.t.Helper()
	had, err := b.Have(b.t.Context(), m.Caller, id, keys(r.tiles))
	if err != nil {
		b.t.Fatal(err)
	}
	for i, t := range r.tiles {
		if had[i] {
			continue
		}
		if err := b.Put(b.t.Context(), m.Caller, id, []intake.Tile{t}); err != nil {
			b.t.Fatal(err)
		}
		sent++
	}
	return sent
}

func (b *bed) state(id string) fleet.JobView {
	b.t.Helper()
	list := b.fleet.Jobs()
	i := slices.IndexFunc(list, func(j fleet.JobView) bool { return j.ID == id })
	if i < 0 {
		b.t.Fatalf("no job %s", id)
	}
	return list[i]
}

func TestCommitIsAnsweredTheSameHoweverOften(t *testing.T) {
	b := newBed(t)
	r := record(t, 2)
	order := b.order(macA, "debian", "")
	m := b.boot(macA)
	id := b.begin(m)
	b.send(m, id, r)
	first, err := b.Commit(t.Context(), m.Caller, id, r.spec)
	if err != nil || first.Name != "debian" || first.Version != "1" {
		t.Fatalf("%+v, %v", first, err)
	}
	again, err := b.Commit(t.Context(), m.Caller, id, r.spec)
	if err != nil || *again != *first {
		t.Errorf("in the same session: %+v, %v", again, err)
	}
	if _, err := b.Have(t.Context(), m.Caller, id, nil); code(t, err) != job.CodeCaptureExpired {
		t.Errorf("a session that has published takes questions: %v", err)
	}
	b.stop()
	b.start()
	m.authenticate(b)
	if _, err := b.Commit(t.Context(), m.Caller, id, r.spec); code(t, err) != job.CodeCaptureExpired {
		t.Errorf("after a restart: %v", err)
	}
	s, err := b.Begin(t.Context(), m.Caller, job.CaptureBegin{Job: m.job.ID, Epoch: m.job.Epoch})
	if err != nil || s.Published == nil || *s.Published != *first {
		t.Errorf("begun again after a restart: %+v, %v", s, err)
	}
	j := b.state(order.ID)
	if j.State != job.Succeeded || j.Image != first.Digest || j.ImageName != "debian:1" {
		t.Errorf("job %+v", j)
	}
	events, err := b.fleet.Events(t.Context(), fleet.EventQuery{Limit: 100})
	if err != nil || !slices.ContainsFunc(events, func(e fleet.Event) bool { return e.Text == "captured debian:1 from pc-77000a" }) {
		t.Errorf("events %+v, %v", events, err)
	}
	if err := b.repo.Verify(t.Context(), first.Digest, nil); err != nil {
		t.Error(err)
	}
}

// killed is a sink behind which the appliance is killed right after the image was published.
type killed struct{ intake.Sink }

var errKilled = errors.New("killed")

func (k killed) Commit(ctx context.Context, s *intake.Spec) (*intake.Published, error) {
	if _, err := k.Sink.Commit(ctx, s); err != nil {
		return nil, err
	}
	return nil, errKilled
}

func TestImagePublishedBeforeTheApplianceWasKilledIsThatOfTheJob(t *testing.T) {
	b := newBed(t)
	r := record(t, 2)
	b.wrap = func(s intake.Sink) intake.Sink { return killed{s} }
	order := b.order(macA, "debian", "")
	m := b.boot(macA)
	id := b.begin(m)
	b.send(m, id, r)
	if _, err := b.Commit(t.Context(), m.Caller, id, r.spec); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	b.stop()
	b.start()
	m.authenticate(b)
	s, err := b.Begin(t.Context(), m.Caller, job.CaptureBegin{Job: m.job.ID, Epoch: m.job.Epoch})
	if err != nil || s.Published == nil || s.Published.Version != "1" {
		t.Fatalf("%+v, %v", s, err)
	}
	if j := b.state(order.ID); j.State != job.Succeeded || j.Image != s.Published.Digest {
		t.Errorf("job %+v", j)
	}
	if list, err := b.repo.Images(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("images %+v, %v", list, err)
	}
}

func TestVersionThatIsTakenMeanwhile(t *testing.T) {
	b := newBed(t)
	r := record(t, 2)
	take := func(name, version string) {
		t.Helper()
		s, err := b.config.Begin(t.Context(), name, version)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Put(t.Context(), r.tiles); err != nil {
			t.Fatal(err)
		}
		other := *r.spec
		other.Created++
		if _, err := s.Commit(t.Context(), &other); err != nil {
			t.Fatal(err)
		}
	}
	order := b.order(macA, "debian", "")
	m := b.boot(macA)
	if order.ImageName != "debian:1" {
		t.Errorf("the job makes %s", order.ImageName)
	}
	take("debian", "1") // before the capture begins
	id := b.begin(m)
	b.send(m, id, r)
	p, err := b.Commit(t.Context(), m.Caller, id, r.spec)
	if err != nil || p.Version != "2" {
		t.Errorf("a counted version that was taken: %+v, %v", p, err)
	}

	b.order(macA, "debian", "golden")
	take("debian", "golden")
	m.claim(b)
	_, err = b.Begin(t.Context(), m.Caller, job.CaptureBegin{Job: m.job.ID, Epoch: m.job.Epoch})
	if code(t, err) != fleet.CodeVersionExists {
		t.Errorf("a version that was asked for and taken: %v", err)
	}
}

func TestSilentCaptureExpiresAndLosesNothing(t *testing.T) {
	b := newBed(t)
	r := record(t, 2)
	b.order(macA, "debian", "")
	m := b.boot(macA)
	id := b.begin(m)
	sent := b.send(m, id, r)
	b.wait(9 * time.Minute)
	b.expire()
	if _, err := b.Have(t.Context(), m.Caller, id, keys(r.tiles)); err != nil {
		t.Fatalf("after 9 minutes: %v", err)
	}
	b.wait(11 * time.Minute)
	b.expire()
	for what, err := range map[string]error{
		"have":   second(b.Have(t.Context(), m.Caller, id, keys(r.tiles))),
		"put":    b.Put(t.Context(), m.Caller, id, r.tiles[:1]),
		"commit": second(b.Commit(t.Context(), m.Caller, id, r.spec)),
		"slot":   second(b.Slot(t.Context(), m.Caller, id)),
	} {
		if code(t, err) != job.CodeCaptureExpired {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := b.Close(m.Caller, id); err != nil {
		t.Errorf("close: %v", err)
	}
	id = b.begin(m)
	if again := b.send(m, id, r); again != 0 || sent < 40 {
		t.Errorf("%d tiles were sent, %d again", sent, again)
	}
	if _, err := b.Commit(t.Context(), m.Caller, id, r.spec); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestOnlyTheMachineWhoseClaimedJobItIsMayUseACapture(t *testing.T) {
	b := newBed(t)
	r := record(t, 2)
	b.order(macA, "debian", "")
	order := b.order(macB, "debian", "")
	if order.ImageName != "debian:2" {
		t.Errorf("the second capture makes %s", order.ImageName)
	}
	one, other := b.boot(macA), b.boot(macB)
	id := b.begin(one)
	try := func(what string, m *booted, want string) {
		t.Helper()
		for call, err := range map[string]error{
			"have":   second(b.Have(t.Context(), m.Caller, id, keys(r.tiles))),
			"put":    b.Put(t.Context(), m.Caller, id, r.tiles[:1]),
			"slot":   second(b.Slot(t.Context(), m.Caller, id)),
			"commit": second(b.Commit(t.Context(), m.Caller, id, r.spec)),
			"begin":  second(b.Begin(t.Context(), m.Caller, job.CaptureBegin{Job: one.job.ID, Epoch: one.job.Epoch})),
			"close":  b.Close(m.Caller, id),
		} {
			if code(t, err) != want {
				t.Errorf("%s, %s: %v", what, call, err)
			}
		}
	}
	try("another machine", other, fleet.CodeJobUnknown)
	later := b.boot(macA)
	try("an earlier boot", one, fleet.CodeClaimLost)
	id = b.begin(later)
	if err := b.fleet.Cancel(t.Context(), one.job.ID); err != nil {
		t.Fatal(err)
	}
	one = later
	try("a cancelled job", later, fleet.CodeJobEnded)
	b.wait(time.Minute)
	b.expire()
	if len(b.sessions) != 0 {
		t.Errorf("%d sessions are left of a cancelled job", len(b.sessions))
	}
	if list, err := b.repo.Images(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("images %+v, %v", list, err)
	}
}

func TestWrongTilesAndDescriptionsAreRefusedAndNothingIsVisible(t *testing.T) {
	b := newBed(t)
	r := record(t, 2)
	b.order(macA, "debian", "")
	m := b.boot(macA)
	id := b.begin(m)
	flipped := r.tiles[3]
	flipped.Encoded.Bytes = slices.Clone(flipped.Encoded.Bytes)
	flipped.Encoded.Bytes[len(flipped.Encoded.Bytes)/2] ^= 1
	if err := b.Put(t.Context(), m.Caller, id, []intake.Tile{r.tiles[0], flipped}); code(t, err) != CodeTileWrong {
		t.Errorf("a tile with other bytes: %v", err)
	}
	renamed := r.tiles[4]
	renamed.Key = r.tiles[5].Key
	if err := b.Put(t.Context(), m.Caller, id, []intake.Tile{r.tiles[1], renamed}); code(t, err) != CodeTileWrong {
		t.Errorf("a tile under another name: %v", err)
	}
	if had, err := b.Have(t.Context(), m.Caller, id, keys(r.tiles)); err != nil || slices.Contains(had, true) {
		t.Errorf("something of a wrong upload is there: %v, %v", had, err)
	}
	b.send(m, id, &recorder{tiles: r.tiles[:len(r.tiles)-1]})
	if _, err := b.Commit(t.Context(), m.Caller, id, r.spec); code(t, err) != job.CodeTilesMissing {
		t.Errorf("a commit with a missing tile: %v", err)
	}
	for what, lie := range map[string]func(p *intake.Partition){
		"too few hashes":       func(p *intake.Partition) { p.Tiles = p.Tiles[:len(p.Tiles)-32] },
		"hashes cut off":       func(p *intake.Partition) { p.Tiles = p.Tiles[:len(p.Tiles)-1] },
		"a map that is broken": func(p *intake.Partition) { p.Map = p.Map[:len(p.Map)-1] },
		"another map":          func(p *intake.Partition) { p.Map = (&images.Map{Length: p.Length}).Encode() },
		"another length":       func(p *intake.Partition) { p.Length -= 512 },
		"outside the disk":     func(p *intake.Partition) { p.Offset = 1 << 40 },
	} {
		spec := *r.spec
		spec.Partitions = slices.Clone(r.spec.Partitions)
		lie(&spec.Partitions[0])
		if _, err := b.Commit(t.Context(), m.Caller, id, &spec); code(t, err) != CodeSpecWrong {
			t.Errorf("%s: %v", what, err)
		}
	}
	if list, err := b.repo.Images(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("images %+v, %v", list, err)
	}
	b.send(m, id, r)
	if _, err := b.Commit(t.Context(), m.Caller, id, r.spec); err != nil {
		t.Errorf("the truth after the lies: %v", err)
	}
}

func TestCapturesAtOnceShareTiles(t *testing.T) {
	b := newBed(t)
	a, c := record(t, 2), record(t, 3)
	b.order(macA, "debian", "")
	b.order(macB, "debian", "")
	var group sync.WaitGroup
	for mac, r := range map[string]*recorder{macA: a, macB: c} {
		m := b.boot(mac)
		id := b.begin(m)
		group.Go(func() {
			b.send(m, id, r)
			if _, err := b.Commit(t.Context(), m.Caller, id, r.spec); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	distinct, all, packed := map[images.TileKey]int64{}, int64(0), int64(0)
	for _, tile := range append(slices.Clone(a.tiles), c.tiles...) {
		distinct[tile.Key] = int64(len(tile.Encoded.Bytes))
	}
	for _, n := range distinct {
		all += n
	}
	packs, err := filepath.Glob(filepath.Join(b.dir, "repository", "packs", "*"))
	for _, name := range packs {
		if info, e := os.Stat(name); e != nil || err != nil {
			t.Fatal(e, err)
		} else {
			packed += info.Size()
		}
	}
	if len(distinct) > len(a.tiles)*3/2 || packed < all || packed > all*102/100 {
		t.Errorf("%d tiles of %d, %d distinct; %d bytes were stored for %d", len(a.tiles), len(c.tiles), len(distinct), packed, all)
	}
	list, err := b.repo.Images(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("images %+v, %v", list, err)
	}
	for _, i := range list {
		if err := b.repo.Verify(t.Context(), i.Digest, nil); err != nil {
			t.Error(err)
		}
	}
}

func TestOrdersThatCannotBe(t *testing.T) {
	b := newBed(t)
	r := record(t, 2)
	b.order(macA, "debian", "")
	m := b.boot(macA)
	id := b.begin(m)
	b.send(m, id, r)
	if _, err := b.Commit(t.Context(), m.Caller, id, r.spec); err != nil {
		t.Fatal(err)
	}
	b.order(macB, "debian", "golden")
	order := func(mac, name, version string, change func(*fleet.CaptureOrder)) error {
		o := fleet.CaptureOrder{Machine: mac, CaptureOrder: job.CaptureOrder{Name: name, Version: version}}
		if change != nil {
			change(&o)
		}
		return second(b.fleet.Capture(t.Context(), o))
	}
	for what, c := range map[string]struct {
		err  error
		code string
	}{
		"a version that exists":       {order(macA, "debian", "1", nil), fleet.CodeVersionExists},
		"a version that is made":      {order(macA, "debian", "golden", nil), fleet.CodeCaptureBusy},
		"a machine that has a job":    {order(macB, "other", "", nil), fleet.CodeMachineBusy},
		"a machine that is not there": {order("52:54:00:00:00:00", "other", "", nil), fleet.CodeMachineUnknown},
		"no name":                     {order(macA, "", "", nil), fleet.CodeInvalid},
		"a name with a slash":         {order(macA, "a/b", "", nil), fleet.CodeInvalid},
		"compression":                 {order(macA, "other", "", func(o *fleet.CaptureOrder) { o.Compress = "zip" }), fleet.CodeInvalid},
		"a level":                     {order(macA, "other", "", func(o *fleet.CaptureOrder) { o.Compress = "zstd:23" }), fleet.CodeInvalid},
		"a piece":                     {order(macA, "other", "", func(o *fleet.CaptureOrder) { o.PieceLength = 1000 }), fleet.CodeInvalid},
		"partitions":                  {order(macA, "other", "", func(o *fleet.CaptureOrder) { o.Partitions = []int{2, 1} }), fleet.CodeInvalid},
		"what comes after":            {order(macA, "other", "", func(o *fleet.CaptureOrder) { o.After = "dance" }), fleet.CodeInvalid},
	} {
		if code(t, c.err) != c.code {
			t.Errorf("%s: %v", what, c.err)
		}
	}
}
