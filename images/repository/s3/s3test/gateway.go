// Package s3test starts a real S3 service for tests: versitygw, built from its Go module.
package s3test

import (
	"bytes"
	"crypto/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"seedbed/images/judge"
)

// Start starts a service of its own on loopback with the buckets given and ends it with the test. It sets the
// environment's credentials to that service's, and returns its endpoint. A service that cannot be built or started fails
// the test.
func Start(t testing.TB, buckets ...string) (endpoint string) {
	t.Helper()
	return StartAt(t, "127.0.0.1", buckets...)
}

// StartAt is Start at another address of this host, so that other hosts reach the service.
func StartAt(t testing.TB, ip string, buckets ...string) (endpoint string) {
	t.Helper()
	return start(t, nil, freeAddress(t, ip), buckets)
}

// StartIn is Start in a network namespace of ip-netns(8), at an address that is free there: "10.77.0.2:9000".
func StartIn(t testing.TB, namespace, address string, buckets ...string) (endpoint string) {
	t.Helper()
	return start(t, []string{"ip", "netns", "exec", namespace}, address, buckets)
}

// start starts a service that listens at an address, below the command in prefix.
func start(t testing.TB, prefix []string, address string, buckets []string) (endpoint string) {
	t.Helper()
	program, err := Build()
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp(memory(), "seedbed-s3-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	for _, name := range buckets {
		if err := os.MkdirAll(filepath.Join(folder, "data", name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": rand.Text(), "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": filepath.Join(folder, "none"), "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(folder, "none"),
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "",
	} {
		setenv(t, name, value)
	}
	metadata := filepath.Join(folder, "metadata") // beside, since a tmpfs may have no extended attributes
	if err := os.Mkdir(metadata, 0o700); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	args := append(prefix[:len(prefix):len(prefix)], program, "--port", address, "--quiet", "--keep-alive", "posix", "--sidecar", metadata, filepath.Join(folder, "data"))
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID=test", "ROOT_SECRET_ACCESS_KEY="+os.Getenv("AWS_SECRET_ACCESS_KEY"))
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	for {
		if listens(prefix, address) {
			return "http://" + address
		}
		select {
		case <-ended:
			t.Fatalf("versitygw ended: %s", log.String())
		case <-t.Context().Done():
			t.Fatal("versitygw does not listen")
		case <-time.After(10 * time.Millisecond): // until it listens
		}
	}
}

// listens reports whether a program takes connections at an address, where programs below prefix see it.
func listens(prefix []string, address string) bool {
	if len(prefix) > 0 {
		args := append(prefix[1:len(prefix):len(prefix)], "ss", "-Hltn", "src", address)
		found, err := exec.Command(prefix[0], args...).Output()
		return err == nil && len(found) > 0
	}
	c, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// memory returns a folder in memory where there is one: what is tested is the protocol and not a disk.
func memory() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

func setenv(t testing.TB, name, value string) {
	if value != "" {
		t.Setenv(name, value)
		return
	}
	t.Setenv(name, "") // so that it is restored
	os.Unsetenv(name)
}

func freeAddress(t testing.TB, ip string) string {
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Build returns the program, which it builds once into the cache: it is no dependency of this module. Start calls it;
// tests in a network namespace call it before they are in there.
func Build() (program string, err error) {
	return judge.S3.Build()
}
