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
	s, err := New(Config{Addr: netip.MustParseAddr("127.0.0.1"), Port: port, RepeatAfter: 200 * time.Millisecond, TransfersAtOnce: 16}, func(_ context.Context, r Request) (*File, error) {
		switch r.Name {
		case "525400770011/shimx64.efi":
			return &File{bytes.NewReader(loader), func() { sent.Add(1) }}, nil
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
	if _, granted := options["windowsize"]; granted {
		t.Error("windows are granted, which this server does not do")
	}
	c.reply(append([]byte{0, 5, 0, 8}, "User aborted the transfer\x00"...))

	c = dial(t, addr)
	c.send(rrq("525400770011/shimx64.efi", "blksize", "1468", "windowsize", "4"))
	c.wantOACK()
	c.reply([]byte{0, 4, 0, 0})
	var got []byte
	for {
		block, data := c.wantData()
		got = append(got, data...)
		c.reply([]byte{0, 4, byte(block >> 8), byte(block)})
		if len(data) < 1468 {
			break
		}
	}
	if !bytes.Equal(got, loader) {
		t.Errorf("%d bytes that differ from the file's %d", len(got), len(loader))
	}
	waitFor(t, func() bool { return sent.Load() == 1 })
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
	for range 16 {
		c := dial(t, addr)
		c.send(rrq("525400770011/shimx64.efi"))
		c.wantData() // and never acknowledges
	}
	c := dial(t, addr)
	c.send(rrq("525400770011/shimx64.efi"))
	if _, text := c.wantError(); !strings.Contains(text, "busy") {
		t.Errorf("one transfer more: %q", text)
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
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
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
	buf := make([]byte, 2048)
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
