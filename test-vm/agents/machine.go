package agents

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fxamacker/cbor/v2"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/announce"
	"seedbed/initramfs/agent"
)

// machine is one simulated machine. Owned by live, but for what the tracker is told.
type machine struct {
	*run
	index   int
	is      Behaviour
	own     netip.Addr
	story   Story
	key     *ecdsa.PrivateKey
	boot    job.Boot
	client  *http.Client
	welcome job.Welcome
	me      job.Admission
	job     job.Job
	image   *images.Manifest
	said    job.Report    // the last report
	shown   job.Screen    // what the appliance was told that the machine's screen says
	next    time.Time     // when the next report is due
	held    atomic.Int64  // of said, for the tracker
	goes    job.Directive // what the appliance answered last
}

// total is the length of the made-up content, in bytes.
const total = 20e9

// live is one machine from its switch to its own disk.
func (m *machine) live(ctx context.Context) error {
	if err := pause(ctx, m.Ramp*time.Duration(m.index)/time.Duration(m.Count)); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{m.load, m.hello, m.claim, m.work, m.restart} {
		err := step(ctx)
		if errors.Is(err, errOff) || errors.Is(err, errFailed) { // as it was to behave
			m.client.CloseIdleConnections()
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bitmapEvery is how often a report carries the pieces held.
const bitmapEvery = 10 * time.Second

func (m *machine) did(what string) { m.story.Steps = append(m.story.Steps, Step{what, time.Now()}) }

// hello is the agent's beginning, as far as its inventory.
func (m *machine) hello(ctx context.Context) (err error) {
	if m.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&m.key.PublicKey)
	if err != nil {
		return err
	}
	m.identify(nil)
	hello := job.Hello{Token: m.boot.Token, MAC: m.boot.MAC, PublicKey: public, Clock: time.Now(), Version: "simulated"}
	if _, err := m.post(ctx, "hello", job.PathHello, hello, &m.welcome); err != nil {
		return err
	}
	m.did("machine.hello")
	m.identify(m.welcome.Certificate)
	if _, err := m.post(ctx, "inventory", job.PathInventory, m.inventory(), &m.me); err != nil {
		return err
	}
	m.story.Machine = m.me.Machine
	m.did("machine.inventory")
	if !m.me.Admitted {
		return errors.New("the machine is not admitted")
	}
	return nil
}

// claim waits for the machine's job.
func (m *machine) claim(ctx context.Context) error {
	for m.job.ID == "" || m.job.Waits != "" {
		m.job = job.Job{}
		if _, err := m.post(ctx, "claim", job.PathClaim, job.Claim{Machine: m.me.Machine}, &m.job); err != nil {
			return err
		}
	}
	m.story.Job = m.job.ID
	m.did("job.claimed")
	m.identify(m.job.Certificate)
	return nil
}

// work carries the job out, as the agent's sequence of phases.
func (m *machine) work(ctx context.Context) error {
	m.said = job.Report{Job: m.job.ID, Epoch: m.job.Epoch, State: job.Running, Total: total, Congestion: "cubic"}
	if err := m.enter(ctx, job.PhaseStart); err != nil {
		return err
	}
	m.did("job.running")
	if err := m.describe(ctx); err != nil {
		return err
	}
	if err := m.during(ctx, job.PhaseCheck, 500*time.Millisecond, nil); err != nil {
		return err
	}
	disk := m.disk()
	m.said.Disk, m.said.DiskSerial, m.said.BIOSDrive = disk.Name, disk.Serial, 0x80
	if err := m.enter(ctx, job.PhaseFrame); err != nil {
		return err
	}
	m.did("job.phase frame")
	if err := m.frame(ctx); err != nil {
		return err
	}
	if err := m.during(ctx, job.PhaseHash, 500*time.Millisecond, nil); err != nil {
		return err
	}
	leave := m.announce(ctx)
	defer leave()
	if err := m.transfer(ctx); err != nil {
		return err
	}
	if err := m.during(ctx, job.PhaseVerify, m.Verify, func(share float64) { m.said.Verified = int64(share * total) }); err != nil {
		return err
	}
	if err := m.during(ctx, job.PhaseTable, 200*time.Millisecond, nil); err != nil {
		return err
	}
	if err := m.receipt(ctx); err != nil {
		return err
	}
	if err := m.seed(ctx); err != nil {
		return err
	}
	return m.enter(ctx, job.PhaseReboot)
}

// enter reports a new phase.
func (m *machine) enter(ctx context.Context, p job.Phase) error {
	m.said.Phase = p
	return m.report(ctx)
}

// report says where the machine is. What the appliance refuses ends its work.
func (m *machine) report(ctx context.Context) error {
	m.next = time.Now().Add(m.job.ReportEvery)
	m.goes = job.Directive{}
	if now := agent.ScreenOf(m.job, m.said); now != m.shown {
		m.shown, m.said.Screen = now, &now
	}
	_, err := m.post(ctx, "report", job.PathReport, m.said, &m.goes)
	m.said.Screen = nil
	m.said.Bitmap = nil
	if err == nil && m.goes.State == job.Cancelled {
		err = errors.New("the job was cancelled")
	}
	return err
}

// during is a phase that takes so long, with a report each second; progress, if not nil, is told its share before each.
func (m *machine) during(ctx context.Context, p job.Phase, takes time.Duration, progress func(share float64)) error {
	if err := m.enter(ctx, p); err != nil {
		return err
	}
	m.did("job.phase " + string(p))
	began := time.Now()
	for end := began.Add(takes); time.Now().Before(end); {
		due := min(time.Until(m.next), time.Until(end))
		if err := pause(ctx, max(due, 0)); err != nil {
			return err
		}
		if progress != nil {
			progress(min(1, time.Since(began).Seconds()/takes.Seconds()))
		}
		if time.Now().Before(m.next) {
			break
		}
		if err := m.report(ctx); err != nil {
			return err
		}
	}
	return nil
}

// describe fetches what says how the image lies on a disk.
func (m *machine) describe(ctx context.Context) error {
	raw, _, err := m.ask(ctx, "manifest", http.MethodGet, job.PathManifest+m.job.Image.String(), nil)
	if err != nil {
		return err
	}
	if images.Sum(raw) != m.job.Image {
		return errors.New("the manifest is not the job's")
	}
	if m.image, err = images.DecodeManifest(raw); err != nil {
		return err
	}
	refs := slices.Clone(m.image.Frame.Region)
	for i := range m.image.Partitions {
		refs = append(refs, m.image.Partitions[i].Map, m.image.Partitions[i].PieceLayer)
	}
	for _, r := range refs {
		if r.Length == 0 {
			continue
		}
		if _, _, err := m.ask(ctx, "layer", http.MethodGet, job.PathLayer+r.Digest.String(), nil); err != nil {
			return err
		}
	}
	return nil
}

// frame sends what lay on the disk before.
func (m *machine) frame(ctx context.Context) error {
	old, err := cbor.Marshal(job.OldFrame{Job: m.job.ID, Disk: m.disk().Name, DiskSerial: m.serial(), DiskLength: m.disk().Length, Regions: []job.OldFrameRegion{
		{Kind: "mbr", Bytes: make([]byte, 512)}, {Kind: "gpt", Offset: 512, Bytes: make([]byte, 33*512)},
	}})
	if err != nil {
		return err
	}
	if _, err := m.post(ctx, "frame", job.PathFrame, old, nil); err != nil {
		return err
	}
	m.did("job.frame")
	return nil
}

// announce tells the tracker of the machine until the returned function is called, which waits for its goodbye.
func (m *machine) announce(ctx context.Context) (leave func()) {
	ctx, cancel := context.WithCancel(ctx)
	var tracker sync.WaitGroup
	request := announce.Request{InfoHash: m.job.InfoHash.Wire(), Port: 6881}
	copy(request.PeerID[:], "-SB0001-")
	copy(request.PeerID[8:], fmt.Sprintf("%012d", m.index))
	base := m.boot.Appliances[0]
	c := announce.Client{URL: base + job.PathAnnounce, HTTP: &http.Client{Transport: timed{m}}}
	tracker.Go(func() {
		c.Run(ctx, func() announce.Request {
			held := m.held.Load()
			r := request
			r.Uploaded, r.Downloaded, r.Left = held/2, held/2, total-held
			return r
		}, nil)
	})
	return func() { cancel(); tracker.Wait() }
}

// timed measures announces.
type timed struct{ *machine }

func (t timed) RoundTrip(r *http.Request) (*http.Response, error) {
	began := time.Now()
	resp, err := t.client.Transport.RoundTrip(r)
	if err == nil {
		t.note("announce", time.Since(began))
	}
	return resp, err
}

// receipt proves the made-up disk.
func (m *machine) receipt(ctx context.Context) error {
	r := job.Receipt{
		Job: m.job.ID, Machine: m.me.Machine, Kind: m.job.Kind, Image: m.job.Image, DiskSerial: m.serial(), DiskLength: m.disk().Length, Level: m.job.Options.Verify,
		Table: images.Sum([]byte(m.serial())), Changes: []string{"the host name was set"}, At: time.Now(),
	}
	for i := range m.image.Partitions {
		r.Roots = append(r.Roots, job.PartitionRoot{Number: m.image.Partitions[i].Number, Root: m.image.Partitions[i].Root})
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	signature, err := ecdsa.SignASN1(rand.Reader, m.key, sum[:])
	if err != nil {
		return err
	}
	if _, err := m.post(ctx, "receipt", job.PathReceipt, job.SignedReceipt{Receipt: b, Signature: signature, Final: m.said}, new(job.Countersigned)); err != nil {
		return err
	}
	m.did("job.succeeded")
	return nil
}

// seed serves others until the appliance says that none needs this one.
func (m *machine) seed(ctx context.Context) error {
	if err := m.enter(ctx, job.PhaseSeed); err != nil {
		return err
	}
	for end := time.Now().Add(m.job.SeedFor); !m.goes.Release && time.Now().Before(end); {
		if err := pause(ctx, time.Until(m.next)); err != nil {
			return err
		}
		if err := m.report(ctx); err != nil {
			return err
		}
	}
	return nil
}

// restart boots the machine anew: from its own disk.
func (m *machine) restart(ctx context.Context) error {
	m.client.CloseIdleConnections()
	if err := pause(ctx, mathrand.N(m.Firmware+1)); err != nil {
		return err
	}
	script, err := m.firmware(ctx)
	if err != nil {
		return err
	}
	if strings.Contains(script, "/boot/token") {
		return fmt.Errorf("the machine boots the agent again:\n%s", script)
	}
	m.did("machine.local-boot")
	return nil
}
