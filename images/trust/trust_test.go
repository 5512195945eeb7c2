package trust_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"seedbed/images"
	"seedbed/images/torrent"
	"seedbed/images/trust"
	"seedbed/images/trust/trusttest"
)

func TestOnlyAnApplianceOfTheSiteIsBelieved(t *testing.T) {
	site, other := trusttest.New(t), trusttest.New(t)
	server := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	good := site.Issue(t, server).Leaf
	guest := site.Issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }).Leaf
	named := site.Issue(t, server, "urn:test:machine:1").Leaf
	old := site.Issue(t, func(c *x509.Certificate) {
		server(c)
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}).Leaf
	foreign := other.Issue(t, server).Leaf
	for _, c := range []struct {
		what  string
		chain []*x509.Certificate
		now   time.Time
		pin   bool // the error is ErrPin
		right bool
	}{
		{"an appliance", []*x509.Certificate{good, site.Certificate}, time.Now(), false, true},
		{"an appliance without its authority", []*x509.Certificate{good}, time.Now(), true, false},
		{"nobody", nil, time.Now(), true, false},
		{"another site", []*x509.Certificate{foreign, other.Certificate}, time.Now(), true, false},
		{"another site with our authority beside", []*x509.Certificate{foreign, site.Certificate}, time.Now(), false, false},
		{"a guest", []*x509.Certificate{guest, site.Certificate}, time.Now(), false, false},
		{"a machine", []*x509.Certificate{named, site.Certificate}, time.Now(), true, false},
		{"an old certificate", []*x509.Certificate{old, site.Certificate}, time.Now(), false, false},
		{"an old certificate, by who has no clock", []*x509.Certificate{old, site.Certificate}, time.Time{}, false, true},
	} {
		err := trust.Appliance(tls.ConnectionState{PeerCertificates: c.chain}, images.Sum(site.Certificate.Raw), c.now, "urn:test:machine:")
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
