package main

import (
	"net/http"

	"seedbed/appliance/seed"
	"seedbed/images"
)

// openHTTP answers announces to open swarms, and gives the .torrent files of open images.
func (a *appliance) openHTTP() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(pathAnnounce, a.tracker)
	mux.HandleFunc("GET "+pathTorrents+"{file}", func(w http.ResponseWriter, r *http.Request) {
		one, plain := a.lib.open.named(r.PathValue("file"))
		if one == nil {
			http.Error(w, "no open image has this name; `seedbed image open` opens one", http.StatusNotFound)
			return
		}
		b, err := one.metainfo(plain, a.lib.web+pathAnnounce)
		if err != nil {
			a.log.Error("torrent of an open image cannot be made", "image", one.fileName(), "err", err)
			http.Error(w, "the appliance cannot make this torrent; its log says why", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/x-bittorrent")
		w.Write(b)
	})
	return mux
}

// wantedOpen returns the open swarms, and lets the tracker take announces to these. The seeders call it, on one goroutine.
func (a *appliance) wantedOpen() (list []seed.Wanted) {
	now := map[images.InfoHash]bool{}
	for _, one := range a.lib.open.all() {
		w := one.wanted()
		now[w.InfoHash] = true
		a.tracker.Open(w.InfoHash, w.Open.V1, w.Open.Plain)
		a.tracker.AddSeed(w.InfoHash, a.seeder())
		list = append(list, w)
	}
	for h := range a.opened {
		if !now[h] {
			a.tracker.Close(h)
		}
	}
	a.opened = now
	return list
}
