package main

import (
	"context"
	"fmt"
	"net/netip"

	"seedbed/appliance/heal"
	"seedbed/images"
	"seedbed/images/repository"
	"seedbed/images/swarm"
	"seedbed/images/torrent"
)

// fromMachines fetches damaged tiles from the machines of the image's swarm, as far as they have them.
func (a *appliance) fromMachines(ctx context.Context, r *repository.Reader, damaged map[int]images.TileSet, put putTile) error {
	info, err := torrent.FromManifest(r.Image().Manifest)
	if err != nil {
		return err
	}
	if len(a.tracker.Peers(info.InfoHash)) == 0 {
		return nil
	}
	cert, err := a.lib.site.Peer(swarm.InfoHashURI(info.InfoHash))
	if err != nil {
		return fmt.Errorf("certificate to fetch tiles with: %w", err)
	}
	_, err = heal.Fetch(ctx, heal.Config{
		InfoHash: info.InfoHash, Layout: r.Layout(), Tiles: r, Damaged: damaged, Certificate: cert, CA: a.lib.site.CA(), Put: put,
		Peers: func() []netip.AddrPort { return a.tracker.Peers(info.InfoHash) }, Log: a.log,
	})
	return err
}
