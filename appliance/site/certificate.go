package site

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"time"

	"seedbed/appliance/job"
)

// Certificates begin in the year 2000: a machine whose clock battery is dead must find the appliance's certificate
// valid before it has set its clock.
var notBefore = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// noExpiry is RFC 5280 §4.1.2.5: a certificate without a well-defined end.
var noExpiry = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// MachineLifetime is how long a machine's certificate is good: a machine may wait for its admission over a weekend.
const MachineLifetime = 72 * time.Hour

func siteURI(key ed25519.PublicKey) string { return job.URISite + hex.EncodeToString(key) }

func selfSigned(key *ecdsa.PrivateKey, site ed25519.PublicKey) ([]byte, error) {
	uri, err := url.Parse(siteURI(site))
	if err != nil {
		return nil, err
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Seedbed site " + hex.EncodeToString(site[:4])},
		NotBefore: notBefore, NotAfter: noExpiry, URIs: []*url.URL{uri},
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
}

// Server returns a certificate for an appliance that is reached at these addresses, on a new key kept in memory. Its
// chain is leaf, CA.
func (s *Site) Server(addrs []netip.Addr) (tls.Certificate, error) {
	t := &x509.Certificate{Subject: pkix.Name{CommonName: "Seedbed appliance"}, NotAfter: noExpiry}
	for _, a := range addrs {
		t.IPAddresses = append(t.IPAddresses, net.IP(a.AsSlice()))
	}
	return s.withKey(t)
}

// Peer returns a certificate for the appliance's own part in a swarm, which its URIs name, on a new key kept in memory.
func (s *Site) Peer(uris ...string) (tls.Certificate, error) {
	t := &x509.Certificate{Subject: pkix.Name{CommonName: "Seedbed seeder"}, NotAfter: noExpiry}
	var err error
	if t.URIs, err = parseURIs(uris); err != nil {
		return tls.Certificate{}, err
	}
	return s.withKey(t)
}

// Machine returns a certificate (DER) for a machine's key (PKIX DER, ECDSA P-256) that says who it is by URIs. It is
// good for MachineLifetime from now. Other kinds of keys are an error.
func (s *Site) Machine(publicKey []byte, now time.Time, uris ...string) ([]byte, error) {
	return s.named(publicKey, uris, &x509.Certificate{
		Subject: pkix.Name{CommonName: "Seedbed machine"}, NotAfter: now.Add(MachineLifetime),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	})
}

// Guest returns a certificate (DER) for the key (PKIX DER, ECDSA P-256) of a program outside a boot. It is good until a
// time, and never for a server of the site.
func (s *Site) Guest(publicKey []byte, until time.Time, uris ...string) ([]byte, error) {
	return s.named(publicKey, uris, &x509.Certificate{
		Subject: pkix.Name{CommonName: "Seedbed guest"}, NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// named issues a certificate on somebody else's key.
func (s *Site) named(publicKey []byte, uris []string, t *x509.Certificate) ([]byte, error) {
	key, err := x509.ParsePKIXPublicKey(publicKey)
	if err != nil {
		return nil, fmt.Errorf("the machine's public key: %w", err)
	}
	ec, ok := key.(*ecdsa.PublicKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, errors.New("the machine's public key is not ECDSA on P-256")
	}
	if t.URIs, err = parseURIs(uris); err != nil {
		return nil, err
	}
	return s.issue(t, ec)
}

func (s *Site) withKey(t *x509.Certificate) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := s.issue(t, &key.PublicKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der, s.ca.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

func (s *Site) issue(t *x509.Certificate, key *ecdsa.PublicKey) (der []byte, err error) {
	if t.SerialNumber, err = serialNumber(); err != nil {
		return nil, err
	}
	t.NotBefore = notBefore
	t.KeyUsage = x509.KeyUsageDigitalSignature
	if t.ExtKeyUsage == nil {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	}
	t.BasicConstraintsValid = true
	return x509.CreateCertificate(rand.Reader, t, s.ca, key, s.caKey)
}

// serialNumber is random, of at most 20 bytes (RFC 5280 §4.1.2.2).
func serialNumber() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func parseURIs(list []string) (out []*url.URL, err error) {
	for _, s := range list {
		u, err := url.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("name in a certificate: %w", err)
		}
		out = append(out, u)
	}
	return out, nil
}
