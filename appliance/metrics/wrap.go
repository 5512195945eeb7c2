package metrics

import (
	"context"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"seedbed/appliance/dhcp"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/tftp"
)

// endpoints are what requests are counted by: the beginning of a path, the longest first where one begins another.
var endpoints = []struct{ prefix, name string }{
	{job.PathHello, "hello"}, {job.PathInventory, "inventory"}, {job.PathClaim, "claim"}, {job.PathReport, "report"},
	{job.PathFrame, "frame"}, {job.PathReceipt, "receipt"}, {job.PathManifest, "manifest"}, {job.PathLayer, "layer"},
	{job.PathCaptures, "capture"}, {job.PathJoin, "join"}, {job.PathNode, "node"}, {job.PathSources, "sources"}, {job.PathAnnounce, "announce"},
	{"/api/v1/live", "live"}, {"/api/", "api"}, {"/metrics", "metrics"}, {"/healthz", "health"}, {"/readyz", "health"}, {"/agent/", "other"},
}

// endpointOf names the endpoint of a path; what is none of the agents', of the API's or of those who watch is a page.
func endpointOf(p string) string {
	for _, e := range endpoints {
		if strings.HasPrefix(p, e.prefix) {
			return e.name
		}
	}
	return "page"
}

// Requests wraps the handler of the HTTPS port: it measures each request.
func (m *Metrics) Requests(next http.Handler) http.Handler {
	if m == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, s := time.Now(), &statusWriter{ResponseWriter: w, status: http.StatusOK}
		endpoint := endpointOf(r.URL.Path)
		next.ServeHTTP(s, r)
		m.requests.WithLabelValues(endpoint, classOf(s.status)).Observe(time.Since(began).Seconds())
		if endpoint == "claim" && s.status == http.StatusOK {
			m.claims.Inc()
		}
	})
}

func classOf(status int) string { return strconv.Itoa(min(max(status/100, 1), 5)) + "xx" }

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (s *statusWriter) WriteHeader(status int) {
	if status >= 200 { // those below come before the answer (RFC 9110 §15.2)
		s.status = status
	}
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// Flush implements http.Flusher, which answers that go on for long ask for.
func (s *statusWriter) Flush() { http.NewResponseController(s.ResponseWriter).Flush() }

// Records wraps the fleet's records: it measures the commits.
func (m *Metrics) Records(of fleet.Records) fleet.Records {
	if m == nil {
		return of
	}
	return &records{of, m}
}

type records struct {
	fleet.Records
	m *Metrics
}

// Commit implements fleet.Records.
func (r *records) Commit(ctx context.Context, c *fleet.Change) (int64, error) {
	began := time.Now()
	number, err := r.Records.Commit(ctx, c)
	if err != nil {
		r.m.refused.WithLabelValues(why(err)).Inc()
		return number, err
	}
	r.m.commits.Observe(time.Since(began).Seconds())
	return number, nil
}

// Files that are counted by name; others are "other".
var (
	tftpFiles = []string{"shimx64.efi", "grubx64.efi", "snponly.efi", "ipxe.efi", "undionly.kpxe", "autoexec.ipxe", "grub.cfg", "other"}
	httpFiles = append([]string{"script", "kernel", "initramfs", "token", "torrent"}, tftpFiles...)
)

// TFTP wraps the opener of TFTP's files: it counts those that were there.
func (m *Metrics) TFTP(next tftp.Opener) tftp.Opener {
	if m == nil {
		return next
	}
	return func(ctx context.Context, r tftp.Request) (*tftp.File, error) {
		f, err := next(ctx, r)
		if err == nil {
			name := path.Base(r.Name)
			if !slices.Contains(tftpFiles, name) {
				name = "other"
			}
			m.boot.WithLabelValues("tftp", name).Inc()
		}
		return f, err
	}
}

// BootFile counts a boot file that was asked for over HTTP.
func (m *Metrics) BootFile(name string) {
	if m == nil {
		return
	}
	if !slices.Contains(httpFiles, name) {
		name = "other"
	}
	m.boot.WithLabelValues("http", name).Inc()
}

// DHCP wraps what answers machines: it counts the packets that are for the appliance, and its answers.
func (m *Metrics) DHCP(next dhcp.Answerer) dhcp.Answerer {
	if m == nil {
		return next
	}
	return func(ctx context.Context, r dhcp.Request) dhcp.Answer {
		a := next(ctx, r)
		if !r.Told { // what is said between a machine and its DHCP server is for no one else to answer
			m.dhcp.WithLabelValues(strings.ToLower(r.Type.String()), strconv.FormatBool(a.File != "")).Inc()
		}
		return a
	}
}
