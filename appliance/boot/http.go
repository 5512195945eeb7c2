package boot

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path"
	"strings"
	"time"

	"seedbed/appliance/bootdoctor"
	script "seedbed/bootloader-configs"
)

// Paths of the HTTP side. Loaders and start scripts are found by name below any folder.
const (
	pathScript    = "/boot.ipxe"        // ?mac=&platform=; without mac the start script
	pathGRUB      = "/grub/machine.cfg" // ?mac=&secure=
	pathNoDisk    = "/grub/nodisk.cfg"  // ?mac=
	pathKernel    = "/boot/vmlinuz"
	pathInitramfs = "/boot/initramfs"
	pathToken     = "/boot/token"   // ?mac=
	pathTrouble   = "/boot/trouble" // ?mac=&code=&text=; an agent that cannot say hello
	pathAnnounce  = "/announce"     // of open swarms
	pathTorrents  = "/torrents"     // below it
)

// What is asked for over HTTP, beside the names of loaders' files.
const (
	AskedScript    = "script"
	AskedKernel    = "kernel"
	AskedInitramfs = "initramfs"
	AskedToken     = "token"
	AskedTorrent   = "torrent" // or the tracker of open swarms
)

// askedFor names what is behind a path.
func askedFor(p string) string {
	switch {
	case p == pathScript, p == pathGRUB, p == pathNoDisk:
		return AskedScript
	case p == pathKernel:
		return AskedKernel
	case p == pathInitramfs:
		return AskedInitramfs
	case p == pathToken:
		return AskedToken
	case p == pathAnnounce, path.Dir(p) == pathTorrents:
		return AskedTorrent
	}
	return path.Base(p)
}

// Values of platform, as iPXE has them in ${platform}.
const (
	platformBIOS = "pcbios"
	platformEFI  = "efi"
)

// Handler serves scripts, loaders, kernel and initramfs over plain HTTP. It does its own routing: loaders write paths
// with double slashes and do not follow the redirect that http.ServeMux answers to these.
func (s *Server) Handler() http.Handler {
	return s.grubConnections(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		s.cfg.Log.Debug("boot file asked for", "client", r.RemoteAddr, "method", r.Method, "url", r.URL.String(), "agent", r.UserAgent())
		p := path.Clean("/" + r.URL.Path)
		if s.mustWait(w, r, p) {
			return
		}
		if s.cfg.Open != nil && (p == pathAnnounce || path.Dir(p) == pathTorrents) {
			s.cfg.Open.ServeHTTP(w, r)
			return
		}
		switch p {
		case pathScript:
			s.serveIPXE(w, r)
		case pathGRUB:
			s.serveGRUB(w, r)
		case pathNoDisk:
			s.serveNoDisk(w, r)
		case pathKernel:
			s.serveKernel(w, r)
		case pathInitramfs:
			s.serveFile(w, r, fileInitramfs, bootdoctor.Initramfs)
		case pathToken:
			s.serveToken(w, r)
		case pathTrouble:
			s.serveTrouble(w, r)
		default:
			s.serveNamed(w, r, p)
		}
	}))
}

// mustWait answers a client that asks too often; loaders ask again after a while.
func (s *Server) mustWait(w http.ResponseWriter, r *http.Request, p string) bool {
	if s.cfg.Asked == nil {
		return false
	}
	wait := s.cfg.Asked(client(r), askedFor(p))
	if wait <= 0 {
		return false
	}
	w.Header().Set("Retry-After", fmt.Sprint(int(wait/time.Second)+1))
	http.Error(w, "too many requests from this address; try again in a moment", http.StatusTooManyRequests)
	return true
}

// client is the machine's address.
func client(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

// local is the appliance's address that the request came to.
func local(r *http.Request) netip.Addr {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if ap, err := netip.ParseAddrPort(a.String()); err == nil {
			return ap.Addr().Unmap()
		}
	}
	return netip.Addr{}
}

// serveNamed serves loaders and start scripts, at any path.
func (s *Server) serveNamed(w http.ResponseWriter, r *http.Request, p string) {
	name := path.Base(p)
	if n, ok := startScript(name); ok {
		s.render(w, r, n, Assignment{}, MAC{}, false)
		return
	}
	b, ok := s.cfg.Files.loaders[name]
	mac, known := s.asker(r, p)
	step := bootdoctor.Step{Kind: bootdoctor.HTTP, By: byAgent(r), File: strings.TrimPrefix(p, "/"), Loader: string(loaderOf(name)), Length: int64(len(b))}
	if !ok {
		if known {
			step.Problem = bootdoctor.ProblemMissing
			s.note(mac, step)
		}
		http.NotFound(w, r)
		return
	}
	ended := func(int64, error) {}
	if known {
		ended = s.transfer(mac, step)
	}
	counted := &counter{ResponseWriter: w}
	http.ServeContent(counted, r, "", time.Time{}, bytes.NewReader(b))
	if ended(counted.n, nil); known && counted.n == int64(len(b)) {
		s.fetched(r.Context(), mac, client(r), name)
	}
}

// counter counts the bytes of a body that were written.
type counter struct {
	http.ResponseWriter
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.n += int64(n)
	return n, err
}

// ReadFrom lets the kernel send a file by itself where the connection can.
func (c *counter) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(c.ResponseWriter, r)
	c.n += n
	return n, err
}

// serveIPXE answers the script of one machine, or the start script to whoever does not say which machine it is.
func (s *Server) serveIPXE(w http.ResponseWriter, r *http.Request) {
	mac, err := ParseMAC(r.URL.Query().Get("mac"))
	if err != nil {
		s.render(w, r, script.IPXEStart, Assignment{}, MAC{}, false)
		return
	}
	a := s.scripted(r, mac, LoaderScript)
	name := script.IPXELocal
	if a.Run == RunAgent {
		name = script.IPXEAgent
	}
	s.render(w, r, name, a, mac, r.URL.Query().Get("platform") == platformEFI)
}

// serveGRUB answers GRUB's script of one machine. Without Secure Boot iPXE takes over, unless it came to nothing on
// this machine before.
func (s *Server) serveGRUB(w http.ResponseWriter, r *http.Request) {
	mac, err := ParseMAC(r.URL.Query().Get("mac"))
	if err != nil {
		http.Error(w, "which machine? give ?mac=52:54:00:77:00:10", http.StatusBadRequest)
		return
	}
	chained := false
	s.tracks.with(mac, func(k *track) {
		k.overdue(s.cfg.Now())
		for _, l := range k.failed {
			chained = chained || l == LoaderSNPOnly
		}
	})
	a := s.scripted(r, mac, LoaderShim)
	name := script.GRUBLocal
	if a.Run == RunAgent {
		name = script.GRUBChain
		if r.URL.Query().Get("secure") != "off" || chained {
			name = script.GRUBAgent
		}
	}
	s.render(w, r, name, a, mac, true)
}

// serveNoDisk hears from GRUB that it finds no disk to boot, and answers an empty script.
//
// Firmware that starts the network first may leave its disks unconnected ("fast boot"), and signed GRUB cannot connect
// them. The next time the machine is for its own disk its firmware gets no answer and goes on by its own order.
func (s *Server) serveNoDisk(w http.ResponseWriter, r *http.Request) {
	mac, err := ParseMAC(r.URL.Query().Get("mac"))
	if err != nil {
		http.Error(w, "which machine? give ?mac=52:54:00:77:00:10", http.StatusBadRequest)
		return
	}
	s.tracks.with(mac, func(k *track) { k.blind = true })
	s.note(mac, bootdoctor.Step{Kind: bootdoctor.NoDisk, By: bootdoctor.ByGRUB})
	s.cfg.Fleet.Sighted(r.Context(), Sighting{
		At: s.cfg.Now(), Stage: StageStuck, MAC: mac, UUID: s.uuid(mac), Addr: client(r), Loader: LoaderShim,
		Note: "GRUB finds no disk that boots; the firmware's own boot order is used the next time",
	})
	w.WriteHeader(http.StatusOK)
}

// scripted notes that a machine's loader runs and returns what the machine is for.
func (s *Server) scripted(r *http.Request, mac MAC, l Loader) Assignment {
	now, addr := s.cfg.Now(), client(r)
	var uuid string
	s.tracks.with(mac, func(k *track) {
		uuid = k.uuid
		if l == LoaderScript && k.pending != LoaderNone {
			l = k.pending // iPXE that was loaded; without it iPXE was in the card
		}
		if l != LoaderScript && r.Method == http.MethodGet {
			k.running(l)
		}
		if now.Sub(k.seen) <= ExchangeTimeout && (!k.addr.IsValid() || k.addr == addr) {
			k.scripted = now
			s.tracks.address(k, addr)
		}
	})
	a, err := s.cfg.Fleet.NextBoot(r.Context(), mac, uuid)
	if err != nil {
		s.cfg.Log.Warn("a machine boots its own disk: the fleet has no answer", "mac", mac, "err", err)
		a = Assignment{Run: RunLocal}
	}
	if r.Method != http.MethodGet {
		return a
	}
	seen := Sighting{At: now, Stage: StageScript, MAC: mac, UUID: uuid, Addr: addr, Loader: l}
	s.cfg.Fleet.Sighted(r.Context(), seen)
	s.note(mac, bootdoctor.Step{Kind: bootdoctor.Script, By: byAgent(r), Loader: string(l)})
	if a.Run != RunAgent {
		s.note(mac, bootdoctor.Step{Kind: bootdoctor.Local})
		seen.Stage = StageLocal
		s.cfg.Fleet.Sighted(r.Context(), seen)
	}
	return a
}

// render writes one script.
func (s *Server) render(w http.ResponseWriter, r *http.Request, n script.Name, a Assignment, mac MAC, uefi bool) {
	p, err := s.params(local(r))
	if err == nil && mac != (MAC{}) {
		p.MAC, p.UEFI = mac.String(), uefi
		p.BIOSDrive, p.ESPVolumeID, p.ESPPartition = a.BIOSDrive, a.ESPVolumeID, a.ESPPartition
	}
	var text string
	if err == nil {
		text, err = script.Render(n, p)
	}
	if err != nil && (p.BIOSDrive != 0 || p.ESPVolumeID != "" || p.ESPPartition != "") {
		// What is known of the disk is wrong: any disk is better than none.
		s.cfg.Log.Error("the machine's disk cannot be named in its script", "mac", mac, "script", n, "err", err)
		p.BIOSDrive, p.ESPVolumeID, p.ESPPartition = 0, "", ""
		text, err = script.Render(n, p)
	}
	if err != nil {
		s.cfg.Log.Error("script not rendered", "mac", mac, "script", n, "err", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
}

func (s *Server) serveKernel(w http.ResponseWriter, r *http.Request) {
	if mac, ok := s.tracks.mac(client(r)); ok && r.Method == http.MethodGet {
		s.cfg.Fleet.Sighted(r.Context(), Sighting{
			At: s.cfg.Now(), Stage: StageKernel, MAC: mac, UUID: s.uuid(mac), Addr: client(r),
		})
	}
	s.serveFile(w, r, fileKernel, bootdoctor.Kernel)
}

// serveFile serves a file of the boot directory.
func (s *Server) serveFile(w http.ResponseWriter, r *http.Request, name string, kind bootdoctor.Kind) {
	f, err := s.cfg.Files.open(name)
	if err != nil {
		s.cfg.Log.Error("boot file not served", "file", name, "err", err)
		http.Error(w, fmt.Sprintf("the appliance cannot read %s", name), http.StatusInternalServerError)
		return
	}
	defer f.Close()
	content, err := aligned(f, name)
	if err != nil {
		s.cfg.Log.Error("boot file not served", "file", name, "err", err)
		http.Error(w, fmt.Sprintf("the appliance cannot read %s", name), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	length, err := content.Seek(0, io.SeekEnd)
	mac, known := s.asker(r, "")
	if err != nil || !known {
		http.ServeContent(w, r, "", time.Time{}, content)
		return
	}
	ended := s.transfer(mac, bootdoctor.Step{Kind: kind, By: byAgent(r), File: name, Length: length})
	counted := &counter{ResponseWriter: w}
	http.ServeContent(counted, r, "", time.Time{}, content)
	ended(counted.n, nil)
}

// serveToken serves the second initrd to the machine that it is for.
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	mac, err := ParseMAC(r.URL.Query().Get("mac"))
	if err != nil {
		http.Error(w, "which machine? give ?mac=52:54:00:77:00:10", http.StatusBadRequest)
		return
	}
	archive, err := s.token(r.Context(), mac, client(r), local(r))
	step := bootdoctor.Step{Kind: bootdoctor.Token, By: byAgent(r), Bytes: int64(len(archive)), Length: int64(len(archive))}
	if err != nil {
		step.Problem, step.Note = bootdoctor.ProblemRefused, err.Error()
		s.note(mac, step)
		s.cfg.Log.Warn("boot token refused", "mac", mac, "addr", client(r), "err", err)
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	s.note(mac, step)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(archive))
}

// token returns the second initrd of a machine whose DHCP exchange, or whose script soon after it, is recent enough and
// of the same address. A repeated request of the same boot gets the same one: GRUB asks HEAD before GET, and a download
// may be cut.
func (s *Server) token(ctx context.Context, mac MAC, addr, local netip.Addr) ([]byte, error) {
	now := s.cfg.Now()
	var allowed bool
	var held []byte
	s.tracks.with(mac, func(k *track) {
		allowed = k.addr == addr && (now.Sub(k.seen) <= ExchangeTimeout || now.Sub(k.scripted) <= scriptTimeout)
		k.pending = LoaderNone // somebody boots the agent: GRUB goes on itself where iPXE does not start
		if k.token != nil {
			held = k.token.archive
		}
	})
	if !allowed {
		return nil, fmt.Errorf("no DHCP exchange of %s at %s within the last %s; start the machine again", mac, addr, ExchangeTimeout)
	}
	if a, err := s.cfg.Fleet.NextBoot(ctx, mac, s.uuid(mac)); err != nil {
		return nil, err
	} else if a.Run != RunAgent {
		// Its job ended since its script was made, or GRUB goes on after iPXE found no disk.
		return nil, fmt.Errorf("%s has no job any more and boots its own disk", mac)
	}
	if held != nil {
		return held, nil
	}
	// A loader that asks again while the records are slow gets the token that is being made: a second one would take its
	// place, and the machine might be holding the first.
	archive, err, _ := s.minting.Do(mac.String(), func() (any, error) {
		b, err := s.cfg.Fleet.BootToken(ctx, mac, addr)
		if err != nil {
			return nil, err
		}
		if p, err := s.params(local); err == nil {
			b.Trouble = p.Base() + pathTrouble
		}
		archive, err := tokenArchive(b)
		if err != nil {
			return nil, err
		}
		s.tracks.with(mac, func(k *track) { k.token = &stash{now, archive} })
		return archive, nil
	})
	if err != nil {
		return nil, err
	}
	return archive.([]byte), nil
}
