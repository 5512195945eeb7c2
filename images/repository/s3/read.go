package s3

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/aws/smithy-go"

	"seedbed/images/repository"
)

// Read implements repository.Bucket. Bytes that are cut off on their way are asked for again, and silence of 30 s is
// such a cut.
func (b *Bucket) Read(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := repository.CheckKey(key); err != nil {
		return nil, err
	}
	r := &reader{b: b, ctx: ctx, key: key, offset: offset, left: length}
	if err := r.open(); err != nil {
		if api, ok := errors.AsType[smithy.APIError](err); ok && api.ErrorCode() == "InvalidRange" {
			return io.NopCloser(eof{}), nil // the object ends before
		}
		return nil, b.wrap("read", key, err)
	}
	return r, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// reader reads a range of an object. One goroutine at a time.
type reader struct {
	b      *Bucket
	ctx    context.Context
	key    string
	offset int64 // of the next byte
	left   int64 // bytes to come; negative: up to the end
	known  int64 // bytes that the open body has yet to give
	body   io.ReadCloser
	guard  *time.Timer
	cancel context.CancelCauseFunc
	tries  int // of opening since the last byte came
}

var errStalled = errors.New("the storage has sent nothing for a while")

// open asks for what is left.
func (r *reader) open() error {
	ctx, cancel := context.WithCancelCause(r.ctx)
	// A request is answered or given up by its own timeouts; this is for a service that answers and then goes silent.
	guard := time.AfterFunc(attempts*stallTimeout, func() { cancel(errStalled) })
	body, err := r.b.blob.NewRangeReader(ctx, r.b.prefix+r.key, r.offset, r.left, nil)
	if err != nil {
		guard.Stop()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		return err
	}
	r.known = body.Size() - r.offset
	if r.left >= 0 {
		r.known = min(r.known, r.left)
	}
	r.body, r.guard, r.cancel = body, guard, cancel
	return nil
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if r.known <= 0 {
			return 0, io.EOF
		}
		r.guard.Reset(stallTimeout)
		n, err := r.body.Read(p[:min(int64(len(p)), r.known)])
		if n > 0 {
			r.offset, r.known, r.tries = r.offset+int64(n), r.known-int64(n), 0
			if r.left > 0 {
				r.left -= int64(n)
			}
			return n, nil
		}
		if err == nil {
			continue
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if r.ctx.Err() != nil {
			return 0, r.ctx.Err()
		}
		r.release()
		if r.tries++; r.tries > attempts {
			return 0, r.b.wrap("read", r.key, err)
		}
		if err := r.open(); err != nil {
			r.known = 0
			return 0, r.b.wrap("read", r.key, err)
		}
	}
}

// release gives the connection back.
func (r *reader) release() error {
	if r.body == nil {
		return nil
	}
	r.guard.Stop()
	err := r.body.Close()
	r.cancel(nil)
	r.body = nil
	return err
}

// Close implements io.Closer.
func (r *reader) Close() error { return r.release() }
