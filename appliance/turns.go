package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"seedbed/images/repository"
)

// turns say when all images of a bucket are to be verified, and by which of the appliances on it. They are numbered: the
// object verified/NNNNNNNNNN.begun says that one has begun with a verification, verified/NNNNNNNNNN that it was done, at the
// time that the bucket gave the object. Owned by one goroutine.
type turns struct {
	bucket repository.Bucket
	path   string        // of the file with the number that this appliance began last
	every  time.Duration // from the end of one to the beginning of the next
}

const turnPrefix = "verified/"

func turnKey(number int) string { return fmt.Sprintf("%s%010d", turnPrefix, number) }

// take returns the number of the verification that this appliance has to make now; 0 says none. Where one has begun it is
// another's, until it is so old that it died.
func (t *turns) take(ctx context.Context) (number int, err error) {
	done, at, err := t.last(ctx)
	if err != nil || done > 0 && time.Since(at) < t.every {
		return 0, err
	}
	number = done + 1
	begun := turnKey(number) + ".begun"
	switch err := t.bucket.Put(ctx, begun, strings.NewReader("\n"), 1); {
	case err == nil:
		return number, os.WriteFile(t.path, []byte(strconv.Itoa(number)), 0o600)
	case !errors.Is(err, repository.ErrExists):
		return 0, err
	}
	if b, err := os.ReadFile(t.path); err == nil && string(b) == strconv.Itoa(number) {
		return number, nil // it began, and was stopped
	}
	o, err := t.bucket.Stat(ctx, begun)
	if err != nil || time.Since(o.Modified) < t.every {
		return 0, err
	}
	return number, nil
}

// last returns the number of the verification that was done last, and when; 0 says none.
func (t *turns) last(ctx context.Context) (number int, at time.Time, err error) {
	for o, err := range t.bucket.List(ctx, turnPrefix) {
		if err != nil {
			return 0, at, fmt.Errorf("list verifications: %w", err)
		}
		if n, err := strconv.Atoi(strings.TrimPrefix(o.Key, turnPrefix)); err == nil && n > number {
			number, at = n, o.Modified
		}
	}
	return number, at, nil
}

// done says that a verification was made.
func (t *turns) done(ctx context.Context, number int) error {
	if err := t.bucket.Put(ctx, turnKey(number), strings.NewReader("\n"), 1); err != nil && !errors.Is(err, repository.ErrExists) {
		return err
	}
	for _, key := range []string{turnKey(number) + ".begun", turnKey(number - 1)} {
		if err := t.bucket.Delete(ctx, key); err != nil {
			return err
		}
	}
	return nil
}
