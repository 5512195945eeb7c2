package site

import (
	"bytes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
)

// An exported identity is one PEM block: nonce and XChaCha20-Poly1305 of the keys as JSON, under a key that Argon2id makes of
// the passphrase. The headers are authenticated with it.
const (
	exportType        = "SEEDBED SITE"
	exportContext     = "seedbed site v1\x00"
	headerFingerprint = "Fingerprint"
	headerDerivation  = "Derivation"
	headerSalt        = "Salt"
	saltLength        = 16 // bytes, RFC 9106 §3.1
)

// MaxExport bounds an exported identity, in bytes.
const MaxExport = 64 << 10

// MinPassphrase is the least length of a passphrase, in bytes: whoever has the file may try offline.
const MinPassphrase = 12

// derivation is how a passphrase becomes a key. Memory is in KiB.
type derivation struct{ Passes, Memory, Lanes uint32 }

// usualDerivation is RFC 9106 §4, second choice: 64 MiB.
var usualDerivation = derivation{Passes: 3, Memory: 64 << 10, Lanes: 4}

func (d derivation) String() string {
	return fmt.Sprintf("argon2id t=%d m=%d p=%d", d.Passes, d.Memory, d.Lanes)
}

// parseDerivation reads what String prints. What would take more than a gigabyte or some minutes is refused: the file may be
// anybody's.
func parseDerivation(s string) (d derivation, err error) {
	_, err = fmt.Sscanf(s, "argon2id t=%d m=%d p=%d", &d.Passes, &d.Memory, &d.Lanes)
	if err != nil || d.String() != s || d.Passes < 1 || d.Passes > 16 || d.Lanes < 1 || d.Lanes > 16 || d.Memory < 8*d.Lanes || d.Memory > 1<<20 {
		return d, fmt.Errorf("the key derivation %q is not one that this version knows", s)
	}
	return d, nil
}

func (d derivation) cipher(passphrase, salt []byte) (cipher.AEAD, error) {
	return chacha20poly1305.NewX(argon2.IDKey(passphrase, salt, d.Passes, d.Memory, uint8(d.Lanes), chacha20poly1305.KeySize))
}

// keys are an identity as it travels, all DER.
type keys struct {
	Key         []byte `json:"site_key"` // PKCS #8
	CAKey       []byte `json:"ca_key"`   // PKCS #8
	Certificate []byte `json:"ca_certificate"`
}

// Errors of Export and Import.
var (
	ErrShort      = fmt.Errorf("the passphrase has fewer than %d characters; whoever has the file may try as often as he likes", MinPassphrase)
	ErrPassphrase = errors.New("the passphrase is another one, or the file was changed")
	ErrNoExport   = errors.New("this is no exported identity; `seedbed site export` makes one")
	// ErrOther says that an identity is there already, and another one. Nothing was changed.
	ErrOther = errors.New("another identity is there already")
)

// Export returns the identity, sealed with a passphrase.
func (s *Site) Export(passphrase []byte) ([]byte, error) {
	if len(passphrase) < MinPassphrase {
		return nil, ErrShort
	}
	var k keys
	var err error
	if k.Key, err = x509.MarshalPKCS8PrivateKey(s.key); err != nil {
		return nil, err
	}
	if k.CAKey, err = x509.MarshalPKCS8PrivateKey(s.caKey); err != nil {
		return nil, err
	}
	k.Certificate = s.ca.Raw
	plain, err := json.Marshal(k)
	if err != nil {
		return nil, err
	}
	random := make([]byte, saltLength+chacha20poly1305.NonceSizeX)
	rand.Read(random) // never fails (crypto/rand)
	salt, nonce := random[:saltLength], random[saltLength:]
	seal, err := usualDerivation.cipher(passphrase, salt)
	if err != nil {
		return nil, err
	}
	headers := map[string]string{headerFingerprint: s.Fingerprint().String(), headerDerivation: usualDerivation.String(), headerSalt: hex.EncodeToString(salt)}
	return pem.EncodeToMemory(&pem.Block{Type: exportType, Headers: headers, Bytes: seal.Seal(nonce, nonce, plain, authenticated(headers))}), nil
}

// authenticated is what the seal covers beside the keys.
func authenticated(headers map[string]string) []byte {
	return []byte(exportContext + headers[headerFingerprint] + "\x00" + headers[headerDerivation] + "\x00" + headers[headerSalt])
}

// unseal returns the identity in an export.
func unseal(export, passphrase []byte) (*Site, error) {
	block, rest := pem.Decode(export)
	if len(export) > MaxExport || block == nil || block.Type != exportType || len(bytes.TrimSpace(rest)) > 0 || len(block.Bytes) < chacha20poly1305.NonceSizeX {
		return nil, ErrNoExport
	}
	how, err := parseDerivation(block.Headers[headerDerivation])
	if err != nil {
		return nil, err
	}
	salt, err := hex.DecodeString(block.Headers[headerSalt])
	if err != nil || len(salt) != saltLength {
		return nil, ErrNoExport
	}
	seal, err := how.cipher(passphrase, salt)
	if err != nil {
		return nil, err
	}
	plain, err := seal.Open(nil, block.Bytes[:chacha20poly1305.NonceSizeX], block.Bytes[chacha20poly1305.NonceSizeX:], authenticated(block.Headers))
	if err != nil {
		return nil, ErrPassphrase
	}
	var k keys
	if err := json.Unmarshal(plain, &k); err != nil {
		return nil, ErrNoExport
	}
	s, err := k.site()
	if err == nil && s.Fingerprint().String() != block.Headers[headerFingerprint] {
		err = ErrNoExport
	}
	return s, err
}

// site puts an identity together and checks that its parts belong to each other.
func (k *keys) site() (*Site, error) {
	s := new(Site)
	key, err := x509.ParsePKCS8PrivateKey(k.Key)
	if err != nil {
		return nil, fmt.Errorf("the key of the site: %w", err)
	}
	caKey, err := x509.ParsePKCS8PrivateKey(k.CAKey)
	if err != nil {
		return nil, fmt.Errorf("the key of the authority: %w", err)
	}
	if s.ca, err = x509.ParseCertificate(k.Certificate); err != nil {
		return nil, fmt.Errorf("the certificate of the authority: %w", err)
	}
	var isKey, isCAKey bool
	s.key, isKey = key.(ed25519.PrivateKey)
	s.caKey, isCAKey = caKey.(*ecdsa.PrivateKey)
	if !isKey || !isCAKey {
		return nil, errors.New("the keys are of other kinds than those of a site")
	}
	return s, s.check()
}

// Import puts an exported identity into dir, which holds none, or the same one. ErrOther says that it holds another: machines
// and images rely on that. An import that was interrupted is completed by the same import.
func Import(dir string, export, passphrase []byte) (*Site, error) {
	s, err := unseal(export, passphrase)
	if err != nil {
		return nil, err
	}
	files, err := s.files()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the site's identity: %w", err)
	}
	var missing []file
	for _, f := range files {
		have, err := os.ReadFile(filepath.Join(dir, f.name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, f)
		case err != nil:
			return nil, err
		case !bytes.Equal(have, f.content):
			return nil, fmt.Errorf("%s in %s: %w", f.name, dir, ErrOther)
		}
	}
	for _, f := range missing {
		if err := createFile(filepath.Join(dir, f.name), f.content); err != nil {
			return nil, fmt.Errorf("write the site's identity: %w", err)
		}
	}
	return s, nil
}

// file is one of an identity's.
type file struct {
	name    string
	content []byte
}

// files are those of an identity, in the order in which they are written.
func (s *Site) files() (list []file, err error) {
	for _, f := range []struct {
		name string
		key  any
	}{{keyFile, s.key}, {caKeyFile, s.caKey}} {
		der, err := x509.MarshalPKCS8PrivateKey(f.key)
		if err != nil {
			return nil, err
		}
		list = append(list, file{f.name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})})
	}
	return append(list, file{caCertFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.Raw})}), nil
}

// createFile is writeFile for a file that is not there yet: one that somebody else made meanwhile stays.
func createFile(path string, b []byte) error {
	if err := writeFile(path+".import", b); err != nil {
		return err
	}
	defer os.Remove(path + ".import")
	if err := os.Link(path+".import", path); err != nil {
		return err
	}
	if runtime.GOOS == "windows" {
		return nil // see writeFile
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Read reads the identity in dir. fs.ErrNotExist says that there is none.
func Read(dir string) (*Site, error) {
	s, err := read(dir)
	if err != nil {
		return nil, fmt.Errorf("read the site's identity in %s: %w", dir, err)
	}
	return s, nil
}
