package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"seedbed/appliance/fleet"
	"seedbed/images"
	"seedbed/images/swarm"
)

// site is Metrics as the collector of what is counted when somebody asks.
type site Metrics

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("seedbed_"+name, help, labels, nil)
}

var (
	build     = desc("build_info", "The program; always 1.", "version")
	machines  = desc("machines", "Machines by state: unadmitted, idle (never had a job), or the state of the oldest open or else latest job.", "state")
	jobs      = desc("jobs", "Jobs that have not ended, and those that ended in the last 30 days.", "kind", "state")
	waits     = desc("queue_waiting_jobs", "Jobs that wait, by what for.", "for")
	agents    = desc("agents_waiting", "Machines whose agent asks for a job now.")
	office    = desc("office_held", "1 where this appliance schedules the site.")
	epoch     = desc("office_epoch", "The scheduler's epoch as this appliance knows it.")
	present   = desc("appliances_present", "Appliances of the site that are there.")
	boots     = desc("sessions", "Boots of agents and stays of guests whose certificates are good.")
	tokens    = desc("tokens", "Tokens of get and seed.")
	traffic   = desc("machine_bytes_total", "Bytes as agents told this appliance since it started: received from appliances, peers and seed nodes, sent to peers, written to disks, sent for captures.", "what")
	swarms    = desc("seeder_swarms", "Swarms that this appliance's seeders serve.")
	peers     = desc("seeder_peers", "Open links of the seeders.")
	sent      = desc("seeder_sent_bytes_total", "Encoded bytes that the seeders sent.")
	damaged   = desc("seeder_damaged_tiles_total", "Tiles and hashes that came wrong to the seeders.")
	memory    = desc("seeder_memory_bytes", "Encoded tiles that the seeders hold in memory.")
	tracked   = desc("tracker_swarms", "Swarms that the tracker knows.")
	tracking  = desc("tracker_peers", "Peers that the tracker knows, in all swarms.")
	free      = desc("repository_free_bytes", "Bytes free for images; nothing where the storage does not tell (S3).")
	total     = desc("repository_total_bytes", "Bytes of the file system of the images; nothing where the storage does not tell (S3).")
	stored    = desc("repository_stored_bytes", "Bytes of all objects of the repository, counted every ten minutes.")
	checked   = desc("tiles_checked_total", "Tiles that came to machines and were compared with their hashes, as agents told this appliance since it started.")
	wrong     = desc("tiles_wrong_total", "Of those, tiles that were other than their hashes.")
	strangers = desc("strangers_refused_total", "Requests without a certificate that came too often, by what they asked for.", "what")
)

// Describe implements prometheus.Collector.
func (s *site) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{build, machines, jobs, waits, agents, office, epoch, present, boots, tokens, traffic, swarms, peers, sent,
		damaged, memory, tracked, tracking, free, total, stored, checked, wrong, strangers, words, moving, wrongNow, median, deployed, lastDone, efficiency} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (s *site) Collect(to chan<- prometheus.Metric) {
	c := s.config.Load()
	if c == nil {
		return
	}
	t := teller{to}
	t.gauge(build, 1, c.Version)
	if c.Fleet != nil {
		t.fleet(c.Fleet())
	}
	if c.Picture != nil {
		t.picture(c.Picture())
	}
	if c.Seeders != nil {
		all := c.Seeders()
		t.seeders(all, s.seeded(all))
	}
	if c.Tracked != nil {
		known, who := c.Tracked()
		t.gauge(tracked, float64(known))
		t.gauge(tracking, float64(who))
	}
	if c.Room != nil {
		if left, all, err := c.Room(); err == nil {
			t.gauge(free, float64(left))
			t.gauge(total, float64(all))
		}
	}
	if c.Stored != nil {
		if n := c.Stored(); n > 0 {
			t.gauge(stored, float64(n))
		}
	}
	for what, count := range c.Refused {
		t.counter(strangers, float64(count()), what)
	}
}

// teller writes what is told.
type teller struct{ to chan<- prometheus.Metric }

func (t teller) gauge(d *prometheus.Desc, v float64, labels ...string) {
	t.to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (t teller) counter(d *prometheus.Desc, v float64, labels ...string) {
	t.to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func (t teller) fleet(m fleet.Measures) {
	for state, n := range m.Machines {
		t.gauge(machines, float64(n), state)
	}
	for k, n := range m.Jobs {
		t.gauge(jobs, float64(n), string(k.Kind), string(k.State))
	}
	for code, n := range m.Waits {
		t.gauge(waits, float64(n), code)
	}
	t.gauge(agents, float64(m.Agents))
	held := 0.0
	if m.Office {
		held = 1
	}
	t.gauge(office, held)
	t.gauge(epoch, float64(m.Epoch))
	t.gauge(present, float64(m.Appliances))
	t.gauge(boots, float64(m.Boots))
	t.gauge(tokens, float64(m.Tokens))
	t.counter(checked, float64(m.Traffic.Tiles))
	t.counter(wrong, float64(m.Traffic.WrongTiles))
	for what, n := range map[string]int64{"from_appliance": m.Traffic.FromAppliance, "from_peers": m.Traffic.FromPeers, "from_seeds": m.Traffic.FromSeeds, "to_peers": m.Traffic.ToPeers,
		"written": m.Traffic.Written, "captured": m.Traffic.Captured} {
		t.counter(traffic, float64(n), what)
	}
}

// seeders tells of all seeders together.
func (t teller) seeders(all map[images.InfoHash]swarm.Stats, sum seeded) {
	var now swarm.Stats
	for _, s := range all {
		now.Peers += s.Peers
		now.MemoryBytes += s.MemoryBytes
	}
	t.gauge(swarms, float64(len(all)))
	t.gauge(peers, float64(now.Peers))
	t.gauge(memory, float64(now.MemoryBytes))
	t.counter(sent, float64(sum.sent))
	t.counter(damaged, float64(sum.damaged))
}

// seeded adds up what the seeders counted since the last time, so that the sum never falls when one of them stops.
func (s *site) seeded(all map[images.InfoHash]swarm.Stats) seeded {
	s.mu.Lock()
	defer s.mu.Unlock()
	for h, stats := range all {
		old, now := s.before[h], seeded{stats.ToPeers, int64(stats.Damaged)}
		if now.sent < old.sent || now.damaged < old.damaged { // it was started again
			old = seeded{}
		}
		s.all.sent += now.sent - old.sent
		s.all.damaged += now.damaged - old.damaged
		s.before[h] = now
	}
	for h := range s.before {
		if _, runs := all[h]; !runs {
			delete(s.before, h)
		}
	}
	return s.all
}
