package boot

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// LoaderTimeout is how long a loader has from its download to its first HTTP request. iPXE that hangs at
	// "initialising devices" (ipxe/ipxe issues 973, 1211, 1479) never makes one.
	LoaderTimeout = 60 * time.Second
	// ExchangeTimeout is how long after a machine's DHCP packet its script may be fetched.
	ExchangeTimeout = 120 * time.Second
	// scriptTimeout is how long after its script a machine may fetch its boot token: the kernel and the initramfs come
	// before it, 40 MB by a loader's TCP in a room that does the same.
	scriptTimeout = 15 * time.Minute
	// maxMachines bounds the memory of the boot path; the machines seen longest ago are forgotten. 16,384 x 0.5 KB.
	maxMachines = 16384
)

// track is what the boot path remembers of one machine. It is lost with the process: Assignment.Loader brings back what
// matters.
type track struct {
	mac  MAC
	uuid string
	arch Arch
	addr netip.Addr // invalid until a packet told it
	seen time.Time  // last DHCP packet

	// pending was fetched at pendingSince and made no HTTP request yet.
	pending      Loader
	pendingSince time.Time
	failed       []Loader
	worked       Loader
	blind        bool // GRUB found no disk that boots

	learnt bool // another appliance heard its exchange, and this one nothing since

	scripted time.Time // last script fetched within ExchangeTimeout of seen
	token    *stash
	troubled time.Time // when its agent's last word about a trouble was passed on
}

// stash is a boot token's file, kept for a repeated request: GRUB asks HEAD before GET.
type stash struct {
	made    time.Time
	archive []byte
}

// tracks is the memory of all machines. Safe for concurrent use.
type tracks struct {
	mu     sync.Mutex // guards all
	byMAC  map[MAC]*track
	byAddr map[netip.Addr]MAC
}

func newTracks() *tracks {
	return &tracks{byMAC: make(map[MAC]*track), byAddr: make(map[netip.Addr]MAC)}
}

// with runs f on the track of mac, which is made where it is missing. f must not block.
func (t *tracks) with(mac MAC, f func(*track)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.byMAC[mac]
	if k == nil {
		t.makeRoom()
		k = &track{mac: mac}
		t.byMAC[mac] = k
	}
	f(k)
}

// makeRoom forgets the older half when the memory is full. The lock is held.
func (t *tracks) makeRoom() {
	if len(t.byMAC) < maxMachines {
		return
	}
	seen := make([]time.Time, 0, len(t.byMAC))
	for _, k := range t.byMAC {
		seen = append(seen, k.seen)
	}
	slices.SortFunc(seen, time.Time.Compare)
	limit := seen[len(seen)/2]
	for mac, k := range t.byMAC {
		if !k.seen.After(limit) {
			delete(t.byMAC, mac)
			if t.byAddr[k.addr] == mac {
				delete(t.byAddr, k.addr)
			}
		}
	}
}

// packet notes a DHCP packet. asks is true for a DISCOVER, which begins a new boot stage. The address in a DISCOVER is a
// wish: another machine may have it now.
func (t *tracks) packet(mac MAC, uuid string, arch Arch, addr netip.Addr, asks bool, now time.Time) {
	if asks {
		addr = netip.Addr{}
	}
	t.with(mac, func(k *track) {
		k.seen, k.arch, k.learnt = now, arch, false
		if uuid != "" {
			k.uuid = uuid
		}
		if asks {
			k.token, k.scripted = nil, time.Time{}
		}
		if addr.IsValid() {
			t.address(k, addr)
		}
	})
}

// address notes that a machine has an address, and no other one has it any more. The lock is held.
func (t *tracks) address(k *track, addr netip.Addr) {
	if t.byAddr[k.addr] == k.mac {
		delete(t.byAddr, k.addr)
	}
	k.addr = addr
	t.byAddr[addr] = k.mac
}

// mac returns whose address addr was last.
func (t *tracks) mac(addr netip.Addr) (MAC, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, ok := t.byAddr[addr]
	return m, ok
}

// addrOf returns the last address of a machine; invalid if none is known, or if another machine has it now.
func (t *tracks) addrOf(mac MAC) netip.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.byMAC[mac]; k != nil && t.byAddr[k.addr] == mac {
		return k.addr
	}
	return netip.Addr{}
}

// overdue moves a loader that came to nothing to the failed ones and returns it; LoaderNone if there is none.
func (k *track) overdue(now time.Time) Loader {
	if k.pending == LoaderNone || now.Sub(k.pendingSince) < LoaderTimeout {
		return LoaderNone
	}
	stuck := k.pending
	k.pending = LoaderNone
	if !slices.Contains(k.failed, stuck) {
		k.failed = append(k.failed, stuck)
	}
	if k.worked == stuck {
		k.worked = LoaderNone
	}
	return stuck
}

// fetched starts a loader's clock. A repeated download does not set it back: a firmware that refuses the loader and
// asks again every few seconds would never come to an end otherwise.
func (k *track) fetched(l Loader, now time.Time) {
	if k.pending != l {
		k.pending, k.pendingSince = l, now
	}
}

// running notes that a loader made its HTTP request.
func (k *track) running(l Loader) {
	k.pending = LoaderNone
	k.worked = l
	k.failed = slices.DeleteFunc(k.failed, func(f Loader) bool { return f == l })
}
