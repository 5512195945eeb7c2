//go:build linux

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"seedbed/appliance/boot"
	"seedbed/appliance/fleet"
	"seedbed/appliance/limit"
	"seedbed/appliance/metrics"
	"seedbed/appliance/metrics/dashboard"
)

// aCommand is a command of the program.
func aCommand(args ...string) *exec.Cmd { return exec.Command(os.Args[0], args...) }

// pair is a certificate and its key in files.
type pair struct{ cert, key string }

// newCertificate makes one that signs itself, for names.
func newCertificate(t *testing.T, names ...string) pair {
	t.Helper()
	p := pair{filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")}
	p.write(t, time.Now().Add(24*time.Hour), names...)
	return p
}

func (p pair) write(t *testing.T, until time.Time, names ...string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{p.cert: {Type: "CERTIFICATE", Bytes: der}, p.key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// inProcess runs an appliance in this process until the test ends, and returns it with where it answers.
func inProcess(t *testing.T, c config, log io.Writer, prepare ...func(*appliance)) (*appliance, addresses) {
	t.Helper()
	network(t)
	if c.Data == "" {
		c.Data = t.TempDir()
	}
	c.Address = netip.MustParseAddr(applianceAddr)
	c.HTTPS, c.Swarm = applianceAddr+":0", applianceAddr+":0"
	ready, ended := make(chan addresses, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	c.Ready = func(at addresses) { ready <- at }
	a := &appliance{config: c, log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, one := range prepare {
		one(a)
	}
	go func() { ended <- a.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case at := <-ready:
		return a, at
	case err := <-ended:
		ended <- err
		t.Fatal(err)
	}
	return nil, addresses{}
}

// ask sends a request over TLS from an address, in the name of a host.
func ask(t *testing.T, at netip.AddrPort, from, host, path, token string) (status int, body string, cert *x509.Certificate) {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: host}, DisableKeepAlives: true, DialContext: dialer.DialContext}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+at.String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.TLS.PeerCertificates[0]
}

func TestMetricsAreForThoseWhoMay(t *testing.T) {
	a, at := inProcess(t, config{NoBoot: true, MetricsFrom: networks{netip.MustParsePrefix(machineAddr + "/32")}}, io.Discard)
	status, text, _ := ask(t, at.HTTPS, machineAddr, "", "/metrics", "")
	if status != 200 {
		t.Fatalf("from a network that may: %d %s", status, text)
	}
	for _, want := range []string{"\nseedbed_machines{state=\"unadmitted\"} 0\n", "\nseedbed_office_held 1\n", "\nseedbed_repository_free_bytes ",
		"\nseedbed_records_commit_duration_seconds_count ", "\nseedbed_records_commits_refused_total{why=\"conflict\"} 0\n", "\ngo_goroutines ",
		"\nseedbed_queue_waiting_jobs{for=\"site-limit\"} 0\n", "\nseedbed_tracker_peers 0\n", "\nprocess_open_fds ", "\nseedbed_build_info{version="} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing:\n%s", want, text)
		}
	}
	for _, name := range regexp.MustCompile(`(seedbed|process|go)_[a-z_]+`).FindAllString(string(dashboard.JSON), -1) {
		// Where no deployment is open nothing is told of one.
		if !strings.Contains(text, "\n"+name+"{") && !strings.Contains(text, "\n"+name+" ") && !strings.HasPrefix(name, "seedbed_deployment_") {
			t.Errorf("the dashboard asks for %s, which is not told", name)
		}
	}
	admin := fleet.As(t.Context(), fleet.Actor{Name: "root", Role: fleet.RoleAdmin})
	role, password := fleet.RoleViewer, "correct horse battery"
	if _, err := a.fleet.NewUser(admin, fleet.UserOrder{Name: "watcher", Role: &role, Password: &password}); err != nil {
		t.Fatal(err)
	}
	_, token, err := a.fleet.NewKey(fleet.As(t.Context(), fleet.Actor{Name: "watcher", Role: role}), fleet.KeyOrder{Name: "scrape", Expires: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		token  string
		status int
	}{"without a token": {"", 401}, "with a made up one": {"seedbed_abc_def", 401}, "with a viewer's": {token, 200}, "with junk": {strings.Repeat("x", 4000), 401}} {
		if status, text, _ := ask(t, at.HTTPS, applianceAddr, "", "/metrics", c.token); status != c.status || status != 200 && strings.Contains(text, "seedbed_machines{") {
			t.Errorf("from another network %s: %d %s", what, status, text)
		}
	}
}

func TestReadinessSaysWhatIsMissing(t *testing.T) {
	data := t.TempDir()
	a, at := inProcess(t, config{NoBoot: true, Data: data}, io.Discard)
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, text, _ := ask(t, at.HTTPS, applianceAddr, "", path, ""); status != 200 {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	if err := os.Rename(filepath.Join(data, "repository"), filepath.Join(data, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "repository"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a.health.forget()
	if status, text, _ := ask(t, at.HTTPS, applianceAddr, "", "/readyz", ""); status != 503 || text != "not ready: the repository of images cannot be read\n" {
		t.Errorf("without a repository: %d %s", status, text)
	}
	if status, _, _ := ask(t, at.HTTPS, applianceAddr, "", "/healthz", ""); status != 200 {
		t.Errorf("it is not alive: %d", status)
	}
	if err := os.Remove(filepath.Join(data, "repository")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(data, "elsewhere"), filepath.Join(data, "repository")); err != nil {
		t.Fatal(err)
	}
	a.health.forget()
	if status, text, _ := ask(t, at.HTTPS, applianceAddr, "", "/readyz", ""); status != 200 {
		t.Errorf("with its repository again: %d %s", status, text)
	}
}

func (h *health) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = time.Time{}
}

func TestPeopleGetTheirOwnCertificate(t *testing.T) {
	own := newCertificate(t, "seedbed.example", "*.lab.example")
	said := make(lines, 1000)
	_, at := inProcess(t, config{NoBoot: true, TLSCert: own.cert, TLSKey: own.key}, said)
	serial := func(host string) (string, bool) {
		t.Helper()
		_, _, c := ask(t, at.HTTPS, applianceAddr, host, "/healthz", "")
		return c.SerialNumber.String(), len(c.DNSNames) > 0
	}
	first, _ := serial("seedbed.example")
	for host, mine := range map[string]bool{"seedbed.example": true, "a.lab.example": true, "": false, "other.example": false, "SEEDBED.example": true} {
		if _, got := serial(host); got != mine {
			t.Errorf("who asks for %q gets the operators' certificate: %v", host, got)
		}
	}
	hangUp := func(want string) {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for limit := time.After(10 * time.Second); ; {
			select {
			case line := <-said:
				if strings.Contains(line, want) {
					return
				}
			case <-limit:
				t.Fatalf("the log does not say %q", want)
			}
		}
	}
	own.write(t, time.Now().Add(-time.Minute), "seedbed.example")
	hangUp("certificate not read again")
	if again, _ := serial("seedbed.example"); again != first {
		t.Error("an expired certificate took the place of a good one")
	}
	own.write(t, time.Now().Add(time.Hour), "seedbed.example")
	hangUp("certificate read again")
	if again, _ := serial("seedbed.example"); again == first {
		t.Error("the certificate is the one before")
	}
}

// TestLoadersWhoAskTooMuchWait, for files too, and one kind keeps nobody from the other.
func TestLoadersWhoAskTooMuchWait(t *testing.T) {
	a := &appliance{log: slog.New(slog.DiscardHandler)}
	a.metrics, a.loaders, a.files = metrics.New(a.log), limit.New(limit.Config{PerSecond: 0.001, Burst: 2}), limit.New(limit.Config{PerSecond: 0.001, Burst: 3})
	one, other := netip.MustParseAddr("10.77.0.66"), netip.MustParseAddr("10.77.0.67")
	for i, c := range []struct {
		from  netip.Addr
		what  string
		waits bool
	}{{one, boot.AskedKernel, false}, {one, boot.AskedTorrent, false}, {one, "undionly.kpxe", false}, {one, boot.AskedTorrent, true}, {one, boot.AskedKernel, true},
		{one, boot.AskedScript, false}, {one, boot.AskedToken, false}, {one, boot.AskedToken, true}, {other, boot.AskedToken, false}, {other, boot.AskedInitramfs, false}} {
		if got := a.bootAsked(c.from, c.what) > 0; got != c.waits {
			t.Errorf("request %d, %s: waits %v, want %v", i+1, c.what, got, c.waits)
		}
	}
}

func TestStrangersWhoAskTooMuchWait(t *testing.T) {
	said := make(lines, 10000)
	_, at := inProcess(t, config{NoBoot: true}, said, func(a *appliance) {
		a.strangers = limit.New(limit.Config{PerSecond: 0.001, Burst: 3})
	})
	for i, path := range []string{"/agent/v1/hello", "/agent/v1/join", "/announce", "/agent/v1/hello", "/metrics", "/readyz"} {
		status, text, _ := ask(t, at.HTTPS, machineAddr, "", path, "")
		if waits := status == http.StatusTooManyRequests; waits != (i >= 3) || waits && !strings.Contains(text, `"too-many"`) {
			t.Errorf("request %d, %s: %d %s", i+1, path, status, text)
		}
	}
	if status, text, _ := ask(t, at.HTTPS, applianceAddr, "", "/agent/v1/hello", ""); status != http.StatusMethodNotAllowed {
		t.Errorf("another address: %d %s", status, text)
	}
	told := 0
	for left := len(said); left > 0; left-- {
		if strings.Contains(<-said, "too many from one address") {
			told++
		}
	}
	if told != 1 {
		t.Errorf("%d lines in the log", told)
	}
}
