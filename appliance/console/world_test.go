package console

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"seedbed/appliance/alert"
	"seedbed/appliance/api"
	"seedbed/appliance/bootdoctor"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/monitor"
	"seedbed/appliance/site"
	"seedbed/appliance/store"
	"seedbed/images"
)

// world is an appliance with made-up machines: a real fleet with records, the API and the console over TLS. Safe for concurrent use.
type world struct {
	t         testing.TB
	ctx       context.Context
	fleet     *fleet.Fleet
	site      *site.Site
	operators *api.Operators
	shelf     *shelf
	inner     *console
	console   http.Handler // as New returns it
	url       string
	// told is the picture that pages show; tests put another one there.
	told atomic.Pointer[monitor.Picture]
	operating

	// boots is what was seen of machines that boot; tests put something there before pages are asked for.
	boots atomic.Pointer[api.Boots]

	queries atomic.Int64 // of events and jobs in the records

	mu     sync.Mutex
	stays  map[fleet.Role]*fleet.Stay
	made   int       // machines
	left   *job.Left // what later machines tell of a boot before
	agents map[string]agent
}

// bootsOf is what was seen of a machine that boots.
func (w *world) bootsOf(macs []string) []bootdoctor.Boot {
	if boots := w.boots.Load(); boots != nil {
		return (*boots)(macs)
	}
	return nil
}

// Picture implements Pictures.
func (w *world) Picture() *monitor.Picture { return w.told.Load() }

// shelf holds the images "debian:1", "debian:2" and "windows:1".
type shelf struct {
	api.Images // what no test asks for
	list       []*fleet.Image
	doings
}

func newShelf(t testing.TB) *shelf {
	t.Helper()
	s := &shelf{}
	for i, name := range []string{"debian", "debian", "windows"} {
		m := &images.Manifest{
			Format: 1, Name: name, Version: []string{"1", "2", "1"}[i], DiskLength: 64 << 30, SectorLength: 512, PieceLength: images.MinPieceLength,
			Frame: images.Frame{Table: "none"},
			Partitions: []images.Partition{{Number: 0, Length: 64 << 30, Type: "00", MapKind: "full", Root: images.Sum([]byte{byte(i)}),
				Map: images.Ref{Digest: images.Sum([]byte{9, byte(i)}), Length: 5}}},
		}
		_, d, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		s.list = append(s.list, &fleet.Image{Digest: d, Manifest: m, InfoHash: images.InfoHash(images.Sum([]byte{8, byte(i)}))})
	}
	return s
}

func (s *shelf) Image(_ context.Context, ref string) (*fleet.Image, error) {
	for i := len(s.list) - 1; i >= 0; i-- {
		if m := s.list[i].Manifest; ref == m.Name || ref == m.Name+":"+m.Version || ref == s.list[i].Digest.String() {
			return s.list[i], nil
		}
	}
	return nil, &fleet.Refusal{Code: fleet.CodeImageUnknown, Detail: "no image is named " + ref}
}

func (s *shelf) List(context.Context) (list []api.ImageListing, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listed++
	for _, i := range s.list {
		list = append(list, s.listing(i))
	}
	return list, nil
}

func (s *shelf) Show(ctx context.Context, ref string) (*api.ImageDetail, error) {
	i, err := s.Image(ctx, ref)
	if err != nil {
		return nil, err
	}
	return detail(i), nil
}

// note has an event tell of something.
func (w *world) note(kind, text string) {
	w.t.Helper()
	if err := w.fleet.Note(w.ctx, kind, text); err != nil {
		w.t.Fatal(err)
	}
}

// newWorld starts an appliance without machines.
func newWorld(t testing.TB) *world {
	t.Helper()
	dir := t.TempDir()
	s, err := site.Open(filepath.Join(dir, "site"))
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), filepath.Join(dir, "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	w := &world{t: t, ctx: t.Context(), site: s, shelf: newShelf(t), stays: map[fleet.Role]*fleet.Stay{}, agents: map[string]agent{}}
	w.fleet, err = fleet.New(w.ctx, fleet.Config{
		Records: countedRecords{st, &w.queries}, Authority: s, Library: w.shelf, ClaimPoll: 50 * time.Millisecond,
		InfoHashURI: func(h images.InfoHash) string { return "urn:seedbed:infohash:" + h.String() },
		Weigh: func(context.Context, images.Digest, images.Digest) ([]fleet.Weight, error) {
			return []fleet.Weight{{Encoded: 9.3e9, Decoded: 21.4e9}}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.told.Store(&monitor.Picture{At: time.Now(), Thresholds: monitor.Thresholds{}.Or()})
	w.operators = api.NewOperators(api.Config{Fleet: w.fleet, Images: w.shelf, Boots: w.bootsOf})
	w.operating = newOperating(t)
	if w.inner, err = open(Config{Fleet: w.fleet, Operators: w.operators, Monitor: w, Images: w.shelf, Alerts: alert.New(alert.Config{Fleet: w.fleet, Console: "https://seedbed.example"}), Works: w.works, Spool: w.spool, Examine: w.examine}); err != nil {
		t.Fatal(err)
	}
	w.console = headers(w.inner.mux)
	cert, err := s.Server([]netip.Addr{netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(api.Path, w.operators.Remote())
	mux.Handle("/", w.console)
	server := httptest.NewUnstartedServer(mux)
	server.TLS = s.ServerTLS(cert)
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // browsers give connections up
	server.StartTLS()
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	w.url = server.URL
	return w
}

// as returns the stay of a user with a role, who logs in the first time.
func (w *world) as(role fleet.Role) *fleet.Stay {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stays[role] == nil {
		password := "correct horse battery"
		name := map[fleet.Role]string{fleet.RoleViewer: "vera", fleet.RoleOperator: "otto", fleet.RoleAdmin: "ada"}[role]
		if _, err := w.fleet.NewUser(w.ctx, fleet.UserOrder{Name: name, Role: &role, Password: &password}); err != nil {
			w.t.Fatal(err)
		}
		stay, err := w.fleet.Login(w.ctx, name, password, "127.0.0.1")
		if err != nil {
			w.t.Fatal(err)
		}
		w.stays[role] = stay
	}
	return w.stays[role]
}

// machine has one more machine boot the agent and tell what it is, and admits it where that is asked; it returns the ID.
func (w *world) machine(name string, admit bool, more ...job.Disk) string {
	w.t.Helper()
	w.made++
	mac := fmt.Sprintf("52:54:00:%02x:%02x:%02x", w.made>>16, w.made>>8&0xff, w.made&0xff)
	check := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	check(w.fleet.Sighted(w.ctx, fleet.Sighting{MAC: mac, Stage: "dhcp", Firmware: "uefi"}))
	addr := netip.AddrFrom4([4]byte{10, 77, byte(w.made >> 8), byte(w.made)})
	boot, err := w.fleet.BootToken(w.ctx, mac, addr)
	check(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	check(err)
	welcome, err := w.fleet.Hello(w.ctx, addr, job.Hello{Token: boot.Token, MAC: mac, PublicKey: public, Clock: time.Now(), Left: w.left})
	check(err)
	cert, err := x509.ParseCertificate(welcome.Certificate)
	check(err)
	caller, err := w.fleet.Authenticate(cert)
	check(err)
	me, err := w.fleet.Inventory(w.ctx, caller, job.Inventory{
		UUID: fmt.Sprintf("4c4c4544-0000-1000-8000-%012x", w.made), Manufacturer: "Dell Inc.", Product: "OptiPlex 7090", Serial: fmt.Sprintf("SN%06d", w.made),
		Firmware: "uefi", SecureBoot: "on", MemoryBytes: 16 << 30, Cores: 8,
		Disks: append([]job.Disk{{Name: "nvme0n1", Model: "Samsung PM9A1", Serial: fmt.Sprintf("S4GXNX%06d", w.made), Length: 512110190592, SectorLength: 512, Bus: "nvme"}}, more...),
		NICs:  []job.NIC{{Name: "enp0s31f6", MAC: mac, Driver: "e1000e", Mbit: 1000, Addr: addr.String()}},
	})
	check(err)
	if admit {
		_, err := w.fleet.Admit(w.ctx, me.Machine)
		check(err)
	}
	caller, err = w.fleet.Authenticate(cert)
	check(err)
	w.agents[me.Machine] = agent{caller, key}
	if name != "" {
		_, err := w.fleet.EditMachine(w.ctx, me.Machine, 0, fleet.MachineOrder{Name: &name})
		check(err)
	}
	return me.Machine
}

// room makes a room whose plan is full of machines; it returns their IDs by row and column.
func (w *world) room(name string, rows, columns int) (ids []string) {
	w.t.Helper()
	kind := fleet.Room
	if _, err := w.fleet.NewGroup(w.ctx, fleet.GroupOrder{Name: name, Kind: &kind, Rows: &rows, Columns: &columns}); err != nil {
		w.t.Fatal(err)
	}
	groups := []string{name}
	for i := range rows * columns {
		id := w.machine(fmt.Sprintf("%s-%02d", name, i+1), true)
		seat := fleet.Seat{Row: i/columns + 1, Column: i%columns + 1}
		if _, err := w.fleet.EditMachine(w.ctx, id, 0, fleet.MachineOrder{Groups: &groups, Seat: &seat}); err != nil {
			w.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// crowd makes many machines in rooms of 40, by a table of machines: none of them boots.
func (w *world) crowd(count int) (ids []string) {
	w.t.Helper()
	kind, rows, columns := fleet.Room, 5, 8
	table := "name,mac,groups,row,column,admitted\n"
	for i := range count {
		room, seat := fmt.Sprintf("hall-%02d", i/40), i%40
		if seat == 0 {
			if _, err := w.fleet.NewGroup(w.ctx, fleet.GroupOrder{Name: room, Kind: &kind, Rows: &rows, Columns: &columns}); err != nil {
				w.t.Fatal(err)
			}
		}
		table += fmt.Sprintf("pc-%04d,52:54:00:99:%02x:%02x,%s,%d,%d,true\n", i, i>>8, i&0xff, room, seat/columns+1, seat%columns+1)
	}
	if _, err := w.fleet.ImportMachines(w.ctx, strings.NewReader(table), false); err != nil {
		w.t.Fatal(err)
	}
	for _, m := range w.fleet.Machines() {
		ids = append(ids, m.ID)
	}
	if len(ids) != count {
		w.t.Fatalf("%d machines came of %d", len(ids), count)
	}
	return ids
}

// change has pages show a picture that differs from the present one by what fn does to a copy.
func (w *world) change(fn func(p *monitor.Picture)) {
	old := w.told.Load()
	p := *old
	p.At, p.Machines, p.Groups, p.Deployments = time.Now(), map[string]*monitor.Progress{}, map[string]*monitor.Course{}, map[string]*monitor.Course{}
	for id, m := range old.Machines {
		copied := *m
		p.Machines[id] = &copied
	}
	for id, g := range old.Groups {
		p.Groups[id] = g
	}
	for id, d := range old.Deployments {
		p.Deployments[id] = d
	}
	fn(&p)
	w.told.Store(&p)
}

// progress is how a machine gets on that has this word, made up.
func progress(id, name string, word monitor.Word, done int64) *monitor.Progress {
	p := &monitor.Progress{Machine: id, Name: name, Kind: job.Deploy, ImageName: "debian:2", State: job.Running, Phase: job.PhaseContent, Word: word,
		Done: done, Total: 40e9, Left: -1, Judged: -1, LinkMbit: 1000, Reported: time.Now(), Since: time.Now().Add(-time.Minute)}
	switch word {
	case monitor.Normal:
		p.Rate, p.Judged, p.FromPeers, p.FromAppliance, p.Peers = 108e6, 107e6, 61e6, 12e6, 9
	case monitor.Slow:
		p.Rate, p.Judged, p.FromAppliance, p.Cause, p.LinkMbit, p.Why = 8.4e6, 8.2e6, 7e6, monitor.CauseLink, 100, "its network card has negotiated 100 Mbit/s"
	case monitor.Failed:
		p.State, p.Code, p.Why = job.Failed, "write-error", "The disk nvme0n1 did not take what was written at 12.4 GB; replace it."
	case monitor.Silent:
		p.Why = "nothing was heard of it for 2 min: look whether it is switched on, what its screen says, and its network cable"
	case monitor.Waiting:
		p.State, p.Why = job.Waiting, "waits until the machine boots from the network"
	case monitor.Paused:
		p.State = job.Paused
	case monitor.Done:
		p.State, p.Done = job.Succeeded, p.Total
	case monitor.Idle:
		p.Done, p.Total = 0, 0
	case monitor.Cancelled:
		p.State = job.Cancelled
	}
	if p.Rate > 0 {
		p.Left = time.Duration(float64(p.Total-p.Done) / p.Rate * float64(time.Second))
	}
	return p
}

// school is a world as a school has it in the middle of a deployment: two rooms, machines in no room, one that waits.
func school(t testing.TB) *world {
	w := newWorld(t)
	first, second := w.room("A101", 4, 6), w.room("Lab B", 2, 4)
	loose := []string{w.machine("reception", true), w.machine("library", true)}
	w.machine("", false)
	words := []monitor.Word{monitor.Normal, monitor.Normal, monitor.Done, monitor.Slow, monitor.Normal, monitor.Waiting, monitor.Failed, monitor.Normal, monitor.Silent, monitor.Paused, monitor.Cancelled}
	names := map[string]string{}
	for _, m := range w.fleet.Machines() {
		names[m.ID] = m.Name
	}
	w.change(func(p *monitor.Picture) {
		course := &monitor.Course{ID: "a101", Machines: len(first), Words: map[monitor.Word]int{}, Rate: 2.31e9, Median: 108e6, Efficiency: 0.91,
			Last: first[3], LastAt: time.Now().Add(17 * time.Minute)}
		for i, id := range first {
			p.Machines[id] = progress(id, names[id], words[i%len(words)], int64(i+1)*16e8)
			course.Words[words[i%len(words)]]++
		}
		p.Groups["a101"] = course
		for _, id := range append(second, loose...) {
			p.Machines[id] = progress(id, names[id], monitor.Idle, 0)
		}
	})
	w.deployed(first, words...)
	w.alarm()
	return w
}
