package monitor

import (
	"maps"
	"slices"
	"time"

	"seedbed/appliance/job"
)

const (
	seriesEvery  = time.Second
	seriesLength = 600
)

// course adds up how machines get on.
type course struct {
	c     Course
	links float64   // of machines in the transfer, bytes a second; those that are not known left out
	wire  float64   // what these receive
	rates []float64 // of machines in the transfer
}

func newCourse(id string) *course { return &course{c: Course{ID: id, Words: map[Word]int{}}} }

// add counts a machine in. written are the bytes that became right on its disk.
func (c *course) add(now time.Time, p *Progress) {
	c.c.Machines++
	c.c.Words[p.Word]++
	if p.Kind.Swarms() && p.Transfers() {
		c.c.Rate += p.Rate
		c.rates = append(c.rates, p.Rate)
		if p.LinkMbit > 0 && p.Done < p.Total {
			c.links += float64(p.LinkMbit) * 1e6 / 8
			c.wire += p.FromAppliance + p.FromPeers + p.FromSeeds
		}
	}
	if p.Kind.Swarms() {
		c.c.Written += p.held
	}
	c.c.FromAppliance += p.FromAppliance
	c.c.FromPeers += p.FromPeers
	c.c.FromSeeds += p.FromSeeds
	c.c.BytesFromAppliance += p.BytesFromAppliance + p.earlier.FromAppliance
	c.c.BytesFromPeers += p.BytesFromPeers + p.earlier.FromPeers
	c.c.BytesFromSeeds += p.BytesFromSeeds + p.earlier.FromSeeds
	if at := now.Add(p.Left); p.atWork() && p.Left >= 0 && at.After(c.c.LastAt) {
		c.c.Last, c.c.LastAt = p.Machine, at
	}
}

// course returns the sums.
func (c *course) course() *Course {
	c.c.Median, c.c.Efficiency = median(c.rates), -1
	if c.links > 0 {
		c.c.Efficiency = min(1, c.wire/c.links)
	}
	return &c.c
}

func (c *course) sample(now time.Time) Sample {
	return Sample{At: now, Rate: c.c.Rate, FromAppliance: c.c.FromAppliance, FromPeers: c.c.FromPeers, FromSeeds: c.c.FromSeeds, AtWork: len(c.rates)}
}

// Transfers reports whether a machine is in the phase in which its job moves its bytes.
func (p *Progress) Transfers() bool { return p.State == job.Running && p.Phase == transferOf(p.Kind) }

// Open is how many of its machines have a job that has not ended.
func (c *Course) Open() int {
	return c.Machines - c.Words[Done] - c.Words[Failed] - c.Words[Cancelled] - c.Words[Idle]
}

// atWork reports whether a machine is at its job.
func (p *Progress) atWork() bool { return p.State == job.Claimed || p.State == job.Running }

// median returns the middle one, the upper of two; 0 of none. The list is sorted after it.
func median[N float64 | int](list []N) N {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[len(list)/2]
}

// extend returns a series with one more moment, unless the last one is too near. What was returned before stays as it is.
func extend(series []Sample, s Sample) []Sample {
	if n := len(series); n > 0 && s.At.Sub(series[n-1].At) < seriesEvery-every/2 {
		return series
	}
	if len(series) >= seriesLength {
		series = thin(series)
	}
	return append(series, s)
}

// thin joins each two of the older two thirds of a series.
func thin(series []Sample) []Sample {
	old := len(series) / 3 * 2
	list := make([]Sample, 0, seriesLength+1)
	for i := 0; i+1 < old; i += 2 {
		a, b := series[i], series[i+1]
		list = append(list, Sample{At: b.At, Rate: (a.Rate + b.Rate) / 2, FromAppliance: (a.FromAppliance + b.FromAppliance) / 2,
			FromPeers: (a.FromPeers + b.FromPeers) / 2, FromSeeds: (a.FromSeeds + b.FromSeeds) / 2, AtWork: max(a.AtWork, b.AtWork)})
	}
	return append(list, series[old:]...)
}

// same reports whether two courses say the same.
func (c *Course) same(o *Course) bool {
	if o == nil || len(c.Series) != len(o.Series) || !maps.Equal(c.Words, o.Words) {
		return false
	}
	a, b := *c, *o
	a.Words, b.Words, a.Series, b.Series = nil, nil, nil, nil
	return a.Machines == b.Machines && a.Rate == b.Rate && a.FromAppliance == b.FromAppliance && a.FromPeers == b.FromPeers && a.FromSeeds == b.FromSeeds &&
		a.BytesFromAppliance == b.BytesFromAppliance && a.BytesFromPeers == b.BytesFromPeers && a.BytesFromSeeds == b.BytesFromSeeds &&
		a.Written == b.Written && a.Median == b.Median && a.Efficiency == b.Efficiency && a.Last == b.Last && a.LastAt.Equal(b.LastAt)
}
