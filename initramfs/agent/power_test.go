package agent

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"seedbed/images"
	"seedbed/images/parttable"
	"seedbed/initramfs/disk"
	"seedbed/initramfs/disk/disktest"
)

// The proof against power cuts. A deployment by the real agent onto a file is recorded, change by change; then states that
// a power cut could have left are made of the record: what was not flushed is lost, reordered or torn at sectors. In every
// state no table is found, or the image is there whole; and a deployment that goes on from it ends well and fetches what was
// lacking. SEEDBED_FULL=1 looks at every moment of the record and cuts the power 200 times on top.

// full says that long counts are asked for.
func full() bool { return os.Getenv("SEEDBED_FULL") != "" }

// plug is a computer whose disk is recorded.
type plug struct {
	*computer
	tape *tape
}

func (p *plug) Open(name string) (*disk.Device, error) {
	d, err := p.computer.Open(name)
	if err == nil {
		d.Observe(p.tape.observe)
	}
	return d, err
}

// proof is one image that is deployed again and again.
type proof struct {
	*appliance
	used [][]images.Extent // of each partition, as bytes of the disk
}

func newProof(t *testing.T, captured []byte) *proof {
	t.Helper()
	p := &proof{appliance: newApplianceOf(t, disktest.Captured(t, captured))}
	for i, part := range p.img.Manifest.Partitions {
		var list []images.Extent
		for _, e := range p.img.Layout.Map(i).Extents {
			list = append(list, images.Extent{Offset: part.Offset + e.Offset, Length: e.Length})
		}
		p.used = append(p.used, list)
	}
	return p
}

// deploy boots a machine whose disk holds state and deploys the image, until the end, or until kill changes were made. It
// returns the record and what the disk holds then.
func (p *proof) deploy(t *testing.T, state []byte, kill int) (record *tape, after []byte, fetched int64) {
	t.Helper()
	p.fresh = true // else it waits for machines that it may have known
	p.startSeeder()
	p.mu.Lock()
	p.seeds = []netip.AddrPort{p.seeder.Addr()}
	p.token, p.claimed, p.reports, p.receipts, p.frames = strings.Repeat("ab", 32), false, nil, nil, nil
	p.mu.Unlock()
	c := &computer{t: t, dir: inMemory(t)}
	defer os.RemoveAll(c.dir)
	file := filepath.Join(c.dir, "vda")
	if err := os.WriteFile(file, state, 0o600); err != nil {
		t.Fatal(err)
	}
	c.disks = []disk.Disk{{Disk: jobDisk(int64(len(state)))}}
	ctx, cut := context.WithCancel(t.Context())
	defer cut()
	record = &tape{before: state, kill: kill, cut: cut}
	record.permit = func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.frames) == 0 && !zeros(state[:mib]) {
			return errors.New("the disk was written before the appliance had its old table")
		}
		return nil
	}
	screen := NewScreen(testWriter{t})
	defer screen.Close(time.Second)
	agent, err := New(Config{Boot: p.boot(), Machine: &plug{c, record}, Screen: screen, ListenAddr: "127.0.0.1:0", Version: "test",
		timing: timing{rest: time.Millisecond, rescan: 20 * time.Millisecond, progress: time.Second, failed: 50 * time.Millisecond, alone: 2 * time.Second, idle: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan error, 1)
	go func() { _, err := agent.Run(ctx); out <- err }()
	select {
	case err = <-out:
	case <-time.After(60 * time.Second):
		t.Fatal("the agent did not end")
	}
	agent.client.http.CloseIdleConnections()
	if err != nil && (kill == 0 || record.begun <= kill) {
		t.Fatal(err)
	}
	if record.denied != nil {
		t.Error(record.denied)
	}
	return record, bytesOf(t, file), p.seed.total()
}

// figures are what a proof has looked at.
type figures struct {
	states, judged   int
	resumed, kills   int
	shown            int   // states with a table
	worst            int64 // bytes fetched beyond what was lacking
	worstPerThousand int64 // of the image
}

func (f *figures) fetched(fetched, lacking, total int64) {
	f.resumed++
	if over := fetched - lacking; over > f.worst {
		f.worst, f.worstPerThousand = over, over*1000/total
	}
}

// goOn deploys onto a state and proves the end of it.
func (p *proof) goOn(t *testing.T, f *figures, state []byte) {
	t.Helper()
	state = bytes.Clone(state)
	lacking, total := p.lacks(state), p.img.Layout.DataLength()
	_, after, fetched := p.deploy(t, state, 0)
	if wrong := p.right(after); wrong != "" {
		t.Error("after going on", wrong)
	}
	if p.img.Manifest.Frame.Table != parttable.None && p.ask(t, after) == "" {
		t.Error("after going on the tools find no table")
	}
	if fetched > lacking+total/20 {
		t.Errorf("going on fetched %d bytes, the disk lacked %d of %d", fetched, lacking, total)
	}
	f.fetched(fetched, lacking, total)
}

// states looks at the states of a record: at every stride-th moment and at all around flushes.
func (p *proof) states(t *testing.T, f *figures, record *tape, stride, judge, resume, rounds int, random *rand.Rand) {
	t.Helper()
	near := map[int]bool{}
	for _, fl := range record.flushes {
		for d := -2; d <= 2; d++ {
			near[fl.begun+d], near[fl.end+d] = true, true
		}
	}
	moments := record.clock
	resumes, judges := picks(random, moments, resume), picks(random, moments, judge)
	r := record.play()
	for m := range moments {
		if !near[m] && m%stride != 0 && !resumes[m] && !judges[m] {
			continue
		}
		for n := range rounds * losses {
			loss := n % losses
			state := r.at(m, loss, random)
			f.states++
			if p.table(state) != "" {
				f.shown++
			}
			if wrong := p.check(record, m, state); wrong != "" {
				t.Fatalf("power cut after moment %d of %d, loss %d: %s", m, moments, loss, wrong)
			}
			if (judges[m] || record.isFlush(m)) && loss == random.IntN(losses) {
				f.judged++
				if out := p.ask(t, state); out != "" && m > p.wiped(record) && p.wrong(state) != "" {
					t.Fatalf("power cut after moment %d of %d, loss %d: the image is not there whole, and a tool finds %s", m, moments, loss, out)
				}
			}
		}
		if resumes[m] {
			p.goOn(t, f, r.at(m, random.IntN(losses), random))
		}
	}
}

// isFlush reports whether a flush ends at a moment.
func (p *tape) isFlush(moment int) bool {
	for _, f := range p.flushes {
		if f.end == moment {
			return true
		}
	}
	return false
}

// picks returns n of the moments.
func picks(random *rand.Rand, moments, n int) map[int]bool {
	list := map[int]bool{}
	for range n {
		list[random.IntN(moments)] = true
	}
	return list
}

// TestPowerCutsAtEveryMomentOfADeployment deploys a disk with GPT, with MBR and without a table onto an empty disk, over an
// earlier version and over another system.
func TestPowerCutsAtEveryMomentOfADeployment(t *testing.T) {
	versions := newParts(t)
	stride, judge, resume, kills, rounds := 40, 2, 1, 1, 1
	if full() {
		stride, judge, resume, kills, rounds = 1, 20, 12, 23, 10 // 9 cases: 207 kills
	}
	const seed = 11
	var f figures
	for i, k := range kinds {
		golden := k.make(t, versions[1])
		other := kinds[(i+1)%len(kinds)].make(t, versions[0])
		if len(other) < len(golden) {
			other = append(other, make([]byte, len(golden)-len(other))...)
		}
		for j, old := range []struct {
			name string
			disk []byte
		}{
			{"an empty disk", make([]byte, len(golden)+mib)},
			{"an earlier version", k.make(t, versions[0])},
			{"another system", other},
		} {
			t.Run(k.name+" onto "+old.name, func(t *testing.T) {
				t.Logf("seed %d", seed)
				random := rand.New(rand.NewPCG(seed, uint64(10*i+j)))
				p := newProof(t, golden)
				if wrong := p.right(golden); wrong != "" {
					t.Fatal(wrong)
				}
				lacking, total := p.lacks(old.disk), p.img.Layout.DataLength()
				record, after, fetched := p.deploy(t, old.disk, 0)
				if wrong := p.right(after); wrong != "" {
					t.Fatal(wrong)
				}
				if fetched > lacking+total/20 {
					t.Errorf("%d bytes were fetched, the disk lacked %d of %d", fetched, lacking, total)
				}
				if end := record.play().at(record.clock, loseAll, nil); !bytes.Equal(end, after) {
					t.Fatal("the record is not what was done to the disk, or something was not flushed")
				}
				p.states(t, &f, record, stride, judge, resume, rounds, random)
				p.kills(t, &f, old.disk, record.begun, kills, random)
			})
		}
	}
	t.Logf("%d states, %d of them with a table, %d judged by sfdisk, sgdisk and blkid; %d kills; %d deployments went on, each fetched at most %d bytes more "+
		"than the disk lacked, %.1f %% of the image", f.states, f.shown, f.judged, f.kills, f.resumed, f.worst, float64(f.worstPerThousand)/10)
}

// kills ends deployments at random changes, one after the other on one disk, each a kill of the agent or a power cut, and
// lets the last one go on to the end. Where a disk is done it begins with the old one anew.
func (p *proof) kills(t *testing.T, f *figures, old []byte, changes, kills int, random *rand.Rand) {
	t.Helper()
	state := old
	for n, end := 0, f.kills+kills; f.kills < end && n < 10*kills; n++ {
		lacking, total := p.lacks(state), p.img.Layout.DataLength()
		record, after, fetched := p.deploy(t, state, 1+random.IntN(changes))
		if fetched > lacking+total/20 {
			t.Errorf("kill %d: %d bytes were fetched, the disk lacked %d of %d", n, fetched, lacking, total)
		}
		if record.begun <= record.kill {
			p.done(t, f, after, n)
			state = old
			continue
		}
		f.kills++
		if random.IntN(2) == 0 { // the power of the whole machine
			after = bytes.Clone(record.play().at(record.clock, random.IntN(losses), random))
		}
		if wrong := p.check(record, record.clock, after); wrong != "" {
			t.Fatalf("kill %d, after %d changes: %s", n, record.kill, wrong)
		}
		state = after
	}
	p.goOn(t, f, state)
}

// done proves a deployment that ended before it was killed.
func (p *proof) done(t *testing.T, f *figures, after []byte, n int) {
	t.Helper()
	f.resumed++
	if wrong := p.right(after); wrong != "" {
		t.Errorf("before kill %d %s", n, wrong)
	}
}
