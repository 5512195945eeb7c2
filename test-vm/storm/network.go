package storm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The addresses of every storm; storms do not see each other. Client j of switch i has 10.76.(16+i).(1+j).
var (
	serverAddr = netip.MustParseAddr("10.76.0.1")
	dhcpAddr   = netip.MustParseAddr("10.76.0.2")
)

const (
	netBits      = 16
	maxPerSwitch = 250
	nic          = "eth0" // the only interface of each namespace
)

// network is a switch, the server's namespace, that of a DHCP server which gives addresses, and those of the clients. A client has no
// namespace of its own, but its own address, which its namespace answers for.
type network struct {
	name    string
	made    []string // namespaces
	dhcp    *process
	rooms   []*room
	clients int
}

// room is the namespace of some clients: one cable to the switch.
type room struct {
	namespace string
	makers    chan func() // run inside the namespace
	air       *air
}

var sequence atomic.Int32

func (n *network) server() string    { return n.name + "-server" }
func (n *network) dhcpNS() string    { return n.name + "-dhcp" }
func (n *network) center() string    { return n.name + "-switch" }
func (n *network) room(i int) string { return fmt.Sprintf("%s-room%d", n.name, i) }

// makeNetwork makes the namespaces and starts the DHCP server. After an error nothing is left.
func makeNetwork(ctx context.Context, c Config) (n *network, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can make network namespaces; run it as root")
	}
	sweep(ctx)
	n = &network{name: fmt.Sprintf("sbstorm%d-%d", os.Getpid(), sequence.Add(1)), clients: c.Clients}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if err := n.namespace(ctx, n.center()); err != nil {
		return nil, err
	}
	// 1,000 neighbours are the kernel's bound for all namespaces together; bridges do not count.
	if err := run(ctx, "ip", "-n", n.center(), "link", "add", "center", "type", "bridge", "forward_delay", "0", "stp_state", "0", "mcast_snooping", "0"); err != nil {
		return nil, err
	}
	if err := run(ctx, "ip", "-n", n.center(), "link", "set", "center", "up"); err != nil {
		return nil, err
	}
	for _, end := range []struct {
		namespace string
		addr      netip.Addr
	}{{n.server(), serverAddr}, {n.dhcpNS(), dhcpAddr}} {
		if err := n.cable(ctx, end.namespace); err != nil {
			return nil, err
		}
		if err := run(ctx, "ip", "-n", end.namespace, "addr", "add", fmt.Sprintf("%s/%d", end.addr, netBits), "brd", "+", "dev", nic); err != nil {
			return nil, err
		}
	}
	for i := range c.Switches {
		if err := n.addRoom(ctx, i); err != nil {
			return nil, err
		}
	}
	n.dhcp, err = startDHCP(ctx, n, c.Folder)
	return n, err
}

// namespace makes one. Its name is kept first: an interrupt may come in the middle.
func (n *network) namespace(ctx context.Context, name string) error {
	n.made = append(n.made, name)
	if err := run(ctx, "ip", "netns", "add", name); err != nil {
		return err
	}
	return run(ctx, "ip", "-n", name, "link", "set", "lo", "up")
}

// cable makes a namespace and joins it to the switch.
func (n *network) cable(ctx context.Context, name string) error {
	if err := n.namespace(ctx, name); err != nil {
		return err
	}
	port := fmt.Sprintf("port%d", len(n.made))
	for _, args := range [][]string{
		{"-n", n.center(), "link", "add", port, "type", "veth", "peer", "name", nic, "netns", name},
		{"-n", n.center(), "link", "set", port, "master", "center", "up"},
		{"-n", name, "link", "set", nic, "up"},
	} {
		if err := run(ctx, "ip", args...); err != nil {
			return err
		}
	}
	return nil
}

// addRoom makes the namespace of some clients. Its interface has no address, as a NIC before its lease; the addresses that the DHCP
// server gives to its clients are local there, and answered for.
func (n *network) addRoom(ctx context.Context, i int) error {
	name := n.room(i)
	if err := n.cable(ctx, name); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"-n", name, "route", "add", fmt.Sprintf("10.76.0.0/%d", netBits), "dev", nic},
		{"-n", name, "route", "add", "local", fmt.Sprintf("10.76.%d.0/24", 16+i), "dev", "lo"},
	} {
		if err := run(ctx, "ip", args...); err != nil {
			return err
		}
	}
	r := &room{namespace: name, makers: make(chan func())}
	entered := make(chan error, 1)
	go r.work(entered)
	if err := <-entered; err != nil {
		return err
	}
	n.rooms = append(n.rooms, r)
	var err error
	r.air, err = r.openAir()
	return err
}

// work runs what is to happen inside the namespace until makers is closed. Its thread ends with it.
func (r *room) work(entered chan<- error) {
	runtime.LockOSThread() // and never unlocked
	f, err := os.Open(filepath.Join("/run/netns", r.namespace))
	if err == nil {
		err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
		f.Close()
	}
	entered <- err
	for make := range r.makers {
		make()
	}
}

// lose makes the server's link lose a share of the packets in both directions.
//
// A classifier of random numbers does it, since the kernel's network emulator is a module that not every kernel has: load
// 32 random bits (linux/filter.h, SKF_AD_OFF + SKF_AD_RANDOM), return TC_ACT_SHOT (linux/pkt_cls.h) below the limit.
func (n *network) lose(ctx context.Context, share float64) error {
	if share <= 0 {
		return nil
	}
	code := fmt.Sprintf("4,32 0 0 4294963256,53 0 1 %d,6 0 0 0,6 0 0 2", uint32(share*(1<<32)))
	if err := run(ctx, "tc", "-n", n.server(), "qdisc", "add", "dev", nic, "clsact"); err != nil {
		return err
	}
	for _, way := range []string{"ingress", "egress"} {
		if err := run(ctx, "tc", "-n", n.server(), "filter", "add", "dev", nic, way, "bpf", "da", "bytecode", code); err != nil {
			return err
		}
	}
	return nil
}

// counts are what the kernel counted in the server's namespace.
type counts struct{ resent, dropped int64 }

func (n *network) counters(ctx context.Context) (c counts, err error) {
	out, err := exec.CommandContext(ctx, "ip", "netns", "exec", n.server(), "cat", "/proc/net/snmp").Output()
	if err != nil {
		return c, fmt.Errorf("counters of %s: %w", n.server(), err)
	}
	tables := map[string]map[string]int64{}
	var names []string
	for s := bufio.NewScanner(strings.NewReader(string(out))); s.Scan(); {
		table, rest, _ := strings.Cut(s.Text(), ":")
		fields := strings.Fields(rest)
		if tables[table] == nil {
			tables[table], names = map[string]int64{}, fields
			continue
		}
		for i, f := range fields[:min(len(fields), len(names))] {
			tables[table][names[i]], _ = strconv.ParseInt(f, 10, 64)
		}
	}
	return counts{tables["Tcp"]["RetransSegs"], tables["Udp"]["RcvbufErrors"]}, nil
}

// close ends the DHCP server and removes the namespaces. No client is at work any more.
func (n *network) close() (err error) {
	if n.dhcp != nil {
		err = n.dhcp.stop()
	}
	for _, r := range n.rooms {
		if r.air != nil {
			r.air.close()
		}
		close(r.makers)
	}
	n.rooms = nil
	for _, name := range n.made {
		if _, gone := os.Stat(filepath.Join("/run/netns", name)); gone == nil {
			err = errors.Join(err, run(context.Background(), "ip", "netns", "del", name))
		}
	}
	n.made = nil
	return err
}

// sweep removes the networks of storms whose process died.
func sweep(ctx context.Context) {
	all, _ := filepath.Glob("/run/netns/sbstorm*")
	for _, path := range all {
		digits, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), "sbstorm"), "-")
		if pid, err := strconv.Atoi(digits); err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			run(ctx, "ip", "netns", "del", filepath.Base(path))
		}
	}
}

func run(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s (Debian: apt install iproute2): %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// socket is one in a room. Its methods are those of one goroutine.
type socket struct {
	file *os.File
	raw  syscall.RawConn
}

// open makes a socket in the room, bound to the address; an address that is none leaves it unbound.
func (r *room) open(kind int, local netip.AddrPort, set ...func(fd int) error) (*socket, error) {
	type made struct {
		fd  int
		err error
	}
	done := make(chan made, 1)
	r.makers <- func() {
		fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		done <- made{fd, err}
	}
	m := <-done
	if m.err != nil {
		return nil, fmt.Errorf("make a socket: %w", m.err)
	}
	for _, f := range set {
		if err := f(m.fd); err != nil {
			unix.Close(m.fd)
			return nil, err
		}
	}
	if local.IsValid() {
		if err := unix.Bind(m.fd, sockaddr(local)); err != nil {
			unix.Close(m.fd)
			return nil, fmt.Errorf("bind %s: %w", local, err)
		}
	}
	s := &socket{file: os.NewFile(uintptr(m.fd), "socket")}
	var err error
	if s.raw, err = s.file.SyscallConn(); err != nil {
		s.file.Close()
		return nil, err
	}
	return s, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

func (s *socket) close() { s.file.Close() }

// until sets when receive gives up; the zero time is never.
func (s *socket) until(t time.Time) { s.file.SetReadDeadline(t) }

// send sends one datagram, from the address if that is valid.
func (s *socket) send(b []byte, to netip.AddrPort) (err error) {
	e := s.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, 0, sockaddr(to))
		return err != unix.EAGAIN
	})
	return errors.Join(e, err)
}

// receive takes what is there, or waits.
func (s *socket) receive(b []byte, flags int) (n int, from netip.AddrPort, err error) {
	var sa unix.Sockaddr
	e := s.raw.Read(func(fd uintptr) bool {
		n, sa, err = unix.Recvfrom(int(fd), b, flags)
		return err != unix.EAGAIN && err != unix.EINTR
	})
	if e != nil {
		return 0, from, e
	}
	if in, ok := sa.(*unix.SockaddrInet4); ok {
		from = netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port))
	}
	return n, from, err
}

// connect connects a TCP socket.
func (s *socket) connect(to netip.AddrPort, within time.Duration) error {
	s.file.SetWriteDeadline(time.Now().Add(within))
	begun := false
	var err error
	e := s.raw.Write(func(fd uintptr) bool {
		if !begun {
			begun = true
			if err = unix.Connect(int(fd), sockaddr(to)); err == unix.EINPROGRESS {
				return false
			}
			return true
		}
		var code int
		if code, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && code != 0 {
			err = unix.Errno(code)
		}
		return true
	})
	return errors.Join(e, err)
}
