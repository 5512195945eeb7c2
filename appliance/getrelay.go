package main

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/announce"
	"seedbed/images/relay"
	"seedbed/images/swarm"
)

// relayMost bounds what of a description is kept in memory for others, in bytes.
const relayMost = 64 << 20

// askMachines fetches what machines have of an image's description. What they do not have comes from the appliance.
func (d *described) askMachines(ctx context.Context, g *guest, m *membership) error {
	var lacks []images.Ref
	length := int64(0)
	for _, r := range d.manifest.Description() {
		if b, err := d.onDisk(r); err == nil {
			d.objects[r.Digest] = b
			continue
		}
		lacks = append(lacks, r)
		length += r.Length
	}
	if length < relay.Least {
		return nil
	}
	client, closeIdle := m.http(&swarm.Transport{}, "")
	defer closeIdle()
	g.mu.Lock()
	tracker := &announce.Client{URL: g.pass.Appliances[0] + job.PathAnnounce, HTTP: client, Log: g.log}
	g.mu.Unlock()
	request := announce.SourcesRequest{InfoHash: m.hash.Wire(), Length: length}
	f := relay.Fetcher{TLS: m.tls(), Dialer: g.dialer, Limits: g.limits, Log: g.log}
	f.Sources = func(ctx context.Context, failed []netip.AddrPort) ([]netip.AddrPort, error) {
		limit, cancel := context.WithTimeout(ctx, describePatience)
		defer cancel()
		request.Failed = failed
		return tracker.Sources(limit, request)
	}
	got, err := f.Fetch(ctx, lacks)
	err = errors.Join(err, d.take(got.Objects))
	d.liars = append(d.liars, got.Liars...)
	d.received.FromAppliance += got.FromAppliance
	d.received.FromPeers += got.FromPeers
	request.Held, request.Failed = true, nil // its turn is over; it gives others what it has once it takes part
	limit, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := tracker.Sources(limit, request); err != nil {
		g.log.Debug("the appliance was not told that the description of the image came", "err", err)
	}
	return err
}

// take takes what machines gave, and keeps it for another run.
func (d *described) take(objects relay.Memory) (err error) {
	for digest, b := range objects {
		d.objects[digest] = b
		if d.dir != "" {
			err = errors.Join(err, replaceFile(d.layerFile(digest), b))
		}
	}
	return err
}

// give lets other machines have the description over a peer's ports, until the returned function is called.
func (d *described) give(m *membership, sw *swarm.Swarm, t *swarm.Transport) (server *relay.Server, stop func()) {
	total := d.objects.Total()
	if total == 0 || total > relayMost {
		return nil, func() {}
	}
	server, err := relay.NewServer(relay.ServerConfig{InfoHash: m.hash, TLS: m.tls(), Objects: d.objects, Limits: t.Shared,
		PeerUploadLimit: t.PeerUploadLimit, Log: m.g.log})
	if err != nil {
		m.g.log.Warn("the description of the image is not given to other machines", "err", err)
		return nil, func() {}
	}
	return server, server.ServeAll(sw.Muxes())
}
