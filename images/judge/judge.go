// Package judge builds programs of others that tests ask for their verdict, or let do what a real service does. They are no dependencies
// of this module.
package judge

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sync"
)

// Program is a program of others: a Go package in a version of its module.
type Program struct{ Package, Version string }

var (
	// S3 is an S3 service. It honours If-None-Match for objects in one and in several parts.
	S3 = Program{"github.com/versity/versitygw/cmd/versitygw", "v1.8.0"}
	// OpenAPI says whether a description of an interface is valid, by the JSON Schema that the OpenAPI Initiative publishes for 3.1.
	OpenAPI = Program{"github.com/pb33f/libopenapi-validator/cmd/validate", "v0.16.2"}
)

// Programs are all of them. What sets up for tests builds them, so that no test's time goes into that.
var Programs = []Program{S3, OpenAPI}

var building sync.Mutex

// Build returns the path of the program, which is built once into the cache: SEEDBED_CACHE, or ~/.cache/seedbed. That needs the network,
// which tests in a namespace of their own have not. Safe for concurrent use.
func (p Program) Build() (program string, err error) {
	building.Lock()
	defer building.Unlock()
	cache := os.Getenv("SEEDBED_CACHE")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(home, ".cache", "seedbed")
	}
	tools, name := filepath.Join(cache, "tools"), path.Base(p.Package)
	program = filepath.Join(tools, name+"-"+p.Version)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if err := os.MkdirAll(tools, 0o755); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(tools, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	cmd := exec.Command("go", "install", p.Package+"@"+p.Version)
	cmd.Dir = temp
	cmd.Env = append(os.Environ(), "GOBIN="+temp, "GOFLAGS=-mod=mod", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s %s, which tests need, cannot be built: %w\n%s", p.Package, p.Version, err, out)
	}
	return program, os.Rename(filepath.Join(temp, name), program)
}
