// Package mailserver runs a real mail server (Exim) for tests, with a configuration of its own: authentication, STARTTLS and TLS, one mailbox.
package mailserver

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/mail"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Account and domain of the server. It takes mail from who logs in, for addresses in the domain, and keeps all in one mailbox, one copy of each.
const (
	User     = "seedbed"
	Password = "correct horse battery staple"
	Domain   = "example.org"
)

// Server is a mail server on 127.0.0.1, to which its certificate is issued.
type Server struct {
	t   testing.TB
	dir string
	cmd *exec.Cmd
	// Plain offers STARTTLS, Implicit speaks TLS from the first byte on: "127.0.0.1:40001".
	Plain, Implicit string
	// CA is the path of the certificate (PEM) of the authority that issued the server's.
	CA string
}

// New makes a server that does not run yet. It fails the test where Exim is not installed.
func New(t testing.TB) *Server {
	t.Helper()
	if _, err := exec.LookPath("exim4"); err != nil {
		t.Fatal("Exim is not installed; `make setup` installs it (exim4-daemon-light)")
	}
	dir, err := os.MkdirTemp("/tmp", "seedbed-mail-") // which the server's user can reach
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{t: t, dir: dir, Plain: free(t), Implicit: free(t), CA: filepath.Join(dir, "ca.pem")}
	if err := s.certificates(); err != nil {
		t.Fatal(err)
	}
	if err := s.configure(); err != nil {
		t.Fatal(err)
	}
	return s
}

// free returns an address that nobody listens at.
func free(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// configuration of Exim. What stands between @ differs.
const configuration = `primary_hostname = mail.example.org
spool_directory = @DIR@/spool
log_file_path = @DIR@/log/%slog
pid_file_path = @DIR@/spool/exim.pid
disable_ipv6 = true
local_interfaces = 127.0.0.1
daemon_smtp_ports = @PLAIN@ : @IMPLICIT@
tls_on_connect_ports = @IMPLICIT@
tls_advertise_hosts = *
tls_certificate = @DIR@/server.pem
tls_privatekey = @DIR@/server.key
auth_advertise_hosts = ${if eq{$tls_in_cipher}{}{}{*}}
host_lookup =
rfc1413_hosts =
smtp_accept_max = 20
deliver_drop_privilege = true
acl_smtp_rcpt = recipient
acl_smtp_data = accept
keep_environment =

begin acl

recipient:
  deny !authenticated = *
       message = log in first
  deny !domains = @DOMAIN@
       message = relay not permitted
  accept

begin routers

here:
  driver = accept
  domains = @DOMAIN@
  transport = mailbox

begin transports

mailbox:
  driver = appendfile
  file = @DIR@/mailbox
  mode = 0600
  check_owner = false
  batch_max = 100

begin authenticators

plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if and{{eq{$auth2}{@USER@}}{eq{$auth3}{@PASSWORD@}}}}
  server_set_id = $auth2
`

// configure writes the configuration, and gives all to the user that the server runs as.
func (s *Server) configure() error {
	_, plain, _ := net.SplitHostPort(s.Plain)
	_, implicit, _ := net.SplitHostPort(s.Implicit)
	text := strings.NewReplacer("@DIR@", s.dir, "@PLAIN@", plain, "@IMPLICIT@", implicit, "@DOMAIN@", Domain, "@USER@", User, "@PASSWORD@", Password).Replace(configuration)
	if err := os.WriteFile(filepath.Join(s.dir, "exim.conf"), []byte(text), 0o644); err != nil {
		return err
	}
	for _, name := range []string{"spool", "log"} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o700); err != nil {
			return err
		}
	}
	u, err := user.Lookup("Debian-exim")
	if err != nil {
		return fmt.Errorf("Exim's package makes the user Debian-exim: %w", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return err
	}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	return filepath.WalkDir(s.dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && filepath.Base(path) != "exim.conf" { // that has to be root's
			err = os.Chown(path, uid, -1)
		}
		return err
	})
}

// certificates makes an authority and the server's certificate.
func (s *Server) certificates() error {
	authority := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Authority of a test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca, err := x509.CreateCertificate(rand.Reader, authority, authority, key.Public(), key)
	if err != nil {
		return err
	}
	own := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "mail.example.org"}, NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	ownKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	cert, err := x509.CreateCertificate(rand.Reader, own, authority, ownKey.Public(), key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(ownKey)
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{"ca.pem": {Type: "CERTIFICATE", Bytes: ca}, "server.pem": {Type: "CERTIFICATE", Bytes: cert}, "server.key": {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(s.dir, name), pem.EncodeToMemory(block), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Start starts the server, and returns when it answers. It ends with the test, if not before.
func (s *Server) Start() {
	s.t.Helper()
	s.cmd = exec.Command("exim4", "-C", filepath.Join(s.dir, "exim.conf"), "-bdf")
	var said bytes.Buffer
	s.cmd.Stdout, s.cmd.Stderr = &said, &said
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.Stop)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", s.Plain)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(end) {
			s.Stop()
			s.t.Fatalf("Exim does not answer: %v\n%s\n%s", err, said.String(), s.Log())
		}
	}
}

// Stop ends the server. It may be called more than once.
func (s *Server) Stop() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		s.cmd = nil
	}
}

// Log is what the server logged.
func (s *Server) Log() string {
	var all strings.Builder
	list, _ := filepath.Glob(filepath.Join(s.dir, "log", "*"))
	for _, path := range list {
		b, _ := os.ReadFile(path)
		fmt.Fprintf(&all, "%s:\n%s", filepath.Base(path), b)
	}
	return all.String()
}

// Mail is one message of the mailbox.
type Mail struct {
	Header mail.Header
	Text   string
}

// Mails returns what is in the mailbox, in the order in which it came.
func (s *Server) Mails() []Mail {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, "mailbox"))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		s.t.Fatal(err)
	}
	var list []Mail
	for _, text := range strings.Split("\n"+string(b), "\nFrom ")[1:] { // mbox(5)
		_, text, _ = strings.Cut(text, "\n")
		m, err := mail.ReadMessage(strings.NewReader(text))
		if err != nil {
			s.t.Fatalf("%v in %s", err, text)
		}
		body, err := io.ReadAll(decoded(m))
		if err != nil {
			s.t.Fatal(err)
		}
		list = append(list, Mail{m.Header, string(body)})
	}
	return list
}
