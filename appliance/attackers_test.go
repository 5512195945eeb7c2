//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"seedbed/appliance/job"
	"seedbed/appliance/site"
	"seedbed/images"
	"seedbed/images/announce"
	"seedbed/images/peerwire"
	"seedbed/images/swarm"
)

// knock sends one request and returns what came of it: "200", "403 forbidden" with the code of a problem, or "no answer". Names and
// values of headers come in pairs.
func knock(c *http.Client, method, address string, body []byte, header ...string) string {
	answer, _, _ := knocked(c, method, address, body, header...)
	return answer
}

func knocked(c *http.Client, method, address string, body []byte, header ...string) (answer string, content []byte, h http.Header) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return err.Error(), nil, nil
	}
	if len(body) > 0 && body[0] == '{' {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return "no answer", nil, nil
	}
	defer resp.Body.Close()
	if content, err = io.ReadAll(resp.Body); err != nil {
		return "no answer", nil, nil
	}
	var p job.Problem
	if resp.StatusCode/100 != 2 && json.Unmarshal(content, &p) == nil && p.Code != "" {
		return fmt.Sprintf("%d %s", resp.StatusCode, p.Code), content, resp.Header
	}
	return strconv.Itoa(resp.StatusCode), content, resp.Header
}

// from returns a client whose connections come from an address, with or without a certificate, each on a new connection.
func from(t *testing.T, address string, certificate *tls.Certificate) *http.Client {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true}
	if certificate != nil { // whether or not the server names its authority
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	transport := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: config, MaxResponseHeaderBytes: 1 << 20, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// raw writes bytes to a connection as they are and returns the status of the answer, and all that came.
func raw(network func() (net.Conn, error), request string) (status string, content []byte) {
	conn, err := network()
	if err != nil {
		return "no answer", nil
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	go io.WriteString(conn, request) // the other end may answer before it has read everything
	var all bytes.Buffer
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(conn, &all)), nil)
	if err != nil {
		return "no answer", all.Bytes()
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body) // which all keeps
	return strconv.Itoa(resp.StatusCode), all.Bytes()
}

func plainPort() (net.Conn, error) { return net.Dial("tcp", applianceAddr+":80") }

func tlsPort() (net.Conn, error) {
	return tls.Dial("tcp", applianceAddr+":443", &tls.Config{InsecureSkipVerify: true})
}

// held is how long a connection that was opened by talk lasts, at most a minute.
func held(network func() (net.Conn, error), talk func(net.Conn)) <-chan time.Duration {
	out := make(chan time.Duration, 1)
	go func() {
		began := time.Now()
		if conn, err := network(); err == nil {
			defer conn.Close()
			conn.SetReadDeadline(began.Add(time.Minute))
			stop := make(chan struct{})
			go func() { defer close(stop); io.Copy(io.Discard, conn) }()
			talk(conn)
			<-stop
		}
		out <- time.Since(began)
	}()
	return out
}

// loads asks for a file by TFTP and returns what the first answer is: "file", or the server's words.
func loads(t *testing.T, name string, kind byte) string {
	t.Helper()
	return loadsFrom(t, machineAddr, name, kind)
}

func loadsFrom(t *testing.T, address, name string, kind byte) string {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(address)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	server := &net.UDPAddr{IP: net.ParseIP(applianceAddr), Port: 69}
	b := make([]byte, 1500)
	for range 3 {
		conn.WriteTo(append([]byte{0, kind}, name+"\x00octet\x00"...), server)
		conn.SetReadDeadline(time.Now().Add(time.Second))
		n, peer, err := conn.ReadFrom(b)
		if err != nil || n < 4 {
			continue
		}
		conn.WriteTo([]byte{0, 5, 0, 0, 'n', 'o', 0}, peer) // no more of it
		if b[1] == 3 {
			if leaks(b[4:n]) {
				return "a secret"
			}
			return "file"
		}
		return strings.TrimRight(string(b[4:n]), "\x00")
	}
	return "no answer"
}

// leaks reports whether an answer has what is in no boot file.
func leaks(b []byte) bool {
	for _, mark := range []string{"PRIVATE KEY", "root:x:", "SQLite format", "BEGIN CERTIFICATE", `"files"`} {
		if bytes.Contains(b, []byte(mark)) {
			return true
		}
	}
	return false
}

// certificateOf is what a machine shows; der is one of those that the appliance gave it.
func certificateOf(m *machine, der []byte) *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: m.key}
}

// selfMade is a certificate with these names that is signed by its own key.
func selfMade(t *testing.T, names ...string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Seedbed machine"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, n := range names {
		u, err := url.Parse(n)
		if err != nil {
			t.Fatal(err)
		}
		c.URIs = append(c.URIs, u)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// issued is a certificate on a machine's key that the site's own authority made at a time.
func issued(t *testing.T, data string, m *machine, at time.Time, names ...string) *tls.Certificate {
	t.Helper()
	s, err := site.Open(filepath.Join(data, "site"))
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.MarshalPKIXPublicKey(&m.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	der, err := s.Machine(pub, at, names...)
	if err != nil {
		t.Fatal(err)
	}
	return certificateOf(m, der)
}

// peers says whether the appliance's seeder lets somebody into a swarm: "in" or "out".
func peers(h images.InfoHash, certificate *tls.Certificate) string {
	config := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, ServerName: swarm.ServerName(h), NextProtos: []string{"seedbed-swarm/1"}}
	if certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", applianceAddr+":6881", config)
	if err != nil {
		return "out"
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	conn.Write(peerwire.Handshake{Reserved: peerwire.Features(), InfoHash: h.Wire(), PeerID: images.InfoHash(images.Sum([]byte("x"))).Wire()}.Append(nil))
	if _, err := peerwire.ReadHandshake(conn); err != nil {
		return "out"
	}
	return "in"
}

// announces is the path and query of an announce, with more behind it.
func announces(h images.InfoHash, port uint16, more string) string {
	r := announce.Request{InfoHash: h.Wire(), PeerID: images.InfoHash(images.Sum([]byte{byte(port)})).Wire(), Port: port, Left: 1}
	return job.PathAnnounce + "?" + r.Query() + more
}

// discover is a DHCP packet of a PXE client.
func discover(mac net.HardwareAddr, addr string) []byte {
	d, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(addr))),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 0}))
	if err != nil {
		panic(err) // constants
	}
	d.GatewayIPAddr = net.ParseIP(addr).To4()
	return d.ToBytes()
}

// pour sends packets to a UDP port of the appliance.
func pour(t *testing.T, port int, packets [][]byte) {
	t.Helper()
	conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP("10.77.0.66")}, &net.UDPAddr{IP: net.ParseIP(applianceAddr), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, p := range packets {
		conn.Write(p) // an answer may be that nobody listens
	}
}

// garbage returns what is left of packets when bytes are changed, cut and added; and noise.
func garbage(good []byte, n int) (list [][]byte) {
	seed := uint64(88172645463325252) // xorshift64 (Marsaglia 2003), so that a run can be repeated
	next := func(below int) int {
		seed ^= seed << 13
		seed ^= seed >> 7
		seed ^= seed << 17
		return int(seed % uint64(below))
	}
	for range n {
		b := bytes.Clone(good)
		if next(4) == 0 {
			b = make([]byte, next(1400)+1)
		}
		for range next(20) + 1 {
			b[next(len(b))] = byte(next(256))
		}
		list = append(list, b[:next(len(b))+1])
	}
	return list
}

// resident is the memory of a process in bytes (proc(5), VmRSS).
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("status: %s", b)
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// backdate moves all times in the records of a stopped appliance that hold mark, and are of one of these kinds, into the past.
func backdate(t *testing.T, data, mark string, by time.Duration, kinds ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(data, "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, kind := range kinds {
		rows, err := db.Query("SELECT id, doc FROM records WHERE kind = ?", kind)
		if err != nil {
			t.Fatal(err)
		}
		docs := map[string]string{}
		for rows.Next() {
			var id, doc string
			if err := rows.Scan(&id, &doc); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(doc, mark) {
				docs[id] = doc
			}
		}
		if err := rows.Close(); err != nil || len(docs) == 0 {
			t.Fatalf("no record of the kind %s has %s: %v", kind, mark, err)
		}
		for id, doc := range docs {
			old := regexp.MustCompile(`"\d{4}-\d\d-\d\dT[^"]+"`).ReplaceAllStringFunc(doc, func(s string) string {
				at, err := time.Parse(`"`+time.RFC3339Nano+`"`, s)
				if err != nil || at.IsZero() {
					return s
				}
				return at.Add(-by).Format(`"` + time.RFC3339Nano + `"`)
			})
			if _, err := db.Exec("UPDATE records SET doc = ? WHERE kind = ? AND id = ?", old, kind, id); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// seederOf is where a job says that the appliance's content is.
func seederOf(m *machine) netip.AddrPort { return m.job.Seeds[0] }
