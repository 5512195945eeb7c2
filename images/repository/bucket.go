package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"regexp"
	"time"
)

// Bucket is the blob storage under a repository: immutable objects by key. Every implementation passes the same
// conformance suite. Safe for concurrent use.
type Bucket interface {
	// Put creates the object from exactly length bytes of r. It returns ErrExists, with the object as it was, when the
	// key is taken. When it returns nil the object survives a power cut; an object exists whole or not at all.
	Put(ctx context.Context, key string, r io.Reader, length int64) error
	// Read opens the bytes [offset, offset+length) of an object; length -1 means up to its end. Reading ends early
	// where the object does. ErrNotExist when there is no such object. The caller closes.
	Read(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	// Stat describes an object, or returns ErrNotExist.
	Stat(ctx context.Context, key string) (Object, error)
	// List yields the objects whose key begins with prefix, in no order. After an error it yields nothing more.
	List(ctx context.Context, prefix string) iter.Seq2[Object, error]
	// Delete removes an object; an object that does not exist is no error.
	Delete(ctx context.Context, key string) error
}

// Object describes one object of a Bucket.
type Object struct {
	Key      string // "packs/1f3a..."
	Length   int64  // bytes
	Modified time.Time
}

// Errors of buckets and of what is built on them. They are wrapped with the key.
var (
	ErrExists   = errors.New("object exists")
	ErrNotExist = errors.New("object does not exist")
)

var validKey = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*$`)

// maxKeyLength is what S3 allows, less room for a prefix ("Creating object key names": 1,024 bytes).
const maxKeyLength = 512

// CheckKey, which every Bucket calls, refuses what is not names of a-z 0-9 . _ - joined by slashes: such a key is a path
// on every file system and cannot leave the bucket's folder.
func CheckKey(key string) error {
	if len(key) > maxKeyLength || !validKey.MatchString(key) {
		return fmt.Errorf("object key %.80q: not names of a-z 0-9 . _ - joined by slashes", key)
	}
	return nil
}

// fetch returns a whole object of at most limit bytes.
func fetch(ctx context.Context, b Bucket, key string, limit int64) ([]byte, error) {
	r, err := b.Read(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	p, err := io.ReadAll(io.LimitReader(r, min(limit, math.MaxInt64-1)+1))
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", key, err)
	}
	if int64(len(p)) > limit {
		return nil, fmt.Errorf("object %s: %w, %d bytes", key, errTooLong, limit)
	}
	return p, nil
}

// errTooLong says that an object is longer than such an object can be.
var errTooLong = errors.New("more than it can have")

// fetchRange returns the bytes [offset, offset+length) of an object; fewer are an error.
func fetchRange(ctx context.Context, b Bucket, key string, offset, length int64) ([]byte, error) {
	r, err := b.Read(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	p := make([]byte, length)
	if n, err := io.ReadFull(r, p); err != nil {
		return nil, fmt.Errorf("object %s: %d bytes at %d, want %d: %w", key, n, offset, length, err)
	}
	return p, nil
}
