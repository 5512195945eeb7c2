// Package s3 is a repository.Bucket on object storage that speaks the S3 protocol and honours conditional writes
// ("If-None-Match: *"): Amazon S3, MinIO, versitygw and others.
package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"gocloud.dev/blob"
	"gocloud.dev/blob/s3blob"

	"seedbed/images/repository"
)

// Config says where a bucket is. Credentials are not part of it: they come from the environment (AWS_ACCESS_KEY_ID and
// AWS_SECRET_ACCESS_KEY, AWS_PROFILE), the files ~/.aws/credentials and ~/.aws/config, or the machine's role.
type Config struct {
	// Bucket is the bucket's name. It must exist.
	Bucket string
	// Prefix goes in front of every key, joined by a slash; "" means none.
	Prefix string
	// Endpoint is the URL of a service other than Amazon's: "https://minio.example:9000". "" means Amazon S3, or what
	// AWS_ENDPOINT_URL_S3 or the profile says.
	Endpoint string
	// Region "" means AWS_REGION or the profile's, else us-east-1.
	Region string
}

// Parse reads "s3://bucket/prefix?endpoint=https://host:port&region=name". Everything but the bucket may be left out.
func Parse(location string) (Config, error) {
	wrong := func(format string, a ...any) (Config, error) {
		return Config{}, fmt.Errorf("repository %q: "+format, append([]any{redact(location)}, a...)...)
	}
	u, err := url.Parse(location)
	if err != nil || u.Scheme != "s3" || u.Host == "" || u.Fragment != "" {
		return wrong("not of the form s3://bucket/prefix?endpoint=https://host:port&region=name")
	}
	if u.User != nil {
		return wrong("keys have no place in it; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write ~/.aws/credentials")
	}
	c := Config{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
	if c.Prefix != "" {
		if err := repository.CheckKey(c.Prefix); err != nil || len(c.Prefix) > maxPrefixLength {
			return wrong("the prefix must be names of a-z 0-9 . _ - joined by slashes, at most %d characters", maxPrefixLength)
		}
	}
	for name, values := range u.Query() {
		switch name {
		case "endpoint":
			c.Endpoint = values[0]
		case "region":
			c.Region = values[0]
		default:
			return wrong("parameter %q is neither endpoint nor region", name)
		}
	}
	if e, err := url.Parse(c.Endpoint); c.Endpoint != "" && (err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "" || e.User != nil) {
		return wrong("the endpoint is no URL like https://host:port")
	}
	return c, nil
}

// maxPrefixLength leaves a key its 512 of the 1,024 bytes of S3.
const maxPrefixLength = 500

var userinfo = regexp.MustCompile(`//[^/@]*@`)

// redact takes keys that were put into a location out of what is printed.
func redact(location string) string { return userinfo.ReplaceAllString(location, "//***@") }

// String is the reverse of Parse.
func (c Config) String() string {
	u := url.URL{Scheme: "s3", Host: c.Bucket, Path: c.Prefix}
	q := url.Values{}
	if c.Endpoint != "" {
		q.Set("endpoint", c.Endpoint)
	}
	if c.Region != "" {
		q.Set("region", c.Region)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// Open opens the bucket at a location, see Parse. It asks the service once, so that a wrong name, key or address is an
// error now. The caller closes.
func Open(ctx context.Context, location string) (*Bucket, error) {
	c, err := Parse(location)
	if err != nil {
		return nil, err
	}
	return OpenConfig(ctx, c)
}

// OpenConfig is Open for a location in parts.
func OpenConfig(ctx context.Context, c Config) (*Bucket, error) {
	transport := &http.Transport{}
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConnsPerHost = maxConnections
		t.ResponseHeaderTimeout = stallTimeout
	})
	loaded, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(client), config.WithRetryer(func() aws.Retryer {
		return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = attempts, maxBackoff })
	}))
	if err != nil {
		return nil, fmt.Errorf("open repository %s: read the configuration of S3 (environment, ~/.aws): %w", c, err)
	}
	if built, ok := loaded.HTTPClient.(*awshttp.BuildableClient); ok { // with the certificates of AWS_CA_BUNDLE
		transport = built.GetTransport()
		loaded.HTTPClient = &http.Client{Transport: transport, CheckRedirect: noRedirect}
	}
	if c.Region != "" {
		loaded.Region = c.Region
	} else if loaded.Region == "" {
		loaded.Region = "us-east-1"
	}
	s := awss3.NewFromConfig(loaded, func(o *awss3.Options) {
		if c.Endpoint != "" {
			o.BaseEndpoint = aws.String(c.Endpoint)
			o.UsePathStyle = true // a name in front of the host needs DNS that private services seldom have
		}
	})
	opened, err := s3blob.OpenBucket(ctx, s, c.Bucket, nil)
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", c, err)
	}
	b := &Bucket{cfg: c, blob: opened, client: s, idle: transport.CloseIdleConnections}
	if c.Prefix != "" {
		b.prefix = c.Prefix + "/"
	}
	if err := b.probe(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open repository: %w", err), b.Close())
	}
	return b, nil
}

// noRedirect leaves redirects to the SDK: followed as they are, they would not be signed.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

const (
	// attempts is how often a request is tried, with waits that double up to maxBackoff between.
	attempts   = 5
	maxBackoff = 5 * time.Second
	// stallTimeout is how long a service may keep silent while something is expected of it.
	stallTimeout = 30 * time.Second
	// maxConnections is how many idle connections are kept: some more than a reader has requests under way.
	maxConnections = 64
)

// probeKey is an object beside those of the repository. No key begins with a dot.
const probeKey = ".seedbed"

// probe creates an object that must not be created again. Storage that would do so silently replaces objects, and two
// captures could publish the same version.
func (b *Bucket) probe(ctx context.Context) error {
	_, err := b.client.ListObjectsV2(ctx, &awss3.ListObjectsV2Input{Bucket: aws.String(b.cfg.Bucket), MaxKeys: aws.Int32(1),
		Prefix: aws.String(b.prefix)}, func(o *awss3.Options) { o.RetryMaxAttempts = 2 }) // whoever waits wants to know soon
	if err != nil {
		return b.wrap("list", b.prefix, err)
	}
	create := func() error {
		const text = "This prefix holds a Seedbed image repository.\n"
		return b.upload(ctx, probeKey, strings.NewReader(text), int64(len(text)))
	}
	if err = create(); err == nil {
		if err = create(); err == nil {
			return fmt.Errorf("%s: it replaces objects although told not to (If-None-Match: *); "+
				"use storage with conditional writes, as Amazon S3, MinIO and versitygw have", b.cfg)
		}
	}
	if errors.Is(err, repository.ErrExists) {
		return nil
	}
	return err
}

// Close ends the bucket's connections. No call may be under way.
func (b *Bucket) Close() error {
	err := b.blob.Close()
	b.idle()
	return err
}

// Bucket is a repository.Bucket on S3. Safe for concurrent use.
type Bucket struct {
	cfg    Config
	prefix string // "" or ends in a slash
	blob   *blob.Bucket
	client *awss3.Client
	idle   func() // closes idle connections
}

var _ repository.Bucket = (*Bucket)(nil)

// String returns the location.
func (b *Bucket) String() string { return b.cfg.String() }
