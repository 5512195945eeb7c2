//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"

	"seedbed/images/repository/s3/s3test"
)

func TestImagesLieOnObjectStorage(t *testing.T) {
	network(t)
	location := "s3://images/site?endpoint=" + s3test.Start(t, "images")
	data := filepath.Join(t.TempDir(), "data")
	disk, _ := newDisk(t)
	must(t, data, "--repository", location, "image", "add", disk, "--name", "debian")
	must(t, data, "--repository", location, "image", "verify", "debian")
	if err := os.RemoveAll(filepath.Join(data, "spool")); err != nil { // and with it the index
		t.Fatal(err)
	}
	must(t, data, "--repository", location, "image", "add", disk, "--name", "debian")
	must(t, data, "--repository", location, "image", "show", "debian:2")
}
