package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"seedbed/appliance/configuration"
)

// ownCertificate is the operators' certificate for people's browsers and programs: whoever asks for a name that is in it gets it.
// Agents ask for no name, or for one that is not in it, and get the site's, to which they are pinned. Safe for concurrent use.
type ownCertificate struct {
	certFile, keyFile string
	log               *slog.Logger
	config            atomic.Pointer[tls.Config]
}

// openOwnCertificate reads certificate and key (PEM); nil where no files are named.
func openOwnCertificate(certFile, keyFile string, log *slog.Logger) (*ownCertificate, error) {
	if certFile == "" && keyFile == "" {
		return nil, nil
	}
	if certFile == "" || keyFile == "" {
		return nil, usageError{errors.New("--tls-cert and --tls-key go together")}
	}
	o := &ownCertificate{certFile: certFile, keyFile: keyFile, log: log}
	return o, o.read()
}

// read takes the files as they are now. An error leaves what was in force.
func (o *ownCertificate) read() error {
	cert, err := readOwnCertificate(o.certFile, o.keyFile, time.Now())
	if err != nil {
		return err
	}
	if left := time.Until(cert.Leaf.NotAfter); left < soonExpired {
		o.log.Warn("the certificate of --tls-cert expires soon; renew it and send SIGHUP", "file", o.certFile, "expires", cert.Leaf.NotAfter)
	}
	o.config.Store(&tls.Config{
		Certificates: []tls.Certificate{*cert},
		MinVersion:   tls.VersionTLS12, // browsers of old desktops; agents speak 1.3 with the site's
		NextProtos:   []string{"h2", "http/1.1"},
	})
	return nil
}

// soonExpired is how long before its end a certificate is warned of.
const soonExpired = 14 * 24 * time.Hour

// readOwnCertificate reads and checks a certificate and its key.
func readOwnCertificate(certFile, keyFile string, now time.Time) (*tls.Certificate, error) {
	if err := configuration.CheckSecret(keyFile); err != nil {
		return nil, fmt.Errorf("--tls-key: %w", err)
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert %s with --tls-key %s: %w", certFile, keyFile, err)
	}
	if cert.Leaf == nil {
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return nil, fmt.Errorf("--tls-cert %s: %w", certFile, err)
		}
	}
	switch leaf := cert.Leaf; {
	case now.After(leaf.NotAfter):
		return nil, fmt.Errorf("--tls-cert %s expired at %s; renew it", certFile, leaf.NotAfter.Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return nil, fmt.Errorf("--tls-cert %s is not good before %s; is this host's clock right?", certFile, leaf.NotBefore.Format(time.RFC3339))
	case len(leaf.DNSNames) == 0:
		return nil, fmt.Errorf("--tls-cert %s names no host (subject alternative name of type DNS), and who comes by an address gets the site's certificate", certFile)
	}
	return &cert, nil
}

// beside returns the agents' configuration with this certificate beside theirs.
func (o *ownCertificate) beside(agents *tls.Config) *tls.Config {
	if o == nil {
		return agents
	}
	both := agents.Clone()
	both.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		own := o.config.Load()
		name := strings.TrimSuffix(hello.ServerName, ".")
		if name == "" || own.Certificates[0].Leaf.VerifyHostname(name) != nil {
			return nil, nil // the agents'
		}
		return own, nil
	}
	return both
}

// reload reads the files again when the program is told to.
func (o *ownCertificate) reload() {
	if err := o.read(); err != nil {
		o.log.Error("certificate not read again, the one before counts on", "err", err)
		return
	}
	leaf := o.config.Load().Certificates[0].Leaf
	o.log.Info("certificate read again", "file", o.certFile, "names", strings.Join(leaf.DNSNames, " "), "expires", leaf.NotAfter)
}
