//go:build !linux

package main

import (
	"context"

	"seedbed/images/repository"
)

func openS3(_ context.Context, location string) (repository.Bucket, func() error, error) {
	return nil, nil, needsLinux("a repository in "+location, "use the program on a host with Linux, or a folder here")
}
