package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is one running program of the lab. Safe for concurrent use.
type Process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it ended and its output was read
	err  error         // how it ended; read after done
}

// Run starts a program in the appliance's namespace and returns at once; its output goes to out. The lab kills it at
// Close, and the kernel when this process dies.
func (l *Lab) Run(out io.Writer, name string, args ...string) (*Process, error) {
	return l.runIn(l.Namespace(), nil, out, name, args...)
}

// Output runs a program in the appliance's namespace to its end and returns what it printed to its standard output; an
// error carries what it printed to the other one.
func (l *Lab) Output(ctx context.Context, name string, args ...string) ([]byte, error) {
	return l.output(ctx, l.Namespace(), name, args...)
}

func (l *Lab) output(ctx context.Context, ns, name string, args ...string) ([]byte, error) {
	var out, problem strings.Builder
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", ns, name}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return []byte(out.String()), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(problem.String()))
	}
	return []byte(out.String()), nil
}

func (l *Lab) runIn(ns string, in io.Reader, out io.Writer, name string, args ...string) (*Process, error) {
	p, err := start(ns, in, out, name, args...)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.children = append(l.children, p)
	return p, nil
}

func start(ns string, in io.Reader, out io.Writer, name string, args ...string) (*Process, error) {
	cmd := exec.Command("ip", append([]string{"netns", "exec", ns, name}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	p := &Process{name: name, cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		defer close(p.done)
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("start %s: %w", name, err)
			return
		}
		close(started)
		p.err = cmd.Wait()
	}()
	return p, <-started
}

// Done is closed when the process ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err waits for the end and says how it ended: nil means with success.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Kill ends the process with SIGKILL and waits until it is gone; a process that ended is no error.
func (p *Process) Kill() error { return p.signal(syscall.SIGKILL) }

// Stop asks the process to end with SIGTERM and waits; after ten seconds it is killed.
func (p *Process) Stop() error {
	kill := time.AfterFunc(10*time.Second, func() { p.cmd.Process.Kill() })
	defer kill.Stop()
	return p.signal(syscall.SIGTERM)
}

func (p *Process) signal(s syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, syscall.ESRCH) && !strings.Contains(err.Error(), "finished") {
		return fmt.Errorf("signal %s (pid %d): %w", p.name, p.cmd.Process.Pid, err)
	}
	<-p.done
	return nil
}

// tail keeps the last bytes written to it. Safe for concurrent use.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if over := len(t.b) - 4096; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}
