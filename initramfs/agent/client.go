package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/trust"
)

// client speaks with the site's appliances over HTTPS pinned to the site's fingerprint. Safe for concurrent use.
type client struct {
	fingerprint images.Digest
	key         *ecdsa.PrivateKey

	mu         sync.Mutex // guards everything below
	appliances []string   // base URLs, the one that answered last first
	http       *http.Client
	clockSet   bool // the machine's clock is right, so that certificates can expire
}

// newClient makes the key of this boot, which lives in memory only.
func newClient(boot job.Boot) (*client, error) {
	if len(boot.Appliances) == 0 || boot.Fingerprint.IsZero() {
		return nil, errors.New("the boot file names no appliance or no fingerprint")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of this boot: %w", err)
	}
	c := &client{fingerprint: boot.Fingerprint, key: key, appliances: boot.Appliances}
	c.http = c.newHTTP(nil, nil)
	return c, nil
}

// publicKey returns the PKIX DER of the boot's key.
func (c *client) publicKey() ([]byte, error) { return x509.MarshalPKIXPublicKey(&c.key.PublicKey) }

// identify makes later requests carry a certificate (DER) on the boot's key, and with the clock set, checks the
// appliance's certificate against it.
func (c *client) identify(certificate []byte, clockSet bool, appliances []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clockSet = c.clockSet || clockSet
	if len(appliances) > 0 {
		c.appliances = slices.Clone(appliances)
	}
	c.http.CloseIdleConnections()
	c.http = c.newHTTP(certificate, nil)
}

// connectTimeout bounds the wait for an appliance that is switched off, so that a request has time left for the next one.
const connectTimeout = 3 * time.Second

// keepAlive finds out within seconds that an appliance is gone without a word, while a request waits for its answer.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 3 * time.Second, Interval: 2 * time.Second, Count: 2}

// newHTTP returns a client with its own connections, made by a dialer if there is one. The caller holds mu, or owns c.
func (c *client) newHTTP(certificate []byte, d *net.Dialer) *http.Client {
	if d == nil {
		d = &net.Dialer{Timeout: connectTimeout}
	}
	d.KeepAliveConfig = keepAlive
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The library would compare host names; verify does what takes their place.
		InsecureSkipVerify: true,
		VerifyConnection:   c.verify,
	}
	if certificate != nil {
		cfg.Certificates = []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: c.key}}
	}
	return &http.Client{Transport: &http.Transport{
		DialContext:     d.DialContext,
		TLSClientConfig: cfg, TLSHandshakeTimeout: 20 * time.Second, ResponseHeaderTimeout: 60 * time.Second,
		MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute,
	}}
}

// ErrPin says that something that is not the site's appliance answered.
var ErrPin = trust.ErrPin

// verify accepts an appliance of the site. Until the clock is set it is taken to be the leaf's first moment.
func (c *client) verify(cs tls.ConnectionState) error {
	var now time.Time
	c.mu.Lock()
	if c.clockSet {
		now = time.Now()
	}
	c.mu.Unlock()
	return trust.Appliance(cs, c.fingerprint, now, job.URIMachine, job.URIJob)
}

// problem is an answer that says no, with the appliance's words.
type problem struct{ job.Problem }

func (p *problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return fmt.Sprintf("the appliance answered %d %s", p.Status, p.Title)
}

// refused returns the problem in err if asking again is of no use.
func refused(err error) *problem {
	var p *problem
	if errors.As(err, &p) && p.Status >= 400 && p.Status < 500 && p.Status != http.StatusRequestTimeout &&
		p.Status != http.StatusTooManyRequests {
		return p
	}
	return nil
}

// Bounds of answers, in bytes. Layers have the length that the manifest says.
const maxAnswer = 1 << 20

// post sends in as JSON and decodes the answer into out. It reports whether there was one: false is 204.
func (c *client) post(ctx context.Context, path string, in, out any) (bool, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return false, err
	}
	_, answer, status, err := c.do(ctx, http.MethodPost, path, "application/json", body, maxAnswer)
	if err != nil || status == http.StatusNoContent || out == nil {
		return false, err
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return false, fmt.Errorf("answer of the appliance to %s: %w", path, err)
	}
	return true, nil
}

// do sends one request to the appliance that answered last, or the next one if it does not, see share.
func (c *client) do(ctx context.Context, method, path, contentType string, body []byte, limit int64) (http.Header, []byte, int, error) {
	header := http.Header{}
	if body != nil {
		header.Set("Content-Type", contentType)
	}
	return c.ask(ctx, method, path, header, body, limit)
}

// ask is do with any header.
func (c *client) ask(ctx context.Context, method, path string, header http.Header, body []byte, limit int64) (http.Header, []byte, int, error) {
	list, client := c.bases()
	var errs error
	for i, base := range list {
		if i > 0 && ctx.Err() != nil {
			break
		}
		attempt, cancel := share(ctx, len(list)-i)
		got, answer, status, err := send(attempt, client, method, base+path, header, body, limit)
		cancel()
		if err == nil || refused(err) != nil {
			return got, answer, status, err
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, nil, 0, err // its caller is gone, which says nothing about the appliance
		}
		c.last(base)
		errs = errors.Join(errs, err)
	}
	return nil, nil, 0, errs
}

func send(ctx context.Context, client *http.Client, method, url string, header http.Header, body []byte, limit int64) (http.Header, []byte, int, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, nil, 0, err
	}
	req.Header = header.Clone()
	res, err := client.Do(req)
	if err != nil {
		return nil, nil, 0, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	switch {
	case err != nil:
		return nil, nil, 0, fmt.Errorf("read the answer of %s: %w", url, err)
	case res.StatusCode >= 300:
		p := &problem{}
		if json.Unmarshal(answer, &p.Problem) != nil || p.Status == 0 {
			p.Problem = job.Problem{Title: http.StatusText(res.StatusCode)}
		}
		p.Status = res.StatusCode
		return nil, nil, res.StatusCode, p
	case int64(len(answer)) > limit:
		return nil, nil, 0, fmt.Errorf("the answer of %s is longer than %d bytes", url, limit)
	}
	return res.Header, answer, res.StatusCode, nil
}
