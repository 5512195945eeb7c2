package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"seedbed/appliance/api"
	"seedbed/appliance/doctor"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/appliance/queue"
	"seedbed/appliance/site"
	"seedbed/appliance/store"
	"seedbed/images"
	"seedbed/images/repository"
	"seedbed/images/trust"
)

// service is what is known of the appliance that is looked at.
type service struct {
	runs    bool // something listens on its socket
	answers bool // it answers questions
	pid     int  // 0: not known
}

// lookService looks whether the appliance answers, and what it says of itself.
func (d *examination) lookService(ctx context.Context, n *doctor.Notes) {
	if d.o.remote.url == "" && !d.findService(ctx, n) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout+2*time.Second)
	defer cancel()
	ready, says, err := d.client.Ready(ctx)
	if err != nil {
		n.Wrong("look at its log (`journalctl -u seedbed`); if it stands still, restart it", "the appliance does not answer: %s", oneLine(err))
		return
	}
	d.service.answers = true
	if _, err := d.client.Me(ctx); err != nil {
		d.service.answers = false
		n.Wrong("", "the appliance does not tell what it knows: %s", oneLine(err))
	}
	where := d.o.remote.url
	if where == "" {
		where = fmt.Sprintf("at %s (pid %d)", d.o.socket(), d.service.pid)
	}
	if !ready {
		n.Wrong("look at that part, below, and at the log (`journalctl -u seedbed`)", "the appliance %s says %s", where, says)
		return
	}
	n.OK("the appliance %s says %s", where, says)
}

// findService finds the process that listens on the local socket.
func (d *examination) findService(ctx context.Context, n *doctor.Notes) bool {
	path := d.o.socket()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		n.Warning("ask as root, or as the appliance's user", "the socket %s may not be opened by this user", path)
		return false
	case errors.Is(err, fs.ErrNotExist):
		n.Wrong("`systemctl start seedbed`, or `seedbed serve`; where it has another data folder, name that with --data", "no appliance runs: there is no %s", path)
		return false
	case err != nil:
		n.Wrong("`systemctl start seedbed`, or `seedbed serve`; its log says why it ended (`journalctl -u seedbed`)", "no appliance runs: nobody listens on %s", path)
		return false
	}
	defer conn.Close()
	d.service.runs = true
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return true
	}
	_ = raw.Control(func(fd uintptr) { // unix(7): of who called listen(2)
		if who, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			d.service.pid = int(who.Pid)
		}
	})
	d.lookFlags(n)
	return true
}

// lookFlags compares the flags by which the appliance was started with those that doctor was given.
func (d *examination) lookFlags(n *doctor.Notes) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", d.service.pid))
	if err != nil {
		return
	}
	var missing []string
	words := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
	for i, word := range words {
		name, ok := strings.CutPrefix(word, "--")
		name, value, given := strings.Cut(name, "=")
		f := d.cmd.Flags().Lookup(name)
		switch {
		case !ok || f == nil || name == "log-level":
			continue
		case !given && f.NoOptDefVal != "":
			value = f.NoOptDefVal
		case !given && i+1 < len(words):
			value = words[i+1]
		}
		if f.Value.String() != value {
			missing = append(missing, "--"+name)
		}
	}
	if missing != nil {
		n.Warning("give doctor the same flags, or write them into the configuration: what follows is by what doctor was told", "the appliance was started with %s", strings.Join(missing, " "))
	}
}

// lookRepository looks whether the images can be read, and at the marks of damage.
func (d *examination) lookRepository(ctx context.Context, n *doctor.Notes) {
	where := withoutPassword(or(d.c.Repository, filepath.Join(d.c.Data, "repository")))
	damaged, since, err := d.damagedPacks(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !d.service.runs:
		n.OK("%s is not there yet and is made at the first start", where)
		return
	case errors.Is(err, fs.ErrNotExist):
		n.Wrong("is it mounted? Put it back, and restart the appliance", "the repository %s is gone", where)
		return
	case err != nil && notForUs(n, err):
		return
	case err != nil:
		n.Wrong("the appliance hands out no image without it: look at its mount, its network and its rights", "the repository %s cannot be read: %s", where, oneLine(err))
		return
	}
	if damaged > 0 {
		if whole, _ := d.damage(ctx); whole != nil && whole.At.After(since) {
			n.OK("%s can be read; marks of damage at %d packs: all images were found whole since, and the marks go with the packs", where, damaged)
			return
		}
		n.Warning("`seedbed image verify --all --heal` names what they hold, and heals what can be, while the appliance runs", "the repository %s has marks of damage at %d packs", where, damaged)
		return
	}
	n.OK("%s can be read, no marks of damage", where)
}

// damagedPacks counts the packs with marks of damage, and says when the last mark was made.
func (d *examination) damagedPacks(ctx context.Context) (count int, last time.Time, err error) {
	packs := map[string]bool{}
	note := func(pack string, at time.Time) {
		if packs[pack] = true; at.After(last) {
			last = at
		}
	}
	if folder := d.folder(); folder != "" { // which a bucket would write into
		if err := readable(folder); err != nil {
			return 0, last, err
		}
		marks, err := filepath.Glob(filepath.Join(folder, filepath.FromSlash(repository.DamagedPrefix), "*", "*"))
		for _, path := range marks {
			if info, err := os.Stat(path); err == nil { // else it went a moment ago
				note(filepath.Base(filepath.Dir(path)), info.ModTime())
			}
		}
		return len(packs), last, err
	}
	b, closeBucket, err := openBucket(ctx, d.c.Data, d.c.Repository)
	if err != nil {
		return 0, last, err
	}
	defer closeBucket()
	for o, err := range b.List(ctx, repository.DamagedPrefix) {
		if err != nil {
			return 0, last, err
		}
		pack, _, _ := strings.Cut(strings.TrimPrefix(o.Key, repository.DamagedPrefix), "/")
		note(pack, o.Modified)
	}
	return len(packs), last, nil
}

// lookRecords looks whether the records can be read, and whether their tables are those of this program.
func (d *examination) lookRecords(ctx context.Context, n *doctor.Notes) {
	r := d.checking(n)
	r.ctx = ctx
	r.records()
}

// How far clocks may be apart: what looks at two of them are certificates of days, start times and windows of minutes.
const (
	clocksDiffer = 5 * time.Second
	clocksWrong  = time.Minute
)

// lookClock compares the clock of this host with those of the database and of the site's other appliances.
func (d *examination) lookClock(ctx context.Context, n *doctor.Notes) {
	var kernel unix.Timex
	state, err := unix.Adjtimex(&kernel)
	switch {
	case err != nil:
		n.Warning("", "the kernel does not tell of its clock: %v", err)
	case state == unix.TIME_ERROR || kernel.Status&unix.STA_UNSYNC != 0:
		n.Warning("start an NTP client, such as systemd-timesyncd or chrony (`timedatectl` tells of it)", "nothing sets the clock of this host by others; it says %s", timeText(time.Now()))
	default:
		n.OK("the clock of this host is set by others (NTP)")
	}
	if store.IsPostgres(d.c.Records) {
		location, err := recordsWith(d.c.Data, d.c.Records, d.c.RecordsPassword)
		if err == nil {
			var ahead, within time.Duration
			if ahead, within, err = store.Ahead(ctx, location); err == nil {
				judgeClock(n, "the database", ahead, within)
			}
		}
		if err != nil {
			n.Warning("see records", "the clock of the database is not known: %s", oneLine(err))
		}
	}
	s, err := site.Read(filepath.Join(d.c.Data, "site"))
	if err != nil {
		return // no other appliance is known then
	}
	for _, a := range d.appliances(ctx) {
		if a.Self || !a.Present {
			continue
		}
		name := fmt.Sprintf("appliance %s (%s)", a.Name, a.URL)
		ahead, within, err := clockAt(ctx, a.URL, s)
		if err != nil {
			n.Warning("machines need all appliances: look at the network between the two, and at the other one", "%s is not reached from here: %s", name, oneLine(err))
			continue
		}
		judgeClock(n, name, ahead, within)
	}
}

// judgeClock says how far another clock is from this host's.
func judgeClock(n *doctor.Notes, whose string, ahead, within time.Duration) {
	apart := max(ahead.Abs()-within, 0)
	words := fmt.Sprintf("the clock of %s is %s ahead of this host's", whose, ahead.Round(100*time.Millisecond))
	if ahead < 0 {
		words = fmt.Sprintf("the clock of %s is %s behind this host's", whose, (-ahead).Round(100*time.Millisecond))
	}
	const remedy = "set both by NTP: start times, windows, certificates and tokens are judged by each appliance's own clock"
	switch {
	case apart > clocksWrong:
		n.Wrong(remedy, "%s", words)
	case apart > clocksDiffer:
		n.Warning(remedy, "%s", words)
	default:
		n.OK("the clock of %s agrees with this host's", whose)
	}
}

// clockAt asks another appliance of the site for its time, which it tells in whole seconds (RFC 9110 §6.6.1).
func clockAt(ctx context.Context, base string, s *site.Site) (ahead, within time.Duration, err error) {
	// Certificates are judged by no clock here: one of the two may be wrong.
	transport := &http.Transport{TLSClientConfig: pinned(s.Fingerprint(), time.Time{}), DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, "GET", base+pathAlive, nil)
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, 0, err
	}
	resp.Body.Close()
	took := time.Since(began)
	at, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return 0, 0, fmt.Errorf("it does not tell its time: %w", err)
	}
	return at.Add(time.Second / 2).Sub(began.Add(took / 2)), took/2 + time.Second/2, nil
}

// pinned is a configuration for an appliance of the site with this fingerprint. A zero time judges no certificate by it.
func pinned(fingerprint images.Digest, now time.Time) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, VerifyConnection: func(cs tls.ConnectionState) error {
		return trust.Appliance(cs, fingerprint, now, job.URIMachine, job.URIJob, job.URIGuest)
	}}
}

// lookCertificates looks when certificates end: the site's, the one that the appliance shows, and the operators' own.
func (d *examination) lookCertificates(ctx context.Context, n *doctor.Notes) {
	if d.c.TLSCert != "" && d.c.TLSKey != "" {
		if own, err := readOwnCertificate(d.c.TLSCert, d.c.TLSKey, time.Now()); err == nil { // else the configuration tells of it
			judgeCertificate(n, "the operators' certificate "+d.c.TLSCert, own.Leaf, "renew it and send SIGHUP")
		}
	}
	s, err := site.Read(filepath.Join(d.c.Data, "site"))
	if errors.Is(err, fs.ErrNotExist) {
		n.OK("the site has no identity yet, which is made at the first start")
		return
	}
	if err != nil && notForUs(n, err) {
		return
	}
	if err != nil {
		n.Wrong("restore the folder from a backup (`seedbed site export` makes one)", "%s", oneLine(err))
		return
	}
	judgeCertificate(n, "the site's authority", s.CA(), "machines and appliances do not trust each other without it")
	if !d.service.answers {
		return
	}
	at, err := d.ownURL(ctx)
	if err != nil {
		n.Wrong("", "the appliance does not tell where machines reach it: %s", oneLine(err))
		return
	}
	dialer := &tls.Dialer{Config: pinned(s.Fingerprint(), time.Now())}
	conn, err := dialer.DialContext(ctx, "tcp", at.String())
	if err != nil {
		n.Wrong("look at port and address above; another program, or another site's appliance, may have the address", "machines do not reach the appliance at %s: %s", at, oneLine(err))
		return
	}
	defer conn.Close()
	leaf := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
	judgeCertificate(n, "the certificate at "+at.String(), leaf, "restart the appliance, which makes another one")
	if err := leaf.VerifyHostname(at.Addr().String()); err != nil {
		n.Warning("restart the appliance", "the certificate at %s is for another address: %v", at, err)
	}
}

// judgeCertificate says when a certificate ends.
func judgeCertificate(n *doctor.Notes, what string, c *x509.Certificate, remedy string) {
	left := time.Until(c.NotAfter)
	switch {
	case left <= 0:
		n.Wrong(remedy, "%s ended on %s", what, timeText(c.NotAfter))
	case left < soonExpired:
		n.Warning(remedy, "%s ends on %s", what, timeText(c.NotAfter))
	case c.NotAfter.Year() == 9999: // RFC 5280 §4.1.2.5
		n.OK("%s does not end", what)
	default:
		n.OK("%s is good until %s", what, timeText(c.NotAfter))
	}
}

// ownURL is where machines reach the appliance that was asked.
func (d *examination) ownURL(ctx context.Context) (netip.AddrPort, error) {
	list, err := d.client.Appliances(ctx)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for _, a := range list {
		if u, err := url.Parse(a.URL); a.Self && err == nil {
			return netip.ParseAddrPort(u.Host)
		}
	}
	return netip.AddrPort{}, errors.New("it is not among the site's appliances")
}

// appliances are those of the site, none where the appliance does not answer.
func (d *examination) appliances(ctx context.Context) []fleet.ApplianceView {
	if !d.service.answers {
		return nil
	}
	list, err := d.client.Appliances(ctx)
	if err != nil {
		return nil // lookSchedule says so
	}
	return list
}

// images are those of the repository, none where the appliance does not answer.
func (d *examination) images(ctx context.Context) []api.ImageListing {
	if !d.service.answers {
		return nil
	}
	list, err := d.client.List(ctx)
	if err != nil {
		return nil // lookImages says so
	}
	return list
}

// lookSchedule says who schedules the site, and who of its appliances is silent.
func (d *examination) lookSchedule(ctx context.Context, n *doctor.Notes) {
	list, err := d.client.Appliances(ctx)
	if err != nil {
		n.Wrong("", "the appliance does not tell of the site: %s", oneLine(err))
		return
	}
	scheduled := false
	for _, a := range list {
		if a.Schedule && a.Present {
			scheduled = true
			n.OK("appliance %s (%s) schedules the site", a.Name, a.URL)
		}
		if !a.Present {
			n.Warning("if it was not stopped on purpose, look after it", "appliance %s (%s) is silent since %s", a.Name, a.URL, or(strings.TrimPrefix(timeText(a.Heard), "-"), "before this one started"))
		}
	}
	if !scheduled {
		n.Wrong("one takes over within 15 s where the records can be written; ask again, and look at the records", "no appliance that is there schedules the site: claims do not expire and nothing is tidied")
	}
}

// damageIsNews is how long ago damage may have been found to be told of: all images are verified once a week.
const damageIsNews = 8 * 24 * time.Hour

// damage returns the last events that tell of a damaged image and that all are whole: the one that is true now, and nil, nil where none
// is known.
func (d *examination) damage(ctx context.Context) (whole, damaged *fleet.Event) {
	if !d.service.answers {
		return nil, nil
	}
	last := func(kind string) *fleet.Event {
		events, err := d.client.Events(ctx, api.EventQuery{Kind: kind, Before: math.MaxInt64, Limit: 1})
		if err != nil || len(events) == 0 {
			return nil
		}
		return &events[0]
	}
	whole, damaged = last(api.EventWhole), last(api.EventDamaged)
	if whole != nil && (damaged == nil || whole.ID > damaged.ID) {
		return whole, nil
	}
	return nil, damaged
}

// lookImages looks at images that cannot be read, and at what the verification of all images found.
func (d *examination) lookImages(ctx context.Context, n *doctor.Notes) {
	list, err := d.client.List(ctx)
	if err != nil {
		n.Wrong("see repository", "the images cannot be listed: %s", oneLine(err))
		return
	}
	for _, i := range list {
		if i.Problem != "" {
			n.Wrong(fmt.Sprintf("`seedbed image verify %s:%s --heal`, or capture it again", i.Name, i.Version), "image %s:%s cannot be deployed: %s", i.Name, i.Version, i.Problem)
		}
	}
	if _, e := d.damage(ctx); e != nil && time.Since(e.At) < damageIsNews {
		n.Warning("`seedbed image verify --all --heal` says whether it still is", "verification found on %s: %s", timeText(e.At), e.Text)
	}
	if n.List == nil {
		n.OK("%d images can be deployed", len(list))
	}
}

// waitWords say what jobs wait for.
var waitWords = map[string]string{
	queue.WaitsMachine: "for their machines to boot from the network", queue.WaitsCalled: "for their machines, which were woken", queue.WaitsSilent: "for machines that were woken and never asked",
	queue.WaitsTime: "for their start time", queue.WaitsWindow: "for a maintenance window", queue.WaitsPreload: "for seed nodes to fetch the image", queue.WaitsTurn: "for another job of the same machine",
	queue.WaitsSite: "for the limit of the site", queue.WaitsGroup: "for the limit of a group", queue.WaitsUplink: "for the limit of an uplink", queue.WaitsPerson: "for a person to resume them",
	queue.WaitsAdmit: "for their machines to be admitted", "": "for their machines",
}

// waitRemedies say what a person does about jobs that do not go on by themselves.
var waitRemedies = map[string]string{
	queue.WaitsSilent: "switch them on by hand; look whether their firmware wakes and boots from the network",
	queue.WaitsPerson: "`seedbed job ls` says why; `seedbed job resume JOB`",
	queue.WaitsAdmit:  "`seedbed machine ls`, `seedbed machine admit CODE`",
}

// lookQueue says for what jobs wait.
func (d *examination) lookQueue(ctx context.Context, n *doctor.Notes) {
	jobs, err := d.client.Jobs(ctx, api.JobQuery{State: "open"})
	if err != nil {
		n.Wrong("", "the jobs cannot be listed: %s", oneLine(err))
		return
	}
	atWork, waiting := 0, map[string][]string{} // names of machines by what they wait for
	for _, j := range jobs {
		switch {
		case j.State == job.Paused:
			waiting[queue.WaitsPerson] = append(waiting[queue.WaitsPerson], fmt.Sprintf("%s: %s", j.MachineName, or(j.Reason, "paused")))
		case j.State == job.Waiting:
			waiting[j.Wait] = append(waiting[j.Wait], j.MachineName)
		default:
			atWork++
		}
	}
	n.OK("%d jobs at work, %d wait", atWork, len(jobs)-atWork)
	for _, code := range sortedKeys(waiting) {
		machines := waiting[code]
		words := fmt.Sprintf("%d jobs wait %s: %s", len(machines), or(waitWords[code], "for "+code), firstOf(machines))
		if remedy := waitRemedies[code]; remedy != "" {
			n.Warning(remedy, "%s", words)
		} else {
			n.OK("%s", words)
		}
	}
}

func sortedKeys[T any](m map[string]T) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// firstOf names the first of a list, and counts the others.
func firstOf(list []string) string {
	const named = 5
	if len(list) > named {
		return strings.Join(list[:named], ", ") + fmt.Sprintf(" and %d more", len(list)-named)
	}
	return strings.Join(list, ", ")
}

// silentFor is how long a machine at work, which reports each second, may be silent before it is told of; its claim expires after 90 s.
const silentFor = 20 * time.Second

// lookMachines looks for machines that are silent, that do not get through their boot, and that wait for a person.
func (d *examination) lookMachines(ctx context.Context, n *doctor.Notes) {
	machines, err := d.client.Machines(ctx, api.MachineQuery{})
	if err != nil {
		n.Wrong("", "the machines cannot be listed: %s", oneLine(err))
		return
	}
	jobs, err := d.client.Jobs(ctx, api.JobQuery{State: "open"})
	if err != nil {
		n.Wrong("", "the jobs cannot be listed: %s", oneLine(err))
		return
	}
	var strangers, stuck []string
	for _, m := range machines {
		if !m.Admitted {
			strangers = append(strangers, m.Name)
		}
		if m.Stage == "stuck" {
			stuck = append(stuck, m.Name)
		}
	}
	silent, lost := silentMachines(jobs, d.report.At)
	for _, c := range []struct {
		machines      []string
		words, remedy string
	}{
		{silent, "machines at work are silent", "look at their screens, and at the network to them; after 90 s of silence their jobs wait for the next boot"},
		{lost, "machines fell silent in the middle of their job, which waits for their next boot from the network", "look at their screens; switch them on again"},
		{stuck, "machines do not get through their boot: a loader came to nothing", "`seedbed event ls` tells which; look at their firmware's settings"},
		{strangers, "machines are not admitted", "`seedbed machine admit CODE`, with the code on their screens"},
	} {
		if len(c.machines) > 0 {
			n.Warning(c.remedy, "%d %s: %s", len(c.machines), c.words, firstOf(c.machines))
		}
	}
	if n.List == nil {
		n.OK("%d machines, none at work is silent", len(machines))
	}
}

// silentMachines names the machines at work that do not report, and those that were at work when they fell silent.
func silentMachines(jobs []api.Job, now time.Time) (silent, lost []string) {
	for _, j := range jobs {
		heard := j.Reported
		if heard.Before(j.Claimed) {
			heard = j.Claimed
		}
		switch {
		case (j.State == job.Claimed || j.State == job.Running) && now.Sub(heard) > silentFor:
			silent = append(silent, fmt.Sprintf("%s (since %s)", j.MachineName, timeText(heard)))
		case j.State == job.Waiting && j.Epoch > 0 && (j.Wait == queue.WaitsMachine || j.Wait == queue.WaitsSilent):
			lost = append(lost, j.MachineName)
		}
	}
	return silent, lost
}
