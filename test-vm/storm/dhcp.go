package storm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"
)

// air is what the clients of a room hear on port 68 before they have an address. Safe for concurrent use.
type air struct {
	socket *socket
	mu     sync.Mutex // guards waiting
	// waiting are who expects answers, by transaction; answers that find no room are lost.
	waiting map[dhcpv4.TransactionID]chan *dhcpv4.DHCPv4
	done    chan struct{}
}

// airBuffer is the receive buffer in bytes: each NIC of a room would have its own.
const airBuffer = 8 << 20

func (r *room) openAir() (*air, error) {
	s, err := r.open(unix.SOCK_DGRAM, netip.AddrPortFrom(netip.IPv4Unspecified(), dhcpv4.ClientPort),
		func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) },
		func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1) },
		func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, airBuffer) },
		func(fd int) error { return unix.BindToDevice(fd, nic) })
	if err != nil {
		return nil, err
	}
	a := &air{socket: s, waiting: map[dhcpv4.TransactionID]chan *dhcpv4.DHCPv4{}, done: make(chan struct{})}
	go a.listen()
	return a, nil
}

// listen gives each answer to who asked. Those for the clients of other rooms pass by.
func (a *air) listen() {
	defer close(a.done)
	buf := make([]byte, 2048)
	for {
		n, _, err := a.socket.receive(buf, 0)
		if err != nil {
			return
		}
		if n < 8 || buf[0] != byte(dhcpv4.OpcodeBootReply) {
			continue
		}
		a.mu.Lock()
		to := a.waiting[dhcpv4.TransactionID(buf[4:8])]
		a.mu.Unlock()
		if to == nil {
			continue
		}
		if m, err := dhcpv4.FromBytes(append([]byte(nil), buf[:n]...)); err == nil {
			select {
			case to <- m:
			default:
			}
		}
	}
}

func (a *air) close() {
	a.socket.close()
	<-a.done
}

// hear subscribes to the answers of a transaction.
func (a *air) hear(x dhcpv4.TransactionID) (answers <-chan *dhcpv4.DHCPv4, end func()) {
	c := make(chan *dhcpv4.DHCPv4, 16)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting[x] = c
	return c, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.waiting, x)
	}
}

// asker is a program that asks for an address and for what to boot.
type asker struct {
	class string
	arch  uint16
	ipxe  bool
	// waits are how long each attempt waits for answers.
	waits []time.Duration
}

// Time-outs: firmware doubles 4 s (RFC 2131 §4.1, PXE 2.1 §2.2.1), iPXE begins with 1 s (its config/dhcp.h).
var (
	firmwareWaits = []time.Duration{4 * time.Second, 8 * time.Second, 16 * time.Second, 32 * time.Second}
	ipxeWaits     = []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second, 10 * time.Second}
)

var (
	biosFirmware = asker{"PXEClient:Arch:00000:UNDI:002001", 0, false, firmwareWaits}
	uefiFirmware = asker{"PXEClient:Arch:00007:UNDI:003001", 7, false, firmwareWaits}
	biosIPXE     = asker{"PXEClient:Arch:00000:UNDI:002001", 0, true, ipxeWaits}
)

// lease is what an exchange comes to.
type lease struct {
	addr netip.Addr
	file string     // path or URL
	from netip.Addr // server of the file
}

// exchange gets an address from the DHCP server and a file from the proxy.
func (m *machine) exchange(ctx context.Context, a asker) (l lease, err error) {
	began := time.Now()
	defer func() { m.took[phaseDHCP] += time.Since(began) }()
	for range 3 { // a server may change its mind
		var given, proxy *dhcpv4.DHCPv4
		if given, proxy, err = m.discover(ctx, a); err != nil {
			return l, err
		}
		if l.addr, err = m.request(ctx, a, given); errors.Is(err, errRefused) {
			m.again.DHCP++
			continue
		}
		if err != nil {
			return l, err
		}
		return m.fileOf(ctx, a, l, proxy)
	}
	return l, err
}

var errRefused = errors.New("the DHCP server refused the address that it offered")

// discover asks until both an address and the proxy's word were offered.
func (m *machine) discover(ctx context.Context, a asker) (given, proxy *dhcpv4.DHCPv4, err error) {
	d := m.packet(a, dhcpv4.MessageTypeDiscover)
	err = m.ask(ctx, a, d, func(answer *dhcpv4.DHCPv4) bool {
		if answer.MessageType() != dhcpv4.MessageTypeOffer {
			return false
		}
		if !answer.YourIPAddr.IsUnspecified() {
			given = answer
		} else if answer.ClassIdentifier() == "PXEClient" {
			proxy = answer
		}
		return given != nil && proxy != nil
	})
	if err != nil {
		err = fmt.Errorf("DISCOVER (an address was offered: %t, a file: %t): %w", given != nil, proxy != nil, err)
	}
	return given, proxy, err
}

// request takes the address that was offered.
func (m *machine) request(ctx context.Context, a asker, offer *dhcpv4.DHCPv4) (addr netip.Addr, err error) {
	q := m.packet(a, dhcpv4.MessageTypeRequest)
	q.TransactionID = offer.TransactionID
	q.UpdateOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr))
	q.UpdateOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier()))
	refused := false
	err = m.ask(ctx, a, q, func(answer *dhcpv4.DHCPv4) bool {
		switch answer.MessageType() {
		case dhcpv4.MessageTypeAck:
			addr, _ = netip.AddrFromSlice(answer.YourIPAddr.To4())
			return addr.IsValid() && !addr.IsUnspecified()
		case dhcpv4.MessageTypeNak:
			refused = true
			return true
		}
		return false
	})
	if refused {
		return addr, errRefused
	}
	if err != nil {
		err = fmt.Errorf("REQUEST: %w", err)
	}
	return addr, err
}

// ask broadcasts a question until take is content with an answer.
func (m *machine) ask(ctx context.Context, a asker, q *dhcpv4.DHCPv4, take func(*dhcpv4.DHCPv4) bool) error {
	answers, end := m.room.air.hear(q.TransactionID)
	defer end()
	began := time.Now()
	for i, wait := range a.waits {
		if i > 0 {
			m.again.DHCP++
		}
		q.NumSeconds = uint16(time.Since(began) / time.Second)
		if err := m.room.air.socket.send(q.ToBytes(), netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), dhcpv4.ServerPort)); err != nil {
			return err
		}
		// Up to a second more or less (RFC 2131 §4.1); iPXE does as much in proportion.
		timer := time.NewTimer(wait + time.Duration((rand.Float64()-0.5)/2*float64(min(wait, 4*time.Second))))
		for waiting := true; waiting; {
			select {
			case answer := <-answers:
				if take(answer) {
					timer.Stop()
					return nil
				}
			case <-timer.C:
				waiting = false
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			}
		}
	}
	return fmt.Errorf("no answer to %d packets", len(a.waits))
}

// fileOf finds out what to load. The offer's file counts where the vendor options say so, or are not there; UEFI firmware then asks
// port 4011 (EDK2, PxeBcDhcp4.c). Where there is a menu its first item is asked for: that is what a prompt of no time comes to.
func (m *machine) fileOf(ctx context.Context, a asker, l lease, proxy *dhcpv4.DHCPv4) (lease, error) {
	l.from, l.file = serverOf(proxy), fileIn(proxy)
	bypass, item := vendorOptions(proxy)
	if l.file != "" && (bypass || item == nil && (a.ipxe || a.arch == 0)) {
		return l, nil
	}
	answer, err := m.askProxy(ctx, a, l, item)
	if err != nil {
		return l, fmt.Errorf("port 4011: %w", err)
	}
	l.from = serverOf(answer)
	if l.file = fileIn(answer); l.file == "" {
		return l, errors.New("port 4011: the answer names no file")
	}
	return l, nil
}

func fileIn(m *dhcpv4.DHCPv4) string {
	if f := m.BootFileNameOption(); f != "" {
		return f
	}
	return m.BootFileName
}

// vendorOptions reads option 43 (PXE 2.1 table 2-1): whether the file of the packet is to be loaded at once, and the boot item of the
// menu's first line, nil if there is no menu.
func vendorOptions(m *dhcpv4.DHCPv4) (bypass bool, item []byte) {
	b := m.GetOneOption(dhcpv4.OptionVendorSpecificInformation)
	for len(b) >= 2 && b[0] != 255 {
		n := int(b[1])
		if len(b) < 2+n {
			return false, nil
		}
		switch value := b[2 : 2+n]; {
		case b[0] == 6 && n == 1:
			bypass = value[0]&8 != 0
		case b[0] == 9 && n >= 3:
			item = []byte{71, 4, value[0], value[1], 0, 0, 255}
		}
		b = b[2+n:]
	}
	return bypass, item
}

func serverOf(m *dhcpv4.DHCPv4) netip.Addr {
	for _, ip := range []net.IP{m.ServerIPAddr, m.ServerIdentifier()} {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok && !a.IsUnspecified() {
			return a
		}
	}
	return netip.Addr{}
}

const portProxy = 4011 // PXE 2.1 §2.2.3

// askProxy asks the proxy from the address that the machine has now, for a boot item unless that is nil.
func (m *machine) askProxy(ctx context.Context, a asker, l lease, item []byte) (*dhcpv4.DHCPv4, error) {
	s, err := m.room.open(unix.SOCK_DGRAM, netip.AddrPortFrom(l.addr, dhcpv4.ClientPort),
		func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	if err != nil {
		return nil, err
	}
	defer s.close()
	q := m.packet(a, dhcpv4.MessageTypeRequest)
	q.ClientIPAddr = l.addr.AsSlice()
	q.SetUnicast()
	if item != nil {
		q.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, item))
	}
	buf := make([]byte, 2048)
	for i, wait := range a.waits {
		if i > 0 {
			m.again.DHCP++
		}
		if err := s.send(q.ToBytes(), netip.AddrPortFrom(l.from, portProxy)); err != nil {
			return nil, err
		}
		s.until(time.Now().Add(wait))
		for ctx.Err() == nil {
			n, _, err := s.receive(buf, 0)
			if err != nil {
				break
			}
			answer, err := dhcpv4.FromBytes(append([]byte(nil), buf[:n]...))
			if err == nil && answer.TransactionID == q.TransactionID && answer.MessageType() == dhcpv4.MessageTypeAck {
				return answer, nil
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return nil, fmt.Errorf("no answer to %d packets", len(a.waits))
}

// packet is what the program broadcasts.
func (m *machine) packet(a asker, kind dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	uuid := append([]byte{0}, m.uuid[:]...)
	p, err := dhcpv4.New(
		dhcpv4.WithHwAddr(m.mac[:]), dhcpv4.WithBroadcast(true), dhcpv4.WithMessageType(kind),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier(a.class)),
		dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(1472)),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{byte(a.arch >> 8), byte(a.arch)})),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientNetworkInterfaceIdentifier, []byte{1, 3, 1})),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, uuid)),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionVendorSpecificInformation, dhcpv4.OptionServerIdentifier,
			dhcpv4.OptionClassIdentifier, dhcpv4.OptionTFTPServerName, dhcpv4.OptionBootfileName, dhcpv4.OptionClientMachineIdentifier),
	)
	if err != nil {
		panic(err) // no random numbers
	}
	if a.ipxe {
		p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte("iPXE")))
		p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(175), []byte{0x13, 1, 1, 0x15, 1, 1})) // HTTP, bzImage
	}
	return p
}
