//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"seedbed/appliance/api"
	"seedbed/appliance/doctor"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/queue"
	"seedbed/appliance/site"
)

// examine runs doctor and returns what it found.
func examine(t *testing.T, data string, args ...string) (r doctor.Report, code int) {
	t.Helper()
	out, errs, code := both(t, data, append([]string{"doctor", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("doctor %v: exit code %d: %v: %s%s", args, code, err, out, errs)
	}
	return r, code
}

// tells reports whether a check found something with these words in its text or remedy.
func tells(r doctor.Report, v doctor.Verdict, check, words string) bool {
	return slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool {
		return f.Verdict == v && f.Check == check && strings.Contains(f.Text+"; "+f.Remedy, words)
	})
}

// expect fails the test where a check did not find this.
func expect(t *testing.T, r doctor.Report, v doctor.Verdict, check, words string) {
	t.Helper()
	if !tells(r, v, check, words) {
		t.Errorf("%s %s: %q is missing in %s", v, check, words, findingsText(r))
	}
}

func findingsText(r doctor.Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "\n%s %s: %s; %s", f.Verdict, f.Check, f.Text, f.Remedy)
	}
	return b.String()
}

func TestDoctorTellsWhatIsWrongWithARunningAppliance(t *testing.T) {
	network(t)
	data, boot := t.TempDir(), bootFiles(t)
	if err := os.Chmod(data, 0o700); err != nil {
		t.Fatal(err)
	}
	p := serve(t, data, boot)
	flags := []string{"--boot-dir", boot, "--address", applianceAddr}
	r, code := examine(t, data, flags...)
	if code != 0 || r.Verdict == doctor.Wrong || r.Count(doctor.Wrong) != 0 {
		t.Errorf("exit code %d: %s", code, findingsText(r))
	}
	for check, words := range map[string]string{"service": "says ready", "boot files": "UEFI with Secure Boot: all in", "repository": "no marks of damage",
		"records": "tables of version", "certificate": "the certificate at " + applianceAddr + ":443 does not end", "secrets": "their owner's alone",
		"schedule": "schedules the site", "queue": "0 jobs at work, 0 wait", "machines": "0 machines", "network": applianceAddr + ", on lo", "images": "0 images", "room": "data folder"} {
		expect(t, r, doctor.OK, check, words)
	}
	for _, port := range []string{"udp 67 (DHCP)", "udp 4011 (proxy-DHCP)", "udp 69 (TFTP)", "tcp 80 (boot files)", "tcp 443 (agents)", "tcp 6881 (swarm)"} {
		expect(t, r, doctor.OK, "port", port+": this appliance has it")
	}
	if out := must(t, data, append([]string{"doctor"}, flags...)...); strings.Count(out, "\n") != len(r.Findings) || !strings.Contains(out, fmt.Sprintf("(pid %d) says ready", p.cmd.Process.Pid)) {
		t.Errorf("not a line for each of %d checks:\n%s", len(r.Findings), out)
	}

	if r, _ := examine(t, data); !tells(r, doctor.Warning, "service", "--boot-dir --address") || !tells(r, doctor.Wrong, "boot files", "vmlinuz is missing") {
		t.Errorf("without its flags: %s", findingsText(r))
	}
	for what, c := range map[string]struct {
		break_, mend func() error
		check, words string
	}{
		"the repository is gone": {func() error { return os.Rename(filepath.Join(data, "repository"), filepath.Join(data, "elsewhere")) },
			func() error { return os.Rename(filepath.Join(data, "elsewhere"), filepath.Join(data, "repository")) }, "repository", "is gone"},
		"others may read a key": {func() error { return os.Chmod(filepath.Join(data, "site", "site.key"), 0o644) },
			func() error { return os.Chmod(filepath.Join(data, "site", "site.key"), 0o600) }, "secrets", "chmod 600 " + filepath.Join(data, "site", "site.key")},
		"anybody may open the socket": {func() error { return os.Chmod(filepath.Join(data, "seedbed.sock"), 0o666) },
			func() error { return os.Chmod(filepath.Join(data, "seedbed.sock"), 0o600) }, "secrets", "is root at the appliance"},
		"a boot file is gone": {func() error { return os.Rename(filepath.Join(boot, "shimx64.efi"), filepath.Join(boot, "x")) },
			func() error { return os.Rename(filepath.Join(boot, "x"), filepath.Join(boot, "shimx64.efi")) }, "boot files", "UEFI with Secure Boot: machines do not get to the agent"},
		"others may read the data folder": {func() error { return os.Chmod(data, 0o755) }, func() error { return os.Chmod(data, 0o700) }, "data", "chmod 700 " + data},
		"it stands still": {func() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }, func() error { return p.cmd.Process.Signal(syscall.SIGCONT) },
			"service", "does not answer"},
	} {
		if err := c.break_(); err != nil {
			t.Fatal(err)
		}
		r, code := examine(t, data, flags...)
		if err := c.mend(); err != nil {
			t.Fatal(err)
		}
		if code != exitAiling || r.Verdict != doctor.Wrong || !tells(r, doctor.Wrong, c.check, c.words) {
			t.Errorf("%s: exit code %d: %s", what, code, findingsText(r))
		}
	}
}

func TestDoctorTellsWhatKeepsAnApplianceFromStarting(t *testing.T) {
	network(t)
	data := filepath.Join(t.TempDir(), "data")
	flags := []string{"--boot-dir", bootFiles(t), "--address", applianceAddr}
	r, code := examine(t, data, flags...)
	if code != exitAiling || r.Count(doctor.Wrong) != 1 || !tells(r, doctor.Wrong, "service", "no appliance runs") || !tells(r, doctor.OK, "port", "tcp 443 (agents): free") {
		t.Errorf("nothing is there: exit code %d: %s", code, findingsText(r))
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("doctor made the data folder")
	}

	web, err := net.Listen("tcp", applianceAddr+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	dhcpd, err := net.ListenPacket("udp4", ":67")
	if err != nil {
		t.Fatal(err)
	}
	defer dhcpd.Close()
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	who := fmt.Sprintf("%s (pid %d) has it, not the appliance", strings.TrimSpace(string(comm)), os.Getpid())
	r, code = examine(t, data, flags...)
	if code != exitAiling {
		t.Errorf("exit code %d", code)
	}
	expect(t, r, doctor.Wrong, "port", "tcp 80 (boot files): "+who+"; stop it, or choose another port with --http")
	expect(t, r, doctor.Wrong, "port", "udp 67 (DHCP): "+who)
	expect(t, r, doctor.OK, "port", "udp 69 (TFTP): free")
	if r, _ := examine(t, data, append(flags, "--http", machineAddr+":80")...); !tells(r, doctor.OK, "port", "tcp 80 (boot files): free") {
		t.Errorf("at another address: %s", findingsText(r))
	}

	small := t.TempDir()
	tools(t, "", "mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", small)
	t.Cleanup(func() { tools(t, "", "umount", small) })
	r, _ = examine(t, small, flags...)
	expect(t, r, doctor.Wrong, "room", "data folder "+small+": 8.0 MiB of 8.0 MiB are free, which is less than")

	secret := writeSecret(t, "open sesame")
	if err := os.Chmod(secret, 0o644); err != nil {
		t.Fatal(err)
	}
	own := newCertificate(t, "seedbed.example")
	for what, c := range map[string]struct {
		args         []string
		verdict      doctor.Verdict
		check, words string
	}{
		"a password that others may read":     {[]string{"--store", "postgres://seedbed@127.0.0.1:1/x", "--store-password-file", secret}, doctor.Wrong, "secrets", "chmod 600 " + secret},
		"a database that is not there":        {[]string{"--store", "postgres://seedbed@127.0.0.1:1/x"}, doctor.Wrong, "records", "127.0.0.1"},
		"an address that is not the host's":   {[]string{"--address", "10.99.0.1"}, doctor.Wrong, "network", "which no interface of this host has"},
		"an interface that is not there":      {[]string{"--interface", "nothing0"}, doctor.Wrong, "network", "nothing0"},
		"a configuration that is wrong":       {[]string{"--config", writeConfig(t, "admit: perhaps\n")}, doctor.Wrong, "configuration", ":1: --admit is ask or auto"},
		"a configuration that cannot be read": {[]string{"--config", writeConfig(t, "boot_dirs: x\n")}, doctor.Wrong, "configuration", "is boot_dir meant?"},
		"a certificate that ends soon":        {[]string{"--config", writeConfig(t, "tls_cert: "+own.cert+"\ntls_key: "+own.key+"\n")}, doctor.Warning, "certificate", "the operators' certificate " + own.cert + " ends on"},
	} {
		r, code := examine(t, data, append(flags[:len(flags):len(flags)], c.args...)...)
		if code != exitAiling || !tells(r, c.verdict, c.check, c.words) {
			t.Errorf("%s: exit code %d: %s", what, code, findingsText(r))
		}
	}
}

// dnsmasqIn starts dnsmasq on a host and waits until it has its port.
func dnsmasqIn(t *testing.T, h *host, args ...string) {
	t.Helper()
	cmd := exec.Command("ip", append([]string{"netns", "exec", h.space, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-ping", "--leasefile-ro",
		"--user=root", "--pid-file=", "--log-facility=-", "--interface=nic0"}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (install the package dnsmasq-base)", err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-ended })
	until(t, 10*time.Second, "dnsmasq has port 67", func() bool {
		select {
		case <-ended:
			t.Fatalf("dnsmasq ended: %s", &out)
		default:
		}
		b, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/net/udp")
		return err == nil && strings.Contains(string(b), ":0043 ")
	})
}

// A question to three networks: with another boot server beside the addresses, with a plain DHCP server, with another proxy.
func TestDoctorFindsOthersWhoAnswerMachines(t *testing.T) {
	network(t)
	net24 := func(h *host, last int) string {
		a := h.addrs[0].As4()
		a[3] = byte(last)
		return netip.AddrFrom4(a).String()
	}
	rival, plain, proxy := newHost(t, 1), newHost(t, 1), newHost(t, 1)
	dnsmasqIn(t, rival, "--dhcp-range="+net24(rival, 10)+","+net24(rival, 20), "--dhcp-boot=rival.efi")
	dnsmasqIn(t, plain, "--dhcp-range="+net24(plain, 10)+","+net24(plain, 20))
	dnsmasqIn(t, proxy, "--dhcp-range="+net24(proxy, 0)+",proxy", "--pxe-service=x86-64_EFI,boot,proxy.efi")
	r, code := examine(t, t.TempDir(), "--no-boot", "--address", applianceAddr, "--probe")
	if code != exitAiling {
		t.Errorf("exit code %d", code)
	}
	expect(t, r, doctor.Wrong, "dhcp", rival.addrs[0].String()+` answers machines that boot, and is no appliance of this site: file "rival.efi"`)
	expect(t, r, doctor.OK, "dhcp", plain.addrs[0].String()+" gives the address")
	expect(t, r, doctor.Wrong, "dhcp", proxy.addrs[0].String()+" answers machines that boot, and is no appliance of this site")
	nobody := 0
	for _, f := range r.Findings {
		if f.Verdict == doctor.Warning && strings.Contains(f.Text, "nobody gives addresses") {
			nobody++
		}
	}
	if nobody != 1 {
		t.Errorf("%d networks without addresses: %s", nobody, findingsText(r))
	}
	if r, _ := examine(t, t.TempDir(), "--no-boot", "--address", applianceAddr); slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool { return f.Check == "dhcp" }) {
		t.Error("the network is asked though nobody asked for it")
	}
}

// clockServer is an appliance of a site whose clock is wrong.
func clockServer(t *testing.T, s *site.Site, wrong time.Duration) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := s.Server([]netip.Addr{netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{TLSConfig: s.ServerTLS(cert), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(wrong).UTC().Format(http.TimeFormat))
	})}
	go server.ServeTLS(l, "", "")
	t.Cleanup(func() { server.Close() })
	return "https://" + l.Addr().String()
}

func TestDoctorComparesClocksOfAppliances(t *testing.T) {
	network(t)
	s, err := site.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for wrong, want := range map[time.Duration]doctor.Verdict{0: doctor.OK, 20 * time.Second: doctor.Warning, -20 * time.Second: doctor.Warning, time.Hour: doctor.Wrong, -48 * time.Hour: doctor.Wrong} {
		ahead, within, err := clockAt(t.Context(), clockServer(t, s, wrong), s)
		if err != nil {
			t.Fatal(err)
		}
		n := doctor.Notes{Check: "clock"}
		judgeClock(&n, "the other", ahead, within)
		if n.List[0].Verdict != want || within > 5*time.Second || (ahead-wrong).Abs() > within+time.Second {
			t.Errorf("%s: %+v, %s ahead within %s", wrong, n.List, ahead, within)
		}
	}
	stranger, err := site.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := clockAt(t.Context(), clockServer(t, stranger, 0), s); err == nil {
		t.Error("another site's appliance was believed")
	}
}

func TestSilentMachinesAreTold(t *testing.T) {
	now := time.Now()
	of := func(name string, state job.State, epoch int64, wait string, claimed, reported time.Duration) api.Job {
		v := fleet.JobView{MachineName: name, State: state, Epoch: epoch, Wait: wait, Claimed: now.Add(-claimed)}
		if reported > 0 {
			v.Reported = now.Add(-reported)
		}
		return api.Job{JobView: v}
	}
	silent, lost := silentMachines([]api.Job{
		of("works", job.Running, 1, "", time.Hour, time.Second), of("new", job.Claimed, 1, "", time.Second, 0), of("silent", job.Running, 1, "", time.Hour, time.Minute),
		of("never", job.Claimed, 1, "", time.Minute, 0), of("lost", job.Waiting, 2, queue.WaitsMachine, time.Hour, 0), of("waits", job.Waiting, 0, queue.WaitsMachine, 0, 0),
		of("limited", job.Waiting, 1, queue.WaitsSite, time.Hour, 0), of("paused", job.Paused, 1, "", time.Hour, time.Hour),
	}, now)
	if len(silent) != 2 || !strings.HasPrefix(silent[0], "silent (") || !strings.HasPrefix(silent[1], "never (") || !slices.Equal(lost, []string{"lost"}) {
		t.Errorf("silent %v, lost %v", silent, lost)
	}
}

// hang mounts a file system over a folder that answers nothing, as one of a network whose server is gone, until the test ends or release is called.
func hang(t *testing.T, dir string) (release func()) {
	t.Helper()
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("/dev/fuse: %v", err)
	}
	if err := unix.Mount("hangs", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", device)); err != nil {
		unix.Close(device)
		t.Fatal(err)
	}
	released := false
	release = func() {
		if released {
			return
		}
		released = true
		unix.Close(device) // who waits gets an error
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(release)
	return release
}

func TestReadinessDoesNotWaitForAFileSystemThatHangs(t *testing.T) {
	data := t.TempDir()
	said := make(lines, 10000)
	a, at := inProcess(t, config{NoBoot: true, Data: data}, said)
	if status, text, _ := ask(t, at.HTTPS, applianceAddr, "", "/readyz", ""); status != 200 {
		t.Fatalf("%d %s", status, text)
	}
	release := hang(t, filepath.Join(data, "repository"))
	a.health.forget()
	for i, most := range []time.Duration{healthTimeout + 2*time.Second, 2 * time.Second} { // the second does not wait again
		began := time.Now()
		status, text, _ := ask(t, at.HTTPS, applianceAddr, "", "/readyz", "")
		if took := time.Since(began); status != 503 || text != "not ready: the repository of images does not answer\n" || took > most {
			t.Errorf("question %d: %d %s after %s", i+1, status, text, took)
		}
		a.health.forget()
	}
	if _, _, err := a.room(); err == nil {
		t.Error("a file system that hangs tells its room")
	}
	d := &examination{patience: 200 * time.Millisecond}
	list := d.bounded(t.Context(), look{"room", func(_ context.Context, n *doctor.Notes) {
		d.lookRoomIn(n, "repository", filepath.Join(data, "repository"), 0, "")
	}})
	if len(list) != 1 || list[0].Verdict != doctor.Wrong || !strings.Contains(list[0].Text, "does not answer") {
		t.Errorf("%+v", list)
	}
	release()
	until(t, 10*time.Second, "it is ready again", func() bool {
		a.health.forget()
		status, _, _ := ask(t, at.HTTPS, applianceAddr, "", "/readyz", "")
		return status == 200
	})
}

// One question is under way, however many ask; the next is asked when it has its answer.
func TestAQuestionThatHangsIsAskedOnce(t *testing.T) {
	var q question[int]
	asked, hold := make(chan int, 10), make(chan struct{})
	fn := func() (int, error) { asked <- 1; <-hold; return 7, nil }
	for range 3 {
		if _, err := q.ask(10*time.Millisecond, fn); err != errNoAnswer {
			t.Fatal(err)
		}
	}
	close(hold)
	until(t, 10*time.Second, "it answers", func() bool {
		n, err := q.ask(time.Second, func() (int, error) { return 8, nil })
		return err == nil && n == 8
	})
	if len(asked) != 1 {
		t.Errorf("asked %d times", len(asked))
	}
}
