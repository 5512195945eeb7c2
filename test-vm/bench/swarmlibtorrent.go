package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
)

// libtorrentProgram is a peer by libtorrent that speaks as an actor does. It is tuned for such links: large send buffers, an
// upload slot for everybody, nothing but TCP, and every peer knows every other from the start.
const libtorrentProgram = `
import json, os, resource, sys, threading, time
import libtorrent as lt

order = json.loads(sys.argv[1])

def tell(**event):
    event["At"] = time.time()
    print(json.dumps(event), flush=True)

own = order["Addresses"][order["Own"]]
session = lt.session({
    "listen_interfaces": own + ":6881", "outgoing_interfaces": own, "enable_dht": False, "enable_lsd": False, "enable_upnp": False,
    "enable_natpmp": False, "enable_incoming_utp": False, "enable_outgoing_utp": False,
    "in_enc_policy": 2, "out_enc_policy": 2, "allow_multiple_connections_per_ip": True,
    "send_buffer_watermark": 4 << 20, "send_buffer_low_watermark": 1 << 20, "send_buffer_watermark_factor": 200,
    "unchoke_slots_limit": 50, "connections_limit": 500, "connection_speed": 500, "max_out_request_queue": 1500,
    "max_allowed_in_request_queue": 5000, "mixed_mode_algorithm": 0, "rate_limit_ip_overhead": False,
    "alert_mask": 0,
})
torrent = lt.add_torrent_params()
torrent.ti = lt.torrent_info(order["Torrent"])
torrent.save_path = order["Folder"]
if order["Own"] == 0:
    torrent.flags |= lt.torrent_flags.seed_mode
else:
    torrent.ti.rename_file(0, os.path.basename(order["Disk"]))
    os.remove(order["Disk"]) # a file that is not there need not be checked
torrent.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
handle = session.add_torrent(torrent)
while handle.status().state not in (lt.torrent_status.downloading, lt.torrent_status.seeding, lt.torrent_status.finished):
    time.sleep(0.01)

begin, quit = threading.Event(), threading.Event()

def listen():
    for line in sys.stdin:
        if line.strip() == "start":
            begin.set()
        elif line.strip() == "stop":
            break
    quit.set()
    begin.set()

threading.Thread(target=listen, daemon=True).start()
tell(Event="ready")
begin.wait()
if order["Own"] > 0:
    for peer in order["Addresses"][:order["Own"]]:
        handle.connect_peer((peer, 6881))
share, done = 0, order["Own"] == 0
while not quit.is_set():
    if not done:
        status = handle.status()
        if int(100 * status.progress) > int(100 * share):
            share = status.progress
            tell(Event="share", Share=share)
        if status.is_seeding:
            done = True
            tell(Event="done")
    quit.wait(0.02)
status = handle.status()
used = resource.getrusage(resource.RUSAGE_SELF)
stats = {"FromPeers": status.total_payload_download, "ToPeers": status.total_payload_upload,
         "Wasted": status.total_redundant_bytes + status.total_failed_bytes}
session.remove_torrent(handle)
del session
tell(Event="end", CPU=used.ru_utime + used.ru_stime, Memory=used.ru_maxrss << 10, Stats=stats)
`

// libtorrentPeer runs it; Debian's own Python has the module.
func libtorrentPeer(o actorOrder) ([]string, error) {
	folder := filepath.Dir(o.Disk)
	if o.Own == 0 {
		folder = o.Content.Folder
	}
	order, err := json.Marshal(map[string]any{
		"Addresses": o.Addresses, "Own": o.Own, "Torrent": o.Content.torrent(), "Folder": folder, "Disk": o.Disk,
	})
	if err != nil {
		return nil, fmt.Errorf("order for libtorrent: %w", err)
	}
	return []string{"/usr/bin/python3", "-c", libtorrentProgram, string(order)}, nil
}
