// Package storm switches on a room of simulated machines at once: firmware that boots by PXE, the loaders behind it, and the
// network between them and a server. What they do on the wire is real: DHCP with a DHCP server that gives addresses, a proxy that
// names files, TFTP, HTTP over TCP. What they load is thrown away once it was checked.
package storm

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Config says what storm there is.
type Config struct {
	Clients int
	// Switches is among how many network namespaces the clients are spread; 0 is one for each 50.
	Switches int
	// Loss is the share of packets that the server's link loses in each direction, from 0 to below 1. A packet is what the kernel hands
	// over: up to 64 KiB of TCP at once.
	Loss float64
	// Spread is within which time the clients are switched on; 0 is all at once.
	Spread time.Duration
	// HashEach makes each so-maniest client compute the SHA-256 of its kernel and initramfs; the others count their bytes. What comes by
	// TFTP, scripts and tokens are checked at all of them. 0 and 1 are every client.
	HashEach int
	// Limit is how long the storm may last; 0 is 3 minutes.
	Limit time.Duration
	// Folder receives files, logs and the data of servers. It must exist.
	Folder string
}

// Result is what came out.
type Result struct {
	Booted int
	// Lost says why clients did not boot, one line each.
	Lost []string
	// Last is when the last one had booted, Median the middle one; from the first switch on.
	Last, Median time.Duration
	// Phases are the medians of how long clients took for each, in the order of phaseNames.
	Phases [phases]time.Duration
	// Again counts what clients had to repeat.
	Again Repeats
	// Segments are TCP segments that the server sent again, Dropped the datagrams for which its sockets had no room.
	Segments, Dropped int64
	// Bytes came to the clients as files.
	Bytes int64
	// CPU are seconds that the server's processes used; Clients those of the simulated clients. The kernel counts the way through a
	// namespace's end of a cable for whom it happens to interrupt.
	CPU, Clients float64
	// Memory is the sum of what the server's processes held at most, in bytes.
	Memory int64
}

// Rate is clients per second up to the last one.
func (r *Result) Rate() float64 {
	if r.Last <= 0 {
		return 0
	}
	return float64(r.Booted) / r.Last.Seconds()
}

// Repeats count packets and requests that clients sent again since no answer came.
type Repeats struct{ DHCP, TFTP, HTTP int64 }

func (a *Repeats) add(b Repeats) { a.DHCP += b.DHCP; a.TFTP += b.TFTP; a.HTTP += b.HTTP }

// The phases of a client's way.
const (
	phaseDHCP   = iota // all exchanges, those of loaders too
	phaseTFTP          // all files by TFTP
	phaseScript        // the machine's script over HTTP
	phaseFiles         // kernel, initramfs and token
	phases
)

// PhaseNames are the phases for people.
var PhaseNames = [phases]string{"DHCP", "TFTP", "script", "kernel, initramfs"}

// Files are what the clients load, by their name in a boot directory, with contents that nothing compresses.
type Files struct {
	Folder string
	sums   map[string][sha256.Size]byte
	sizes  map[string]int64
}

// Sizes of the files as Debian 13 has them, and of an initramfs with the drivers of common machines. Bytes.
var realSizes = map[string]int64{
	"shimx64.efi": 1_036_152, "grubx64.efi": 2_344_384, "snponly.efi": 284_672, "ipxe.efi": 996_864, "undionly.kpxe": 108_847,
	"vmlinuz": 12_171_200, "initramfs.cpio.zst": 11_650_068,
}

// MakeFiles makes the files in a folder, each a shrink-th of its real size.
func MakeFiles(folder string, shrink int64) (*Files, error) {
	f := &Files{Folder: folder, sums: map[string][sha256.Size]byte{}, sizes: map[string]int64{}}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	for name, size := range realSizes {
		size = max(size/shrink&^3, 4)
		content := make([]byte, size)
		noise := rand.NewChaCha8(sha256.Sum256([]byte(name)))
		noise.Read(content)
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o644); err != nil {
			return nil, err
		}
		f.sums[name], f.sizes[name] = sha256.Sum256(content), size
	}
	return f, nil
}

// Run boots the clients from a server in a network made for it, and returns when each has booted or is lost. Clients that are lost
// are no error; a network or a server that does not start is.
func Run(ctx context.Context, c Config, files *Files, server Server) (result *Result, err error) {
	if c.Switches == 0 {
		c.Switches = (c.Clients + 49) / 50
	}
	if c.Limit == 0 {
		c.Limit = 3 * time.Minute
	}
	if c.Clients < 1 || c.Clients > c.Switches*maxPerSwitch {
		return nil, fmt.Errorf("%d clients: want 1 to %d for each of %d switches", c.Clients, maxPerSwitch, c.Switches)
	}
	n, err := makeNetwork(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	run, err := server.start(ctx, n, files, c.Folder)
	if run != nil {
		defer func() { err = errors.Join(err, run.stop()) }()
	}
	if err != nil {
		return nil, err
	}
	if err := n.lose(ctx, c.Loss); err != nil {
		return nil, err
	}
	return n.storm(ctx, c, files, run)
}

// storm is the storm itself.
func (n *network) storm(all context.Context, c Config, files *Files, run *running) (*Result, error) {
	ctx, cancel := context.WithTimeout(all, c.Limit)
	defer cancel()
	before, err := n.counters(ctx)
	if err != nil {
		return nil, err
	}
	used, err := run.cpu()
	if err != nil {
		return nil, err
	}
	own := ownCPU()
	began := time.Now()
	machines := n.machines(c, files, run.script)
	var work sync.WaitGroup
	for i, m := range machines {
		work.Go(func() {
			timer := time.NewTimer(c.Spread * time.Duration(i) / time.Duration(c.Clients))
			defer timer.Stop()
			select {
			case <-timer.C:
				m.err = m.boot(ctx)
			case <-ctx.Done():
				m.err = ctx.Err()
			}
			m.booted = time.Since(began)
		})
	}
	work.Wait()
	if all.Err() != nil {
		return nil, all.Err()
	}
	r := tally(machines)
	r.Clients = ownCPU() - own
	after, err := n.counters(all)
	if err != nil {
		return nil, err
	}
	r.Segments, r.Dropped = after.resent-before.resent, after.dropped-before.dropped
	if r.CPU, err = run.cpu(); err != nil {
		return nil, err
	}
	r.CPU -= used
	r.Memory, err = run.memory()
	return r, err
}

// tally sums up what became of the machines.
func tally(machines []*machine) *Result {
	r := &Result{}
	var ends []time.Duration
	var took [phases][]time.Duration
	for _, m := range machines {
		r.Again.add(m.again)
		r.Bytes += m.bytes
		if m.err != nil {
			r.Lost = append(r.Lost, fmt.Sprintf("%s: %v", m, m.err))
			continue
		}
		ends = append(ends, m.booted)
		for i := range took {
			took[i] = append(took[i], m.took[i])
		}
	}
	if r.Booted = len(ends); r.Booted == 0 {
		return r
	}
	slices.Sort(ends)
	r.Last, r.Median = ends[len(ends)-1], ends[len(ends)/2]
	for i := range took {
		slices.Sort(took[i])
		r.Phases[i] = took[i][len(took[i])/2]
	}
	return r
}
