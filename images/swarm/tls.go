package swarm

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"seedbed/images"
)

// URIs in the subject alternative names of a peer's certificate (RFC 5280 §4.2.1.6).
const (
	// URIInfoHash and 64 hexadecimal digits name the swarm that the certificate's holder may join.
	URIInfoHash = "urn:seedbed:infohash:"
	// URIRoleAppliance marks the appliance's seeders, so that peers can tell what came from them.
	URIRoleAppliance = "urn:seedbed:role:appliance"
	// URIRoleSeed marks a machine that may hand out beside the appliance, see Config.HandOut.
	URIRoleSeed = "urn:seedbed:role:seed"
	// URIRolePart marks a peer that wants a part of the content only, see Config.Part: who hands out shows it pieces of that part, if
	// it tells which that is, and else announces all that it holds.
	URIRolePart = "urn:seedbed:role:part"
)

// InfoHashURI returns the URI that lets a certificate's holder join the swarm.
func InfoHashURI(h images.InfoHash) string { return URIInfoHash + h.String() }

// ServerName is what a peer sends as server name (RFC 6066 §3) so that one listener can serve several swarms: 40
// hexadecimal digits, the part of the InfoHash that also travels in the handshake. It addresses and proves nothing.
func ServerName(h images.InfoHash) string {
	wire := h.Wire()
	return hex.EncodeToString(wire[:])
}

// TLSConfig returns the mutual TLS of one swarm, for both ends of its links: TLS 1.3, and a handshake completes only
// with a certificate by ca, valid now, that names the InfoHash. Host names play no part among peers. cert holds the
// private key and the leaf; the CA's own certificate need not be in it.
func TLSConfig(cert tls.Certificate, ca *x509.Certificate, h images.InfoHash) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	uri := InfoHashURI(h)
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		ServerName:   ServerName(h),
		NextProtos:   []string{alpn},
		// The library's own checks compare host names and differ between the two ends: verifyPeer does all of them.
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true,
		SessionTicketsDisabled: true,
		VerifyConnection:       func(cs tls.ConnectionState) error { return verifyPeer(cs, roots, uri) },
	}
}

// alpn is the protocol name in the TLS handshake (RFC 7301), so that a listener tells peers from browsers.
const alpn = "seedbed-swarm/1"

// ErrNotInvited says that a peer's certificate is not for this swarm.
var ErrNotInvited = errors.New("the peer's certificate does not name this swarm")

func verifyPeer(cs tls.ConnectionState, roots *x509.CertPool, uri string) error {
	if len(cs.PeerCertificates) == 0 {
		return ErrNotInvited
	}
	leaf := cs.PeerCertificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return fmt.Errorf("certificate of peer: %w", err)
	}
	if !hasURI(leaf, uri) {
		return ErrNotInvited
	}
	return nil
}

// hasURI reports whether the certificate carries the URI as a subject alternative name.
func hasURI(c *x509.Certificate, uri string) bool {
	return slices.ContainsFunc(c.URIs, func(u *url.URL) bool { return u.String() == uri })
}
