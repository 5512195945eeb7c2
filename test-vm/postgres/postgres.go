// Package postgres runs a real PostgreSQL server for tests, on a socket in a directory of its own.
package postgres

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Server is a running server with the database "seedbed".
type Server struct {
	t    testing.TB
	dir  string
	bin  string
	as   *account // nil unless the test runs as root, under which the server refuses to run
	cmd  *exec.Cmd
	log  *bytes.Buffer
	done chan error
}

// account is a user of the system and its group.
type account struct{ uid, gid uint32 }

// Start makes a new server that ends with the test. It fails the test where PostgreSQL is not installed.
func Start(t testing.TB) *Server {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		t.Fatal("PostgreSQL is not installed; `make setup` installs it")
	}
	slices.Sort(found)
	// A socket's path is short (unix(7)), and the server's user must reach it.
	dir, err := os.MkdirTemp("/tmp", "seedbed-pg-")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, dir: dir, bin: filepath.Dir(found[len(found)-1])}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatalf("PostgreSQL's package makes the user postgres: %v", err)
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		s.as = &account{uid: uint32(uid), gid: uint32(gid)}
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
	}
	s.run("initdb", "--pgdata", s.data(), "--auth=trust", "--username=seedbed", "--no-sync", "--encoding=UTF8", "--locale=C")
	s.Restart()
	t.Cleanup(s.Kill)
	return s
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = attributes(s.as)
	return cmd
}

func (s *Server) run(name string, args ...string) {
	s.t.Helper()
	if out, err := s.command(name, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// Restart starts the server, after Kill too: it recovers what it had committed.
func (s *Server) Restart() {
	s.t.Helper()
	s.log = new(bytes.Buffer)
	s.cmd = s.command("postgres", "-D", s.data(), "-k", s.dir, "-h", "", "-c", "max_connections=60", "-c", "shared_buffers=16MB",
		"-c", "dynamic_shared_memory_type=mmap")
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.done = make(chan error, 1)
	go func(cmd *exec.Cmd, done chan error) { done <- cmd.Wait() }(s.cmd, s.done)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		out, err := s.command("psql", "-h", s.dir, "-U", "seedbed", "-d", "postgres", "-Atc", "SELECT 1").CombinedOutput()
		if err == nil && strings.TrimSpace(string(out)) == "1" {
			break
		}
		select {
		case err := <-s.done:
			s.t.Fatalf("the server ended: %v\n%s", err, s.log)
		case <-ctx.Done():
			s.t.Fatalf("the server does not answer: %s", out)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill ends the server at once, as a power cut of its host would.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	pid := s.cmd.Process.Pid
	if out, err := exec.Command("ps", "-o", "pid=", "--ppid", strconv.Itoa(pid)).Output(); err == nil {
		defer func() {
			for _, child := range strings.Fields(string(out)) { // they end by themselves when they see that it is gone
				id, _ := strconv.Atoi(child)
				if process, err := os.FindProcess(id); err == nil {
					process.Kill()
				}
			}
		}()
	}
	s.cmd.Process.Kill()
	<-s.done
	s.cmd = nil
}

var databases int

// Database makes an empty database and returns its URL.
func (s *Server) Database() string {
	s.t.Helper()
	databases++
	name := fmt.Sprintf("seedbed%d", databases)
	s.run("psql", "-h", s.dir, "-U", "seedbed", "-d", "postgres", "-qc", "CREATE DATABASE "+name)
	return "postgres:///" + name + "?" + url.Values{"host": {s.dir}, "user": {"seedbed"}}.Encode()
}
