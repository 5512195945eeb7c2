package main

import (
	"context"
	"path/filepath"
	"strings"

	"seedbed/images/repository"
)

const repositoryUsage = "`LOCATION` of the images: a folder, or s3://BUCKET/PREFIX?endpoint=URL&region=NAME with keys from AWS_ACCESS_KEY_ID " +
	"and AWS_SECRET_ACCESS_KEY or ~/.aws (default: repository in the data directory)"

// openBucket opens the storage of images at a location, as --repository has it. close gives its connections back.
func openBucket(ctx context.Context, data, location string) (bucket repository.Bucket, close func() error, err error) {
	if strings.HasPrefix(location, "s3://") {
		return openS3(ctx, location)
	}
	if location == "" {
		location = filepath.Join(data, "repository")
	}
	b, err := repository.OpenDir(location)
	return b, func() error { return nil }, err
}
