package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"seedbed/appliance/job"
	"seedbed/images/swarm"
	"seedbed/initramfs/left"
)

// troubleTimeout bounds the word about a trouble, which is told again while it lasts.
const troubleTimeout = 3 * time.Second

// trouble tells the appliance, over the plain HTTP that the machine booted by, why its agent cannot say hello: where that is a blocked port
// nobody would know else. Owned by one goroutine.
type trouble struct {
	a     *Agent
	began time.Time
	told  time.Time
}

func (a *Agent) newTrouble() *trouble { return &trouble{a: a, began: time.Now()} }

// tell says why an attempt failed, some time after the first one and not at each. It is best effort.
func (t *trouble) tell(ctx context.Context, err error) {
	if err == nil || t.a.cfg.Boot.Trouble == "" || ctx.Err() != nil {
		return
	}
	code, now := troubleCode(err), time.Now()
	if code != job.TroubleRefused && now.Sub(t.began) < t.a.cfg.timing.trouble || now.Sub(t.told) < 2*t.a.cfg.timing.trouble {
		return
	}
	t.told = now
	ctx, cancel := context.WithTimeout(ctx, troubleTimeout)
	defer cancel()
	q := url.Values{"mac": {t.a.cfg.Boot.MAC}, "code": {code}, "text": {plain(err).Error()}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, t.a.cfg.Boot.Trouble+"?"+q.Encode(), nil)
	if err != nil {
		return
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		t.a.log.Debug("the appliance does not hear of the trouble", "err", err)
		return
	}
	res.Body.Close()
}

// keep leaves the reason for the next boot, once it has stood for a while and the appliance said nothing at all.
func (t *trouble) keep(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil || time.Since(t.began) < t.a.cfg.timing.keep || refused(err) != nil {
		return
	}
	Leave(t.a.cfg.Left, t.a.screen, troubleCode(err), plain(err).Error())
}

// Leave leaves for the next boot why this one does not reach the appliance, and says so on the screen.
func Leave(to *left.Store, screen *Screen, code, reason string) {
	kept, err := to.Keep(job.Left{Code: code, Text: reason, At: time.Now()})
	switch {
	case err != nil:
		screen.SayOnce("left", "%v; the next boot will not know why this one stopped", err)
	case kept:
		screen.SayOnce("left", "this reason is kept in the firmware, and told by the next boot that reaches the appliance")
	}
}

// troubleCode says in a word what keeps an agent from its hello.
func troubleCode(err error) string {
	invalid, invalidOK := errors.AsType[x509.CertificateInvalidError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	switch {
	case refused(err) != nil:
		return job.TroubleRefused
	case errors.Is(err, ErrPin), invalidOK && invalid.Cert != nil, unknown:
		return job.TroubleCertificate
	}
	return job.TroubleUnreachable
}

// watchReach looks, while nothing of the image comes and no peer is there, whether who has it can be reached at all, and says so if not.
func (d *deployment) watchReach(ctx context.Context, sw *swarm.Swarm) {
	defer d.setAlone("")
	every := d.a.cfg.timing.swarm
	if every <= 0 {
		return
	}
	for sleep(ctx, every) == nil {
		s := sw.Stats()
		if s.Peers > 0 || s.FromAppliance+s.FromPeers > 0 || s.Held == s.Total && s.Total > 0 {
			d.setAlone("")
			continue
		}
		d.setAlone(d.unreached(ctx))
	}
}

// maxSeedsTried bounds the seeders that are tried.
const maxSeedsTried = 3

// unreached returns why none of the seeders can be reached, or "" where one can, or there is none.
func (d *deployment) unreached(ctx context.Context) (why string) {
	for _, seed := range d.j.Seeds[:min(len(d.j.Seeds), maxSeedsTried)] {
		err := d.reach(ctx, seed)
		if err == nil || ctx.Err() != nil {
			return ""
		}
		if why == "" {
			why = job.WarnNoSwarm + seed.String() + ": " + cause(err)
		}
	}
	return why
}

func (d *deployment) reach(ctx context.Context, to netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c, err := d.transport.Dialer("").DialContext(ctx, "tcp", to.String())
	if err == nil {
		c.Close()
	}
	return err
}

// cause is an error of a dial without the address.
func cause(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	return err.Error()
}

// setAlone says in the reports, and on the screen, that the machine reaches nobody who has its image.
func (d *deployment) setAlone(why string) {
	d.mu.Lock()
	was := d.status.alone
	d.status.alone = why
	d.mu.Unlock()
	switch {
	case why != "":
		d.a.screen.SayOnce("alone", "%s; open this TCP port of the appliance to the machines. The work goes on by itself", why)
	case was != "":
		d.a.screen.Forget("alone")
	}
}
