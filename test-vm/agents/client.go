package agents

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"seedbed/appliance/job"
	"seedbed/images/trust"
)

// maxAnswer bounds the appliance's answers, in bytes.
const maxAnswer = 64 << 20

func (m *machine) dialer() *net.Dialer {
	return &net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: m.own.AsSlice()}}
}

// identify makes later requests carry a certificate (DER) on the machine's key, over connections of their own, as the agent does.
func (m *machine) identify(certificate []byte) {
	if m.client != nil {
		m.client.CloseIdleConnections()
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return trust.Appliance(cs, m.boot.Fingerprint, time.Now(), job.URIMachine, job.URIJob)
		},
	}
	if certificate != nil {
		config.Certificates = []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: m.key}}
	}
	m.client = &http.Client{Transport: &http.Transport{
		DialContext: m.dialer().DialContext, TLSClientConfig: config, TLSHandshakeTimeout: 20 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute,
	}}
}

// refusal is an answer that says no.
type refusal struct{ job.Problem }

func (r *refusal) Error() string {
	return fmt.Sprintf("the appliance refused: %d %s: %s", r.Status, r.Code, r.Detail)
}

// post asks until the appliance answers or says no. It reports whether there was an answer: false is 204.
func (m *machine) post(ctx context.Context, what, path string, in, out any) (got bool, err error) {
	body, ok := in.([]byte)
	if !ok {
		if body, err = json.Marshal(in); err != nil {
			return false, err
		}
	}
	b, _, err := m.ask(ctx, what, http.MethodPost, path, body)
	if err != nil || len(b) == 0 {
		return false, err
	}
	if out != nil {
		err = json.Unmarshal(b, out)
	}
	return true, err
}

// ask is one request, made again where nobody answers.
func (m *machine) ask(ctx context.Context, what, method, path string, body []byte) ([]byte, http.Header, error) {
	for wait := 300 * time.Millisecond; ; wait = min(2*wait, 3*time.Second) {
		began := time.Now()
		b, header, err := m.send(ctx, method, path, body)
		var no *refusal
		switch {
		case err == nil:
			m.note(what, time.Since(began))
			return b, header, nil
		case errors.As(err, &no) && no.Status/100 == 4 && no.Status != http.StatusTooManyRequests, ctx.Err() != nil:
			return nil, nil, fmt.Errorf("%s: %w", what, err)
		}
		m.story.Retries++
		if err := pause(ctx, wait/2+rand.N(wait/2)); err != nil {
			return nil, nil, err
		}
	}
}

func (m *machine) send(ctx context.Context, method, path string, body []byte) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, method, m.boot.Appliances[0]+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode >= 300 {
		no := &refusal{}
		if json.Unmarshal(b, &no.Problem) != nil || no.Status == 0 {
			no.Detail = http.StatusText(resp.StatusCode)
		}
		no.Status = resp.StatusCode
		return nil, nil, no
	}
	return b, resp.Header, nil
}
