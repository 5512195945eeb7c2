// Package trusttest is the certificate authority of a site, for tests.
package trusttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"
)

// Authority issues certificates. Safe for concurrent use.
type Authority struct {
	Certificate *x509.Certificate
	Key         *ecdsa.PrivateKey
}

// Long is since when an authority is valid: for those whose clock is not set as well.
var Long = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// New makes an authority.
func New(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{Key: newKey(t)}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "site"}, NotBefore: Long, NotAfter: Long.AddDate(900, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.Certificate = a.sign(t, template, template, &a.Key.PublicKey)
	return a
}

// Issue returns a certificate with a key of its own, as Sign makes it. Leaf is set.
func (a *Authority) Issue(t testing.TB, change func(*x509.Certificate), uris ...string) tls.Certificate {
	t.Helper()
	key := newKey(t)
	leaf := a.Sign(t, &key.PublicKey, change, uris...)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// Sign returns a certificate for a key, with the URIs: for clients and servers, and valid for an hour before and after now. change,
// if not nil, makes it another.
func (a *Authority) Sign(t testing.TB, key *ecdsa.PublicKey, change func(*x509.Certificate), uris ...string) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	if change != nil {
		change(template)
	}
	return a.sign(t, template, a.Certificate, key)
}

func (a *Authority) sign(t testing.TB, template, parent *x509.Certificate, key *ecdsa.PublicKey) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, a.Key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
