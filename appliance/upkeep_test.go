//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"seedbed/appliance/api"
	"seedbed/images"
)

// nextVersion changes n data tiles of a disk of newDisk.
func nextVersion(t *testing.T, disk string, n int) {
	t.Helper()
	for i := range n {
		change(t, disk, int64(2<<20+i*images.TileLength+100), []byte{1, 2, 3, byte(i)})
	}
}

func TestDiffSaysWhatHasToBeFetched(t *testing.T) {
	network(t)
	data := filepath.Join(t.TempDir(), "data")
	disk, _ := newDisk(t)
	must(t, data, "image", "add", disk, "--name", "debian")
	nextVersion(t, disk, 5)
	change(t, disk, 1<<20, make([]byte, images.TileLength)) // a data tile becomes zero
	must(t, data, "image", "add", disk, "--name", "debian")
	withoutAndWith(t, data, func(t *testing.T) {
		d := decode[api.ImageDiff](t, data, "image", "diff", "debian:1", "debian:2")
		if len(d.Partitions) != 1 || d.From != "debian:1" || d.To != "debian:2" {
			t.Fatalf("%+v", d)
		}
		p := d.Partitions[0]
		if p.Tiles != 5 || p.Total != 63 || p.Length != 5*images.TileLength || p.Encoded < 5*images.TileLength-100 || p.Encoded > p.Length || p.ZeroTiles != 1 {
			t.Errorf("%+v", p)
		}
		back := decode[api.ImageDiff](t, data, "image", "diff", "debian:2", "debian:1")
		if back.Partitions[0].Tiles != 6 || back.Partitions[0].ZeroTiles != 0 {
			t.Errorf("%+v", back)
		}
		if out := must(t, data, "image", "diff", "debian", "debian"); !strings.Contains(out, "0.0 %") {
			t.Errorf("an image and itself: %s", out)
		}
	})
}

func TestAVersionIsRemovedUnlessADeploymentUsesIt(t *testing.T) {
	network(t)
	data := filepath.Join(t.TempDir(), "data")
	disk, _ := newDisk(t)
	for range 3 {
		must(t, data, "image", "add", disk, "--name", "debian")
	}
	for _, ref := range []string{"debian", "debian:", ":1", "debian:1:2"} {
		if out, code := seedbed(t, data, "image", "rm", ref); code != exitRefused || !strings.Contains(out, "NAME:VERSION") {
			t.Errorf("rm %s: exit code %d: %s", ref, code, out)
		}
	}
	must(t, data, "image", "rm", "debian:1")
	if _, code := seedbed(t, data, "image", "rm", "debian:1"); code != exitNotFound {
		t.Errorf("removed twice: exit code %d", code)
	}
	if _, code := seedbed(t, data, "image", "add", disk, "--name", "debian", "--version", "1"); code != exitRefused {
		t.Errorf("a removed version came back: exit code %d", code)
	}
	p := serve(t, data, bootFiles(t))
	must(t, data, "deploy", "debian:2", "--all")
	refused := func() {
		t.Helper()
		if out, code := seedbed(t, data, "image", "rm", "debian:2"); code != exitRefused || !strings.Contains(out, "seedbed deployment close") {
			t.Errorf("an image in use: exit code %d: %s", code, out)
		}
	}
	refused()
	p.kill()
	refused()
	serve(t, data, bootFiles(t))
	id := decode[[]struct{ ID string }](t, data, "deployment", "ls")[0].ID
	must(t, data, "deployment", "close", id)
	must(t, data, "image", "rm", "debian:2")
	list := decode[[]api.ImageListing](t, data, "image", "ls")
	if len(list) != 1 || list[0].Version != "3" {
		t.Errorf("%+v", list)
	}
}

func TestPruneSaysWhatItWouldDo(t *testing.T) {
	network(t)
	data := filepath.Join(t.TempDir(), "data")
	disk, _ := newDisk(t)
	must(t, data, "image", "add", disk, "--name", "debian")
	must(t, data, "image", "rm", "debian:1")
	before := size(t, filepath.Join(data, "repository", "packs"))
	withoutAndWith(t, data, func(t *testing.T) {
		r := decode[api.PruneReport](t, data, "image", "prune", "--dry-run")
		if !r.DryRun || r.Marked.Objects+r.Young.Objects+r.Waiting.Objects == 0 || r.Deleted.Objects != 0 {
			t.Errorf("%+v", r)
		}
		if out := must(t, data, "image", "prune"); !strings.Contains(out, "freed") {
			t.Error(out)
		}
	})
	if after := size(t, filepath.Join(data, "repository", "packs")); after != before {
		t.Error("packs were deleted before their grace was over")
	}
}

func TestAllImagesAreVerified(t *testing.T) {
	network(t)
	data := filepath.Join(t.TempDir(), "data")
	disk, _ := newDisk(t)
	must(t, data, "image", "add", disk, "--name", "one")
	nextVersion(t, disk, 3)
	must(t, data, "image", "add", disk, "--name", "two")
	withoutAndWith(t, data, func(t *testing.T) {
		r := decode[api.VerifyReport](t, data, "image", "verify", "--all")
		if len(r.Images) != 2 || !r.IsWhole() || r.Images[0].Checked != 4<<20 {
			t.Errorf("%+v", r)
		}
		if _, code := seedbed(t, data, "image", "verify"); code != exitUsage {
			t.Errorf("neither an image nor --all: exit code %d", code)
		}
	})
	digest := decode[[]api.ImageListing](t, data, "image", "ls")[0].Digest.String()
	if err := os.Remove(filepath.Join(data, "repository", "manifests", digest)); err != nil {
		t.Fatal(err)
	}
	if out, code := seedbed(t, data, "image", "verify", "--all"); code != exitDamaged {
		t.Errorf("a lost manifest: exit code %d: %s", code, out)
	}
}

func TestShowSaysWhatIsShared(t *testing.T) {
	network(t)
	data := filepath.Join(t.TempDir(), "data")
	disk, _ := newDisk(t)
	must(t, data, "image", "add", disk, "--name", "debian")
	must(t, data, "image", "add", disk, "--name", "other")
	nextVersion(t, disk, 5)
	must(t, data, "image", "add", disk, "--name", "debian")
	withoutAndWith(t, data, func(t *testing.T) {
		d := decode[struct {
			Usage api.ImageUsage `json:"usage"`
		}](t, data, "image", "show", "debian:2")
		u := d.Usage // 64 tiles of noise, of which 5 are other ones
		const least, most = images.TileLength - 100, images.TileLength + 100
		if u.DataLength != 4<<20 || u.Own < 5*least || u.Own > 5*most || len(u.Shared) != 2 || u.Shared[0].Image != "debian:1" || u.Shared[1].Image != "other:1" {
			t.Fatalf("%+v", u)
		}
		for _, s := range u.Shared {
			if s.Stored < 59*least || s.Stored > 59*most || s.Stored+u.Own != u.Stored {
				t.Errorf("%+v: %+v", s, u)
			}
		}
		if u.Packs != 2 || u.Pieces == 0 || u.Requests < u.Pieces || u.Requests > 3*u.Pieces {
			t.Errorf("%+v", u)
		}
		if out := must(t, data, "image", "show", "debian:1"); !strings.Contains(out, "with debian:2, 92.2 % of what is stored") {
			t.Error(out)
		}
		for _, i := range decode[[]api.ImageListing](t, data, "image", "ls") {
			if i.EncodedLength < 4<<20 {
				t.Errorf("%+v", i)
			}
		}
	})
}
