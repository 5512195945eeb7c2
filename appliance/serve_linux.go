package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"seedbed/appliance/alert"
	"seedbed/appliance/api"
	"seedbed/appliance/boot"
	"seedbed/appliance/bootdoctor"
	"seedbed/appliance/boothistory"
	"seedbed/appliance/dhcp"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/limit"
	"seedbed/appliance/monitor"
	"seedbed/appliance/seed"
	"seedbed/appliance/store"
	"seedbed/appliance/tftp"
	"seedbed/appliance/tracker"
	"seedbed/appliance/upload"
	"seedbed/appliance/wake"
	"seedbed/images"
	"seedbed/images/swarm"
)

// config is what `seedbed serve` may be told.
type config struct {
	// Data is the directory of everything that lasts. It is needed.
	Data string
	// Repository is the location of the images; empty is Data/repository.
	Repository string
	// Records is the location of the records, see recordsAt.
	Records string
	// BootDir holds the boot files; empty is Data/boot.
	BootDir string
	// Interface is the only one that is served, at its first address; empty is every one.
	Interface string
	// Address is the appliance's IPv4 address as machines reach it; invalid is the first one of Interface, or of the host.
	Address netip.Addr
	Admit   fleet.Admit // empty is fleet.AdmitAsk
	// HTTP, HTTPS and Swarm are addresses to listen on; empty are ":80", ":443" and ":6881".
	HTTP, HTTPS, Swarm string
	// PruneEvery is how often the repository is pruned; 0 is never. VerifyRate bounds what the verification of images in
	// the background reads, in bytes a second; 0 is none.
	PruneEvery time.Duration
	VerifyRate int64
	// Seeding is how the seeders use the network, Machines how machines do.
	Seeding  swarm.Transport
	Machines job.Transport
	// RecordsPassword is the path of a file with the password of records in PostgreSQL; "" is none.
	RecordsPassword string
	// MailPassword and WebhookSecret are paths of files with the password of the mail user and with what signs messages to the webhook,
	// AlertCA that of certificates by which both are trusted; "" is none, see alert.Secrets.
	MailPassword, WebhookSecret, AlertCA string
	// TLSCert and TLSKey are paths of a certificate (PEM) and its key for people's browsers, see ownCertificate; "" is none.
	TLSCert, TLSKey string
	// MetricsFrom are the networks that get metrics without an API token.
	MetricsFrom networks
	// Topology is the path of the policy file for the links among machines; empty is none: one group.
	Topology string
	// NoBoot leaves out DHCP, TFTP and HTTP: for machines that other means boot, and for tests of the rest.
	NoBoot bool
	// NoDHCP leaves out DHCP alone.
	NoDHCP bool
	// Ready, if not nil, is told the addresses of a running appliance once, on run's goroutine.
	Ready func(addresses)
}

// addresses are where a running appliance listens.
type addresses struct {
	HTTPS, Swarm netip.AddrPort
	HTTP         netip.AddrPort // invalid with NoBoot
}

func serveCommand(o *options) *cobra.Command {
	c := config{MetricsFrom: networks{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}
	var address, admit string
	var verifyRate int64
	var transport transportFlags
	var onlyCheck, asJSON bool
	cmd := &cobra.Command{
		Use: "serve", Short: "Boot machines from the network and image them", Args: cobra.NoArgs,
		Long: `Serve answers machines that boot from the network, beside the DHCP server that is there (proxy-DHCP), and images
those that have a job. Ports: UDP 67, 4011 (DHCP), 69 (TFTP); TCP 80 (boot files), 443 (agents), 6881 (swarm).`,
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&c.BootDir, "boot-dir", "", "`DIR` of the boot files (default: boot in the data directory)")
	f.StringVar(&c.Interface, "interface", "", "serve this `NIC` only (default: all)")
	f.StringVar(&address, "address", "", "the appliance's IPv4 `ADDRESS` as machines reach it (default: the first of the interface)")
	f.StringVar(&admit, "admit", string(fleet.AdmitAsk), "new machines: ask (a person admits them) or auto (for labs)")
	f.StringVar(&c.HTTP, "http", ":80", "`ADDRESS` of the boot files")
	f.StringVar(&c.HTTPS, "https", ":443", "`ADDRESS` of the agents' interface")
	f.StringVar(&c.Swarm, "swarm", ":6881", "`ADDRESS` of the seeders")
	f.StringVar(&c.TLSCert, "tls-cert", "", "`FILE` with a certificate (PEM, with its chain) for people who come by a name in it; SIGHUP reads it again (default: the site's)")
	f.StringVar(&c.TLSKey, "tls-key", "", "`FILE` with its key (PEM), mode 0600 (default: the site's)")
	f.StringVar(&c.MailPassword, "mail-password-file", "", "`FILE` with the password of the mail user, mode 0600 (default: none)")
	f.StringVar(&c.WebhookSecret, "webhook-secret-file", "", "`FILE` with a secret that signs messages to the webhook, mode 0600 (default: none, they are not signed)")
	f.StringVar(&c.AlertCA, "alert-ca", "", "`FILE` with certificates (PEM) of the authorities that mail server and webhook are trusted by (default: those of the host)")
	f.Var(&c.MetricsFrom, "metrics-from", "`NETWORKS` that may read /metrics without an API token")
	f.StringVar(&c.Topology, "topology", "", "policy `FILE` that says which machines may be linked; SIGHUP reads it again (default: none, one group)")
	f.BoolVar(&c.NoDHCP, "no-dhcp", false, "do not answer DHCP")
	f.BoolVar(&c.NoBoot, "no-boot", false, "answer neither DHCP, TFTP nor HTTP: other means boot the machines")
	f.DurationVar(&c.PruneEvery, "prune-every", 24*time.Hour, "how often to free the room of what no image uses; 0 is never")
	f.Int64Var(&verifyRate, "verify-rate", 20, "verify each image once a week, reading at most so many `MB/s`; 0 is never")
	transport.flags(f)
	f.BoolVar(&onlyCheck, "check", false, "say whether an appliance could start like this, and what would be in force; start nothing")
	f.BoolVar(&asJSON, "json", false, "with --check: print JSON")
	settle := func() error {
		if c.PruneEvery < 0 || verifyRate < 0 {
			return usageError{errors.New("--prune-every and --verify-rate are numbers from 0")}
		}
		c.VerifyRate = verifyRate * 1e6
		var err error
		if address != "" {
			if c.Address, err = netip.ParseAddr(address); err != nil || !c.Address.Is4() {
				return usageError{fmt.Errorf("--address: %q is no IPv4 address", address)}
			}
		}
		if c.Admit = fleet.Admit(admit); c.Admit != fleet.AdmitAsk && c.Admit != fleet.AdmitAuto {
			return usageError{fmt.Errorf("--admit is ask or auto, not %q", admit)}
		}
		if c.Seeding, c.Machines, err = transport.settings(); err != nil {
			return err
		}
		c.Data, c.Repository, c.Records, c.RecordsPassword = o.data, o.repository, o.records, o.recordsPassword
		return nil
	}
	o.settled = func() (config, error) {
		err := settle()
		c.Data, c.Repository, c.Records, c.RecordsPassword = o.data, o.repository, o.records, o.recordsPassword // also of one that is wrong
		return c, err
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log, err := o.log()
		if err == nil {
			err = settle()
		}
		if err != nil {
			return o.located(cmd, err)
		}
		if o.file != nil && o.file.Open {
			log.Warn("every user of this host may read the configuration; `chmod o-r` keeps it to those who operate", "file", o.file.Path)
		}
		if asJSON && !onlyCheck {
			return usageError{errors.New("--json goes with --check")}
		}
		if onlyCheck {
			return o.check(cmd, c, log, asJSON)
		}
		return o.located(cmd, run(cmd.Context(), c, log))
	}
	return cmd
}

// run serves until ctx is done or something fails; the first failure stops everything, and everything is waited for.
func run(ctx context.Context, c config, log *slog.Logger) error {
	return (&appliance{config: c, log: log}).run(ctx)
}

// run is run of an appliance that was not opened yet.
func (a *appliance) run(ctx context.Context) (err error) {
	c, log := &a.config, a.log
	defer func() { err = errors.Join(err, a.close()) }()
	if err := a.open(ctx); err != nil {
		return err
	}
	if err := a.firstStart(ctx); err != nil {
		return err
	}
	g, running := errgroup.WithContext(ctx)
	for _, part := range a.parts {
		g.Go(func() error { return part(running) })
	}
	at := addresses{HTTPS: tcpAddr(a.https), Swarm: a.mux.Addr()}
	if a.http != nil {
		at.HTTP = tcpAddr(a.http)
	}
	log.Info("appliance is ready", "address", a.address.String(), "agents", at.HTTPS.String(), "swarm", at.Swarm.String(),
		"boot", at.HTTP.String(), "admit", string(c.Admit), "fingerprint", a.lib.site.Fingerprint().String())
	if c.Ready != nil {
		c.Ready(at)
	}
	err = g.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// firstStart tells the password of the first administrator on standard output, where nobody made a user yet. It is told only now,
// and not logged.
func (a *appliance) firstStart(ctx context.Context) error {
	password, err := a.fleet.FirstAdmin(ctx)
	if err != nil || password == "" {
		return err
	}
	_, err = fmt.Printf("First start: the user is admin, the password %s\nIt is not shown again; `seedbed user passwd admin` on this host sets another one.\n", password)
	return err
}

// appliance is everything that serve opens. Owned by run.
type appliance struct {
	config  config
	log     *slog.Logger
	address netip.Addr // as machines reach it

	lib   *library
	store *store.Store
	id    string // of this appliance among those of its site
	fleet *fleet.Fleet
	// monitor judges machines at work, alerts tell people.
	monitor *monitor.Tracker
	alerts  *alert.Alerts
	facts   facts // of siteFacts, for alerts alone
	// operators is what people and their programs ask.
	operators *api.Operators
	tracker   *tracker.Tracker
	seeders   *seed.Seeders
	named     map[images.InfoHash][]netip.AddrPort // seeders that the tracker names, by swarm; owned by wanted
	opened    map[images.InfoHash]bool             // open swarms that the tracker serves; owned by wanted
	https     net.Listener
	http      net.Listener // nil with NoBoot
	boot      *boot.Server // nil with NoBoot
	history   *boothistory.History
	local     net.Listener
	mux       *swarm.Mux
	parts     []func(context.Context) error
	closers   []func() error
	watched
}

// open opens every file and socket and starts nothing.
func (a *appliance) open(ctx context.Context) error {
	c := &a.config
	if c.BootDir == "" {
		c.BootDir = filepath.Join(c.Data, "boot")
	}
	if c.Admit == "" {
		c.Admit = fleet.AdmitAsk
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	var err error
	if a.address, err = ownAddress(*c); err != nil {
		return err
	}
	if err := a.openWatch(); err != nil {
		return err
	}
	if a.lib, err = openLibrary(ctx, c.Data, c.Repository, a.log); err != nil {
		return err
	}
	a.closers = append(a.closers, a.lib.close)
	if err := a.openRecords(ctx); err != nil {
		return err
	}
	a.closers = append(a.closers, a.store.Close)
	if a.https, err = a.listen(or(c.HTTPS, ":443"), "agents"); err != nil {
		return err
	}
	swarmListener, err := a.listenBy(c.Seeding.Listen, or(c.Swarm, ":6881"), "the swarm")
	if err != nil {
		return err
	}
	a.mux = swarm.NewMux(swarmListener, a.log)
	if !c.NoBoot {
		if a.http, err = a.listen(or(c.HTTP, ":80"), "boot files"); err != nil {
			return err
		}
	}
	a.fleet, err = fleet.New(ctx, fleet.Config{
		ID: a.id, Self: a.self(), Records: a.metrics.Records(a.store), Authority: a.lib.site, Library: a.lib, Admit: c.Admit, Log: a.log,
		InfoHashURI: swarm.InfoHashURI, PartURI: swarm.URIRolePart, SeedURI: swarm.URIRoleSeed,
		Appliances: []string{a.url()}, Tell: a.tell, Hear: a.hear,
		Seeds: []netip.AddrPort{a.seeder()}, Transport: c.Machines, MayReach: a.mayReach, NextVersion: a.lib.repo.NextVersion, FreeVersion: a.lib.free,
		Needed: a.lib.needed, Weigh: a.lib.weigh,
		Wake: func(mac net.HardwareAddr, to []netip.Addr) error { return wake.Send(mac, to, c.Interface) },
	})
	if err != nil {
		return err
	}
	if err := a.openAlerts(); err != nil {
		return err
	}
	a.operators = api.NewOperators(api.Config{Fleet: a.fleet, Images: a.lib, Alerts: a.alerts, Program: programVersion(), Log: a.log, Boots: func(macs []string) []bootdoctor.Boot { return a.history.Of(macs) }})
	a.lib.usedBy, a.lib.fromMachines = usedByFleet(a.fleet, a.lib.repo.Resolve), a.fromMachines
	if err := a.lib.loadOpen(ctx); err != nil {
		return err
	}
	if err := a.openSwarm(); err != nil {
		return err
	}
	if err := a.openHTTPS(); err != nil {
		return err
	}
	if err := a.openLocal(); err != nil {
		return err
	}
	a.openSchedule()
	a.watch()
	a.parts = append(a.parts, a.fleet.Run, a.mux.Run)
	if !c.NoBoot {
		if err := a.openBoot(); err != nil {
			return err
		}
	}
	a.openHistory(ctx)
	return nil
}

// url is the base URL by which machines reach the appliance.
func (a *appliance) url() string {
	return "https://" + netip.AddrPortFrom(a.address, tcpAddr(a.https).Port()).String()
}

// seeder is the address of the appliance's seeders as machines reach it.
func (a *appliance) seeder() netip.AddrPort {
	return netip.AddrPortFrom(a.address, a.mux.Addr().Port())
}

func (a *appliance) openSwarm() error {
	policy, err := readTopology(a.config.Topology)
	if err != nil {
		return err
	}
	a.tracker = tracker.New(tracker.Config{Policy: policy, Names: a.fleet.Names, Log: a.log})
	a.lib.openPeers = a.tracker.Machines
	a.openTopology()
	seeders, err := seed.New(seed.Config{
		Mux: a.mux, Open: a.lib.repo.OpenImage, Layer: a.lib.repo.Layer, LayerRange: a.lib.repo.LayerRange, CA: a.lib.site.CA(), Refused: a.fleet.Revoked, Changed: a.lib.open.changed, Log: a.log,
		Certificate: func(h images.InfoHash) (tls.Certificate, error) {
			return a.lib.site.Peer(swarm.InfoHashURI(h), swarm.URIRoleAppliance)
		},
		Others: func(h images.InfoHash) []netip.AddrPort {
			return append(a.fleet.OtherSeeders(), a.fleet.SeedNodes(h)...)
		},
		Wanted: a.wanted, Damaged: a.lib.damaged.of, Transport: a.config.Seeding,
	})
	if err != nil {
		return err
	}
	a.seeders, a.lib.reopen = seeders, seeders.Reopen
	a.parts = append(a.parts, seeders.Run, func(ctx context.Context) error { return a.lib.open.follow(ctx, a.fleet.Changed) })
	return nil
}

// wanted returns the swarms that machines need, and lets the tracker name the seeders of the site's appliances in these. The seeders call it, on
// one goroutine.
func (a *appliance) wanted() []seed.Wanted {
	var list []seed.Wanted
	now, seeders := map[images.InfoHash][]netip.AddrPort{}, append([]netip.AddrPort{a.seeder()}, a.fleet.OtherSeeders()...)
	for _, w := range a.fleet.Swarms() {
		now[w.InfoHash] = seeders
		for _, seeder := range seeders {
			a.tracker.AddSeed(w.InfoHash, seeder)
		}
		list = append(list, seed.Wanted{Image: w.Image, InfoHash: w.InfoHash})
	}
	for h, before := range a.named {
		for _, seeder := range before {
			if !slices.Contains(now[h], seeder) {
				a.tracker.RemoveSeed(h, seeder)
			}
		}
	}
	a.named = now
	return append(list, a.wantedOpen()...)
}

func (a *appliance) openHTTPS() error {
	cert, err := a.lib.site.Server([]netip.Addr{a.address})
	if err != nil {
		return fmt.Errorf("make the server's certificate: %w", err)
	}
	uploads := upload.New(upload.Config{Fleet: a.fleet, Library: a.lib, Begin: a.lib.begin, Sync: a.lib.repo.Sync, Log: a.log})
	handler := http.NewServeMux()
	agents := api.Agents(a.fleet, a.lib, api.Announces(a.fleet, a.tracker), a.log)
	for _, path := range []string{"/agent/", job.PathAnnounce, job.PathSources} {
		handler.Handle(path, agents)
	}
	pages, err := a.openConsole()
	if err != nil {
		return err
	}
	handler.Handle("/", pages)
	guests := api.Guests(a.fleet, a.log)
	handler.Handle(job.PathJoin, guests)
	handler.Handle(job.PathNode, guests)
	captures := api.Captures(a.fleet, uploads, a.log)
	handler.Handle(job.PathCaptures, captures)
	handler.Handle(job.PathCaptures+"/", captures)
	handler.Handle(api.Path, a.operators.Remote())
	a.parts = append(a.parts, uploads.Run, a.server(tls.NewListener(a.https, a.own.beside(withHTTP2(a.lib.site.ServerTLS(cert)))), a.front(handler)))
	return nil
}

// withHTTP2 offers HTTP/2, by which reports and a waiting claim share one connection.
func withHTTP2(c *tls.Config) *tls.Config {
	c.NextProtos = []string{"h2", "http/1.1"}
	return c
}

// maxSocketPath is the room for a path in a socket's address (unix(7), sun_path), without its closing zero.
const maxSocketPath = 107

// openLocal opens the operator's socket. A socket file that a killed appliance left is removed: the repository's lock
// says that no other one runs.
func (a *appliance) openLocal() error {
	path := filepath.Join(a.config.Data, "seedbed.sock")
	if len(path) > maxSocketPath {
		return fmt.Errorf("the local socket %s has a path of %d bytes, of which Linux takes %d; choose a data directory with a shorter path",
			path, len(path), maxSocketPath)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the socket of an earlier appliance: %w", err)
	}
	var err error
	if a.local, err = net.Listen("unix", path); err != nil {
		return fmt.Errorf("open the local socket: %w", err)
	}
	a.closers = append(a.closers, closer(a.local))
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	a.parts = append(a.parts, a.server(a.local, withProfiles(a.withReady(a.operators.Local()))))
	return nil
}

func (a *appliance) openBoot() error {
	c := a.config
	files, err := boot.OpenFiles(c.BootDir)
	if err != nil {
		return err
	}
	a.lib.web = strings.TrimSuffix("http://"+netip.AddrPortFrom(a.address, tcpAddr(a.http).Port()).String(), ":80")
	a.boot, err = boot.New(boot.Config{
		Files: files, Fleet: bootFleet{a.fleet, a.log, new(atomic.Int64)}, Addr: a.address, HTTPPort: tcpAddr(a.http).Port(), Open: a.openHTTP(), Asked: a.bootAsked, Others: a.fleet.OtherBoots, Log: a.log,
	})
	if err != nil {
		return err
	}
	var own netip.Addr // every address of the host
	if c.Interface != "" {
		own = a.address
	}
	files69, err := tftp.New(tftp.Config{Addr: own}, a.metrics.TFTP(a.boot.OpenTFTP), a.log)
	if err != nil {
		return err
	}
	a.parts = append(a.parts, files69.Run, func(ctx context.Context) error { return a.boot.Run(ctx, a.http) })
	if c.NoDHCP {
		return nil
	}
	proxy, err := dhcp.New(dhcp.Config{Interface: c.Interface, Addr: c.Address}, a.metrics.DHCP(a.boot.AnswerDHCP), a.log)
	if err != nil {
		return err
	}
	a.parts = append(a.parts, proxy.Run)
	return nil
}

// listen opens a TCP port, at the served interface's address if there is only one and the port's address says none.
func (a *appliance) listen(address, what string) (net.Listener, error) {
	return a.listenBy(func(address string) (net.Listener, error) { return net.Listen("tcp", address) }, address, what)
}

func (a *appliance) listenBy(open func(string) (net.Listener, error), address, what string) (net.Listener, error) {
	if a.config.Interface != "" && strings.HasPrefix(address, ":") {
		address = a.address.String() + address
	}
	l, err := open(address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s on %s: %w", what, address, err)
	}
	a.closers = append(a.closers, closer(l))
	return l, nil
}

// closer closes a listener that may be closed already, by what ran on it.
func closer(l net.Listener) func() error {
	return func() error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

// close gives back what open took, in reverse.
func (a *appliance) close() error {
	var errs []error
	for i := len(a.closers) - 1; i >= 0; i-- {
		errs = append(errs, a.closers[i]())
	}
	return errors.Join(errs...)
}

const (
	// headerTimeout is how long a TLS handshake and a request's header may take: a machine under emulation takes seconds.
	headerTimeout = 15 * time.Second
	// maxHeader bounds a request's header, in bytes: a browser's is 2 KB.
	maxHeader = 64 << 10
	// connectionsOfOne bounds those of one address, where a thousand simulated machines are, connectionsOfAll those of all: 5,000
	// machines have two or three. One that says nothing takes some 50 KB.
	connectionsOfOne, connectionsOfAll = 4096, 20000
)

// bodies bounds the time until the first byte of a request's body is asked for, also where the server throws it away; endpoints
// bound what they read. HTTP/2 needs no such bound: there a body that nobody reads ends with the answer.
func bodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 && r.ContentLength != 0 {
			until := http.NewResponseController(w)
			_ = until.SetReadDeadline(time.Now().Add(headerTimeout)) // a connection that cannot be bounded is gone
		}
		next.ServeHTTP(w, r)
	})
}

// stopTimeout is how long requests at work may take to end when the appliance stops.
const stopTimeout = 3 * time.Second

// server returns a part that serves HTTP on a listener. Requests end with the part's context.
func (a *appliance) server(l net.Listener, h http.Handler) func(context.Context) error {
	return func(ctx context.Context) error {
		s := &http.Server{
			Handler:           bodies(h),
			ReadHeaderTimeout: headerTimeout,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    maxHeader,
			ConnState:         limit.NewConnections(connectionsOfOne, connectionsOfAll).Note,
			BaseContext:       func(net.Listener) context.Context { return ctx },
			ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		}
		stopped := make(chan error, 1)
		stop := context.AfterFunc(ctx, func() {
			limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
			defer cancel()
			err := s.Shutdown(limit)
			if err != nil {
				err = s.Close()
			}
			stopped <- err
		})
		err := s.Serve(l)
		if stop() || !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve on %s: %w", l.Addr(), err)
		}
		return <-stopped
	}
}

// ownAddress returns the appliance's IPv4 address as machines reach it.
func ownAddress(c config) (netip.Addr, error) {
	if c.Address.IsValid() {
		return c.Address, nil
	}
	var list []net.Addr
	var err error
	if c.Interface != "" {
		nic, nicErr := net.InterfaceByName(c.Interface)
		if nicErr != nil {
			return netip.Addr{}, fmt.Errorf("interface %s: %w", c.Interface, nicErr)
		}
		list, err = nic.Addrs()
	} else {
		list, err = net.InterfaceAddrs()
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("look for the appliance's address: %w", err)
	}
	for _, l := range list {
		prefix, err := netip.ParsePrefix(l.String())
		if err == nil && prefix.Addr().Is4() && prefix.Addr().IsGlobalUnicast() {
			return prefix.Addr(), nil
		}
	}
	return netip.Addr{}, errors.New("no network interface has an IPv4 address; give one with --address")
}

func tcpAddr(l net.Listener) netip.AddrPort {
	if t, ok := l.Addr().(*net.TCPAddr); ok {
		return t.AddrPort()
	}
	return netip.AddrPort{}
}

// openSchedule adds the upkeep of the repository to what runs.
func (a *appliance) openSchedule() {
	s := &schedule{
		lib: a.lib, note: a.fleet.Note, log: a.log, first: time.Hour, pruneEvery: a.config.PruneEvery, verifyRate: a.config.VerifyRate, lookEvery: time.Hour,
		turns: &turns{bucket: a.lib.bucket, path: filepath.Join(a.config.Data, "verifying"), every: 7 * 24 * time.Hour},
	}
	a.parts = append(a.parts, s.Run)
}
