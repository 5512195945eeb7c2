package main

import (
	"context"

	"seedbed/images/repository"
	"seedbed/images/repository/s3"
)

func openS3(ctx context.Context, location string) (repository.Bucket, func() error, error) {
	b, err := s3.Open(ctx, location)
	if err != nil {
		return nil, nil, err
	}
	return b, b.Close, nil
}
