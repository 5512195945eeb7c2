package swarm

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"

	"seedbed/images"
)

// beside is a protocol of a closed swarm that travels beside its links, over connections of its own.
type beside struct {
	tls   *tls.Config
	serve func(context.Context, *tls.Conn)
}

// Handle gives serve the connections whose TLS handshake names the swarm and, in place of the swarm's own, this protocol
// (RFC 7301), until remove is called. c is the swarm's mutual TLS, see TLSConfig: the handshake is done by it. serve is called
// on a goroutine for each connection, owns it, and has to return when ctx ends.
func (m *Mux) Handle(h images.InfoHash, protocol string, c *tls.Config, serve func(ctx context.Context, conn *tls.Conn)) (remove func(), err error) {
	own := c.Clone()
	own.NextProtos = []string{protocol}
	name := ServerName(h)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.beside[name][protocol] != nil {
		return nil, fmt.Errorf("%s of swarm %s is answered already on %s", protocol, h, m.Addr())
	}
	if m.beside[name] == nil {
		m.beside[name] = map[string]*beside{}
	}
	m.beside[name][protocol] = &beside{own, serve}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if delete(m.beside[name], protocol); len(m.beside[name]) == 0 {
			delete(m.beside, name)
		}
	}, nil
}

// handler returns what a TLS handshake asks for beside the links; nil for a link.
func (m *Mux) handler(hello *tls.ClientHelloInfo) *beside {
	m.mu.Lock()
	defer m.mu.Unlock()
	for protocol, b := range m.beside[hello.ServerName] {
		if slices.Contains(hello.SupportedProtos, protocol) {
			return b
		}
	}
	return nil
}

// Muxes returns the listeners of the peer's endpoints, its own and the one that it shares; an endpoint that only dials has
// none.
func (s *Swarm) Muxes() (list []*Mux) {
	for _, e := range s.net.ends {
		if e.mux != nil {
			list = append(list, e.mux)
		}
	}
	return list
}

// WaitUpload returns when n bytes may be sent, or with ctx's error. Nil has no limit.
func (l *Limits) WaitUpload(ctx context.Context, n int) error {
	if l == nil {
		return nil
	}
	return newPacer(l.up).take(ctx, n, nil)
}

// WaitDownload returns when n bytes may be received, or with ctx's error. Nil has no limit.
func (l *Limits) WaitDownload(ctx context.Context, n int) error {
	if l == nil {
		return nil
	}
	return newPacer(l.down).take(ctx, n, nil)
}
