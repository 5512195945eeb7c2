package site_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/site"
	"seedbed/images"
)

func open(t *testing.T, dir string) *site.Site {
	t.Helper()
	s, err := site.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func machineCertificate(t *testing.T, s *site.Site, now time.Time, uris ...string) (tls.Certificate, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	der, err := s.Machine(pub, now, uris...)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, leaf
}

func TestIdentityIsMadeOnceAndKeptSecret(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "site")
	first, again := open(t, dir), open(t, dir)
	if first.Fingerprint() != again.Fingerprint() || !first.PublicKey().Equal(again.PublicKey()) {
		t.Fatal("the second start has another identity")
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestIdentityIsNotMadeAnewOverOneThatLostAFile(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if err := os.Remove(filepath.Join(dir, "site.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := site.Open(dir); err == nil {
		t.Fatal("opened without its key")
	}
	if _, err := os.Stat(filepath.Join(dir, "site.key")); err == nil {
		t.Fatal("a new key was made")
	}
}

func TestInterruptedFirstStartIsCompleted(t *testing.T) {
	dir := t.TempDir()
	key := open(t, dir).PublicKey()
	for _, lost := range []string{"ca.crt", "ca.key"} { // written last, and before it
		if err := os.Remove(filepath.Join(dir, lost)); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, "ca.crt")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if !open(t, dir).PublicKey().Equal(key) {
			t.Fatalf("without %s the key that signed the images was replaced", lost)
		}
	}
}

func TestKeyThatCannotBeReadIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "site.key")
	if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := site.Open(dir); err == nil {
		t.Error("opened with half a key")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "half" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

// OpenSSL is another judge of the certificates than the library that made them.
func TestOpenSSLVerifiesTheCertificates(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("openssl is missing: install the package openssl")
	}
	dir := t.TempDir()
	s := open(t, dir)
	now := time.Now()
	cert, _ := machineCertificate(t, s, now, "urn:seedbed:job:1", "urn:seedbed:infohash:aa")
	leaf := filepath.Join(dir, "leaf.der")
	if err := os.WriteFile(leaf, cert.Certificate[0], 0o600); err != nil {
		t.Fatal(err)
	}
	pem := filepath.Join(dir, "leaf.pem")
	run := func(args ...string) string {
		out, err := exec.Command(openssl, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("x509", "-inform", "DER", "-in", leaf, "-out", pem)
	for _, purpose := range []string{"sslclient", "sslserver"} {
		run("verify", "-x509_strict", "-purpose", purpose, "-CAfile", filepath.Join(dir, "ca.crt"), pem)
	}
	text := run("x509", "-in", pem, "-noout", "-text")
	for _, want := range []string{"URI:urn:seedbed:job:1", "URI:urn:seedbed:infohash:aa", "Not Before: Jan  1 00:00:00 2000 GMT"} {
		if !strings.Contains(text, want) {
			t.Errorf("the certificate does not say %q:\n%s", want, text)
		}
	}
	ca := run("x509", "-in", filepath.Join(dir, "ca.crt"), "-noout", "-text")
	if !strings.Contains(ca, "URI:urn:seedbed:site:") || !strings.Contains(ca, "CA:TRUE, pathlen:0") {
		t.Errorf("the CA certificate:\n%s", ca)
	}
}

func TestMachineWithADeadClockTrustsTheServerByItsFingerprint(t *testing.T) {
	s := open(t, t.TempDir())
	server, err := s.Server([]netip.Addr{netip.MustParseAddr("10.77.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	if len(server.Certificate) != 2 || images.Sum(server.Certificate[1]) != s.Fingerprint() {
		t.Fatal("the chain is not leaf, CA")
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.CA())
	for _, clock := range []time.Time{server.Leaf.NotBefore, time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC), time.Now()} {
		if _, err := server.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: clock}); err != nil {
			t.Errorf("at %v: %v", clock, err)
		}
	}
}

// handshake returns what the server makes of a client with this certificate (none if empty).
func handshake(t *testing.T, s *site.Site, client tls.Certificate) (verified int, err error) {
	t.Helper()
	server, err := s.Server(nil)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	config := &tls.Config{InsecureSkipVerify: true}
	if client.Certificate != nil {
		// Whatever authorities the server names, this client sends its certificate.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client, nil }
	}
	go func() {
		c := tls.Client(b, config)
		if c.Handshake() == nil {
			c.Read(make([]byte, 1))
		}
	}()
	c := tls.Server(a, s.ServerTLS(server))
	a.SetDeadline(time.Now().Add(10 * time.Second))
	err = c.Handshake()
	if err == nil && c.ConnectionState().Version != tls.VersionTLS13 {
		t.Fatal("not TLS 1.3")
	}
	return len(c.ConnectionState().VerifiedChains), err
}

func TestServerTakesItsOwnMachinesAndStrangersWithoutACertificateOnly(t *testing.T) {
	s, other := open(t, t.TempDir()), open(t, t.TempDir())
	own, _ := machineCertificate(t, s, time.Now())
	if n, err := handshake(t, s, own); err != nil || n != 1 {
		t.Fatalf("own machine: %d chains, %v", n, err)
	}
	if n, err := handshake(t, s, tls.Certificate{}); err != nil || n != 0 {
		t.Fatalf("no certificate: %d chains, %v", n, err)
	}
	foreign, _ := machineCertificate(t, other, time.Now())
	if _, err := handshake(t, s, foreign); err == nil {
		t.Fatal("a machine of another site was let in")
	}
	old, _ := machineCertificate(t, s, time.Now().Add(-site.MachineLifetime-time.Minute))
	if _, err := handshake(t, s, old); err == nil {
		t.Fatal("an expired certificate was let in")
	}
}

func TestKeysThatAreNoP256AreRefused(t *testing.T) {
	s := open(t, t.TempDir())
	pub, _, _ := ed25519.GenerateKey(rand.Reader)
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range [][]byte{nil, []byte("junk"), der} {
		if _, err := s.Machine(key, time.Now()); err == nil {
			t.Errorf("key %x was signed", key)
		}
	}
}

func TestSignatures(t *testing.T) {
	s := open(t, t.TempDir())
	if err := images.Verify(s.PublicKey(), []byte("m"), s.SignManifest([]byte("m"))); err != nil {
		t.Fatal(err)
	}
	sig := s.Countersign([]byte("r"))
	if !site.VerifyReceipt(s.PublicKey(), []byte("r"), sig) || site.VerifyReceipt(s.PublicKey(), []byte("x"), sig) {
		t.Fatal("countersignature")
	}
	if images.Verify(s.PublicKey(), []byte("r"), sig) == nil {
		t.Fatal("a receipt's countersignature is good for a manifest")
	}
}
