//go:build linux

package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"seedbed/appliance/api"
	"seedbed/appliance/job"
	"seedbed/images"
	"seedbed/images/announce"
)

// flipBit changes one bit in the middle of a file.
func flipBit(t *testing.T, path string) {
	t.Helper()
	flipBitAt(t, path, 0.5)
}

// flipBitAt changes one bit at a part of the length of a file.
func flipBitAt(t *testing.T, path string, part float64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := int(part * float64(len(b)))
	change(t, path, int64(at), []byte{b[at] ^ 4})
}

// packs returns the packs of a repository.
func packs(t *testing.T, data string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(data, "repository", "packs", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// onlyPack returns the one pack of a repository.
func onlyPack(t *testing.T, data string) string {
	t.Helper()
	list := packs(t, data)
	if len(list) != 1 {
		t.Fatalf("packs %v", list)
	}
	return list[0]
}

// TestADamagedImageIsHealedFromAMachine: one bit of a pack is wrong, and a machine that was just imaged has the tile.
func TestADamagedImageIsHealedFromAMachine(t *testing.T) {
	network(t)
	data, boot := t.TempDir(), bootFiles(t)
	disk, content := newDisk(t)
	p := serve(t, data, boot, "--admit", "auto")
	must(t, data, "image", "add", disk, "--name", "debian")
	must(t, data, "deploy", "debian", "--all")
	m := powerOn(t)
	shape, _ := m.claim()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	present, leave := context.WithCancel(ctx)
	defer m.peer.Wait()
	defer leave()
	peer := m.join(present, shape)
	select {
	case <-peer.Done():
	case <-ctx.Done():
		t.Fatalf("the content did not arrive: %+v", peer.Stats())
	}
	transport := m.client.Transport.(*http.Transport).Clone() // from the machine's own address, by which others reach it
	transport.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(machineAddr)}}).DialContext
	defer transport.CloseIdleConnections()
	tracker := &announce.Client{URL: m.boot.Appliances[0] + job.PathAnnounce, HTTP: &http.Client{Transport: transport}}
	if _, err := tracker.Announce(ctx, announce.Request{InfoHash: m.job.InfoHash.Wire(), PeerID: peer.PeerID(), Port: peer.Addr().Port()}); err != nil {
		t.Fatal(err)
	}
	pack := onlyPack(t, data)
	flipBit(t, pack)
	r := decode[api.VerifyReport](t, data, "image", "verify", "debian", "--heal")
	if !r.IsWhole() || len(r.Images[0].Damage) != 1 || !r.Images[0].Damage[0].Healed || r.Images[0].Damage[0].Length != images.TileLength {
		t.Fatalf("%+v", r)
	}
	flipBitAt(t, pack, 0.25)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, make([]byte, len(content)), 0o600); err != nil {
		t.Fatal(err)
	}
	repaired := decode[api.DiskReport](t, data, "verify", "debian", empty, "--repair")
	if r := repaired.Repair; r == nil || r.Elsewhere != 1 || r.NotHealed != "" || len(r.Left) > 0 || r.Tiles != repaired.WrongTiles {
		t.Fatalf("a disk repaired with what a machine has: %+v", r)
	}
	if written, err := os.ReadFile(empty); err != nil || !bytes.Equal(written, content) {
		t.Error("the disk is not as it was captured")
	}
	leave()
	m.peer.Wait()
	late := &machine{t: t, mac: "52:54:00:77:00:11"} // gets all of it from the appliance, which is alone now
	late.bootAgent()
	late.hello()
	lateShape, _ := late.claim()
	latePeer := late.join(ctx, lateShape)
	defer late.peer.Wait()
	defer cancel()
	select {
	case <-latePeer.Done():
	case <-ctx.Done():
		t.Fatalf("the content did not arrive after it was healed: %+v", latePeer.Stats())
	}
	if !bytes.Equal(late.disk.content(), content) || latePeer.Stats().Damaged > 0 || latePeer.Stats().FromAppliance < 4<<20 {
		t.Errorf("a machine that came later: %+v", latePeer.Stats())
	}
	cancel()
	p.kill()
	if r := decode[api.VerifyReport](t, data, "image", "verify", "debian"); len(r.Images[0].Damage) != 0 {
		t.Errorf("after healing: %+v", r)
	}
}

func TestADamagedImageIsHealedFromADisk(t *testing.T) {
	network(t)
	data := filepath.Join(t.TempDir(), "data")
	disk, _ := tableDisk(t)
	must(t, data, "image", "add", disk, "--name", "debian")
	exported := filepath.Join(t.TempDir(), "exported")
	must(t, data, "image", "export", "debian", exported)
	flipBit(t, onlyPack(t, data))
	if out := output(t, data, exitDamaged, "image", "verify", "debian", "--heal"); !strings.Contains(string(out), "--heal-from") {
		t.Errorf("nobody has it: %s", out)
	}
	if out, code := seedbed(t, data, "image", "export", "debian", filepath.Join(t.TempDir(), "x")); code != exitDamaged {
		t.Errorf("a damaged image was exported: exit code %d: %s", code, out)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, make([]byte, 20<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := seedbed(t, data, "verify", "debian", empty, "--repair"); code != exitDamaged || !strings.Contains(out, "--heal-from") {
		t.Errorf("a repair without the damaged tile: exit code %d: %s", code, out)
	}
	if out := string(output(t, data, exitDamaged, "verify", "debian", empty, "--repair")); !strings.Contains(out, "no appliance runs") {
		t.Errorf("a repair without machines: %s", out)
	}
	if out, code := seedbed(t, data, "verify", "debian", empty, "--repair", "--heal-from", "/nowhere"); code != exitRefused {
		t.Errorf("no such disk: exit code %d: %s", code, out)
	}
	must(t, data, "verify", "debian", empty, "--repair", "--heal-from", exported)
	must(t, data, "image", "verify", "debian")
	flipBitAt(t, packs(t, data)[0], 0.3)
	flipBitAt(t, packs(t, data)[1], 0.5)
	wrong := filepath.Join(t.TempDir(), "wrong")
	if err := os.WriteFile(wrong, make([]byte, 20<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	output(t, data, exitDamaged, "image", "verify", "debian", "--heal-from", wrong)
	if out := must(t, data, "image", "verify", "debian", "--heal-from", exported); !strings.Contains(out, "whole again") {
		t.Error(out)
	}
	must(t, data, "image", "verify", "debian")
	layers, err := filepath.Glob(filepath.Join(data, "repository", "layers", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range layers {
		flipBit(t, layer)
	}
	output(t, data, exitDamaged, "image", "verify", "debian", "--heal")
	if out := must(t, data, "image", "verify", "debian", "--heal-from", exported); !strings.Contains(out, "whole again") {
		t.Error(out)
	}
	must(t, data, "image", "verify", "debian")
	must(t, data, "verify", "debian", disk)
}

func TestASignatureIsMadeAgainOfWhatWasSignedHere(t *testing.T) {
	lib, data, _ := newLibrary(t, "debian")
	d, err := lib.repo.Resolve(t.Context(), "debian")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(data, "repository", signatureKey(d))
	verify := func(o api.VerifyOrder) api.VerifiedImage {
		t.Helper()
		r, err := lib.Verify(t.Context(), o, nil)
		if err != nil || len(r.Images) != 1 {
			t.Fatalf("%+v: %v", r, err)
		}
		return r.Images[0]
	}
	flipBit(t, path)
	if i := verify(api.VerifyOrder{}); i.IsWhole() || !strings.HasSuffix(i.Damage[0].Object, ".sig") {
		t.Fatalf("a damaged signature: %+v", i)
	}
	if i := verify(api.VerifyOrder{Heal: true}); !i.IsWhole() || len(i.Damage) != 1 || i.Checked != 4<<20 {
		t.Fatalf("healing it: %+v", i)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if i := verify(api.VerifyOrder{Heal: true, Image: "debian"}); !i.IsWhole() || len(i.Damage) != 1 || i.Checked != 4<<20 {
		t.Fatalf("healing one that is lost: %+v", i)
	}
	if i := verify(api.VerifyOrder{}); len(i.Damage) > 0 {
		t.Fatalf("after healing: %+v", i)
	}
	if err := os.Truncate(lib.signed.path, 20); err != nil { // a line that a power cut left unfinished
		t.Fatal(err)
	}
	flipBit(t, path)
	if i := verify(api.VerifyOrder{Heal: true}); i.IsWhole() || !strings.Contains(i.Damage[0].Text, "no record that it signed") {
		t.Fatalf("of an image that another site may have signed: %+v", i)
	}
	lib.sign([]byte("another"))
	if known, err := lib.signed.has(images.Sum([]byte("another"))); err != nil || !known {
		t.Errorf("the line behind an unfinished one: %v %v", known, err)
	}
}
