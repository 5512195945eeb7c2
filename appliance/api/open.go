package api

import (
	"context"
	"time"

	"seedbed/images"
)

// OpenSwarm is the open swarm of an image.
type OpenSwarm struct {
	Image  string        `json:"image"` // "debian:1"
	Digest images.Digest `json:"digest"`
	// InfoHash is the v2 infohash of the hybrid torrent, V1 the other one as 40 hexadecimal digits.
	InfoHash images.InfoHash `json:"info_hash"`
	V1       string          `json:"v1"`
	// Plain is the infohash of a v1 torrent of the same pieces, for clients that do not read hybrid ones.
	Plain string `json:"plain"`
	// Announce is the tracker, Torrent where the .torrent file is, Magnet a link; empty while no appliance serves them.
	Announce     string `json:"announce,omitempty"`
	Torrent      string `json:"torrent,omitempty"`
	PlainTorrent string `json:"plain_torrent,omitempty"`
	Magnet       string `json:"magnet,omitempty"`
}

// OpenState says since when an image is open, and how its swarm is.
type OpenState struct {
	Since time.Time `json:"since"`
	// Guests are the peers that announced themselves to the tracker and are not silent, Lacking those of them that lack something.
	// Both are nil while no appliance serves the image.
	Guests  *int `json:"guests,omitempty"`
	Lacking *int `json:"lacking,omitempty"`
	// Swarm is set where one image is asked for.
	Swarm *OpenSwarm `json:"swarm,omitempty"`
}

// Opening are the operations on open swarms. Safe for concurrent use; progress as in Upkeep.
type Opening interface {
	// OpenSwarm opens an image to stock BitTorrent clients. One that is open already stays so.
	OpenSwarm(ctx context.Context, ref string, progress func(Progress)) (*OpenSwarm, error)
	// CloseSwarm takes that back.
	CloseSwarm(ctx context.Context, ref string) error
	// Torrent returns the .torrent file of an open image.
	Torrent(ctx context.Context, ref string, o TorrentOrder) ([]byte, error)
}

// TorrentOrder says which .torrent file is asked for.
type TorrentOrder struct {
	Announce string // URL of the tracker; empty is the appliance's own
	Plain    bool   // v1 alone, in place of v1 and v2
}
