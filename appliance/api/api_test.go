package api_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"go.uber.org/goleak"

	"seedbed/appliance/alert"
	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/site"
	"seedbed/appliance/store"
	"seedbed/images"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shelf holds one signed image of one partition, with the layers that its manifest names.
type shelf struct {
	api.Images // what no test asks for

	site   *site.Site
	raw    []byte
	digest images.Digest
	m      *images.Manifest
	layers map[images.Digest][]byte
	hidden images.Digest // a layer of another image
}

func newShelf(t *testing.T, s *site.Site) *shelf {
	t.Helper()
	layer := []byte("a map")
	other := []byte("another image's map")
	m := &images.Manifest{
		Format: 1, Name: "debian", Version: "1", DiskLength: 1 << 20, SectorLength: 512, PieceLength: images.MinPieceLength,
		Frame: images.Frame{Table: "none"},
		Partitions: []images.Partition{{Number: 0, Length: 1 << 20, Type: "00", MapKind: "full", Root: images.Sum([]byte("root")),
			Map: images.Ref{Digest: images.Sum(layer), Length: int64(len(layer))}}},
	}
	raw, d, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return &shelf{site: s, raw: raw, digest: d, m: m, hidden: images.Sum(other),
		layers: map[images.Digest][]byte{images.Sum(layer): layer, images.Sum(other): other}}
}

func (s *shelf) Image(_ context.Context, ref string) (*fleet.Image, error) {
	if ref != "debian" && ref != s.digest.String() {
		return nil, &fleet.Refusal{Code: fleet.CodeImageUnknown, Detail: "no image is named " + ref}
	}
	return &fleet.Image{Digest: s.digest, Manifest: s.m, InfoHash: images.InfoHash(images.Sum([]byte("info")))}, nil
}

func (s *shelf) Manifest(context.Context, images.Digest) ([]byte, []byte, error) {
	return s.raw, s.site.SignManifest(s.raw), nil
}

func (s *shelf) Layer(_ context.Context, d images.Digest) ([]byte, error) { return s.layers[d], nil }

func (s *shelf) LayerRange(_ context.Context, d images.Digest, offset, length int64) ([]byte, error) {
	return s.layers[d][offset : offset+length], nil
}

func (s *shelf) List(context.Context) ([]api.ImageListing, error) {
	return []api.ImageListing{{Name: "debian", Version: "1", Digest: s.digest}}, nil
}

func (s *shelf) Show(ctx context.Context, ref string) (*api.ImageDetail, error) {
	i, err := s.Image(ctx, ref)
	if err != nil {
		return nil, err
	}
	return &api.ImageDetail{Digest: i.Digest, Manifest: i.Manifest}, nil
}

func (s *shelf) Add(ctx context.Context, o api.ImageOrder, progress func(api.Progress)) (*api.ImageDetail, error) {
	progress(api.Progress{Done: 1, Total: 2})
	progress(api.Progress{Done: 2, Total: 2})
	return s.Show(ctx, o.Name)
}

func (s *shelf) Verify(_ context.Context, o api.VerifyOrder, progress func(api.Progress)) (*api.VerifyReport, error) {
	progress(api.Progress{Done: 1, Total: 1})
	return nil, &fleet.Refusal{Code: "image-damaged", Detail: "image " + o.Image + ": partition 1, bytes [0, 65536)"}
}

// appliance serves agents over real HTTPS and an operator over a real socket.
type appliance struct {
	t         *testing.T
	fleet     *fleet.Fleet
	store     *store.Store
	site      *site.Site
	shelf     *shelf
	url       string
	operators *api.Operators
	operator  *client.Client
	// remote is the operators' interface over TLS.
	remote string
}

func start(t *testing.T, admit fleet.Admit) *appliance {
	t.Helper()
	dir := t.TempDir()
	s, err := site.Open(filepath.Join(dir, "site"))
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), filepath.Join(dir, "records.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	a := &appliance{t: t, store: st, site: s, shelf: newShelf(t, s)}
	a.fleet, err = fleet.New(t.Context(), fleet.Config{
		Records: st, Authority: s, Library: a.shelf, Admit: admit, ClaimPoll: 50 * time.Millisecond,
		InfoHashURI: func(h images.InfoHash) string { return "urn:seedbed:infohash:" + h.String() },
	})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := s.Server([]netip.Addr{netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	agents := httptest.NewUnstartedServer(api.Agents(a.fleet, a.shelf, nil, nil))
	agents.TLS = s.ServerTLS(cert)
	agents.EnableHTTP2 = true
	agents.StartTLS()
	t.Cleanup(agents.Close)
	a.url = agents.URL
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	operators := api.NewOperators(api.Config{Fleet: a.fleet, Images: a.shelf, Alerts: alert.New(alert.Config{Fleet: a.fleet})})
	a.operators = operators
	remote := httptest.NewUnstartedServer(operators.Remote())
	remote.TLS = s.ServerTLS(cert)
	remote.EnableHTTP2 = true
	remote.StartTLS()
	t.Cleanup(remote.Close)
	a.remote = remote.URL
	local := httptest.NewUnstartedServer(operators.Local())
	local.Listener.Close()
	local.Listener = l
	local.Start()
	t.Cleanup(local.Close)
	a.operator = client.Local(filepath.Join(dir, "s"))
	t.Cleanup(a.operator.Close)
	return a
}

// agent speaks the contract of package job as an agent does: pinned TLS, then its own certificate.
type agent struct {
	a      *appliance
	key    *ecdsa.PrivateKey
	client *http.Client
	boot   job.Boot
}

func (a *appliance) newAgent(mac string) *agent {
	a.t.Helper()
	if err := a.fleet.Sighted(a.t.Context(), fleet.Sighting{MAC: mac, Stage: "dhcp"}); err != nil {
		a.t.Fatal(err)
	}
	b, err := a.fleet.BootToken(a.t.Context(), mac, netip.MustParseAddr("10.77.0.100"))
	if err != nil {
		a.t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	g := &agent{a: a, key: key, boot: b}
	g.identify(nil)
	return g
}

// identify makes a client that pins the site and shows a certificate.
func (g *agent) identify(der []byte) {
	config := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, VerifyConnection: func(cs tls.ConnectionState) error {
		for _, c := range cs.PeerCertificates {
			if images.Sum(c.Raw) == g.boot.Fingerprint {
				return cs.PeerCertificates[0].CheckSignatureFrom(c)
			}
		}
		return errors.New("not the site")
	}}
	if der != nil {
		config.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: g.key}}
	}
	if g.client != nil {
		g.client.CloseIdleConnections()
	}
	g.client = &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}
	g.a.t.Cleanup(g.client.CloseIdleConnections)
}

// do sends a request and decodes the answer; it returns the status and, from 400 on, the problem.
func (g *agent) do(method, path string, body, into any) (int, job.Problem, http.Header) {
	g.a.t.Helper()
	b, ok := body.([]byte)
	if !ok && body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			g.a.t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(g.a.t.Context(), method, g.a.url+path, bytes.NewReader(b))
	if err != nil {
		g.a.t.Fatal(err)
	}
	resp, err := g.client.Do(req)
	if err != nil {
		g.a.t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		g.a.t.Fatal(err)
	}
	var p job.Problem
	switch to := into.(type) {
	case nil:
	case *[]byte:
		*to = content
	default:
		if resp.StatusCode == 200 {
			err = json.Unmarshal(content, into)
		}
	}
	if resp.StatusCode >= 400 {
		if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
			g.a.t.Errorf("%s: content type %q", path, got)
		}
		err = json.Unmarshal(content, &p)
	}
	if err != nil {
		g.a.t.Fatalf("%s: %v: %s", path, err, content)
	}
	return resp.StatusCode, p, resp.Header
}

// must sends a request that has to be answered with this status.
func (g *agent) must(status int, method, path string, body, into any) http.Header {
	g.a.t.Helper()
	got, p, header := g.do(method, path, body, into)
	if got != status {
		g.a.t.Fatalf("%s: %d, want %d: %+v", path, got, status, p)
	}
	return header
}

func (g *agent) hello() job.Welcome {
	g.a.t.Helper()
	pub, err := x509.MarshalPKIXPublicKey(&g.key.PublicKey)
	if err != nil {
		g.a.t.Fatal(err)
	}
	var w job.Welcome
	g.must(200, "POST", job.PathHello, job.Hello{Token: g.boot.Token, MAC: g.boot.MAC, PublicKey: pub}, &w)
	g.identify(w.Certificate)
	return w
}

const mac = "52:54:00:77:00:10"

func TestAgentGoesTheWholeRoadOverHTTPS(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	if _, err := a.operator.Deploy(t.Context(), api.Order{All: true, Order: fleet.Order{Image: "debian"}}); err != nil {
		t.Fatal(err)
	}
	g := a.newAgent(mac)
	w := g.hello()
	if !bytes.Equal(w.CA, a.site.CA().Raw) || !bytes.Equal(w.SiteKey, a.site.PublicKey()) || time.Since(w.Time) > time.Minute {
		t.Fatalf("welcome %+v", w)
	}
	var me job.Admission
	g.must(200, "POST", job.PathInventory, job.Inventory{Firmware: "bios", NICs: []job.NIC{{MAC: mac}}}, &me)
	if !me.Admitted || me.Name != "pc-770010" {
		t.Fatalf("admission %+v", me)
	}
	var j job.Job
	g.must(200, "POST", job.PathClaim, job.Claim{Machine: me.Machine}, &j)
	cert, err := x509.ParseCertificate(j.Certificate)
	if err != nil || len(cert.URIs) != 3 || cert.URIs[1].String() != "urn:seedbed:job:"+j.ID ||
		cert.URIs[2].String() != "urn:seedbed:infohash:"+j.InfoHash.String() {
		t.Fatalf("job certificate %v, %v", cert.URIs, err)
	}
	g.identify(j.Certificate) // the same key: the same boot

	a.checkContent(g, j.Image)

	report := job.Report{Job: j.ID, Epoch: j.Epoch, Phase: job.PhaseFrame, State: job.Running, Total: 100, Disk: "vda"}
	var d job.Directive
	g.must(200, "POST", job.PathReport, report, &d)
	frame, err := cbor.Marshal(job.OldFrame{Job: j.ID, Disk: "vda", DiskLength: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	g.must(204, "POST", job.PathFrame, frame, nil)
	report.Phase, report.Held, report.FromAppliance = job.PhaseVerify, 100, 60
	g.must(200, "POST", job.PathReport, report, &d)
	if d.State != job.Running || !d.Release {
		t.Fatalf("directive %+v", d)
	}

	report.Phase, report.Verified = job.PhaseTable, 100
	a.finish(g, me, report, j.Image)
	g.must(204, "POST", job.PathClaim, job.Claim{Machine: me.Machine}, nil)

	a.checkViews()
	a.checkJournal(me.Machine, j)
}

// checkContent fetches the description of the image that the agent's job is about, and nothing else.
func (a *appliance) checkContent(g *agent, image images.Digest) {
	t := a.t
	t.Helper()
	var manifest []byte
	header := g.must(200, "GET", job.PathManifest+image.String(), nil, &manifest)
	sig, err := base64.StdEncoding.DecodeString(header.Get(job.SignatureHeader))
	if err != nil || images.Sum(manifest) != image || images.Verify(a.site.PublicKey(), manifest, sig) != nil {
		t.Fatalf("manifest: %v", err)
	}
	var layer []byte
	g.must(200, "GET", job.PathLayer+a.shelf.m.Partitions[0].Map.Digest.String(), nil, &layer)
	if string(layer) != "a map" {
		t.Fatalf("layer %q", layer)
	}
	for ask, want := range map[string]string{"bytes=2-3": "ma", "bytes=0-0,4-4": "\r\n\r\na\r\n"} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", a.url+job.PathLayer+a.shelf.m.Partitions[0].Map.Digest.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Range", ask)
		answer, err := g.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusPartialContent || !strings.Contains(string(b), want) || strings.Contains(string(b), "a map") {
			t.Fatalf("%s of a layer: %s %q %v", ask, answer.Status, b, err)
		}
	}
	if _, p, _ := g.do("GET", job.PathLayer+a.shelf.hidden.String(), nil, nil); p.Status != 404 || p.Code != fleet.CodeImageUnknown {
		t.Fatalf("a layer of another image: %+v", p)
	}
}

// finish sends the receipt.
func (a *appliance) finish(g *agent, me job.Admission, report job.Report, image images.Digest) {
	t := a.t
	t.Helper()
	receipt, err := json.Marshal(job.Receipt{Job: report.Job, Machine: me.Machine, Image: image,
		Roots: []job.PartitionRoot{{Number: 0, Root: a.shelf.m.Partitions[0].Root}}})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(receipt)
	signature, err := ecdsa.SignASN1(rand.Reader, g.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	var c job.Countersigned
	g.must(200, "POST", job.PathReceipt, job.SignedReceipt{Receipt: receipt, Signature: signature, Final: report}, &c)
	if !site.VerifyReceipt(a.site.PublicKey(), receipt, c.Signature) {
		t.Fatal("the countersignature is not the site's")
	}
}

// checkViews looks at what an operator sees after the one machine's one job.
func (a *appliance) checkViews() {
	t := a.t
	t.Helper()
	jobs, err := a.operator.Jobs(t.Context(), api.JobQuery{})
	if err != nil || len(jobs) != 1 || jobs[0].State != job.Succeeded || jobs[0].Verified != 100 || jobs[0].FromAppliance != 60 {
		t.Fatalf("jobs %+v, %v", jobs, err)
	}
	machines, err := a.operator.Machines(t.Context(), api.MachineQuery{})
	if err != nil || len(machines) != 1 || machines[0].Deployed == nil || machines[0].State != job.Succeeded {
		t.Fatalf("machines %+v, %v", machines, err)
	}
	events, err := a.operator.Events(t.Context(), api.EventQuery{Limit: 100})
	if err != nil || events[len(events)-1].Kind != "job.succeeded" {
		t.Fatalf("events %+v, %v", events, err)
	}
}

func TestEveryEndpointButHelloWantsACertificate(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	g := a.newAgent(mac)
	for _, path := range []string{job.PathInventory, job.PathClaim, job.PathReport, job.PathFrame, job.PathReceipt} {
		if status, p, _ := g.do("POST", path, []byte("{}"), nil); status != 401 || p.Code != fleet.CodeUnauthorised {
			t.Errorf("%s: %d %+v", path, status, p)
		}
	}
	for _, path := range []string{job.PathManifest, job.PathLayer} {
		if status, _, _ := g.do("GET", path+a.shelf.digest.String(), nil, nil); status != 401 {
			t.Errorf("%s: %d", path, status)
		}
	}
	g.hello()
	if status, p, _ := g.do("GET", job.PathManifest+a.shelf.digest.String(), nil, nil); status != 404 {
		t.Errorf("manifest without a job: %+v", p)
	}
}

func TestRequestsThatCannotBeReadAreRefused(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	g := a.newAgent(mac)
	if status, p, _ := g.do("POST", job.PathHello, []byte("{"), nil); status != 400 || p.Code != fleet.CodeInvalid {
		t.Errorf("half a hello: %d %+v", status, p)
	}
	if status, p, _ := g.do("POST", job.PathHello, bytes.Repeat([]byte(" "), 1<<20), nil); status != 413 || p.Code != "too-large" {
		t.Errorf("a hello of 1 MiB: %d", status)
	}
	g.hello()
	if status, _, _ := g.do("POST", job.PathFrame, []byte{0x9f}, nil); status != 404 {
		t.Errorf("half a frame of a machine without a job: %d", status)
	}
	if _, err := a.operator.Deploy(t.Context(), api.Order{All: true, Order: fleet.Order{Image: "debian"}}); err != nil {
		t.Fatal(err)
	}
	var me job.Admission
	g.must(200, "POST", job.PathInventory, job.Inventory{}, &me)
	g.must(200, "POST", job.PathClaim, job.Claim{Machine: me.Machine}, nil)
	if status, _, _ := g.do("POST", job.PathFrame, []byte{0x9f}, nil); status != 400 {
		t.Errorf("half a frame: %d", status)
	}
	if status, _, _ := g.do("GET", job.PathManifest+"zz", nil, nil); status != 400 {
		t.Errorf("no digest: %d", status)
	}
}

func TestClaimWaitsForAJob(t *testing.T) {
	a := start(t, fleet.AdmitAsk)
	g := a.newAgent(mac)
	g.hello()
	var me job.Admission
	g.must(200, "POST", job.PathInventory, job.Inventory{}, &me)
	g.must(204, "POST", job.PathClaim, job.Claim{Machine: me.Machine}, nil)
	if _, err := a.operator.Deploy(t.Context(), api.Order{All: true, Order: fleet.Order{Image: "debian"}}); err != nil {
		t.Fatal(err)
	}
	g.must(204, "POST", job.PathClaim, job.Claim{Machine: me.Machine}, nil)
	m, err := a.operator.Admit(t.Context(), strings.ToLower(me.Code))
	if err != nil || m.ID != me.Machine {
		t.Fatalf("%+v, %v", m, err)
	}
	var j job.Job
	g.must(200, "POST", job.PathClaim, job.Claim{Machine: me.Machine}, &j)
	if _, err := a.operator.Operate(t.Context(), j.ID, "cancel"); err != nil {
		t.Fatal(err)
	}
	var d job.Directive
	g.must(200, "POST", job.PathReport, job.Report{Job: j.ID, Epoch: j.Epoch, State: job.Running}, &d)
	if d.State != job.Cancelled {
		t.Fatalf("directive %+v", d)
	}
}

func TestOperatorSeesProgressAndProblems(t *testing.T) {
	a := start(t, fleet.AdmitAuto)
	var seen []api.Progress
	d, err := a.operator.Add(t.Context(), api.ImageOrder{Path: "/disk", Name: "debian"}, func(p api.Progress) { seen = append(seen, p) })
	if err != nil || d.Digest != a.shelf.digest || len(seen) != 2 {
		t.Fatalf("%+v, %v, %v", d, seen, err)
	}
	var r *fleet.Refusal
	if _, err := a.operator.Verify(t.Context(), api.VerifyOrder{Image: "debian:1"}, nil); !errors.As(err, &r) || r.Code != "image-damaged" {
		t.Fatal(err)
	}
	if _, err := a.operator.Deploy(t.Context(), api.Order{All: true, Order: fleet.Order{Image: "nothing"}}); !errors.As(err, &r) || r.Code != fleet.CodeImageUnknown {
		t.Fatal(err)
	}
	if _, err := a.operator.Deploy(t.Context(), api.Order{Order: fleet.Order{Image: "debian", Machines: []string{"nobody"}}}); !errors.As(err, &r) || r.Code != fleet.CodeMachineUnknown {
		t.Fatal(err)
	}
	list, err := a.operator.List(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	deployments, err := a.operator.Deployments(t.Context())
	if err != nil || deployments == nil || len(deployments) != 0 {
		t.Fatalf("%+v, %v", deployments, err)
	}
}

func TestCommandsSayThatNoApplianceRuns(t *testing.T) {
	c := client.Local(filepath.Join(t.TempDir(), "none"))
	if _, err := c.Jobs(t.Context(), api.JobQuery{}); !errors.Is(err, client.ErrNotRunning) {
		t.Fatal(err)
	}
	stale := filepath.Join(t.TempDir(), "stale")
	if err := os.WriteFile(stale, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if client.Local(stale).Running(t.Context()) {
		t.Fatal("a file that is no socket answers")
	}
}
