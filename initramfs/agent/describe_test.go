package agent

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"seedbed/appliance/job"
	"seedbed/appliance/tracker"
	"seedbed/images"
	"seedbed/images/announce"
	"seedbed/images/relay"
	"seedbed/images/swarm"
	"seedbed/initramfs/disk/disktest"
)

// room makes a deployment of several machines: each is told its own by an appliance of its own, and all of these are one
// site with one seeder and one tracker.
func (a *appliance) room(machines int) (list []*appliance, seeder *relay.Server) {
	a.t.Helper()
	tr := tracker.New(tracker.Config{})
	tr.AddSeed(a.info.InfoHash, a.seeder.Addr())
	tls := swarm.TLSConfig(a.keyPair(swarm.InfoHashURI(a.info.InfoHash), swarm.URIRoleAppliance), a.ca, a.info.InfoHash)
	seeder, err := relay.NewServer(relay.ServerConfig{InfoHash: a.info.InfoHash, TLS: tls, Objects: relay.Memory(a.img.Layers)})
	if err != nil {
		a.t.Fatal(err)
	}
	if _, err := seeder.Serve(a.seeder.Muxes()[0]); err != nil {
		a.t.Fatal(err)
	}
	for n := range machines {
		one := &appliance{t: a.t, img: a.img, info: a.info, authority: a.authority, ca: a.ca, siteKey: a.siteKey, seeder: a.seeder, seed: a.seed, seeds: a.seeds,
			token: a.token, seen: make(chan struct{}), say: a.say, on: func(string) {}, sources: tr, layers: a.layers, name: fmt.Sprint("m", n+1)}
		one.serve(one.keyPair())
		list = append(list, one)
	}
	return list, seeder
}

// described is the length of what a machine needs before it can join, in bytes.
func described(img *disktest.Image) (n int64) {
	for _, p := range img.Manifest.Partitions {
		n += p.Map.Length + p.PieceLayer.Length
	}
	for _, r := range img.Manifest.Frame.Region {
		n += r.Length
	}
	return n
}

// TestARoomTakesAFewDescriptionsFromTheAppliance: 16 machines that start together hand each other what describes the image.
func TestARoomTakesAFewDescriptionsFromTheAppliance(t *testing.T) {
	const machines = 16
	a := newApplianceOf(t, disktest.NewBare(t))
	list, seeder := a.room(machines)
	var out []<-chan result
	var computers []*computer
	for _, one := range list {
		c := newComputer(t)
		c.dir = inMemory(t)
		c.insert("vda", one.name, 4<<20)
		computers = append(computers, c)
	}
	for n, one := range list {
		end, _ := computers[n].boot(t.Context(), one)
		out = append(out, end)
	}
	for _, end := range out {
		if r := wait(t, end); r.err != nil || r.after != Reboot {
			t.Fatalf("%v, then %q", r.err, r.after)
		}
	}
	length := described(a.img)
	given := seeder.Sent() + a.layers.Load()
	t.Logf("the appliance gave %d descriptions of %d bytes, %d of them by HTTPS", given/length, length, a.layers.Load()/length)
	if given > 6*length || given < length {
		t.Errorf("the appliance gave %d bytes of descriptions of %d for %d machines", given, length, machines)
	}
	var toPeers, fromPeers int64
	for _, one := range list {
		one.mu.Lock()
		toPeers, fromPeers = toPeers+one.final.ToPeers, fromPeers+one.final.FromPeers
		one.mu.Unlock()
	}
	if want := (machines - given/length) * length; fromPeers < want || toPeers < want*3/4 {
		t.Errorf("they report %d bytes from each other, and %d given to others; want %d", fromPeers, toPeers, want)
	}
}

// sourcesOf names one machine, whoever asks.
func sourcesOf(at netip.AddrPort) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(announce.Response{Peers: []netip.AddrPort{at}}.Encode())
	})
}

// wrong gives wrong bytes, as a machine of the site might.
type wrong struct{ relay.Memory }

func (w wrong) Read(_ context.Context, _ images.Digest, _, length int64) ([]byte, error) {
	return make([]byte, length), nil
}

func TestAMachineThatLiesAboutTheDescriptionIsNamed(t *testing.T) {
	a := newAppliance(t)
	list, _ := a.room(1)
	one := list[0]
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := swarm.NewMux(l, nil)
	tls := swarm.TLSConfig(a.keyPair(job.URIMachine+"m9", swarm.InfoHashURI(a.info.InfoHash)), a.ca, a.info.InfoHash)
	liar, err := relay.NewServer(relay.ServerConfig{InfoHash: a.info.InfoHash, TLS: tls, Objects: wrong{relay.Memory(a.img.Layers)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := liar.Serve(mux); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- mux.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	one.sources = sourcesOf(mux.Addr())

	c := newComputer(t)
	file, before := c.insert("vda", "SN1", disktest.DiskLength)
	out, _ := c.boot(t.Context(), one)
	if r := wait(t, out); r.err != nil {
		t.Fatal(r.err)
	}
	a.img.Check(t, bytesOf(t, file), before)
	if l := one.final.Liars; len(l) != 1 || l[0].Peer != mux.Addr() || l[0].Names[0] != job.URIMachine+"m9" || !strings.Contains(l[0].What, "wrong bytes") {
		t.Errorf("liars: %+v", l)
	}
	if a.layers.Load() != described(a.img) || one.final.FromPeers == 0 {
		t.Errorf("the appliance gave %d bytes, machines %d", a.layers.Load(), one.final.FromPeers)
	}
}

func TestADeploymentGoesOnWhereNoMachineIsReached(t *testing.T) {
	a := newAppliance(t)
	list, _ := a.room(1)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	list[0].sources = sourcesOf(closed.Addr().(*net.TCPAddr).AddrPort())
	c := newComputer(t)
	c.insert("vda", "SN1", disktest.DiskLength)
	out, _ := c.boot(t.Context(), list[0])
	if r := wait(t, out); r.err != nil {
		t.Fatal(r.err)
	}
	if a.layers.Load() != described(a.img) {
		t.Errorf("the appliance gave %d bytes, want %d", a.layers.Load(), described(a.img))
	}
}
