package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
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

// advised is a Bucket whose objects the operating system keeps in memory: it is told what will be read soon, and what is
// read goes straight to where it is wanted.
type advised interface {
	Bucket
	// Advise says that the bytes [offset, offset+length) of an object will be read soon. It does not wait for them.
	Advise(key string, offset, length int64)
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

// maxKeyLength is what S3 allows, less room for a prefix ("Creating object key names": 1,024 bytes).
const maxKeyLength = 512

// CheckKey, which every Bucket calls, refuses what is not names of a-z 0-9 . _ - joined by slashes: such a key is a path
// on every file system and cannot leave the bucket's folder.
func CheckKey(key string) error {
	start := true // of a name
	for i := range len(key) {
		c := key[i]
		plain := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !plain && (start || c != '.' && c != '_' && c != '-' && c != '/') {
			return keyError(key)
		}
		start = c == '/'
	}
	if start || len(key) > maxKeyLength {
		return keyError(key)
	}
	return nil
}

func keyError(key string) error {
	return fmt.Errorf("object key %.80q: not names of a-z 0-9 . _ - joined by slashes", key)
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
	return fetchInto(ctx, b, key, offset, make([]byte, length))
}

// fetchInto fills p with the bytes of an object from offset on; fewer are an error.
func fetchInto(ctx context.Context, b Bucket, key string, offset int64, p []byte) ([]byte, error) {
	length := int64(len(p))
	r, err := b.Read(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if n, err := io.ReadFull(r, p); err != nil {
		return nil, fmt.Errorf("object %s: %d bytes at %d, want %d: %w", key, n, offset, length, err)
	}
	return p, nil
}
