package agent

import (
	"net"
	"net/http"

	"seedbed/appliance/job"
	"seedbed/images/swarm"
)

// transport returns how the swarm is to use the machine's network, and has the kernel learn what it needs for that.
func (a *Agent) transport(t job.Transport) swarm.Transport {
	if t.Congestion != "" && a.cfg.LoadModule != nil {
		a.cfg.LoadModule("tcp_" + t.Congestion) // one that is not there costs a warning of the swarm
	}
	s := swarm.Transport{UploadLimit: t.UploadLimit, DownloadLimit: t.DownloadLimit, DSCP: t.DSCP, Congestion: t.Congestion}
	if !t.AllNICs {
		return s
	}
	for _, nic := range a.cfg.Machine.Inventory().NICs {
		if nic.Addr != "" {
			s.Interfaces = append(s.Interfaces, nic.Name)
		}
	}
	if len(s.Interfaces) < 2 {
		s.Interfaces = nil
	}
	return s
}

// join makes the swarm's peer. A card that went away since it was listed costs the others no job.
func (a *Agent) join(cfg swarm.Config) (*swarm.Swarm, error) {
	sw, err := swarm.New(cfg)
	if err == nil || len(cfg.Transport.Interfaces) == 0 {
		return sw, err
	}
	a.log.Warn("not every network card can be used; the routes choose one", "nics", cfg.Transport.Interfaces, "err", err)
	cfg.Transport.Interfaces = nil
	return swarm.New(cfg)
}

// through returns a client like the current one whose connections use one network card, for as long as its caller works.
func (c *client) through(certificate []byte, d *net.Dialer) *http.Client {
	d.Timeout = connectTimeout
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.newHTTP(certificate, d)
}
