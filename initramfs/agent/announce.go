package agent

import (
	"context"
	"sync"

	"seedbed/appliance/job"
	"seedbed/images/announce"
	"seedbed/images/swarm"
)

// announce keeps the trackers of all appliances told of this machine, and the swarm of the peers that they name, until
// ctx ends.
func (d *deployment) announce(ctx context.Context, sw *swarm.Swarm) {
	d.a.client.mu.Lock()
	appliances, http := append([]string(nil), d.a.client.appliances...), d.a.client.http
	d.a.client.mu.Unlock()
	var group sync.WaitGroup
	for _, base := range appliances {
		c := announce.Client{URL: base + job.PathAnnounce, HTTP: http, Log: d.a.log}
		group.Go(func() {
			c.Run(ctx, func() announce.Request {
				s := sw.Stats()
				// What is left comes from the disk: the swarm's counters are zero until it runs, and a machine that says that
				// it lacks nothing is told of nobody who has something.
				held, _ := d.store.Progress()
				return announce.Request{InfoHash: d.j.InfoHash.Wire(), PeerID: sw.PeerID(), Port: sw.Addr().Port(),
					Uploaded: s.ToPeers, Downloaded: s.FromAppliance + s.FromPeers, Left: d.layout.DataLength() - held}
			}, sw.AddPeers)
		})
	}
	group.Wait()
}
