package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"seedbed/appliance/site"
	"seedbed/images"
	"seedbed/images/repository"
	"seedbed/images/restore"
)

// signed records which manifests this appliance signed, each as a line with its digest in hexadecimal, durable before the
// signature is given out. A signature object that is damaged is made again for these only: whoever can write to the bucket
// could put a manifest of his own there, and must not get it signed. That a digest is listed proves that these very bytes
// were signed here; it proves nothing about the version object that names them, which is not signed. Safe for concurrent
// use.
type signed struct {
	path string
	mu   sync.Mutex // guards the file
}

// add notes a manifest. A line that a power cut leaves unfinished is no digest, and the next one begins on its own.
func (s *signed) add(d images.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n" + d.String() + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return restore.SyncFolder(filepath.Dir(s.path))
}

func (s *signed) has(d images.Digest) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return bytes.Contains(b, []byte("\n"+d.String()+"\n")), err
}

// sign signs a manifest that is about to be published.
func (l *library) sign(manifest []byte) []byte {
	if err := l.signed.add(images.Sum(manifest)); err != nil {
		l.log.Warn("not noted that a manifest was signed; its signature cannot be made again if it is damaged", "err", err)
	}
	return l.site.SignManifest(manifest)
}

// signer signs manifests that were signed before. It implements repository.TileSource and repository.Signer.
type signer struct{ site *site.Site }

func (s signer) Sign(manifest []byte) []byte { return s.site.SignManifest(manifest) }

func (signer) Tile(context.Context, images.Digest, int, int64, images.TileKey) ([]byte, error) {
	return nil, errors.New("it has no tiles")
}

// signAgain replaces the signature object of an image.
func (l *library) signAgain(ctx context.Context, d images.Digest) error {
	switch known, err := l.signed.has(d); {
	case err != nil:
		return err
	case !known:
		return errors.New("this appliance has no record that it signed the image, and does not sign it now; put the object back from a copy of the storage, or capture again")
	}
	report, err := l.repo.Heal(ctx, d, []*repository.Damage{{Partition: -1, Object: signatureKey(d)}}, signer{l.site})
	if err == nil && len(report.Failed) > 0 {
		err = report.Failed[0].Err
	}
	return err
}

// signatureKey is the key of an image's signature object.
func signatureKey(d images.Digest) string { return "manifests/" + d.String() + ".sig" }
