package repository

import (
	"bytes"
	"context"
	"errors"
	"io"

	"seedbed/images"
)

// putPack makes a finished file an object. One that is there already has the same name because it has the same tiles: it
// is the work of an interrupted seal, or it is damaged and replaced.
func (r *Repository) putPack(ctx context.Context, id images.Digest, name string) error {
	err := r.putFile(ctx, packKey(id), name)
	if !errors.Is(err, ErrExists) {
		return err
	}
	same, err := r.sameFile(ctx, packKey(id), name)
	if err != nil || same {
		return err
	}
	r.log.Warn("pack is damaged, writing it again", "object", packKey(id))
	if err := r.bucket.Delete(ctx, packKey(id)); err != nil {
		return err
	}
	return r.putFile(ctx, packKey(id), name)
}

func (r *Repository) putFile(ctx context.Context, key, name string) error {
	if r.dir != nil {
		return r.dir.PutFile(ctx, key, name)
	}
	return putCopy(ctx, r.fs, r.bucket, key, name)
}

// compareLength is how much of both is held at a time, in bytes.
const compareLength = 1 << 20

// sameFile reports whether an object has the bytes of a file in the spool.
func (r *Repository) sameFile(ctx context.Context, key, name string) (bool, error) {
	f, err := r.fs.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	object, err := r.bucket.Read(ctx, key, 0, -1)
	if err != nil {
		return false, err
	}
	defer object.Close()
	a, b := make([]byte, compareLength), make([]byte, compareLength)
	for offset := int64(0); ; offset += compareLength {
		n, err := f.ReadAt(a, offset)
		if err != nil && err != io.EOF {
			return false, err
		}
		m, err := io.ReadFull(object, b)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return false, err
		}
		if !bytes.Equal(a[:n], b[:m]) {
			return false, nil
		}
		if n < compareLength {
			return true, nil
		}
	}
}
