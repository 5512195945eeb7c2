package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"seedbed/appliance/job"
	"seedbed/initramfs/agent"
	"seedbed/initramfs/disk"
)

// machineArg makes this program a machine that boots from the network, its disk being a file.
const machineArg = "-machine"

// machineOrder says which.
type machineOrder struct {
	Appliance, Address, MAC string
	Disk                    string
	Profile                 string // file; "" makes none
}

// machineResult is what came out, on standard output.
type machineResult struct {
	// Phases has the seconds that each phase of the job took; Job those from the claim to the countersigned receipt.
	Phases   map[string]float64
	Job      float64
	Received int64 // bytes on the network interface during the job
	Memory   int64 // most resident bytes
}

// machineMain is the child process.
func machineMain(args []string) {
	var order machineOrder
	err := json.Unmarshal([]byte(args[0]), &order)
	if err == nil && order.Profile != "" {
		f, e := os.Create(order.Profile)
		if err = errors.Join(e, pprof.StartCPUProfile(f)); err == nil {
			defer pprof.StopCPUProfile()
		}
	}
	if err == nil {
		err = bootMachine(context.Background(), order)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: machine:", err)
		os.Exit(1)
	}
}

func bootMachine(ctx context.Context, o machineOrder) error {
	boot, err := o.firmware(ctx)
	if err != nil {
		return err
	}
	watch := &stopwatch{nic: filepath.Join("/sys/class/net", o.nic(), "statistics/rx_bytes"), result: machineResult{Phases: map[string]float64{}}}
	screen := agent.NewScreen(watch)
	a, err := agent.New(agent.Config{Boot: boot, Machine: &filed{o}, Screen: screen, ListenAddr: o.Address + ":6881", Version: "bench"})
	if err != nil {
		return err
	}
	after, err := a.Run(ctx)
	screen.Close(time.Second)
	if err != nil || after != agent.Reboot {
		return errors.Join(err, fmt.Errorf("the machine does not restart: %s", screen.Tail()))
	}
	if watch.result.Memory, err = peakResident(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(watch.result)
}

func (o machineOrder) nic() string {
	all, _ := net.Interfaces()
	for _, i := range all {
		if i.HardwareAddr.String() == o.MAC {
			return i.Name
		}
	}
	return "lo"
}

// firmware does what a network boot does as far as the appliance sees it: DHCP, script, token.
func (o machineOrder) firmware(ctx context.Context) (b job.Boot, err error) {
	mac, err := net.ParseMAC(o.MAC)
	if err != nil {
		return b, err
	}
	own := net.ParseIP(o.Address).To4()
	discover, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(own)),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")),
		dhcpv4.WithGeneric(dhcpv4.OptionUserClassInformation, []byte("iPXE")),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 0}))
	if err != nil {
		return b, err
	}
	discover.GatewayIPAddr = own // as through a relay, so that the answer comes to an address that is there
	conn, err := net.ListenPacket("udp4", o.Address+":67")
	if err != nil {
		return b, err
	}
	defer conn.Close()
	if _, err := conn.WriteTo(discover.ToBytes(), &net.UDPAddr{IP: net.ParseIP(o.Appliance), Port: 67}); err != nil {
		return b, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return b, err
	}
	buf := make([]byte, 1500)
	n, _, err := conn.ReadFrom(buf)
	if err != nil {
		return b, fmt.Errorf("wait for an answer to DHCP: %w", err)
	}
	offer, err := dhcpv4.FromBytes(buf[:n])
	if err != nil {
		return b, err
	}
	base := "http://" + o.Appliance
	path := strings.TrimPrefix(offer.BootFileNameOption()+strings.Trim(offer.BootFileName, "\x00"), base)
	path, _, _ = strings.Cut(path, "http://")
	script, err := fetch(ctx, base+path)
	if err != nil {
		return b, err
	}
	if !bytes.Contains(script, []byte("/boot/token")) {
		return b, fmt.Errorf("the machine does not boot the agent:\n%s", script)
	}
	archive, err := fetch(ctx, base+"/boot/token?mac="+o.MAC)
	if err != nil {
		return b, err
	}
	from, to := bytes.IndexByte(archive, '{'), bytes.LastIndexByte(archive, '}')
	if from < 0 || to < from {
		return b, errors.New("the boot token's archive holds no JSON")
	}
	return b, json.Unmarshal(archive[from:to+1], &b)
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, res.Status, b)
	}
	return b, err
}

// filed is a machine whose one disk is a file.
type filed struct{ o machineOrder }

func (m *filed) SetClock(time.Time) error { return nil }

func (m *filed) Inventory() job.Inventory {
	disks, _ := m.Disks()
	i := job.Inventory{UUID: "5eedbed0-0000-4000-8000-000000000001", Product: "bench", Firmware: "bios", MemoryBytes: 8 << 30, Cores: runtime.NumCPU(),
		NICs: []job.NIC{{Name: m.o.nic(), MAC: m.o.MAC, Mbit: 1000, Addr: m.o.Address}}}
	for _, d := range disks {
		i.Disks = append(i.Disks, d.Disk)
	}
	return i
}

func (m *filed) Disks() ([]disk.Disk, error) {
	info, err := os.Stat(m.o.Disk)
	if err != nil {
		return nil, err
	}
	return []disk.Disk{{Disk: job.Disk{Name: "vda", Serial: "BENCH1", Bus: "virtio", Length: info.Size(), SectorLength: 512}}}, nil
}

func (m *filed) OpenSource(string) (*disk.Source, error) {
	return nil, errors.New("this machine is not captured")
}

func (m *filed) Open(name string) (*disk.Device, error) { return disk.Open(m.o.Disk, name) }

// stopwatch reads the screen: a job begins with "job", a phase with "phase", and the countersigned receipt ends it.
type stopwatch struct {
	nic string

	mu     sync.Mutex // guards everything below
	result machineResult
	phase  string
	began  time.Time
	job    time.Time
	before int64
}

// Write implements io.Writer; a write is one line or more.
func (w *stopwatch) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for line := range strings.Lines(string(b)) {
		fmt.Fprint(os.Stderr, "    ", strings.ReplaceAll(line, "\r", ""))
		switch {
		case strings.Contains(line, "job ") && strings.Contains(line, string(job.Deploy)+" ") && w.job.IsZero():
			w.job, w.before = now, readCount(w.nic)
		case strings.Contains(line, "phase "):
			_, text, _ := strings.Cut(line, "phase ")
			if w.phase != "" {
				w.result.Phases[w.phase] += now.Sub(w.began).Seconds()
			}
			w.phase, _, _ = strings.Cut(text, " ")
			w.began = now
		case strings.Contains(line, "receipt countersigned"):
			w.result.Job, w.result.Received = now.Sub(w.job).Seconds(), readCount(w.nic)-w.before
		}
	}
	return len(b), nil
}

func readCount(file string) (n int64) {
	b, err := os.ReadFile(file)
	if err == nil {
		fmt.Sscan(string(b), &n)
	}
	return n
}
