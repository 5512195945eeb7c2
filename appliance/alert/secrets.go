package alert

import (
	"crypto/x509"
	"fmt"
	"os"

	"seedbed/appliance/configuration"
)

// Secrets are paths of files with what is in no record. They are read each time they are needed: who changes one need not start anything
// again.
type Secrets struct {
	// MailPassword holds the password of the mail user; "" is none.
	MailPassword string
	// WebhookSecret holds what messages to the webhook are signed with; "" signs none.
	WebhookSecret string
	// CA holds certificates (PEM) of the authorities that mail server and webhook are trusted by; "" are those of the host.
	CA string
}

// Check reports the first file that cannot be used.
func (s Secrets) Check() error {
	if _, err := s.mailPassword(); err != nil {
		return err
	}
	if _, err := s.webhookSecret(); err != nil {
		return err
	}
	_, err := s.roots()
	return err
}

func (s Secrets) mailPassword() (string, error) {
	return secret("--mail-password-file", s.MailPassword)
}

func (s Secrets) webhookSecret() (string, error) {
	return secret("--webhook-secret-file", s.WebhookSecret)
}

func secret(flag, path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := configuration.Secret(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	return text, nil
}

// roots are the authorities, nil those of the host.
func (s Secrets) roots() (*x509.CertPool, error) {
	if s.CA == "" {
		return nil, nil
	}
	b, err := os.ReadFile(s.CA)
	if err != nil {
		return nil, fmt.Errorf("--alert-ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("--alert-ca: %s holds no certificate (PEM)", s.CA)
	}
	return pool, nil
}
