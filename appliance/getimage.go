package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/layout"
	"seedbed/images/relay"
	"seedbed/images/swarm"
	"seedbed/images/trust"
)

// described is an image that a guest joined the swarm of.
type described struct {
	joined   *job.Joined
	manifest *images.Manifest
	layout   *layout.Layout
	layer    func(images.Ref) ([]byte, error)

	dir      string       // where it is kept; "" is nowhere
	objects  relay.Memory // what is given to other machines
	received swarm.Stats  // what came of the description
	liars    []relay.Liar
}

// onDisk returns what an earlier run kept.
func (d *described) onDisk(r images.Ref) ([]byte, error) {
	if d.dir == "" {
		return nil, fs.ErrNotExist
	}
	b, err := os.ReadFile(d.layerFile(r.Digest))
	if err == nil && images.Sum(b) != r.Digest {
		err = fs.ErrNotExist
	}
	return b, err
}

// layerFile is where a layer is kept.
func (d *described) layerFile(digest images.Digest) string {
	return filepath.Join(d.dir, "layer-"+digest.String())
}

// describePatience is how long the description of an image is asked for, while the appliance does not answer.
const describePatience = 30 * time.Second

// describe fetches what describes an image, all but its content, and checks it. dir keeps it for another run; "" keeps
// nothing.
func (g *guest) describe(ctx context.Context, joined *job.Joined, dir string) (*described, error) {
	d := &described{joined: joined, dir: dir, objects: relay.Memory{}}
	raw, signature, err := g.manifest(ctx, joined, dir)
	if err != nil {
		return nil, err
	}
	d.manifest, err = trust.Manifest(raw, signature, ed25519.PublicKey(joined.SiteKey), joined.Image, joined.InfoHash)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", joined.ImageName, err)
	}
	m, err := g.membership(joined, false)
	if err != nil {
		return nil, err
	}
	if err := d.askMachines(ctx, g, m); err != nil {
		return nil, err
	}
	d.layer = func(r images.Ref) (b []byte, err error) {
		right := func(b []byte) bool { return images.Sum(b) == r.Digest }
		b, err = kept(dir, filepath.Base(d.layerFile(r.Digest)), right, func() (b []byte, err error) {
			if b = d.objects[r.Digest]; b != nil {
				return b, nil
			}
			err = retry(ctx, describePatience, func() error {
				_, b, err = g.do(ctx, http.MethodGet, job.PathLayer+r.Digest.String(), nil, r.Length)
				return err
			})
			d.received.FromAppliance += int64(len(b))
			return b, err
		})
		return b, err
	}
	d.layout, err = layout.Load(d.manifest, func(r images.Ref) (b []byte, err error) {
		if b, err = d.layer(r); err == nil {
			d.objects[r.Digest] = b
		}
		return b, err
	})
	return d, err
}

func (g *guest) manifest(ctx context.Context, joined *job.Joined, dir string) (raw, signature []byte, err error) {
	right := func(b []byte) bool { return images.Sum(b) == joined.Image }
	raw, err = kept(dir, "manifest", right, func() ([]byte, error) {
		var header http.Header
		var b []byte
		err := retry(ctx, describePatience, func() (err error) {
			header, b, err = g.do(ctx, http.MethodGet, job.PathManifest+joined.Image.String(), nil, images.MaxManifestLength)
			return err
		})
		if err != nil {
			return nil, err
		}
		signature, err = base64.StdEncoding.DecodeString(header.Get(job.SignatureHeader))
		if err == nil && dir != "" {
			err = replaceFile(filepath.Join(dir, "manifest.sig"), signature)
		}
		return b, err
	})
	if err == nil && signature == nil {
		signature, err = os.ReadFile(filepath.Join(dir, "manifest.sig"))
	}
	return raw, signature, err
}

// kept returns the file of that name in dir, if it is right, else what fetch returns, and keeps that.
func kept(dir, name string, right func([]byte) bool, fetch func() ([]byte, error)) ([]byte, error) {
	if dir == "" {
		return fetch()
	}
	path := filepath.Join(dir, name)
	if b, err := os.ReadFile(path); err == nil && right(b) {
		return b, nil
	}
	b, err := fetch()
	if err == nil && right(b) {
		err = replaceFile(path, b)
	}
	return b, err
}

// membership is a guest's part in one swarm: its certificate, which it renews in time. Safe for concurrent use.
type membership struct {
	g     *guest
	image images.Digest
	part  bool
	cert  atomic.Pointer[tls.Certificate]
	ends  atomic.Int64 // nanoseconds since 1970
	ca    *x509.Certificate
	hash  images.InfoHash
}

func (g *guest) membership(joined *job.Joined, part bool) (*membership, error) {
	ca, err := x509.ParseCertificate(joined.CA)
	if err != nil {
		return nil, err
	}
	m := &membership{g: g, image: joined.Image, part: part, ca: ca, hash: joined.InfoHash}
	m.take(joined)
	return m, nil
}

func (m *membership) take(joined *job.Joined) {
	m.g.mu.Lock()
	key := m.g.key
	m.g.mu.Unlock()
	m.cert.Store(&tls.Certificate{Certificate: [][]byte{joined.Certificate}, PrivateKey: key})
	m.ends.Store(joined.Expires.UnixNano())
}

// tls returns the swarm's mutual TLS with the certificate of the moment.
func (m *membership) tls() *tls.Config {
	c := swarm.TLSConfig(*m.cert.Load(), m.ca, m.hash)
	c.Certificates = nil
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return m.cert.Load(), nil }
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return m.cert.Load(), nil }
	return c
}

// renew keeps the certificate good until ctx ends. found is given the addresses that each answer names.
func (m *membership) renew(ctx context.Context, found func(*job.Joined)) {
	for {
		left := time.Until(time.Unix(0, m.ends.Load()))
		wait := max(left-fleet.GuestLifetime*2/3, time.Minute)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		joined, err := m.g.join(ctx, m.image.String(), m.part)
		if err != nil {
			if ctx.Err() == nil {
				m.g.log.Warn("certificate not renewed", "image", m.image.Short(), "ends", left, "err", err)
			}
			continue
		}
		m.take(joined)
		found(joined)
	}
}
