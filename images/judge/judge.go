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

var building sync.Mutex

// Build returns the program of a Go package, as "github.com/versity/versitygw/cmd/versitygw", in a version, as "v1.8.0". It is built once
// into the cache: SEEDBED_CACHE, or ~/.cache/seedbed. That needs the network, which tests in a namespace of their own have not. Safe for
// concurrent use.
func Build(pkg, version string) (program string, err error) {
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
	tools, name := filepath.Join(cache, "tools"), path.Base(pkg)
	program = filepath.Join(tools, name+"-"+version)
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
	cmd := exec.Command("go", "install", pkg+"@"+version)
	cmd.Dir = temp
	cmd.Env = append(os.Environ(), "GOBIN="+temp, "GOFLAGS=-mod=mod", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s %s, which tests need, cannot be built: %w\n%s", pkg, version, err, out)
	}
	return program, os.Rename(filepath.Join(temp, name), program)
}
