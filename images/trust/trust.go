// Package trust holds what a site's programs check of what an appliance tells them: that it is one of the site, and that a
// manifest is the one that was meant.
package trust

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"seedbed/images"
	"seedbed/images/torrent"
)

// ErrPin says that something that is not the site's appliance answered.
var ErrPin = errors.New("what answered is not this site's appliance: its certificate has another fingerprint")

// Appliance accepts an appliance of the site: the chain holds the certificate with the fingerprint, and the leaf was issued
// by it for a server, is valid at now (zero: at its own first moment, for who has no clock yet), and has none of the names
// (URIs that begin so) by which machines are known.
func Appliance(cs tls.ConnectionState, fingerprint images.Digest, now time.Time, machines ...string) error {
	if len(cs.PeerCertificates) == 0 {
		return ErrPin
	}
	leaf, roots := cs.PeerCertificates[0], x509.NewCertPool()
	pinned := false
	for _, cert := range cs.PeerCertificates {
		if images.Sum(cert.Raw) == fingerprint {
			roots.AddCert(cert)
			pinned = true
		}
	}
	if !pinned {
		return ErrPin
	}
	for _, u := range leaf.URIs {
		for _, prefix := range machines {
			if strings.HasPrefix(u.String(), prefix) {
				return fmt.Errorf("a machine answered in the appliance's place: %w", ErrPin)
			}
		}
	}
	if now.IsZero() {
		now = leaf.NotBefore
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err
}

// Manifest decodes a manifest that is the one named, signed by the site, and gives the swarm that was named with it.
func Manifest(raw, signature []byte, site ed25519.PublicKey, image images.Digest, swarm images.InfoHash) (*images.Manifest, error) {
	if images.Sum(raw) != image {
		return nil, fmt.Errorf("the appliance sent another manifest than %s", image.Short())
	}
	if err := images.Verify(site, raw, signature); err != nil {
		return nil, err
	}
	m, err := images.DecodeManifest(raw)
	if err != nil {
		return nil, err
	}
	info, err := torrent.FromManifest(m)
	if err != nil {
		return nil, err
	}
	if info.InfoHash != swarm {
		return nil, fmt.Errorf("its swarm is %s, the appliance named %s", info.InfoHash, swarm)
	}
	return m, nil
}
