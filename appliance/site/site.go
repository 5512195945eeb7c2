// Package site is the identity of one installation of Seedbed: the key that signs manifests and receipts, and the
// certificate authority by which appliance and machines know each other.
package site

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"seedbed/appliance/job"
	"seedbed/images"
)

// Names of the files in the site's directory; all have mode 0600, the directory 0700.
const (
	keyFile    = "site.key" // Ed25519, PKCS #8 in PEM
	caKeyFile  = "ca.key"   // ECDSA P-256, PKCS #8 in PEM
	caCertFile = "ca.crt"   // X.509 in PEM; written last: it completes the identity
)

// Site is an identity. Immutable after Open; safe for concurrent use.
type Site struct {
	key   ed25519.PrivateKey
	caKey *ecdsa.PrivateKey
	ca    *x509.Certificate
}

// Open reads the identity in dir, and makes it at the first start; one process at a time may do so. A directory that holds
// a part of an identity with a certificate is an error, and so is a key that cannot be read: nothing is made anew over keys
// that machines may already trust.
func Open(dir string) (*Site, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the site's identity: %w", err)
	}
	_, err := os.Stat(filepath.Join(dir, caCertFile))
	if errors.Is(err, fs.ErrNotExist) {
		if err := create(dir); err != nil {
			return nil, fmt.Errorf("make the site's identity in %s: %w", dir, err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("look for the site's identity: %w", err)
	}
	s, err := read(dir)
	if err != nil {
		return nil, fmt.Errorf("read the site's identity in %s (restore it from a backup): %w", dir, err)
	}
	return s, nil
}

// PublicKey is the key that manifests and receipts are checked against.
func (s *Site) PublicKey() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// CA is the site's certificate authority.
func (s *Site) CA() *x509.Certificate { return s.ca }

// Fingerprint is the SHA-256 of the CA certificate (DER), to which agents pin their TLS.
func (s *Site) Fingerprint() images.Digest { return images.Sum(s.ca.Raw) }

// SignManifest returns the detached signature of an encoded manifest.
func (s *Site) SignManifest(manifest []byte) []byte { return images.Sign(s.key, manifest) }

// Countersign returns the site's Ed25519 signature over a receipt's bytes; the same bytes give the same signature.
func (s *Site) Countersign(receipt []byte) []byte {
	return ed25519.Sign(s.key, append([]byte(job.ReceiptContext), receipt...))
}

// VerifyReceipt reports whether signature is a countersignature of receipt by key.
func VerifyReceipt(key ed25519.PublicKey, receipt, signature []byte) bool {
	return len(key) == ed25519.PublicKeySize &&
		ed25519.Verify(key, append([]byte(job.ReceiptContext), receipt...), signature)
}

// ServerTLS returns the configuration of the agents' HTTPS: TLS 1.3, the chain leaf and CA, and certificates of clients
// asked for but not demanded (the hello has none yet). Certificates of other authorities end the handshake.
func (s *Site) ServerTLS(server tls.Certificate) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(s.ca)
	return &tls.Config{
		Certificates: []tls.Certificate{server},
		MinVersion:   tls.VersionTLS13,
		ClientAuth:   tls.VerifyClientCertIfGiven,
		ClientCAs:    pool,
	}
}

// create makes an identity in dir. The certificate is written last: it completes the identity. A key that is there stays,
// whether a first start was interrupted or the certificate was lost: every image is signed with it.
func create(dir string) error {
	key, err := keyAt(filepath.Join(dir, keyFile), func() (ed25519.PrivateKey, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	})
	if err != nil {
		return err
	}
	caKey, err := keyAt(filepath.Join(dir, caKeyFile), func() (*ecdsa.PrivateKey, error) {
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	})
	if err != nil {
		return err
	}
	der, err := selfSigned(caKey, key.Public().(ed25519.PublicKey))
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, caCertFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// keyAt reads the key in a file, or makes one and writes it where there is no file.
func keyAt[K any](path string, generate func() (K, error)) (key K, err error) {
	found, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		if key, err = generate(); err != nil {
			return key, err
		}
		return key, writeKey(path, key)
	}
	if err != nil {
		return key, err
	}
	key, ok := found.(K)
	if !ok {
		return key, fmt.Errorf("%s holds a key of another kind", path)
	}
	return key, nil
}

func read(dir string) (*Site, error) {
	s := new(Site)
	key, err := readKey(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, err
	}
	caKey, err := readKey(filepath.Join(dir, caKeyFile))
	if err != nil {
		return nil, err
	}
	block, err := readPEM(filepath.Join(dir, caCertFile), "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	if s.ca, err = x509.ParseCertificate(block); err != nil {
		return nil, fmt.Errorf("%s: %w", caCertFile, err)
	}
	var ok bool
	if s.key, ok = key.(ed25519.PrivateKey); !ok {
		return nil, fmt.Errorf("%s holds no Ed25519 key", keyFile)
	}
	if s.caKey, ok = caKey.(*ecdsa.PrivateKey); !ok {
		return nil, fmt.Errorf("%s holds no ECDSA key", caKeyFile)
	}
	return s, s.check()
}

// check says whether the parts of an identity belong to each other.
func (s *Site) check() error {
	if !s.caKey.PublicKey.Equal(s.ca.PublicKey) {
		return fmt.Errorf("%s does not belong to %s", caKeyFile, caCertFile)
	}
	if len(s.ca.URIs) != 1 || s.ca.URIs[0].String() != siteURI(s.PublicKey()) {
		return fmt.Errorf("%s does not name the key in %s", caCertFile, keyFile)
	}
	return nil
}

func writeKey(path string, key any) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func readKey(path string) (any, error) {
	der, err := readPEM(path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

func readPEM(path, kind string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s holds no %s in PEM", path, kind)
	}
	return block.Bytes, nil
}

// writeFile puts a file there whole or not at all: temporary name, write, sync, rename, sync the directory.
func writeFile(path string, b []byte) (err error) {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(path + ".new")
		}
	}()
	if _, err = f.Write(b); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(path+".new", path); err != nil {
		return err
	}
	if runtime.GOOS == "windows" {
		return nil // folders cannot be opened for sync; NTFS journals names
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
