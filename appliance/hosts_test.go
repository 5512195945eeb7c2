//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
)

// host is a machine beside the appliance's: a network namespace, linked by one cable for each NIC, which all have addresses of
// their own. Hosts reach the appliance, and each other through it.
type host struct {
	t     *testing.T
	space string       // name of the namespace
	nics  []string     // names of its interfaces
	addrs []netip.Addr // of these
}

// hostCount gives each host of a test run networks of its own, 10.80.N.0/24.
var hostCount, cableCount atomic.Int32

func newHost(t *testing.T, nics int) *host {
	t.Helper()
	h := &host{t: t, space: fmt.Sprintf("sbhost%d-%d", os.Getpid(), hostCount.Add(1))}
	ip := func(args ...string) {
		t.Helper()
		tools(t, "", "ip", args...)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1\n"), 0); err != nil {
		t.Fatal(err)
	}
	ip("netns", "add", h.space)
	t.Cleanup(func() { tools(t, "", "ip", "netns", "del", h.space) })
	ip("-n", h.space, "link", "set", "lo", "up")
	for i := range nics {
		cable := int(cableCount.Add(1))
		end, nic := fmt.Sprintf("cable%d", cable), fmt.Sprintf("nic%d", i)
		at := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 80, byte(cable), n}) }
		ip("link", "add", end, "type", "veth", "peer", "name", nic, "netns", h.space)
		ip("addr", "add", at(1).String()+"/24", "dev", end)
		ip("link", "set", end, "up")
		ip("-n", h.space, "addr", "add", at(2).String()+"/24", "dev", nic)
		ip("-n", h.space, "link", "set", nic, "up")
		ip("-n", h.space, "route", "add", "default", "via", at(1).String(), "dev", nic, "metric", fmt.Sprint(100+i))
		h.nics, h.addrs = append(h.nics, nic), append(h.addrs, at(2))
	}
	return h
}

// start starts a command on the host, in a data directory of its own.
func (h *host) start(data string, args ...string) *process {
	h.t.Helper()
	return startProcess(h.t, exec.Command("ip", append([]string{"netns", "exec", h.space, os.Args[0], "--data", data}, args...)...))
}

// received returns how many bytes came in by an interface.
func (h *host) received(nic string) int64 { return h.count(nic, "rx") }

// sent returns how many bytes went out by an interface.
func (h *host) sent(nic string) int64 { return h.count(nic, "tx") }

func (h *host) count(nic, direction string) (n int64) {
	h.t.Helper()
	out, err := exec.Command("ip", "netns", "exec", h.space, "cat", "/sys/class/net/"+nic+"/statistics/"+direction+"_bytes").Output()
	if err == nil {
		_, err = fmt.Sscan(string(out), &n)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

// startProcess starts a command of the program, which ends with the test.
func startProcess(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	cmd.Env = commandEnv()
	return startWith(t, cmd)
}

// startWith starts a process with the environment that it has.
func startWith(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, log: new(bytes.Buffer), ended: make(chan struct{}), cmd: cmd}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { cmd.Wait(); close(p.ended) }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("%v:\n%s", cmd.Args, p.log)
		}
	})
	return p
}

// finish waits for the end of a process, and returns what it said.
func (p *process) finish() string {
	p.t.Helper()
	<-p.ended
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.t.Fatalf("%v: exit code %d: %s", p.cmd.Args, code, p.log)
	}
	return p.log.String()
}
