package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"seedbed/images/announce"
)

// udpcast sends by broadcast to all at once. It has no congestion control: the rate is given to it, a little below the link's.
// Its sender is silent for two seconds after the last receiver came, which no option shortens; they count.
func udpcast(o actorOrder) ([]string, error) {
	receivers := strconv.Itoa(len(o.Addresses) - 1)
	o.Program = []string{"udp-receiver", "--nokbd", "--no-progress", "--nosync", "--interface", "eth0", "--file", o.Disk}
	if o.Own == 0 {
		o.Program = []string{"udp-sender", "--nokbd", "--no-progress", "--full-duplex", "--interface", "eth0", "--file", o.Content.raw(),
			"--min-receivers", receivers, "--max-bitrate", "95m"}
	}
	return own("program")(o)
}

// playProgram runs a program from the start on; that it ends is that all is there.
func playProgram(ctx context.Context, a *actor) error {
	if _, err := exec.LookPath(a.Program[0]); err != nil {
		return fmt.Errorf("%w (make setup installs it)", err)
	}
	if err := a.ready(ctx); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, a.Program[0], a.Program[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", a.Program[0], err)
	}
	a.tell(actorEvent{Event: "done"})
	<-ctx.Done()
	return nil
}

// aria2 needs a tracker, since it takes no addresses: the source's station has one.
const plainTrackerPort = "8000"

// playTracker is aria2 with the content, and a tracker (BEP 3) over plain HTTP.
func playTracker(ctx context.Context, a *actor) error {
	listener, err := net.Listen("tcp", net.JoinHostPort(a.Addresses[a.Own], plainTrackerPort))
	if err != nil {
		return err
	}
	var mu sync.Mutex
	known := map[netip.AddrPort]bool{}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request, err := announce.ParseRequest(r.URL.RawQuery)
		if err != nil {
			w.Write(announce.Response{Failure: err.Error()}.Encode())
			return
		}
		from := netip.AddrPortFrom(netip.MustParseAddrPort(r.RemoteAddr).Addr(), request.Port)
		mu.Lock()
		defer mu.Unlock()
		answer := announce.Response{Interval: 2 * time.Second}
		for peer := range known {
			if peer != from {
				answer.Peers = append(answer.Peers, peer)
			}
		}
		known[from] = true
		w.Write(answer.Encode())
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	err = playAria2(ctx, a)
	if e := errors.Join(server.Close(), <-ended); !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// playAria2 runs aria2, which is told to begin by its JSON-RPC.
func playAria2(ctx context.Context, a *actor) (err error) {
	folder := filepath.Dir(a.Disk)
	if a.Own == 0 {
		folder = a.Content.Folder
	}
	torrent, err := os.ReadFile(a.Content.torrent())
	if err != nil {
		return err
	}
	own := a.Addresses[a.Own]
	cmd := exec.CommandContext(ctx, "aria2c", "--enable-rpc", "--rpc-listen-port=6800", "--no-conf", "--dir="+folder,
		"--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--enable-peer-exchange=true", "--listen-port="+swarmPort,
		"--bt-external-ip="+own, "--bt-max-peers=0", "--seed-ratio=0", "--seed-time=600", "--bt-request-peer-speed-limit=200M", "--max-upload-limit=0",
		"--file-allocation=none", "--disk-cache=64M", "--bt-seed-unverified=true", "--allow-overwrite=true", "--auto-file-renaming=false", "--bt-save-metadata=false",
		"--bt-tracker=http://"+net.JoinHostPort(a.Addresses[0], plainTrackerPort)+"/announce", "--console-log-level=warn", "--quiet=true")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("aria2c (make setup installs it): %w", err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait() // killed: an error always
	}()
	rpc := &aria2{client: &http.Client{Timeout: 5 * time.Second}}
	for deadline := time.Now().Add(20 * time.Second); rpc.call(ctx, nil, "aria2.getVersion") != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return errors.Join(errors.New("aria2c does not answer"), ctx.Err())
		}
	}
	options := map[string]string{}
	if a.Own > 0 {
		options["index-out"] = "1=" + filepath.Base(a.Disk)
		if err := os.Remove(a.Disk); err != nil { // a file that is not there need not be checked
			return err
		}
	}
	var id string
	add := func() error { return rpc.call(ctx, &id, "aria2.addTorrent", torrent, []string{}, options) }
	if a.Own == 0 {
		if err := add(); err != nil {
			return err
		}
	}
	if err := a.ready(ctx); err != nil {
		return err
	}
	if a.Own == 0 {
		<-ctx.Done()
		return nil
	}
	if err := add(); err != nil {
		return err
	}
	return a.watch(ctx, nil, func() (float64, error) {
		var s struct{ CompletedLength, ErrorMessage string }
		err := rpc.call(ctx, &s, "aria2.tellStatus", id, []string{"completedLength", "errorMessage"})
		if ctx.Err() != nil {
			return 0, nil
		}
		have, _ := strconv.ParseInt(s.CompletedLength, 10, 64)
		if s.ErrorMessage != "" {
			err = errors.Join(err, errors.New(s.ErrorMessage))
		}
		return float64(have) / float64(a.Content.Length), err
	})
}

// aria2 calls aria2c over JSON-RPC.
type aria2 struct{ client *http.Client }

func (r *aria2) call(ctx context.Context, result any, method string, params ...any) error {
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": "bench", "method": method, "params": params})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:6800/jsonrpc", bytes.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := r.client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", method, answer.Status, b)
	}
	if result == nil {
		return nil
	}
	var reply struct{ Result json.RawMessage }
	if err := json.Unmarshal(b, &reply); err != nil {
		return err
	}
	return json.Unmarshal(reply.Result, result)
}
