package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sync/singleflight"

	"seedbed/appliance/dhcp"
	script "seedbed/bootloader-configs"
)

// Config of a Server. Files and Fleet are needed, the rest may be zero.
type Config struct {
	Files *Files
	Fleet Fleet
	// Addr is the appliance's address in scripts when a request does not tell which one it came to.
	Addr netip.Addr
	// HTTPPort is where Handler is served; zero means 80.
	HTTPPort uint16
	// Others returns where the other appliances of the site serve the same over HTTP, for scripts; nil: there are none.
	Others func() []netip.AddrPort
	// KernelArgs replace script.KernelArgs where not empty. Nothing secret: every program of the machine reads them.
	KernelArgs string
	// Open answers for /announce and what lies below /torrents/; nil: nothing is there.
	Open http.Handler
	// Asked, unless nil, is told of each request over HTTP what it asks for, one of the Asked constants or the name of a loader's
	// file, and returns how long the client has to wait before it is answered; 0 is not at all. It must not block.
	Asked func(client netip.Addr, what string) time.Duration
	// Log may be nil.
	Log *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Server answers machines on their way to the agent or to their own disk. Safe for concurrent use.
type Server struct {
	cfg    Config
	tracks *tracks
	diary  *diary
	conns  *connections
	// minting makes one token at a time for each machine.
	minting singleflight.Group
}

// New checks the configuration; it opens and starts nothing.
func New(cfg Config) (*Server, error) {
	if cfg.Files == nil || cfg.Fleet == nil {
		return nil, errors.New("the boot server needs boot files and a fleet")
	}
	if cfg.HTTPPort == 0 {
		cfg.HTTPPort = 80
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	sample := script.Params{Server: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, 1}), cfg.HTTPPort), KernelArgs: cfg.KernelArgs}
	if _, err := script.Render(script.IPXEAgent, sample); err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, tracks: newTracks(), diary: newDiary(), conns: newConnections()}, nil
}

// AnswerDHCP decides what a machine's firmware loads. It is the dhcp.Answerer.
func (s *Server) AnswerDHCP(ctx context.Context, r dhcp.Request) dhcp.Answer {
	mac, now := MAC(r.MAC), s.cfg.Now()
	if r.Agent {
		s.diary.packet(r, LoaderNone, "", now) // it has booted: nothing of its way here changes
		return dhcp.Answer{}
	}
	uuid := normalUUID(r.UUID)
	asks := r.Type == dhcpv4.MessageTypeDiscover
	sighting := Sighting{
		At: now, Stage: StageDHCP, MAC: mac, UUID: uuid, Addr: r.Addr, Relay: r.Relay,
		Arch: Arch(r.Arch), Class: r.Class, IPXE: r.IPXE,
	}
	if asks && !r.IPXE {
		s.conns.drop(s.tracks.addrOf(mac)) // the machine started anew: what it held open is gone
	}
	s.tracks.packet(mac, uuid, Arch(r.Arch), r.Addr, asks, now)
	if r.Told {
		s.diary.packet(r, LoaderNone, "", now)
		s.cfg.Fleet.Sighted(ctx, sighting)
		return dhcp.Answer{}
	}
	if asks && !r.IPXE {
		s.noteStuck(ctx, sighting)
	}
	a, err := s.cfg.Fleet.NextBoot(ctx, mac, uuid)
	if err != nil {
		s.cfg.Log.Warn("a machine gets no answer and boots its own disk", "mac", mac, "err", err)
		s.diary.packet(r, LoaderNone, "the fleet has no answer: "+err.Error(), now)
		return dhcp.Answer{}
	}
	d := Decide(s.facts(r, a))
	s.diary.packet(r, d.Loader, d.Reason, now)
	sighting.Loader = d.Loader
	if d.Loader == LoaderNone {
		sighting.Note = d.Reason
	}
	s.cfg.Fleet.Sighted(ctx, sighting)
	s.cfg.Log.Debug("loader chosen", "mac", mac, "arch", Arch(r.Arch), "loader", d.Loader, "reason", d.Reason)
	return dhcp.Answer{File: s.fileFor(d.Loader, r)}
}

// noteStuck records that the loader before this DISCOVER came to nothing, if it did.
func (s *Server) noteStuck(ctx context.Context, base Sighting) {
	var stuck Loader
	s.tracks.with(base.MAC, func(k *track) { stuck = k.overdue(base.At) })
	if stuck == LoaderNone {
		return
	}
	base.Stage, base.Loader = StageStuck, stuck
	base.Note = fmt.Sprintf("%s was loaded and asked for nothing within %s; the next loader is tried", stuck, LoaderTimeout)
	s.cfg.Log.Warn("loader came to nothing", "mac", base.MAC, "loader", stuck)
	s.cfg.Fleet.Sighted(ctx, base)
}

// facts joins what the packet, the fleet and the memory say.
func (s *Server) facts(r dhcp.Request, a Assignment) Facts {
	f := Facts{
		Arch: Arch(r.Arch), HTTP: r.HTTP, IPXE: r.IPXE,
		Known: a.Known, SecureBoot: a.SecureBoot, Run: a.Run, Worked: a.Loader,
	}
	s.tracks.with(MAC(r.MAC), func(k *track) {
		f.Failed, f.Blind = slices.Clone(k.failed), k.blind
		if k.worked != LoaderNone {
			f.Worked = k.worked
		}
	})
	if slices.Contains(f.Failed, f.Worked) {
		f.Worked = LoaderNone
	}
	return f
}

// fileFor names a loader as the machine asks for it: below a folder that is its MAC, so that every later request
// beside it tells the machine.
func (s *Server) fileFor(l Loader, r dhcp.Request) string {
	p := script.Params{Server: netip.AddrPortFrom(r.Local, s.cfg.HTTPPort), MAC: MAC(r.MAC).String()}
	if l == LoaderScript {
		platform := platformBIOS
		if Arch(r.Arch) != ArchBIOS {
			platform = platformEFI
		}
		return p.Base() + pathScript + "?mac=" + p.MAC + "&platform=" + platform
	}
	file := loaderFile[l]
	switch {
	case file == "":
		return ""
	case r.HTTP:
		return p.Base() + "/" + p.Dir() + "/" + file
	}
	return p.Dir() + "/" + file
}

// fetched notes that a machine has all of a loader's file, if the name is one that starts a loader.
func (s *Server) fetched(ctx context.Context, mac MAC, addr netip.Addr, file string) {
	for l, name := range loaderFile {
		if name != file {
			continue
		}
		now := s.cfg.Now()
		s.tracks.with(mac, func(k *track) { k.fetched(l, now) })
		s.cfg.Fleet.Sighted(ctx, Sighting{At: now, Stage: StageLoader, MAC: mac, UUID: s.uuid(mac), Addr: addr, Loader: l})
	}
}

func (s *Server) uuid(mac MAC) (u string) {
	s.tracks.with(mac, func(k *track) { u = k.uuid })
	return u
}

// machineOf tells which machine asks: by the folder in the path, which the boot file named, else by its address.
func (s *Server) machineOf(path string, addr netip.Addr) (MAC, bool) {
	dir, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if len(dir) == 12 {
		var b strings.Builder
		for i := 0; i < 12; i += 2 {
			b.WriteString(dir[i:i+2] + ":")
		}
		if m, err := ParseMAC(strings.TrimSuffix(b.String(), ":")); err == nil {
			return m, true
		}
	}
	return s.tracks.mac(addr)
}

// params are a script's for the appliance's address local.
func (s *Server) params(local netip.Addr) (script.Params, error) {
	if !local.Is4() || local.IsUnspecified() {
		local = s.cfg.Addr
	}
	if !local.Is4() {
		return script.Params{}, errors.New("cannot tell the appliance's address to the machine; give one to `seedbed serve`")
	}
	p := script.Params{Server: netip.AddrPortFrom(local, s.cfg.HTTPPort), KernelArgs: s.cfg.KernelArgs}
	if s.cfg.Others != nil {
		p.Others = s.cfg.Others()
	}
	return p, nil
}
