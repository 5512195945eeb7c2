package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"seedbed/appliance/dhcp"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/metrics/dashboard"
	"seedbed/appliance/monitor"
	"seedbed/appliance/tftp"
	"seedbed/images"
	"seedbed/images/swarm"
)

// scrape returns what a scrape tells.
func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func expect(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains(text, "\n"+l+"\n") {
			t.Errorf("%q is missing", l)
		}
	}
}

// watched are metrics of a site that does not change but by its seeders.
func watched(seeders func() map[images.InfoHash]swarm.Stats) *Metrics {
	m := New(nil)
	m.Watch(Config{
		Fleet: func() fleet.Measures {
			return fleet.Measures{Machines: map[string]int{"idle": 3}, Jobs: map[fleet.JobKind]int{{Kind: job.Deploy, State: job.Running}: 2},
				Waits: map[string]int{"window": 4}, Office: true, Epoch: 7, Appliances: 2, Traffic: fleet.Traffic{FromPeers: 1000}}
		},
		Picture: pictured, Seeders: seeders, Tracked: func() (int, int) { return 1, 40 }, Room: func() (int64, int64, error) { return 0, 0, errors.New("it is far away") },
		Stored: func() int64 { return 5 }, Refused: map[string]func() int64{"boot": func() int64 { return 9 }}, Version: "v1",
	})
	return m
}

// pictured is a site with two machines at work and one that is silent.
func pictured() *monitor.Picture {
	at := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	work := monitor.Progress{Kind: job.Deploy, State: job.Running, Phase: job.PhaseContent, Word: monitor.Normal, Rate: 80e6, FromPeers: 70e6, FromSeeds: 5e6, Tiles: 50, WrongTiles: 2}
	slow, silent := work, work
	slow.Word, slow.Rate = monitor.Slow, 5e6
	silent.Word, silent.State, silent.Rate = monitor.Silent, job.Waiting, 0
	p := &monitor.Picture{At: at, Machines: map[string]*monitor.Progress{"a": &work, "b": &slow, "c": &silent}, Deployments: map[string]*monitor.Course{}}
	for i := range 40 {
		id := fmt.Sprintf("d%02d", i)
		p.Deployments[id] = &monitor.Course{ID: id, Machines: 3, Words: map[monitor.Word]int{monitor.Normal: 1, monitor.Done: 2}, Rate: 1e6, Efficiency: 0.5, LastAt: at.Add(90 * time.Second)}
	}
	p.Deployments["over"] = &monitor.Course{ID: "over", Machines: 3, Words: map[monitor.Word]int{monitor.Done: 2, monitor.Failed: 1}}
	return p
}

// The dashboard asks for nothing that an appliance does not tell.
func TestTheDashboardAsksForWhatIsTold(t *testing.T) {
	var d struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(dashboard.JSON, &d); err != nil {
		t.Fatal(err)
	}
	m := watched(func() map[images.InfoHash]swarm.Stats { return nil })
	c := *m.config.Load()
	c.Room = func() (int64, int64, error) { return 1, 2, nil }
	m.Watch(c)
	told := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z_]+)[ {]`).FindAllStringSubmatch(scrape(t, m), -1) {
		told[m[1]] = true
	}
	asked, taken := 0, map[[2]int]string{}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			for _, name := range regexp.MustCompile(`(seedbed|process|go)_[a-z_]+`).FindAllString(target.Expr, -1) {
				asked++
				if !told[name] {
					t.Errorf("panel %q asks for %s", p.Title, name)
				}
			}
		}
		g := p.GridPos
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Errorf("panel %q lies on %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
	if asked < 20 {
		t.Errorf("%d metrics asked for", asked)
	}
}

// Names and types are as Prometheus wants them; its own checker is the judge.
func TestMetricsAreAsPrometheusWantsThem(t *testing.T) {
	m := watched(func() map[images.InfoHash]swarm.Stats { return nil })
	problems, err := testutil.GatherAndLint(m.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	text := scrape(t, m)
	expect(t, text, `seedbed_machines{state="idle"} 3`, `seedbed_jobs{kind="deploy",state="running"} 2`, `seedbed_queue_waiting_jobs{for="window"} 4`,
		`seedbed_office_held 1`, `seedbed_office_epoch 7`, `seedbed_machine_bytes_total{what="from_peers"} 1000`, `seedbed_tracker_peers 40`,
		`seedbed_repository_stored_bytes 5`, `seedbed_strangers_refused_total{what="boot"} 9`, `seedbed_build_info{version="v1"} 1`,
		`seedbed_machines_by_word{word="slow"} 1`, `seedbed_machines_by_word{word="failed"} 0`, `seedbed_transfer_bytes_per_second{what="disk"} 8.5e+07`,
		`seedbed_transfer_bytes_per_second{what="seeds"} 1.5e+07`, `seedbed_tiles_wrong_ratio 0.04`, `seedbed_transfer_median_bytes_per_second 8e+07`,
		`seedbed_deployment_left_seconds{deployment="d31"} 90`, `seedbed_deployment_link_ratio{deployment="d00"} 0.5`)
	if strings.Contains(text, `"over"`) || strings.Contains(text, `"d32"`) {
		t.Error("deployments that are over, or too many, are told of")
	}
	if strings.Contains(text, "\nseedbed_repository_free_bytes") {
		t.Error("room is told that nobody knows")
	}
}

// What all seeders sent never falls: not when one stops, nor when one begins again.
func TestSentBytesOnlyGrow(t *testing.T) {
	now := map[images.InfoHash]swarm.Stats{}
	m := watched(func() map[images.InfoHash]swarm.Stats { return now })
	a, b := images.InfoHash{1}, images.InfoHash{2}
	for i, c := range []struct {
		stats map[images.InfoHash]swarm.Stats
		want  string
	}{
		{map[images.InfoHash]swarm.Stats{a: {ToPeers: 100, Peers: 3}}, "100"},
		{map[images.InfoHash]swarm.Stats{a: {ToPeers: 150}, b: {ToPeers: 10}}, "160"},
		{map[images.InfoHash]swarm.Stats{b: {ToPeers: 20}}, "170"},
		{map[images.InfoHash]swarm.Stats{a: {ToPeers: 5}, b: {ToPeers: 1}}, "176"},
	} {
		now = c.stats
		if text := scrape(t, m); !strings.Contains(text, "\nseedbed_seeder_sent_bytes_total "+c.want+"\n") {
			t.Errorf("step %d: not %s", i, c.want)
		}
	}
}

// The number of series does not depend on what strangers ask for.
func TestSeriesAreBounded(t *testing.T) {
	m := watched(func() map[images.InfoHash]swarm.Stats { return nil })
	h := m.Requests(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(len(r.URL.Path)*7%500 + 100)
	}))
	open := m.TFTP(func(context.Context, tftp.Request) (*tftp.File, error) { return &tftp.File{}, nil })
	answer := m.DHCP(func(context.Context, dhcp.Request) dhcp.Answer { return dhcp.Answer{File: "x"} })
	count := func() int { return strings.Count(scrape(t, m), "\nseedbed_") }
	flood := func() {
		for i := range 200 {
			path := fmt.Sprintf("/%s%d%s", []string{"agent/v1/", "api/v1/", "", "announce", "agent/v1/layer/"}[i%5], i, strings.Repeat("x", i))
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
			m.BootFile(path)
			if _, err := open(t.Context(), tftp.Request{Name: path}); err != nil {
				t.Fatal(err)
			}
			answer(t.Context(), dhcp.Request{Type: dhcpv4.MessageTypeDiscover})
		}
	}
	flood()
	before := count()
	flood()
	if after := count(); after != before || after > 700 {
		t.Errorf("%d series, before %d", after, before)
	}
}

// A machine that takes an address from its DHCP server asks nothing of the appliance.
func TestForeignDHCPIsNotCounted(t *testing.T) {
	m := watched(func() map[images.InfoHash]swarm.Stats { return nil })
	answer := m.DHCP(func(_ context.Context, r dhcp.Request) dhcp.Answer {
		if r.Type == dhcpv4.MessageTypeDiscover {
			return dhcp.Answer{File: "x"}
		}
		return dhcp.Answer{}
	})
	for _, r := range []dhcp.Request{{Type: dhcpv4.MessageTypeDiscover}, {Type: dhcpv4.MessageTypeRequest, Told: true}, {Type: dhcpv4.MessageTypeRequest}} {
		answer(t.Context(), r)
	}
	text := scrape(t, m)
	for _, want := range []string{`seedbed_dhcp_packets_total{answered="true",type="discover"} 1`, `seedbed_dhcp_packets_total{answered="false",type="request"} 1`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
}

func TestRequestsAreCountedByEndpoint(t *testing.T) {
	m := New(nil)
	h := m.Requests(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == job.PathHello {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
	}))
	for _, path := range []string{job.PathHello, job.PathReport, job.PathReport, job.PathClaim, job.PathManifest + "00", job.PathSources, job.PathAnnounce, "/", "/healthz"} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", path, nil))
	}
	text := scrape(t, m)
	for endpoint, want := range map[string]string{`"2xx",endpoint="report"`: "2", `"4xx",endpoint="hello"`: "1", `"2xx",endpoint="claim"`: "1", `"2xx",endpoint="manifest"`: "1",
		`"2xx",endpoint="sources"`: "1", `"2xx",endpoint="announce"`: "1", `"2xx",endpoint="page"`: "1", `"2xx",endpoint="health"`: "1"} {
		expect(t, text, `seedbed_request_duration_seconds_count{answer=`+endpoint+`} `+want)
	}
	expect(t, text, "seedbed_claims_total 1")
}

// failing are records that cannot be written.
type failing struct {
	fleet.Records
	err error
}

func (f failing) Commit(context.Context, *fleet.Change) (int64, error) { return 3, f.err }

func TestCommitsAreMeasured(t *testing.T) {
	m := New(nil)
	for _, err := range []error{nil, nil, fmt.Errorf("x: %w", fleet.ErrConflict), fleet.ErrFenced, errors.New("the disk is full")} {
		if n, got := m.Records(failing{err: err}).Commit(t.Context(), nil); n != 3 || got != err {
			t.Errorf("%d, %v", n, got)
		}
	}
	expect(t, scrape(t, m), "seedbed_records_commit_duration_seconds_count 2", `seedbed_records_commits_refused_total{why="conflict"} 1`,
		`seedbed_records_commits_refused_total{why="fenced"} 1`, `seedbed_records_commits_refused_total{why="error"} 1`)
}

func TestNoMetricsCountNothing(t *testing.T) {
	var m *Metrics
	m.BootFile("kernel")
	if m.Requests(http.NotFoundHandler()) == nil || m.Records(failing{}) == nil || m.TFTP(nil) != nil || m.DHCP(nil) != nil {
		t.Error("nothing is passed on")
	}
}
