package alert

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"

	"seedbed/appliance/fleet"
)

// Headers of what a webhook is sent.
const (
	// HeaderSignature is "sha256=" and the HMAC-SHA-256 (RFC 2104) of the body with the secret, in hexadecimal digits.
	HeaderSignature = "Seedbed-Signature"
	// HeaderMessage is the message's ID: the same however often it is sent.
	HeaderMessage = "Seedbed-Message"
)

// Webhook posts one message, and returns what came of it as a sentence. So is an error.
func Webhook(ctx context.Context, c fleet.Channels, secrets Secrets, m *fleet.Message) (string, error) {
	secret, err := secrets.webhookSecret()
	if err != nil {
		return "", err
	}
	roots, err := secrets.roots()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	host := c.WebhookHost()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Webhook, bytes.NewReader(m.Payload))
	if err != nil {
		return "", fmt.Errorf("the webhook at %s is no URL; set another with `seedbed settings set --webhook`", host)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Seedbed")
	req.Header.Set(HeaderMessage, m.ID)
	if secret != "" {
		req.Header.Set(HeaderSignature, Sign([]byte(secret), m.Payload))
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return "", errors.New(hookSentence(host, secrets.CA, err))
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // for people; the status counts
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return "", fmt.Errorf("webhook %s does not take the message: %s %s; look at its URL and at what it expects", host, resp.Status, oneLine(string(said)))
	}
	return fmt.Sprintf("webhook %s took the message: %s", host, resp.Status), nil
}

// Sign returns the value of HeaderSignature.
func Sign(secret, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}
