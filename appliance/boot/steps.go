package boot

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"seedbed/appliance/bootdoctor"
	"seedbed/appliance/dhcp"
	"seedbed/appliance/job"
)

const (
	// maxDiaries bounds the machines whose steps are kept, those seen longest ago are forgotten; maxSteps those of one boot. Some 25 KB
	// of a machine at most, 3 KB usually.
	maxDiaries = 4096
	maxSteps   = 48
	// nextBoot separates two boots of a machine whose first came no further than packets: firmware repeats these for a minute at most.
	nextBoot = 2 * time.Minute
	// maxNote bounds what a step says, and the name of a file, in bytes.
	maxNote = 300
)

// diary is the dated steps of the machines' present and last boots. Safe for concurrent use. It is lost with the process: others keep
// what changed in it, see Server.ChangedBoots.
type diary struct {
	mu    sync.Mutex // guards pages
	pages map[MAC]*pages
}

// pages are of one machine.
type pages struct {
	now, last bootdoctor.Boot
	http      bool // the firmware's last question was for a boot from HTTP
	// fresh and freshLast say that now, and last, changed since somebody asked for what did.
	fresh, freshLast bool
}

func newDiary() *diary { return &diary{pages: make(map[MAC]*pages)} }

// Steps returns the present and the last boot of a machine as this appliance saw them; empty where it saw none.
func (s *Server) Steps(mac MAC) (now, last bootdoctor.Boot) {
	s.diary.mu.Lock()
	defer s.diary.mu.Unlock()
	p := s.diary.pages[mac]
	if p == nil {
		return now, last
	}
	now, last = p.now, p.last
	now.Steps, last.Steps = slices.Clone(now.Steps), slices.Clone(last.Steps)
	return now, last
}

// of returns the pages of a machine, which are made if they are missing. The lock is held.
func (d *diary) of(mac MAC) *pages {
	p := d.pages[mac]
	if p == nil {
		d.makeRoom()
		p = &pages{now: bootdoctor.Boot{MAC: mac.String()}}
		d.pages[mac] = p
	}
	return p
}

// makeRoom forgets the older half when the diary is full. The lock is held.
func (d *diary) makeRoom() {
	if len(d.pages) < maxDiaries {
		return
	}
	seen := make([]time.Time, 0, len(d.pages))
	for _, p := range d.pages {
		seen = append(seen, p.now.Latest())
	}
	slices.SortFunc(seen, time.Time.Compare)
	limit := seen[len(seen)/2]
	for mac, p := range d.pages {
		if !p.now.Latest().After(limit) {
			delete(d.pages, mac)
		}
	}
}

// packet enters a DHCP packet; a is what it is answered, reason why with nothing.
func (d *diary) packet(r dhcp.Request, l Loader, reason string, now time.Time) {
	step := bootdoctor.Step{At: now, Kind: bootdoctor.DHCP, By: bootdoctor.ByFirmware, Loader: string(l)}
	switch {
	case r.Agent:
		step.Kind, step.Loader = bootdoctor.AgentDHCP, ""
	case r.Told:
		step.Kind, step.Note = bootdoctor.Address, r.Addr.String()
		if !r.Addr.IsValid() {
			return // an INFORM without one
		}
	case r.Port == dhcp.PortProxy:
		step.Kind = bootdoctor.Proxy
	}
	if r.IPXE {
		step.By = bootdoctor.ByIPXE
	}
	if r.Agent {
		step.By = bootdoctor.ByAgent
	}
	if step.Kind == bootdoctor.DHCP && l == LoaderNone {
		step.Note = reason
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.of(MAC(r.MAC))
	if step.Kind == bootdoctor.DHCP && p.begins(step, r.HTTP) {
		p.last, p.now = p.now, bootdoctor.Boot{MAC: MAC(r.MAC).String(), Began: now}
		p.fresh, p.freshLast = false, p.fresh
	}
	if len(p.now.Steps) == 0 && r.Agent {
		return // an agent of a boot that another appliance served
	}
	if !r.Agent {
		if p.now.Firmware == "" || !r.IPXE {
			p.now.Firmware, p.now.UEFI = Arch(r.Arch).String(), Arch(r.Arch).UEFI()
		}
		if !r.IPXE {
			p.http = r.HTTP
			p.now.HTTPBoot = r.HTTP
		}
	}
	if r.Addr.IsValid() && step.Kind != bootdoctor.DHCP {
		p.now.Addr = r.Addr.String()
	}
	p.enter(step)
}

// begins reports whether a DISCOVER begins another boot. Firmware that goes on to its next boot entry asks of another kind: that is the
// same boot; iPXE asks after it was loaded.
func (p *pages) begins(s bootdoctor.Step, http bool) bool {
	if len(p.now.Steps) == 0 {
		return true
	}
	if s.At.Sub(p.now.Latest()).Abs() > nextBoot { // or the clock was set back
		return true
	}
	if s.By == bootdoctor.ByIPXE {
		return p.has(bootdoctor.Kernel, bootdoctor.Local, bootdoctor.NoDisk, bootdoctor.AgentDHCP)
	}
	beyond := p.has(bootdoctor.TFTP, bootdoctor.HTTP, bootdoctor.Script, bootdoctor.Kernel, bootdoctor.Local, bootdoctor.NoDisk, bootdoctor.AgentDHCP)
	return beyond && (p.http == http || p.has(bootdoctor.Script))
}

func (p *pages) has(kinds ...bootdoctor.Kind) bool {
	return slices.ContainsFunc(p.now.Steps, func(s bootdoctor.Step) bool { return slices.Contains(kinds, s.Kind) })
}

// enter adds a step, or counts it where it is one that came before; it returns its place. One more than may be is not kept: -1.
func (p *pages) enter(s bootdoctor.Step) int {
	if p.now.Began.IsZero() {
		p.now.Began = s.At
	}
	p.fresh = true
	s.Count, s.Last = 1, s.At
	s.File, s.Note = cutText(s.File), cutText(s.Note)
	for i := len(p.now.Steps) - 1; i >= 0; i-- {
		old := &p.now.Steps[i]
		if old.Kind == s.Kind && old.By == s.By && old.Loader == s.Loader && old.File == s.File {
			s.At, s.Count = old.At, old.Count+1
			*old = s
			return i
		}
		if s.Kind == bootdoctor.DHCP && old.Kind != bootdoctor.DHCP && old.Kind != bootdoctor.Address && old.Kind != bootdoctor.Proxy {
			break // a question after a download is another step
		}
	}
	if len(p.now.Steps) >= maxSteps {
		return -1
	}
	p.now.Steps = append(p.now.Steps, s)
	return len(p.now.Steps) - 1
}

// note enters a step of a machine that was seen in a packet, or is seen now.
func (s *Server) note(mac MAC, step bootdoctor.Step) {
	step.At = s.cfg.Now()
	s.diary.mu.Lock()
	defer s.diary.mu.Unlock()
	s.diary.of(mac).enter(step)
}

// transfer enters a transfer that begins, and returns what enters its end. length is that of the file.
func (s *Server) transfer(mac MAC, step bootdoctor.Step) (ended func(sent int64, problem error)) {
	begins := s.cfg.Now()
	step.At = begins
	s.diary.mu.Lock()
	boot := s.diary.of(mac).now.Began
	s.diary.of(mac).enter(step)
	s.diary.mu.Unlock()
	return func(sent int64, problem error) {
		s.diary.mu.Lock()
		defer s.diary.mu.Unlock()
		p := s.diary.of(mac)
		if !boot.IsZero() && !p.now.Began.Equal(boot) {
			return // the machine started anew
		}
		step.At, step.Bytes = s.cfg.Now(), sent
		if sent < step.Length {
			step.Problem = bootdoctor.ProblemCut
			if problem != nil {
				step.Note = problem.Error()
			}
		}
		if i := p.enter(step); i >= 0 && p.now.Steps[i].Count > 1 {
			p.now.Steps[i].Count-- // its begin and its end are one
		}
	}
}

// loaderOf returns the loader whose file has a name; LoaderNone if none has.
func loaderOf(name string) Loader {
	for l, file := range loaderFile {
		if file == name {
			return l
		}
	}
	return LoaderNone
}

// byAgent names who asks over HTTP.
func byAgent(r *http.Request) string {
	switch agent := r.UserAgent(); {
	case strings.HasPrefix(agent, "iPXE"):
		return bootdoctor.ByIPXE
	case strings.HasPrefix(agent, "GRUB"):
		return bootdoctor.ByGRUB
	}
	return bootdoctor.ByFirmware
}

// asker tells which machine a request for a file of a boot is of.
func (s *Server) asker(r *http.Request, p string) (MAC, bool) {
	if r.Method != http.MethodGet {
		return MAC{}, false
	}
	return s.machineOf(p, client(r))
}

// cutText bounds what came from outside and leaves out what cannot be printed.
func cutText(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return -1
		}
		return r
	}, text)
	if len(text) > maxNote {
		text = strings.ToValidUTF8(text[:maxNote], "")
	}
	return text
}

// serveTrouble takes down why a machine's agent cannot say hello, which it tells by the port that it booted from. Only a machine whose
// boot token was fetched in this boot is heard.
func (s *Server) serveTrouble(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	mac, err := ParseMAC(q.Get("mac"))
	notes := map[string]string{
		job.TroubleUnreachable: "its agent runs and does not reach the appliance by HTTPS",
		job.TroubleCertificate: "its agent runs and does not trust what answers it by HTTPS",
		job.TroubleRefused:     "its agent runs and the appliance refuses its boot",
	}
	note := notes[q.Get("code")]
	if err != nil || note == "" || r.Method != http.MethodGet {
		http.Error(w, "only an agent says here, as GET, why it cannot say hello", http.StatusBadRequest)
		return
	}
	if !s.hasToken(mac, client(r)) {
		http.Error(w, "no boot of this machine is known here", http.StatusForbidden)
		return
	}
	s.note(mac, bootdoctor.Step{Kind: bootdoctor.Trouble, By: bootdoctor.ByAgent, Problem: q.Get("code"), Note: q.Get("text")})
	if !s.troubled(mac) {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	s.cfg.Fleet.Sighted(r.Context(), Sighting{At: s.cfg.Now(), Stage: StageStuck, MAC: mac, UUID: s.uuid(mac), Addr: client(r), Note: note})
	w.WriteHeader(http.StatusNoContent)
}

// troubleEvery is how often a machine's trouble becomes an event: whoever sees its packets can say it in its name.
const troubleEvery = 30 * time.Second

// troubled reports whether a word about a machine's trouble is passed on: not where one was just now.
func (s *Server) troubled(mac MAC) (tell bool) {
	now := s.cfg.Now()
	s.tracks.with(mac, func(k *track) {
		if tell = now.Sub(k.troubled) >= troubleEvery; tell {
			k.troubled = now
		}
	})
	return tell
}

// hasToken reports whether a machine at an address has fetched its boot token in this boot. The agent may have another address than
// its loader: where that is another machine's it is not heard.
func (s *Server) hasToken(mac MAC, addr netip.Addr) (has bool) {
	if other, known := s.tracks.mac(addr); known && other != mac {
		return false
	}
	s.tracks.with(mac, func(k *track) { has = k.token != nil })
	return has
}
