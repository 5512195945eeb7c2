package metrics

import (
	"cmp"
	"slices"

	"seedbed/appliance/monitor"
)

var (
	words      = desc("machines_by_word", "Machines by the word for how they get on: normal, slow, silent, failed, waiting, paused, done, cancelled, idle.", "word")
	moving     = desc("transfer_bytes_per_second", "Bytes a second over the last 5 s, of all machines together: disk is what became right on disks, appliance, peers and seeds what came over the network from these.", "what")
	wrongNow   = desc("tiles_wrong_ratio", "Share of the tiles that came in the last 60 s and were other than their hashes; 0 where none came.")
	median     = desc("transfer_median_bytes_per_second", "Median of the rates of machines in the transfer, as what became right on their disks.")
	deployed   = desc("deployment_bytes_per_second", "Bytes a second that become right on the disks of a deployment with jobs that have not ended; of 32 such deployments at most.", "deployment")
	lastDone   = desc("deployment_left_seconds", "How long until the last machine at work is expected to be done; nothing where that is not known.", "deployment")
	efficiency = desc("deployment_link_ratio", "What machines in the transfer receive against what their links could carry; nothing where that is not known.", "deployment")
)

// allWords have a series each, also where there is no such machine.
var allWords = []monitor.Word{monitor.Idle, monitor.Waiting, monitor.Normal, monitor.Slow, monitor.Silent, monitor.Paused, monitor.Failed, monitor.Done, monitor.Cancelled}

// mostDeployments bounds the deployments that are told of, so that a program that orders many of them makes no more series.
const mostDeployments = 32

// picture tells how machines get on.
func (t teller) picture(p *monitor.Picture) {
	count := map[monitor.Word]int{}
	var all monitor.Progress // sums
	var rates []float64
	for _, m := range p.Machines {
		count[m.Word]++
		all.FromAppliance, all.FromPeers, all.FromSeeds = all.FromAppliance+m.FromAppliance, all.FromPeers+m.FromPeers, all.FromSeeds+m.FromSeeds
		all.Tiles, all.WrongTiles = all.Tiles+m.Tiles, all.WrongTiles+m.WrongTiles
		if m.Kind.Swarms() && m.Transfers() {
			all.Rate += m.Rate
			rates = append(rates, m.Rate)
		}
	}
	for _, w := range allWords {
		t.gauge(words, float64(count[w]), string(w))
	}
	for what, rate := range map[string]float64{"disk": all.Rate, "appliance": all.FromAppliance, "peers": all.FromPeers, "seeds": all.FromSeeds} {
		t.gauge(moving, rate, what)
	}
	t.gauge(wrongNow, float64(all.WrongTiles)/float64(max(1, all.Tiles)))
	middle := 0.0
	if slices.Sort(rates); len(rates) > 0 {
		middle = rates[len(rates)/2]
	}
	t.gauge(median, middle)
	t.courses(p)
}

// courses tells of the deployments that have jobs that have not ended, the busiest ones first.
func (t teller) courses(p *monitor.Picture) {
	var open []*monitor.Course
	for _, c := range p.Deployments {
		if c.Open() > 0 {
			open = append(open, c)
		}
	}
	slices.SortFunc(open, func(a, b *monitor.Course) int {
		return cmp.Or(cmp.Compare(b.Open(), a.Open()), cmp.Compare(a.ID, b.ID))
	})
	for _, c := range open[:min(len(open), mostDeployments)] {
		t.gauge(deployed, c.Rate, c.ID)
		if !c.LastAt.IsZero() {
			t.gauge(lastDone, max(0, c.LastAt.Sub(p.At).Seconds()), c.ID)
		}
		if c.Efficiency >= 0 {
			t.gauge(efficiency, c.Efficiency, c.ID)
		}
	}
}
