package boot

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// Every loader gets kernel and initramfs whole, over its own kind of connection, whether zeros have to follow the file or not; a
// question for the header gets no body.
func TestLoadersGetBootFilesWhole(t *testing.T) {
	b := newBench(t, Assignment{Run: RunAgent})
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("server ends with %v", err)
		}
	})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, length := range []int{1, 4, 3_000_000, 3_000_001, 3_000_002, 3_000_003} {
		content := bytes.Repeat([]byte("seedbed"), length/7+1)[:length]
		for _, name := range []string{fileKernel, fileInitramfs} {
			if err := os.WriteFile(filepath.Join(b.cfg.Files.dir, name), content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		padded := append(bytes.Clone(content), make([]byte, (4-length%4)%4)...)
		for path, want := range map[string][]byte{pathKernel: content, pathInitramfs: padded} {
			for _, agent := range []string{"GRUB 2.12", "iPXE/1.21.1"} {
				url := fmt.Sprintf("http://%s%s", l.Addr(), path)
				if got, announced := fetch(t, client, http.MethodGet, url, agent); !bytes.Equal(got, want) || announced != int64(len(want)) {
					t.Errorf("%s for %s: %d bytes, %d announced, that are not the %d of the file", path, agent, len(got), announced, len(want))
				}
				if got, announced := fetch(t, client, http.MethodHead, url, agent); len(got) > 0 || announced != int64(len(want)) {
					t.Errorf("header of %s for %s: %d bytes, %d announced, want %d", path, agent, len(got), announced, len(want))
				}
			}
		}
	}
}

// fetch returns the body and the length that the header announces.
func fetch(t *testing.T, c *http.Client, method, url, agent string) (body []byte, announced int64) {
	t.Helper()
	q, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("User-Agent", agent)
	r, err := c.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if body, err = io.ReadAll(r.Body); err != nil {
		t.Fatal(err)
	}
	return body, r.ContentLength
}
