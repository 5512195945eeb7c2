package agent

import (
	"log/slog"
	"reflect"
	"testing"

	"seedbed/appliance/job"
	"seedbed/images/swarm"
)

// carded is a machine with network cards.
type carded struct {
	Machine
	nics []job.NIC
}

func (c carded) Inventory() job.Inventory { return job.Inventory{NICs: c.nics} }

func TestTransportOfAJob(t *testing.T) {
	var loaded []string
	two := []job.NIC{{Name: "eth0", Addr: "10.77.0.2"}, {Name: "eth1"}, {Name: "eth2", Addr: "10.78.0.2"}}
	a := &Agent{cfg: Config{Machine: carded{nics: two}, LoadModule: func(name string) { loaded = append(loaded, name) }}, log: slog.New(slog.DiscardHandler)}
	if got := a.transport(job.Transport{}); !reflect.DeepEqual(got, swarm.Transport{}) || loaded != nil {
		t.Errorf("%+v, modules %v", got, loaded)
	}
	got := a.transport(job.Transport{UploadLimit: 1 << 20, DownloadLimit: 2 << 20, DSCP: 8, Congestion: "bbr", AllNICs: true})
	want := swarm.Transport{UploadLimit: 1 << 20, DownloadLimit: 2 << 20, DSCP: 8, Congestion: "bbr", Interfaces: []string{"eth0", "eth2"}}
	if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(loaded, []string{"tcp_bbr"}) {
		t.Errorf("%+v, modules %v", got, loaded)
	}
	a.cfg.Machine = carded{nics: two[:2]}
	if got := a.transport(job.Transport{AllNICs: true}); got.Interfaces != nil {
		t.Errorf("one card with an address: %+v", got)
	}
}
