//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"path/filepath"
	"testing"
)

func TestProfilesAreForTheLocalSocketAlone(t *testing.T) {
	network(t)
	data := t.TempDir()
	serve(t, data, bootFiles(t))
	local := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(data, "seedbed.sock"))
	}}
	remote := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer local.CloseIdleConnections()
	defer remote.CloseIdleConnections()
	for _, c := range []struct {
		base string
		by   *http.Transport
		want int
	}{{"http://seedbed", local, 200}, {"https://" + applianceAddr, remote, 404}, {"http://" + applianceAddr, remote, 404}} {
		for _, path := range []string{"", "heap", "goroutine?debug=2", "profile?seconds=1", "cmdline"} {
			resp, err := (&http.Client{Transport: c.by}).Get(c.base + pathProfiles + path)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if want := c.want; path == "cmdline" && resp.StatusCode != 404 || path != "cmdline" && resp.StatusCode != want {
				t.Errorf("%s%s%s: %s", c.base, pathProfiles, path, resp.Status)
			}
		}
	}
}
