package capture

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"seedbed/images"
	"seedbed/images/torrent"
)

// TestLibtorrentMakesTheSameTorrentFromTheMaskedPartitions follows the whole way: disk, image, layers, torrent.
func TestLibtorrentMakesTheSameTorrentFromTheMaskedPartitions(t *testing.T) {
	r := openRepository(t)
	disk, length := newDisk(t)
	result, err := captureDisk(t.Context(), open(t, disk), length, 512, r, options("golden"))
	if err != nil {
		t.Fatal(err)
	}
	m := result.Image.Manifest
	info, err := torrent.FromManifest(m)
	if err != nil {
		t.Fatal(err)
	}
	var layers [][]byte
	for _, p := range m.Partitions {
		raw, err := r.Layer(t.Context(), p.Map.Digest)
		if err != nil {
			t.Fatal(err)
		}
		mp, err := images.DecodeMap(raw)
		if err != nil {
			t.Fatal(err)
		}
		var layer []byte
		if p.PieceLayer.Length > 0 {
			if layer, err = r.Layer(t.Context(), p.PieceLayer.Digest); err != nil {
				t.Fatal(err)
			}
		}
		full, err := torrent.FullLayer(mp, m.PieceLength, layer)
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, full)
	}
	raw, err := info.Metainfo(layers, "")
	if err != nil {
		t.Fatal(err)
	}
	folder := restore(t, r, result.Image.Digest, true)
	named := filepath.Join(filepath.Dir(folder), "golden-1")
	if err := os.Rename(folder, named); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "golden.torrent")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	// libtorrent reads the file, seeds from the folder and checks every block of it against the hashes.
	const judge = `
import json, sys, libtorrent as lt
info = lt.torrent_info(sys.argv[1])
session = lt.session({"enable_dht": False, "enable_lsd": False, "listen_interfaces": "127.0.0.1:0", "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification})
p = lt.add_torrent_params()
p.ti, p.save_path = info, sys.argv[2]
h = session.add_torrent(p)
for _ in range(300):
    s = h.status()
    if s.errc.value() or s.state in (lt.torrent_status.seeding, lt.torrent_status.finished, lt.torrent_status.downloading):
        break
    session.wait_for_alert(200)
    session.pop_alerts()
json.dump({"hash": str(info.info_hashes().v2), "progress": s.progress, "error": s.errc.message() if s.errc.value() else "", "files": sum(1 for i in range(info.num_files()) if not info.files().file_flags(i) & lt.file_flags_t.flag_pad_file)}, sys.stdout)
`
	out := tool(t, "python3-libtorrent", "/usr/bin/python3", "-c", judge, file, filepath.Dir(named))
	var got struct {
		Hash, Error string
		Progress    float64
		Files       int
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err, out)
	}
	if got.Hash != info.InfoHash.String() || got.Progress != 1 || got.Error != "" || got.Files != 5 {
		t.Errorf("libtorrent says %+v, infohash %s", got, info.InfoHash)
	}
}
