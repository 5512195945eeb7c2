package agent

import (
	"context"
	"sync"

	"seedbed/appliance/job"
	"seedbed/images/announce"
	"seedbed/images/swarm"
)

// announce keeps the trackers of all appliances told of this machine, of each network card that takes part by itself, and
// the swarm of the peers that they name, until ctx ends.
func (d *deployment) announce(ctx context.Context, sw *swarm.Swarm) {
	appliances, usual := d.a.client.bases()
	var group sync.WaitGroup
	for _, e := range sw.Endpoints() {
		http := usual
		if e.Interface != "" { // the tracker takes the address that an announce comes from
			http = d.a.client.through(d.j.Certificate, swarm.Transport{}.Dialer(e.Interface))
			defer http.CloseIdleConnections()
		}
		for _, base := range appliances {
			c := announce.Client{URL: base + job.PathAnnounce, HTTP: http, Log: d.a.log}
			c.Answered = func(r announce.Response) { sw.Answered(base+e.Interface, r) }
			group.Go(func() {
				c.Run(ctx, func() announce.Request {
					s := sw.Stats()
					// What is left comes from the disk: the swarm's counters are zero until it runs, and a machine that says that
					// it lacks nothing is told of nobody who has something.
					held, _ := d.store.Progress()
					return announce.Request{InfoHash: d.j.InfoHash.Wire(), PeerID: e.PeerID, Port: e.Addr.Port(),
						Uploaded: s.ToPeers, Downloaded: s.FromAppliance + s.FromPeers, Left: d.total.Load() - held}
				}, nil)
			})
		}
	}
	group.Wait()
}
