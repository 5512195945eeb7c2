package doctor

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// port is that of an address.
func port(t *testing.T, a net.Addr) uint16 {
	t.Helper()
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		t.Fatal(err)
	}
	return at.Port()
}

func TestWhoHasAPortIsFound(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	out, err := net.Dial("tcp", tcp.Addr().String()) // a connection listens on nothing
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		port    uint16
		network string
		address netip.Addr
	}{
		{port(t, tcp.Addr()), "tcp", netip.MustParseAddr("127.0.0.1")}, {port(t, udp.LocalAddr()), "udp", netip.IPv6Unspecified()},
	} {
		list, err := Holders(c.port)
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		h := list[0]
		if h.PID != os.Getpid() || h.Network != c.network || h.Address != c.address || h.User != os.Getuid() || h.Program != strings.TrimSpace(string(comm)) {
			t.Errorf("%+v", h)
		}
	}
	if list, err := Holders(port(t, out.LocalAddr())); err != nil || len(list) != 0 {
		t.Errorf("the port of a connection: %v, %v", list, err)
	}
}

// A program that keeps a port that it was given open has it too.
func TestAPortHasAllWhoHaveItOpen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); cmd.Wait() }()
	f.Close()
	l.Close()
	list, err := Holders(port(t, l.Addr()))
	if err != nil || len(list) != 1 || list[0].PID != cmd.Process.Pid {
		t.Errorf("%v, %v", list, err)
	}
}

func TestHoldersMeet(t *testing.T) {
	one, other := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for _, c := range []struct {
		has, wants netip.Addr
		want       bool
	}{{one, one, true}, {one, other, false}, {one, netip.Addr{}, true}, {netip.IPv6Unspecified(), one, true}, {one, netip.IPv4Unspecified(), true}} {
		if got := (Holder{Address: c.has}).Meets(c.wants); got != c.want {
			t.Errorf("%v and %v: %v", c.has, c.wants, got)
		}
	}
}

func TestTheWorstVerdictCounts(t *testing.T) {
	var r Report
	n := Notes{Check: "port"}
	for _, step := range []struct {
		do   func()
		want Verdict
	}{
		{func() {}, OK}, {func() { n.OK("free") }, OK}, {func() { n.Warning("do", "%d", 1) }, Warning},
		{func() { n.Wrong("do", "taken") }, Wrong}, {func() { n.OK("free") }, Wrong},
	} {
		n.List = nil
		step.do()
		r.Add(n.List...)
		if r.Verdict != step.want {
			t.Errorf("%s after %+v", r.Verdict, n.List)
		}
	}
	if r.Count(OK) != 2 || r.Count(Wrong) != 1 || r.Findings[1].Text != "1" || r.Findings[1].Check != "port" {
		t.Errorf("%+v", r)
	}
}
