// Package metrics is what the appliance tells Prometheus of itself and of its site. Names of machines, images and people are in
// none of it: the number of series does not grow with the site.
package metrics

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"seedbed/appliance/fleet"
	"seedbed/appliance/monitor"
	"seedbed/images"
	"seedbed/images/swarm"
)

// Config says where a scrape finds what it tells. All are safe for concurrent use; nil leaves out what they would tell.
type Config struct {
	Fleet func() fleet.Measures
	// Picture is how machines get on.
	Picture func() *monitor.Picture
	// Seeders are the counters of the seeders that run.
	Seeders func() map[images.InfoHash]swarm.Stats
	// Tracked counts the swarms that the tracker knows and the peers in them.
	Tracked func() (swarms, peers int)
	// Room returns the bytes that are free for images, and those of the file system in all; an error where the storage tells
	// neither.
	Room func() (free, total int64, err error)
	// Stored returns the bytes of all packs as they were counted last, 0 before.
	Stored func() int64
	// Refused counts the requests of strangers that came too often, by what they asked for.
	Refused map[string]func() int64
	// Version of the program.
	Version string
	Log     *slog.Logger
}

// Metrics are safe for concurrent use. One that is nil counts nothing.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
	commits  prometheus.Histogram
	refused  *prometheus.CounterVec // commits
	boot     *prometheus.CounterVec
	dhcp     *prometheus.CounterVec
	claims   prometheus.Counter
	config   atomic.Pointer[Config]
	log      *slog.Logger

	mu     sync.Mutex // guards what follows
	before map[images.InfoHash]seeded
	all    seeded
}

// seeded is what a seeder, or all together, counted so far.
type seeded struct{ sent, damaged int64 }

// latencies are the bounds of histograms in seconds: an agent's report is answered within 50 ms in 99 of 100 cases.
var latencies = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10}

// New returns metrics that tell of the program alone until Watch is called.
func New(log *slog.Logger) *Metrics {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	m := &Metrics{registry: prometheus.NewRegistry(), log: log, before: map[images.InfoHash]seeded{}}
	m.requests = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "seedbed_request_duration_seconds", Buckets: latencies,
		Help: "Time to answer a request over HTTPS, by endpoint and class of the answer. A claim waits for a job up to 20 s; live goes on until its reader leaves."}, []string{"endpoint", "answer"})
	m.commits = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "seedbed_records_commit_duration_seconds", Buckets: latencies,
		Help: "Time of a transaction that made changes of records durable."})
	m.refused = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "seedbed_records_commits_refused_total",
		Help: "Transactions that were not made: conflict is another appliance that was faster (it is tried again), fenced one that schedules instead, error all else."},
		[]string{"why"})
	m.boot = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "seedbed_boot_files_total",
		Help: "Boot files that were asked for and opened, by protocol and file."}, []string{"protocol", "file"})
	m.dhcp = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "seedbed_dhcp_packets_total",
		Help: "Packets by which machines ask what to boot from the network, by type, and whether they were answered; not those to their DHCP server."}, []string{"type", "answered"})
	m.claims = prometheus.NewCounter(prometheus.CounterOpts{Name: "seedbed_claims_total", Help: "Jobs that agents took."})
	m.fill()
	m.registry.MustRegister(m.requests, m.commits, m.refused, m.boot, m.dhcp, m.claims, (*site)(m),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// fill makes the series that alerts look at, so that they are there before they count something.
func (m *Metrics) fill() {
	for _, why := range []string{"conflict", "fenced", "error"} {
		m.refused.WithLabelValues(why)
	}
	for _, file := range tftpFiles {
		m.boot.WithLabelValues("tftp", file)
	}
	for _, file := range httpFiles {
		m.boot.WithLabelValues("http", file)
	}
	m.requests.WithLabelValues("report", "2xx")
}

// Watch lets scrapes tell of the site too.
func (m *Metrics) Watch(c Config) { m.config.Store(&c) }

// Handler answers scrapes; who may is not its business.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, ErrorLog: errorLog{m.log}})
}

// errorLog is promhttp's.
type errorLog struct{ log *slog.Logger }

func (l errorLog) Println(v ...any) { l.log.Warn("metrics not told", "err", fmt.Sprintln(v...)) }

// why is the reason by which a commit that failed is counted.
func why(err error) string {
	switch {
	case errors.Is(err, fleet.ErrConflict):
		return "conflict"
	case errors.Is(err, fleet.ErrFenced):
		return "fenced"
	}
	return "error"
}
