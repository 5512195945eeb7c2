package tftp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// loader is a file of 2,051 blocks of 512 bytes, the last one short.
var loader = bytes.Repeat([]byte("seedbed"), 150_001)

// start serves loader as "525400770011/shimx64.efi" on the loopback until the test ends, and counts complete transfers.
func start(t *testing.T) (addr netip.AddrPort, sent *atomic.Int32) {
	t.Helper()
	sent = new(atomic.Int32)
	port := freePort(t)
	s, err := New(Config{Addr: netip.MustParseAddr("127.0.0.1"), Port: port, RepeatAfter: 200 * time.Millisecond, TransfersAtOnce: 16, TransfersOfOne: 12}, func(_ context.Context, r Request) (*File, error) {
		switch r.Name {
		case "525400770011/shimx64.efi":
			return &File{ReadSeeker: bytes.NewReader(loader), Sent: func() { sent.Add(1) }}, nil
		case "broken":
			return nil, errors.New("the disk is on fire")
		}
		return nil, fmt.Errorf("%s: %w", r.Name, ErrNotFound)
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("server ends with %v", err)
		}
	})
	return s.Addr(), sent
}

func freePort(t *testing.T) int {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

// tool returns the path of a program that judges us.
func tool(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing: install the Debian package %s", name, pkg)
	}
	return path
}

func TestRealClientsGetTheFile(t *testing.T) {
	addr, sent := start(t)
	out := filepath.Join(t.TempDir(), "out")
	url := fmt.Sprintf("tftp://%s/525400770011/shimx64.efi", addr)
	for name, args := range map[string][]string{
		"curl":              {tool(t, "curl", "curl"), "-sSf", "-o", out, url},
		"curl 1468":         {tool(t, "curl", "curl"), "-sSf", "--tftp-blksize", "1468", "-o", out, url},
		"curl no options":   {tool(t, "curl", "curl"), "-sSf", "--tftp-no-options", "-o", out, url},
		"atftp":             {tool(t, "atftp", "atftp"), "-g", "-l", out, "-r", "525400770011/shimx64.efi", addr.Addr().String(), fmt.Sprint(addr.Port())},
		"curl 65464":        {tool(t, "curl", "curl"), "-sSf", "--tftp-blksize", "65464", "-o", out, url},
		"atftp windows":     {tool(t, "atftp", "atftp"), "--option", "windowsize 8", "--option", "blksize 1428", "-g", "-l", out, "-r", "525400770011/shimx64.efi", addr.Addr().String(), fmt.Sprint(addr.Port())},
		"atftp tsize, 1432": {tool(t, "atftp", "atftp"), "--option", "tsize", "--option", "blksize 1432", "-g", "-l", out, "-r", `\525400770011\\shimx64.efi`, addr.Addr().String(), fmt.Sprint(addr.Port())},
	} {
		before := sent.Load()
		if text, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, text)
			continue
		}
		if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, loader) {
			t.Errorf("%s: %d bytes that differ from the file's %d, %v", name, len(got), len(loader), err)
		}
		os.Remove(out)
		waitFor(t, func() bool { return sent.Load() == before+1 })
	}
}

// waitFor polls a counter that another goroutine moves; the acknowledgement of the last block is on its way.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(5 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("the complete transfer was not noticed")
		}
	}
}

func TestUnknownNamesAreToldSo(t *testing.T) {
	addr, sent := start(t)
	for name, want := range map[string]string{"revocations_sku.efi": ErrNotFound.Error(), "broken": "cannot serve this file now"} {
		c := dial(t, addr)
		c.send(rrq(name))
		code, text := c.wantError()
		if code != 1 || !strings.Contains(text, want) || strings.Contains(text, "fire") {
			t.Errorf("%s: error %d %q, want 1 and %q", name, code, text, want)
		}
	}
	if sent.Load() != 0 {
		t.Error("a file that was not served counts as sent")
	}
}

// OVMF asks for the length, breaks off with error 8 and asks again: only the second one is a download.
func TestOVMFAsksForTheLengthFirst(t *testing.T) {
	addr, sent := start(t)
	c := dial(t, addr)
	c.send(rrq("525400770011/shimx64.efi", "tsize", "0", "blksize", "1468", "windowsize", "4"))
	options := c.wantOACK()
	if options["tsize"] != fmt.Sprint(len(loader)) || options["blksize"] != "1468" {
		t.Errorf("options granted: %v", options)
	}
	if options["windowsize"] != "4" {
		t.Errorf("options granted: %v, want a window of 4", options)
	}
	c.reply(append([]byte{0, 5, 0, 8}, "User aborted the transfer\x00"...))

	c = dial(t, addr)
	c.send(rrq("525400770011/shimx64.efi", "blksize", "1468", "windowsize", "4"))
	c.wantOACK()
	c.reply(ack(0))
	if got := c.download(1468, 4, nil); !bytes.Equal(got, loader) {
		t.Errorf("%d bytes that differ from the file's %d", len(got), len(loader))
	}
	waitFor(t, func() bool { return sent.Load() == 1 })
}

// ack is an acknowledgement (RFC 1350 §5).
func ack(block uint16) []byte { return []byte{0, 4, byte(block >> 8), byte(block)} }

// download takes blocks until a short one. What lose says is lost of the packets that come, counted from 0, the machine did not see;
// it answers a gap once, and waits for what comes again.
func (c *client) download(length, window int, lose func(packet int) bool) (got []byte) {
	c.Helper()
	last, within, gap := uint16(0), 0, false
	for packet := 0; ; packet++ {
		block, data := c.wantData()
		if lose != nil && lose(packet) {
			continue
		}
		if block != last+1 {
			if int16(block-last) > 0 && !gap || block == last {
				gap, within = true, 0
				c.reply(ack(last))
			}
			continue
		}
		last, gap, within = block, false, within+1
		got = append(got, data...)
		if len(data) < length || within == window {
			within = 0
			c.reply(ack(last))
		}
		if len(data) < length {
			return got
		}
	}
}

func TestPacketsThatAreLostAreSentAgain(t *testing.T) {
	addr, sent := start(t)
	for _, c := range []struct {
		name           string
		length, window int
		asked          []string
		lose           func(packet int) bool
	}{
		{"the first of a window", 1468, 4, []string{"windowsize", "4"}, func(n int) bool { return n == 4 }},
		{"the middle of a window", 1468, 4, []string{"windowsize", "4"}, func(n int) bool { return n == 10 }},
		{"the last of a window", 1468, 4, []string{"windowsize", "4"}, func(n int) bool { return n == 11 }},
		{"a whole window", 1468, 4, []string{"windowsize", "4"}, func(n int) bool { return n >= 8 && n < 12 }},
		{"many of long windows", 1468, 16, []string{"windowsize", "64"}, func(n int) bool { return n%29 == 28 }},
		{"without windows", 1468, 1, nil, func(n int) bool { return n == 3 || n == 4 || n == 20 }},
		{"windows of one block", 1468, 1, []string{"windowsize", "1"}, func(n int) bool { return n == 7 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := sent.Load()
			d := dial(t, addr)
			d.send(rrq(append([]string{"525400770011/shimx64.efi", "blksize", fmt.Sprint(c.length)}, c.asked...)...))
			options := d.wantOACK()
			if c.asked != nil && options["windowsize"] != fmt.Sprint(c.window) {
				t.Fatalf("granted: %v, want a window of %d", options, c.window)
			}
			d.reply(ack(0))
			if got := d.download(c.length, c.window, c.lose); !bytes.Equal(got, loader) {
				t.Errorf("%d bytes that differ from the file's %d", len(got), len(loader))
			}
			waitFor(t, func() bool { return sent.Load() == before+1 })
		})
	}
}

// An acknowledgement that comes twice is answered once: otherwise every packet would go out twice from then on (RFC 1123 §4.2.3.1).
func TestAnAcknowledgementThatComesTwiceDoublesNothing(t *testing.T) {
	addr, _ := start(t)
	c := dial(t, addr)
	c.send(rrq("525400770011/shimx64.efi"))
	c.wantData()
	c.reply(ack(1))
	c.reply(ack(1))
	for want := uint16(2); want < 50; want++ {
		if block, _ := c.wantData(); block != want {
			t.Fatalf("block %d, want %d", block, want)
		}
		c.reply(ack(want))
	}
}

// The last block of a file that fills its blocks is empty.
func TestFilesThatFillTheirBlocks(t *testing.T) {
	for _, length := range []int{0, 1, 511, 512, 513, 1024, 4 * 512, 5*512 - 1, 16 * 512} {
		for _, window := range []int{1, 4, 16} {
			content := bytes.Repeat([]byte("seedbed!"), length/8+1)[:length]
			server, client := pair(t)
			done := make(chan error, 1)
			go func() {
				t := &transfer{conn: server, file: bytes.NewReader(content), patience: time.Second}
				done <- t.run([]option{{"windowsize", fmt.Sprint(window)}}, 512)
			}()
			client.wantOACK()
			client.reply(ack(0))
			if got := client.download(512, window, nil); !bytes.Equal(got, content) {
				t.Errorf("%d bytes, window %d: %d came, or others", length, window, len(got))
			}
			if err := <-done; err != nil {
				t.Errorf("%d bytes, window %d: %v", length, window, err)
			}
		}
	}
}

// A file of more than 65,535 blocks goes on with block 0.
func TestBlockNumbersBeginAgain(t *testing.T) {
	content := bytes.Repeat([]byte("seedbed!"), 20*512/8)
	server, client := pair(t)
	done := make(chan error, 1)
	go func() {
		done <- (&transfer{conn: server, file: bytes.NewReader(content), patience: time.Second, acked: 65530}).run(nil, 512)
	}()
	var got []byte
	for want := uint16(65531); ; want++ {
		block, data := client.wantData()
		if block != want {
			t.Fatalf("block %d, want %d", block, want)
		}
		got = append(got, data...)
		client.reply(ack(block))
		if len(data) < 512 {
			break
		}
	}
	if err := <-done; err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes came of %d, or others: %v", len(got), len(content), err)
	}
}

// A machine that was slow once gets a window twice and answers both; after that everything comes once again.
func TestAWindowThatIsAnsweredTwiceDoublesNothing(t *testing.T) {
	addr, _ := start(t)
	c := dial(t, addr)
	c.send(rrq("525400770011/shimx64.efi", "windowsize", "4"))
	c.wantOACK()
	c.reply(ack(0))
	for range 2 {
		for want := uint16(1); want <= 4; want++ {
			if block, _ := c.wantData(); block != want {
				t.Fatalf("block %d, want %d", block, want)
			}
		}
	}
	c.reply(ack(4))
	c.reply(ack(4))
	for want := uint16(5); want <= 200; want++ {
		if block, _ := c.wantData(); block != want {
			t.Fatalf("block %d, want %d", block, want)
		}
		if want%4 == 0 {
			c.reply(ack(want))
		}
	}
}

// pair returns both ends of a transfer.
func pair(t *testing.T) (*net.UDPConn, *client) {
	t.Helper()
	c := dial(t, netip.MustParseAddrPort("127.0.0.1:1"))
	server, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, c.conn.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server, c
}

func TestAgree(t *testing.T) {
	for _, c := range []struct {
		name          string
		asked         []option
		block, window int
		granted       string
	}{
		{"nothing", nil, 512, 1, "[]"},
		{"EDK2", []option{{"tsize", "0"}, {"blksize", "1468"}, {"windowsize", "4"}}, 1468, 4, "[{tsize 1000} {blksize 1468} {windowsize 4}]"},
		{"more than there is room", []option{{"blksize", "65464"}, {"windowsize", "65535"}}, 1468, maxWindow, "[{blksize 1468} {windowsize 16}]"},
		{"out of range", []option{{"blksize", "65465"}, {"windowsize", "0"}, {"tsize", "-1"}}, 512, 1, "[]"},
		{"tiny blocks", []option{{"blksize", "8"}}, 512, 1, "[]"},
		{"no numbers", []option{{"blksize", "x"}, {"windowsize", ""}, {"tsize", " 0"}}, 512, 1, "[]"},
		{"twice", []option{{"blksize", "1024"}, {"blksize", "600"}}, 1024, 1, "[{blksize 1024}]"},
		{"unknown", []option{{"multicast", "0"}, {"timeout", "1"}}, 512, 1, "[]"},
	} {
		got := agree(c.asked, 1468, 1000)
		if got.block != c.block || got.window != c.window || fmt.Sprint(got.granted) != c.granted {
			t.Errorf("%s: %+v, want blocks of %d, windows of %d, %s", c.name, got, c.block, c.window, c.granted)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(rrq("525400770011/shimx64.efi", "tsize", "0", "blksize", "1468", "windowsize", "4"))
	f.Add([]byte("\x00\x01x\x00octet"))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := parseRequest(b)
		if err != nil {
			return
		}
		got := agree(q.options, 1468, 1<<20)
		if got.block < 512 || got.block > 1468 || got.window < 1 || got.window > maxWindow || len(packOptions(got.granted)) > 200 {
			t.Errorf("%q comes to %+v", b, got)
		}
	})
}

// A machine that vanishes in the middle holds nothing up: Run ends soon after it is told to.
func TestStopsWithAMachineThatVanished(t *testing.T) {
	addr, _ := start(t)
	c := dial(t, addr)
	c.send(rrq("525400770011/shimx64.efi"))
	c.wantData()
}

func TestTransfersAreBounded(t *testing.T) {
	addr, _ := start(t)
	for _, from := range []struct {
		address   string
		transfers int
	}{{"127.0.0.1", 12}, {"127.0.0.2", 4}} { // one machine keeps no other out; all together take what there is
		for range from.transfers {
			c := dialFrom(t, from.address, addr)
			c.send(rrq("525400770011/shimx64.efi"))
			c.wantData() // and never acknowledges
		}
		c := dialFrom(t, from.address, addr)
		c.send(rrq("525400770011/shimx64.efi"))
		if _, text := c.wantError(); !strings.Contains(text, "busy") {
			t.Errorf("one transfer more of %s: %q", from.address, text)
		}
	}
}

func TestMalformedPacketsEndNothing(t *testing.T) {
	addr, _ := start(t)
	c := dial(t, addr)
	for kind := range byte(8) {
		for _, b := range []string{"", "\x00", "\x00" + string(kind), "\x00" + string(kind) + "\x00", "\x00" + string(kind) + "x\x00octet",
			"\x00" + string(kind) + "x\x00octet\x00blksize\x00-1\x00tsize\x00"} {
			c.send([]byte(b))
		}
	}
	c = dial(t, addr)
	c.send(rrq("525400770011/shimx64.efi"))
	c.wantData()
}

func TestCleanName(t *testing.T) {
	for name, want := range map[string]string{
		"/grub/grub.cfg":                 "grub/grub.cfg",
		`525400770011\\grubx64.efi`:      "525400770011/grubx64.efi",
		"sb//grubx64.efi":                "sb/grubx64.efi",
		"undionly.kpxe\xff":              "undionly.kpxe",
		"../../etc/passwd":               "etc/passwd",
		"":                               "",
		"./a/../autoexec.ipxe":           "autoexec.ipxe",
		"525400770011/shimx64.efi\x00  ": "525400770011/shimx64.efi",
	} {
		if got := cleanName(name); got != want {
			t.Errorf("%q becomes %q, want %q", name, got, want)
		}
	}
}

func FuzzCleanName(f *testing.F) {
	f.Add(`..\..\boot`)
	f.Fuzz(func(t *testing.T, name string) {
		got := cleanName(name)
		if strings.HasPrefix(got, "/") || got == ".." || strings.HasPrefix(got, "../") || strings.Contains(got, "/../") {
			t.Errorf("%q becomes %q", name, got)
		}
	})
}

// client speaks TFTP a packet at a time.
type client struct {
	*testing.T
	conn   *net.UDPConn
	server *net.UDPAddr
	peer   *net.UDPAddr // of the transfer
}

func dial(t *testing.T, addr netip.AddrPort) *client {
	t.Helper()
	return dialFrom(t, "127.0.0.1", addr)
}

// dialFrom is dial from an address of this host.
func dialFrom(t *testing.T, from string, addr netip.AddrPort) *client {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{T: t, conn: conn, server: net.UDPAddrFromAddrPort(addr)}
}

// rrq is a read request (RFC 1350 §5, RFC 2347).
func rrq(words ...string) []byte {
	b := []byte{0, 1}
	b = append(append(b, words[0]...), 0)
	b = append(append(b, "octet"...), 0)
	for _, w := range words[1:] {
		b = append(append(b, w...), 0)
	}
	return b
}

func (c *client) send(b []byte) {
	c.Helper()
	if _, err := c.conn.WriteToUDP(b, c.server); err != nil {
		c.Fatal(err)
	}
}

func (c *client) reply(b []byte) {
	c.Helper()
	if _, err := c.conn.WriteToUDP(b, c.peer); err != nil {
		c.Fatal(err)
	}
}

// read returns the next packet of that kind.
func (c *client) read(opcode uint16) []byte {
	c.Helper()
	buf := make([]byte, 65535)
	c.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, from, err := c.conn.ReadFromUDP(buf)
	if err != nil {
		c.Fatal(err)
	}
	c.peer = from
	if got := binary.BigEndian.Uint16(buf); got != opcode {
		c.Fatalf("packet of kind %d, want %d: %q", got, opcode, buf[:n])
	}
	return buf[2:n]
}

func (c *client) wantData() (block uint16, data []byte) {
	c.Helper()
	b := c.read(3)
	return binary.BigEndian.Uint16(b), b[2:]
}

func (c *client) wantError() (code uint16, text string) {
	c.Helper()
	b := c.read(5)
	return binary.BigEndian.Uint16(b), string(b[2:])
}

func (c *client) wantOACK() map[string]string {
	c.Helper()
	words := strings.Split(strings.TrimSuffix(string(c.read(6)), "\x00"), "\x00")
	options := make(map[string]string)
	for i := 0; i+1 < len(words); i += 2 {
		options[words[i]] = words[i+1]
	}
	return options
}
