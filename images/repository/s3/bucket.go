package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"seedbed/images/repository"
)

const (
	// partLength is the length of the parts of a large object, in bytes: 128 of them make 1 GiB, of 10,000 allowed
	// ("Amazon S3 multipart upload limits"). Each upload keeps a part for each of its connections, and one more.
	partLength  = 8 << 20
	connections = 4
	// slowest is the rate in bytes a second below which an upload is given up.
	slowest = 64 << 10
)

// Put implements repository.Bucket.
func (b *Bucket) Put(ctx context.Context, key string, r io.Reader, length int64) error {
	if err := repository.CheckKey(key); err != nil {
		return err
	}
	if length > partLength { // the service refuses only when all of it has been sent
		if _, err := b.Stat(ctx, key); err == nil {
			return b.wrap("put", key, repository.ErrExists)
		}
	}
	return b.upload(ctx, key, r, length)
}

// upload creates an object. It leaves nothing behind when it fails: parts that were sent are taken back.
func (b *Bucket) upload(ctx context.Context, key string, r io.Reader, length int64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute+time.Duration(length/slowest)*time.Second, errSlow)
	defer cancel()
	var again []byte // what a small object can be sent from once more
	if length <= partLength {
		var err error
		if again, err = io.ReadAll(&exactReader{ctx: ctx, r: r, left: length}); err != nil {
			return b.wrap("put", key, err)
		}
	}
	for try := 1; ; try++ {
		body := io.Reader(&exactReader{ctx: ctx, r: r, left: length})
		if length <= partLength {
			body = bytes.NewReader(again)
		}
		err := b.blob.Upload(ctx, b.prefix+key, body, &blob.WriterOptions{
			ContentType: "application/octet-stream", IfNotExist: true, BufferSize: partLength, MaxConcurrency: connections,
		})
		if err == nil {
			return nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return b.wrap("put", key, cause)
		}
		if gcerrors.Code(err) == gcerrors.FailedPrecondition {
			return b.wrap("put", key, repository.ErrExists)
		}
		if !isConflict(err) {
			return b.wrap("put", key, err)
		}
		// Another creator of the object was under way ("Conditional writes": 409); if it has failed this one may win.
		if _, e := b.attributes(ctx, key); e == nil {
			return b.wrap("put", key, repository.ErrExists)
		}
		if try == attempts || length > partLength {
			return b.wrap("put", key, err)
		}
	}
}

func isConflict(err error) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	return ok && (api.ErrorCode() == "ConditionalRequestConflict" || api.ErrorCode() == "OperationAborted")
}

// exactReader fails where r has not exactly the bytes announced.
type exactReader struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

var errLonger = errors.New("more bytes given than announced")

func (e *exactReader) Read(p []byte) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := e.r.Read(p)
	e.left -= int64(n)
	switch {
	case e.left < 0:
		return 0, errLonger
	case err == io.EOF && e.left > 0:
		return n, fmt.Errorf("%d bytes fewer given than announced: %w", e.left, io.ErrUnexpectedEOF)
	}
	return n, err
}

// Stat implements repository.Bucket.
func (b *Bucket) Stat(ctx context.Context, key string) (repository.Object, error) {
	if err := repository.CheckKey(key); err != nil {
		return repository.Object{}, err
	}
	a, err := b.attributes(ctx, key)
	if err != nil {
		return repository.Object{}, b.wrap("stat", key, err)
	}
	return repository.Object{Key: key, Length: a.Size, Modified: a.ModTime}, nil
}

func (b *Bucket) attributes(ctx context.Context, key string) (*blob.Attributes, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, attempts*stallTimeout, errSlow)
	defer cancel()
	return b.blob.Attributes(ctx, b.prefix+key)
}

// List implements repository.Bucket.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[repository.Object, error] {
	return func(yield func(repository.Object, error) bool) {
		list := b.blob.List(&blob.ListOptions{Prefix: b.prefix + prefix})
		for {
			o, err := list.Next(ctx)
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(repository.Object{}, b.wrap("list", prefix, err))
				return
			}
			key := strings.TrimPrefix(o.Key, b.prefix)
			if repository.CheckKey(key) != nil {
				continue // not the repository's
			}
			if !yield(repository.Object{Key: key, Length: o.Size, Modified: o.ModTime}, nil) {
				return
			}
		}
	}
}

// Delete implements repository.Bucket.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	if err := repository.CheckKey(key); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, attempts*stallTimeout, errSlow)
	defer cancel()
	_, err := b.client.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: aws.String(b.cfg.Bucket), Key: aws.String(b.prefix + key)})
	if err = b.wrap("delete", key, err); errors.Is(err, repository.ErrNotExist) {
		return nil
	}
	return err
}

var errSlow = errors.New("the storage did not answer in time")

// wrap names operation and object, and says what to do where that is known.
func (b *Bucket) wrap(what, key string, err error) error {
	if err == nil {
		return nil
	}
	remedy := ""
	status := 0
	if r, ok := errors.AsType[*awshttp.ResponseError](err); ok {
		status = r.HTTPStatusCode()
	}
	code := ""
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		code = api.ErrorCode()
	}
	switch {
	case code == "NoSuchBucket":
		remedy = "; create the bucket, or correct its name"
	case code == "NoSuchKey" || code == "NotFound" || status == http.StatusNotFound:
		return fmt.Errorf("object %s: %w", key, repository.ErrNotExist)
	case code == "ObjectParentIsFile": // a gateway to a file system, where the key has a file as folder
		return fmt.Errorf("object %s: %w", key, repository.ErrNotExist)
	case code == "InvalidAccessKeyId" || code == "SignatureDoesNotMatch" || code == "ExpiredToken":
		remedy = "; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or ~/.aws/credentials, and the clock"
	case code == "AccessDenied" || status == http.StatusForbidden:
		remedy = "; the key needs the rights to list, read, write and delete in this bucket"
	case status == http.StatusNotImplemented:
		remedy = "; use storage with conditional writes, as Amazon S3, MinIO and versitygw have"
	case status == http.StatusMovedPermanently || status == http.StatusTemporaryRedirect:
		remedy = "; the bucket is in another region, give it as region=..."
	case strings.Contains(err.Error(), "failed to refresh cached credentials"):
		remedy = "; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write ~/.aws/credentials"
	case isNetwork(err):
		remedy = "; check that the address is right and the service runs"
	}
	return fmt.Errorf("%s object %s of %s: %w%s", what, key, b.cfg, err, remedy)
}

func isNetwork(err error) bool {
	_, ok := errors.AsType[*net.OpError](err)
	_, dns := errors.AsType[*net.DNSError](err)
	return ok || dns
}
