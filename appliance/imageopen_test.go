//go:build linux

package main

import (
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
)

// Who lists or shows images is told which are open, since when, and how many guests there are.
func TestAnOpenImageIsSaidToBeOpen(t *testing.T) {
	network(t)
	data := t.TempDir()
	disk, _ := newDisk(t)
	must(t, data, "image", "add", disk, "--name", "one")
	must(t, data, "image", "add", disk, "--name", "two", "--compress", "none")
	says := func(state string, shown bool, guests int) {
		t.Helper()
		for _, i := range decode[[]api.ImageListing](t, data, "image", "ls") {
			if (i.Open != nil) != (i.Name == "one" && shown) {
				t.Errorf("%s: %+v", i.Name, i.Open)
			}
			if i.Open != nil && (time.Since(i.Open.Since) > time.Hour || (i.Open.Guests != nil) != (guests >= 0)) {
				t.Errorf("%s: %+v", i.Name, i.Open)
			}
		}
		d := decode[api.ImageDetail](t, data, "image", "show", "one")
		if (d.Open != nil) != shown || shown && guests >= 0 && (*d.Open.Guests != guests || *d.Open.Lacking != guests) || shown && d.Open.Swarm == nil {
			t.Errorf("%+v, want %d guests", d.Open, guests)
		}
		if out := must(t, data, "image", "ls"); !strings.Contains(out, state) || !strings.Contains(out, "closed") {
			t.Errorf("image ls does not say %q:\n%s", state, out)
		}
		if out := must(t, data, "image", "show", "one"); strings.Contains(out, "\nOPEN ") != shown || shown && !strings.Contains(out, d.Open.Swarm.V1) {
			t.Errorf("image show:\n%s", out)
		}
	}
	says("closed", false, -1)
	must(t, data, "image", "open", "one")
	says("OPEN", true, -1)
	serve(t, data, bootFiles(t), "--no-dhcp")
	says("OPEN, 0 guests", true, 0)
	v1, err := hex.DecodeString(decode[api.OpenSwarm](t, data, "image", "open", "one").V1)
	if err != nil {
		t.Fatal(err)
	}
	q := url.Values{"info_hash": {string(v1)}, "peer_id": {"-XX0001-123456789012"}, "port": {"6999"}, "left": {"1000"}, "uploaded": {"0"}, "downloaded": {"0"}}
	answer, err := http.Get("http://" + applianceAddr + "/announce?" + q.Encode())
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	says("OPEN, 1 guests", true, 1)
	must(t, data, "image", "close", "one")
	says("closed", false, -1)
	if out := must(t, data, "image", "open", "--help"); !strings.Contains(out, "stay in the closed swarm") {
		t.Errorf("image open --help:\n%s", out)
	}
}
