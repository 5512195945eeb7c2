package trust_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/url"
	"testing"
	"time"

	"seedbed/images"
	"seedbed/images/torrent"
	"seedbed/images/trust"
)

// authority issues certificates.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	a.cert = a.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	return a
}

func (a *authority) issue(c, parent *x509.Certificate) *x509.Certificate {
	a.t.Helper()
	c.SerialNumber, c.Subject = big.NewInt(1), pkix.Name{CommonName: "site"}
	if parent == nil {
		c.NotBefore, c.NotAfter = time.Now().Add(-24*time.Hour), time.Now().Add(24*time.Hour)
	}
	if c.NotBefore.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	if parent == nil {
		parent = c
	} else {
		c.Subject.CommonName = "leaf"
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &a.key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

func TestOnlyAnApplianceOfTheSiteIsBelieved(t *testing.T) {
	site, other := newAuthority(t), newAuthority(t)
	machine, _ := url.Parse("urn:test:machine:1")
	server := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	good := site.issue(&x509.Certificate{ExtKeyUsage: server}, site.cert)
	guest := site.issue(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, site.cert)
	named := site.issue(&x509.Certificate{ExtKeyUsage: server, URIs: []*url.URL{machine}}, site.cert)
	old := site.issue(&x509.Certificate{ExtKeyUsage: server, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)}, site.cert)
	foreign := other.issue(&x509.Certificate{ExtKeyUsage: server}, other.cert)
	for _, c := range []struct {
		what  string
		chain []*x509.Certificate
		now   time.Time
		pin   bool // the error is ErrPin
		right bool
	}{
		{"an appliance", []*x509.Certificate{good, site.cert}, time.Now(), false, true},
		{"an appliance without its authority", []*x509.Certificate{good}, time.Now(), true, false},
		{"nobody", nil, time.Now(), true, false},
		{"another site", []*x509.Certificate{foreign, other.cert}, time.Now(), true, false},
		{"another site with our authority beside", []*x509.Certificate{foreign, site.cert}, time.Now(), false, false},
		{"a guest", []*x509.Certificate{guest, site.cert}, time.Now(), false, false},
		{"a machine", []*x509.Certificate{named, site.cert}, time.Now(), true, false},
		{"an old certificate", []*x509.Certificate{old, site.cert}, time.Now(), false, false},
		{"an old certificate, by who has no clock", []*x509.Certificate{old, site.cert}, time.Time{}, false, true},
	} {
		err := trust.Appliance(tls.ConnectionState{PeerCertificates: c.chain}, images.Sum(site.cert.Raw), c.now, "urn:test:machine:")
		if c.right != (err == nil) || c.pin != errors.Is(err, trust.ErrPin) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

func TestOnlyTheManifestThatWasMeantIsTaken(t *testing.T) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m := &images.Manifest{Format: images.FormatVersion, Name: "debian", Version: "1", DiskLength: 1 << 20, SectorLength: 512,
		PieceLength: images.MinPieceLength, Frame: images.Frame{Table: "none"}}
	m.Partitions = []images.Partition{{Length: 1 << 20, Type: "00", MapKind: images.MapNone, Root: images.Digest{1}, Map: images.Ref{Digest: images.Digest{2}, Length: 1}}}
	raw, digest, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	info, err := torrent.FromManifest(m)
	if err != nil {
		t.Fatal(err)
	}
	signature := images.Sign(key, raw)
	if got, err := trust.Manifest(raw, signature, public, digest, info.InfoHash); err != nil || got.Name != "debian" {
		t.Errorf("%+v, %v", got, err)
	}
	wrong := append([]byte(nil), signature...)
	wrong[3] ^= 1
	for what, err := range map[string]error{
		"another digest":    second(trust.Manifest(raw, signature, public, images.Digest{9}, info.InfoHash)),
		"another swarm":     second(trust.Manifest(raw, signature, public, digest, images.InfoHash{9})),
		"a wrong signature": second(trust.Manifest(raw, wrong, public, digest, info.InfoHash)),
		"no signature":      second(trust.Manifest(raw, nil, public, digest, info.InfoHash)),
		"no manifest":       second(trust.Manifest(nil, images.Sign(key, nil), public, images.Sum(nil), info.InfoHash)),
	} {
		if err == nil {
			t.Errorf("%s was taken", what)
		}
	}
}

func second[T any](_ T, err error) error { return err }
