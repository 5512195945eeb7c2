// Package client asks an appliance what people ask it: over its local socket, or from elsewhere over HTTPS. The command line
// is made of it.
package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/trust"
)

// Config says where the appliance is.
type Config struct {
	// Socket is the path of the local socket, of the appliance of this host.
	Socket string
	// URL is that of an appliance elsewhere: "https://10.77.0.1"; where it is set, Socket is not used.
	URL string
	// Token is the API token by which it is asked.
	Token string
	// Fingerprint is that of the site's CA certificate, to which TLS is pinned; zero is none.
	Fingerprint images.Digest
	// CA are certificates (PEM) of which one must have issued the appliance's; nil, without a Fingerprint, are those of this host.
	CA []byte
}

// Client asks a running appliance. Safe for concurrent use.
type Client struct {
	http   *http.Client
	config Config
	base   string // URL of all
	stay   *stay  // of a login, or nil
}

// ErrNotRunning says that no appliance answers.
var ErrNotRunning = errors.New("the appliance is not running")

// Local returns a client of the socket; it connects with the first request.
func Local(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	return &Client{http: &http.Client{Transport: &http.Transport{DialContext: dial}}, config: Config{Socket: socket}, base: "http://seedbed/api/v1"}
}

// New returns a client; it connects with the first request.
func New(c Config) (*Client, error) {
	if c.URL == "" {
		return Local(c.Socket), nil
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, fmt.Errorf("%q is no address of an appliance; one is written https://10.77.0.1 or https://10.77.0.1:443", c.URL)
	}
	t := &tls.Config{MinVersion: tls.VersionTLS13}
	switch {
	case !c.Fingerprint.IsZero(): // in place of host names: a site's own certificates name addresses, and those may change
		t.InsecureSkipVerify = true
		t.VerifyConnection = func(cs tls.ConnectionState) error {
			return trust.Appliance(cs, c.Fingerprint, time.Now(), job.URIMachine, job.URIJob, job.URIGuest)
		}
	case c.CA != nil:
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(c.CA) {
			return nil, errors.New("the file of the CA has no certificate (PEM)")
		}
	}
	transport := &http.Transport{TLSClientConfig: t, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 20 * time.Second,
		HTTP2:       &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingAfter}, // notices that the other end is gone
		DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext}
	return &Client{http: &http.Client{Transport: transport, CheckRedirect: noRedirect}, config: c, base: "https://" + u.Host + "/api/v1"}, nil
}

// pingAfter is how long a connection may be silent before it is asked whether anybody is there, and how long that may take.
const pingAfter = 20 * time.Second

// noRedirect keeps the token from going elsewhere.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Running reports whether an appliance answers on the local socket, or is said to be elsewhere.
func (c *Client) Running(ctx context.Context) bool {
	if c.config.URL != "" {
		return true
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.config.Socket)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// do sends body as JSON and decodes the answer into into, where that is not nil.
func (c *Client) do(ctx context.Context, method, path string, body, into any) error {
	_, err := c.doAt(ctx, method, path, 0, body, into)
	return err
}

// doAt is do for a record whose version the change was decided by; 0 is any. It returns the version in the answer.
func (c *Client) doAt(ctx context.Context, method, path string, version int64, body, into any) (int64, error) {
	header := http.Header{}
	if version > 0 {
		header.Set("If-Match", strconv.Quote(strconv.FormatInt(version, 10)))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout(path), errSlow)
	defer cancel()
	resp, err := c.send(ctx, method, path, header, body)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	tag, _, _ := strings.Cut(strings.Trim(resp.Header.Get("ETag"), `"`), "-")
	at, _ := strconv.ParseInt(tag, 10, 64) // 0 where there is none
	if into == nil || resp.StatusCode == http.StatusNoContent {
		return at, nil
	}
	return at, c.decode(ctx, resp, into)
}

// answerTimeout is how long an appliance may take to answer what is no long operation: one that stands still answers never, and the
// network does not say so for a quarter of an hour. A constant, but in tests. imageTimeout is for what reads the tables of whole
// images from object storage.
var answerTimeout = time.Minute

const imageTimeout = 30 * time.Minute

func timeout(path string) time.Duration {
	if strings.HasPrefix(path, "/images/") {
		return imageTimeout
	}
	return answerTimeout
}

// errSlow is why such a request ended.
var errSlow = errors.New("it did not answer in time")

// decode reads the JSON of an answer.
func (c *Client) decode(ctx context.Context, resp *http.Response, into any) error {
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return c.unreached(ctx, fmt.Errorf("read the appliance's answer: %w", err))
	}
	return nil
}

// document is a body that is no JSON.
type document struct {
	kind string
	r    io.Reader
}

// maxProblem bounds an error answer in bytes.
const maxProblem = 1 << 20

func (c *Client) send(ctx context.Context, method, path string, header http.Header, body any) (*http.Response, error) {
	var content io.Reader
	kind := "application/json"
	switch b := body.(type) {
	case nil:
	case document:
		content, kind = b.r, b.kind
	default:
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, content)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if content != nil {
		req.Header.Set("Content-Type", kind)
	}
	if c.stay != nil {
		c.stay.sign(req)
	} else if c.config.Token != "" && c.config.URL != "" {
		req.Header.Set("Authorization", "Bearer "+c.config.Token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreached(ctx, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	var p job.Problem
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxProblem)).Decode(&p); err != nil || p.Detail == "" {
		return nil, fmt.Errorf("the appliance answered %s", resp.Status)
	}
	return nil, &fleet.Refusal{Code: p.Code, Detail: p.Detail}
}

// unreached says that no appliance answered, or not to the end.
func (c *Client) unreached(ctx context.Context, err error) error {
	_, network := errors.AsType[*net.OpError](err)
	network = network || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	switch slow := context.Cause(ctx) == errSlow; {
	case slow:
		c.http.CloseIdleConnections() // the next request does not wait behind this one
		err = fmt.Errorf("%w: %w", errSlow, err)
	case ctx.Err() != nil:
		return err
	case c.config.Fingerprint.IsZero() && isUntrusted(err):
		return fmt.Errorf("the certificate of %s is of no authority that this host trusts: %w; name the site's with --fingerprint (`seedbed site show` there tells it), or its CA with --ca-file", c.config.URL, err)
	case !network:
		return err
	}
	if c.config.URL != "" {
		return fmt.Errorf("%w, or is not reached at %s: %w", ErrNotRunning, c.config.URL, err)
	}
	return fmt.Errorf("%w (start it with `seedbed serve`): %w", ErrNotRunning, err)
}

// isUntrusted reports whether an error is about the certificate of the other end.
func isUntrusted(err error) bool {
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	return untrusted
}

// all returns all pages of a list.
func all[T any](ctx context.Context, c *Client, path string, q url.Values) ([]T, error) {
	list := []T{}
	if q == nil {
		q = url.Values{}
	}
	q.Set("limit", "1000")
	for {
		var p api.Page[T]
		if err := c.do(ctx, "GET", path+"?"+q.Encode(), nil, &p); err != nil {
			return nil, err
		}
		list = append(list, p.Items...)
		if p.Next == "" {
			return list, nil
		}
		q.Set("cursor", p.Next)
	}
}

// one asks for one thing.
func one[T any](ctx context.Context, c *Client, method, path string, body any) (*T, error) {
	v := new(T)
	if err := c.do(ctx, method, path, body, v); err != nil {
		return nil, err
	}
	return v, nil
}

// changed is one for a change to the version of a record; 0 is any.
func changed[T any](ctx context.Context, c *Client, path string, version int64, body any) (*T, error) {
	v := new(T)
	if _, err := c.doAt(ctx, "PATCH", path, version, body, v); err != nil {
		return nil, err
	}
	return v, nil
}

// long runs an operation that answers in Lines, and returns its result.
func long[T any](ctx context.Context, c *Client, path string, body any, progress func(api.Progress)) (result T, err error) {
	resp, err := c.send(ctx, "POST", path, nil, body)
	if err != nil {
		return result, err
	}
	defer resp.Body.Close()
	in := json.NewDecoder(bufio.NewReader(resp.Body))
	for {
		var l api.Line
		if err := in.Decode(&l); err != nil {
			return result, fmt.Errorf("the appliance stopped in the middle of its answer: %w", err)
		}
		switch {
		case l.Problem != nil:
			return result, &fleet.Refusal{Code: l.Problem.Code, Detail: l.Problem.Detail}
		case l.End && len(l.Result) == 0:
			return result, nil
		case l.End:
			return result, json.Unmarshal(l.Result, &result)
		case l.Progress != nil && progress != nil:
			progress(*l.Progress)
		}
	}
}

// esc makes a name a part of a path.
func esc(s string) string { return url.PathEscape(s) }
