// Package peerwire encodes and decodes what peers say to each other: the handshake and messages of BitTorrent (BEP 3,
// fast extension BEP 6, extension protocol BEP 10) and sb_tile, the extension message between Seedbed peers.
//
// It is pure: no connection, no state. Whatever it decodes encodes to the same bytes, every length is bounded before
// anything is allocated, and what is wrong is an error that names the check that failed.
package peerwire
