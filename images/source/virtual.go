package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Programs of the Debian package qemu-utils.
const (
	qemuImg = "qemu-img"
	qemuNBD = "qemu-nbd"
)

// nbdConns is how many requests qemu-nbd serves at once.
const nbdConns = 8

// openVirtual starts qemu-nbd on a file whose kind is known and reads through it: nothing is copied. The server ends with
// its last connection, so that it does not outlive this process.
func (s *Source) openVirtual(ctx context.Context, form format) error {
	f, err := os.Open(s.name)
	if err != nil {
		return err
	}
	_, err = s.add(f)
	f.Close()
	if err != nil {
		return err
	}
	path := s.Files[0].Path
	if err := inspect(ctx, path, form); err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "seedbed-nbd-") // mode 0700: nobody else connects
	if err != nil {
		return err
	}
	s.close = append(s.close, func() error { return os.RemoveAll(folder) })
	socket, pidFile := filepath.Join(folder, "socket"), filepath.Join(folder, "pid")
	// A start that is cut short could leave a server that nobody connects to.
	err = runQEMU(context.WithoutCancel(ctx), qemuNBD, "--read-only", "--fork", "--socket="+socket, "--pid-file="+pidFile, "--shared="+strconv.Itoa(nbdConns),
		"--format="+form.qemu, "--", path)
	if err != nil {
		return err
	}
	d := &virtual{socket: socket, idle: make(chan *nbdConn, nbdConns), slots: make(chan struct{}, nbdConns)}
	first, length, err := dialNBD(socket)
	if err != nil {
		return errors.Join(err, endProcess(pidFile))
	}
	d.length = length
	d.idle <- first
	for range nbdConns {
		d.slots <- struct{}{}
	}
	<-d.slots // the first connection has it
	s.close = append([]func() error{d.Close}, s.close...)
	s.ReaderAt, s.Length, s.Format = d, length, form.name
	return nil
}

// endProcess ends a server that nobody could connect to, by a signal that it cannot lose: qemu-nbd forgets one that comes
// just before its main loop. It reads only, so nothing else is lost.
func endProcess(pidFile string) error {
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return fmt.Errorf("process id %q of qemu-nbd", b)
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}

// inspect asks qemu-img what it makes of the file, without opening anything that the file refers to. It sees the same as
// recognise did, or the file is refused.
func inspect(ctx context.Context, path string, form format) error {
	cmd := exec.CommandContext(ctx, qemuImg, "info", "--output=json", "--force-share", "--format="+form.qemu, "--", path)
	var out, text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &text
	if err := cmd.Run(); err != nil {
		return qemuError(qemuImg, err, text.Bytes())
	}
	var info struct {
		Format    string `json:"format"`
		Backing   string `json:"backing-filename"`
		Encrypted bool   `json:"encrypted"`
		Specific  struct {
			Data struct {
				DataFile string `json:"data-file"`
				Corrupt  bool   `json:"corrupt"`
			} `json:"data"`
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(out.Bytes(), &info); err != nil {
		return fmt.Errorf("read what qemu-img says: %w", err)
	}
	switch {
	case info.Format != form.qemu:
		return fmt.Errorf("%w: it is %s by its content and %.40s to qemu-img", ErrFormat, form.qemu, info.Format)
	case info.Backing != "" || info.Specific.Data.DataFile != "":
		return fmt.Errorf("%w: make one file of them first: qemu-img convert", ErrForeign)
	case info.Encrypted:
		return fmt.Errorf("%w: it is encrypted; decrypt it first: qemu-img convert", ErrFormat)
	}
	return nil
}

// runQEMU runs a program that may leave a server behind, which must not hold this process's pipes.
func runQEMU(ctx context.Context, name string, args ...string) error {
	said, err := os.CreateTemp("", "seedbed-qemu-")
	if err != nil {
		return err
	}
	defer os.Remove(said.Name())
	defer said.Close()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(said.Name())
		return qemuError(name, err, text)
	}
	return nil
}

func qemuError(name string, err error, text []byte) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is missing, which reads the disks of virtual machines (Debian: apt install qemu-utils)", name)
	}
	said := strings.TrimSpace(string(text[:min(len(text), 500)]))
	if strings.Contains(said, "Failed to get") && strings.Contains(said, "lock") {
		return ErrLocked
	}
	return fmt.Errorf("%w: %s: %w: %s", ErrFormat, name, err, said)
}

// virtual reads through qemu-nbd. Safe for concurrent use.
type virtual struct {
	socket string
	length int64
	idle   chan *nbdConn
	slots  chan struct{} // one for each connection that may still be made
}

// ReadAt implements io.ReaderAt.
func (d *virtual) ReadAt(b []byte, offset int64) (done int, err error) {
	if offset < 0 || offset >= d.length {
		return 0, io.EOF
	}
	c, err := d.take()
	if err != nil {
		return 0, err
	}
	want := b[:min(int64(len(b)), d.length-offset)]
	for done < len(want) {
		some := want[done:min(done+nbdMaxRead, len(want))]
		if err := c.read(some, offset+int64(done)); err != nil {
			d.give(c, err)
			return done, err
		}
		done += len(some)
	}
	d.give(c, nil)
	if done < len(b) {
		return done, io.EOF
	}
	return done, nil
}

// take returns an idle connection, makes one, or waits.
func (d *virtual) take() (*nbdConn, error) {
	select {
	case c := <-d.idle:
		return c, nil
	default:
	}
	select {
	case c := <-d.idle:
		return c, nil
	case <-d.slots:
	}
	c, _, err := dialNBD(d.socket)
	if err != nil {
		d.slots <- struct{}{}
	}
	return c, err
}

// give takes a connection back. One that broke is closed.
func (d *virtual) give(c *nbdConn, err error) {
	if disk := nbdError(0); err != nil && !errors.As(err, &disk) {
		c.Close()
		d.slots <- struct{}{}
		return
	}
	d.idle <- c
}

// Close tells the server goodbye on all connections; it then ends. No read may be under way.
func (d *virtual) Close() error {
	for {
		select {
		case c := <-d.idle:
			_ = c.SetDeadline(time.Now().Add(time.Second))
			q := be.AppendUint64(be.AppendUint32(nil, nbdRequest), 0)
			q[7] = 2                                       // NBD_CMD_DISC
			_, _ = c.Write(append(q, make([]byte, 16)...)) // it may have gone already
			c.Close()
		default:
			return nil
		}
	}
}
