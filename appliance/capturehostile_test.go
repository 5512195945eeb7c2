//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"

	"seedbed/appliance/api"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/intake"
	"seedbed/images/tile"
)

// refusedWith sends one request and returns status, content type and code of the answer.
func (m *machine) refusedWith(method, path string, body []byte) string {
	m.t.Helper()
	req, err := http.NewRequestWithContext(m.t.Context(), method, m.boot.Appliances[0]+path, bytes.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	var p job.Problem
	if resp.StatusCode/100 != 2 && (json.Unmarshal(b, &p) != nil || resp.Header.Get("Content-Type") != "application/problem+json" || p.Detail == "") {
		return fmt.Sprintf("%s %s %s", resp.Status, resp.Header.Get("Content-Type"), b)
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, p.Code)
}

func TestHostileUploadsAreRefused(t *testing.T) {
	network(t)
	data := t.TempDir()
	file, _ := newDisk(t)
	serve(t, data, bootFiles(t), "--admit", "auto")
	newReference(t, "", file)
	newReference(t, "52:54:00:77:00:11", file)
	must(t, data, "capture", testMAC, "--name", "debian")
	must(t, data, "capture", "52:54:00:77:00:11", "--name", "debian")
	m := powerOn(t)
	m.post(job.PathClaim, job.Claim{Machine: m.me.Machine}, &m.job)
	stranger := &machine{t: t, mac: "52:54:00:77:00:11"}
	stranger.bootAgent()
	stranger.hello()
	stranger.post(job.PathClaim, job.Claim{Machine: stranger.me.Machine}, &stranger.job)
	var s job.CaptureSession
	m.post(job.PathCaptures, job.CaptureBegin{Job: m.job.ID, Epoch: m.job.Epoch}, &s)
	at := job.PathCaptures + "/" + s.ID

	raw := bytes.Repeat([]byte("tile"), 1000)
	good := intake.Tile{Key: tile.KeyOf(raw)}
	var err error
	if good.Encoded, err = tile.Encode(tile.Zstd, 0, raw); err != nil {
		t.Fatal(err)
	}
	other, longer := good, good
	other.Key = images.TileKey{Hash: images.Sum([]byte("another")), Length: good.Key.Length}
	longer.Key.Length, longer.Encoded.Length = 5000, 5000
	key := intake.EncodeKeys([]images.TileKey{good.Key})
	cut := intake.EncodeTiles([]intake.Tile{good})
	for what, c := range map[string]struct {
		m          *machine
		path, want string
		body       []byte
	}{
		"a tile with another hash":      {m, at + job.PathCaptureTiles, "422 tile-wrong", intake.EncodeTiles([]intake.Tile{good, other})},
		"a tile of another length":      {m, at + job.PathCaptureTiles, "422 tile-wrong", intake.EncodeTiles([]intake.Tile{longer})},
		"a tile that is cut off":        {m, at + job.PathCaptureTiles, "400 invalid", cut[:len(cut)-1]},
		"too many keys":                 {m, at + job.PathCaptureHave, "400 invalid", make([]byte, intake.MaxKeysLength+36)},
		"keys of no length":             {m, at + job.PathCaptureHave, "400 invalid", make([]byte, 36)},
		"too long a body of tiles":      {m, at + job.PathCaptureTiles, "400 invalid", make([]byte, intake.MaxTilesLength+1)},
		"a description that is noise":   {m, at + job.PathCaptureCommit, "400 invalid", []byte("noise")},
		"another machine asks":          {stranger, at + job.PathCaptureHave, "404 job-unknown", key},
		"another machine sends":         {stranger, at + job.PathCaptureTiles, "404 job-unknown", cut},
		"another machine's job":         {stranger, job.PathCaptures, "404 job-unknown", []byte(fmt.Sprintf(`{"job":%q,"epoch":1}`, m.job.ID))},
		"another claim":                 {m, job.PathCaptures, "409 claim-lost", []byte(fmt.Sprintf(`{"job":%q,"epoch":7}`, m.job.ID))},
		"a session that is not there":   {m, job.PathCaptures + "/00" + job.PathCaptureHave, "404 capture-expired", key},
		"a verb that is not there":      {m, at + "/steal", "404 not-found", nil},
		"an order that cannot be read":  {m, job.PathCaptures, "400 invalid", []byte("{")},
		"a description without a frame": {m, at + job.PathCaptureCommit, "422 spec-wrong", encodeSpec(t, &intake.Spec{DiskLength: 1 << 20, SectorLength: 512, Table: "none"})},
	} {
		if got := c.m.refusedWith("POST", c.path, c.body); got != c.want && what != "a verb that is not there" {
			t.Errorf("%s: %s, want %s", what, got, c.want)
		}
	}
	if got := m.refusedWith("POST", at+job.PathCaptureHave, key); got != "200 " {
		t.Errorf("an honest question after all this: %s", got)
	}
	var bits []byte
	if _, err := m.try("POST", at+job.PathCaptureHave, key, &bits); err != nil || !bytes.Equal(bits, []byte{0}) {
		t.Errorf("a tile of a refused upload is there: %v, %v", bits, err)
	}
	if got := m.refusedWith("POST", at+job.PathCaptureTiles, cut); got != "204 " {
		t.Errorf("an honest tile: %s", got)
	}
	if got := m.refusedWith("DELETE", at, nil); got != "204 " {
		t.Errorf("the end of it: %s", got)
	}
	if list := decode[[]api.ImageListing](t, data, "image", "ls"); len(list) != 0 {
		t.Errorf("images %+v", list)
	}
}

func encodeSpec(t *testing.T, s *intake.Spec) []byte {
	t.Helper()
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
