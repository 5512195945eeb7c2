// Package announce holds the messages between a peer and a tracker over HTTP (BEP 3, with compact peers of BEP 23 and
// BEP 7), in both directions, and a client that announces for as long as a peer takes part.
package announce

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"seedbed/images/bencode"
)

// Event says why a peer announces.
type Event string

// Events; Regular is an announce at the interval.
const (
	Regular   Event = ""
	Started   Event = "started"
	Completed Event = "completed"
	Stopped   Event = "stopped"
)

// Request is what a peer tells a tracker.
type Request struct {
	// InfoHash is the truncated hash of a v2 torrent (BEP 52); see images.InfoHash.Wire.
	InfoHash [20]byte
	PeerID   [20]byte
	// Port is where the peer accepts connections. Its address is the one that the request comes from.
	Port uint16
	// Uploaded, Downloaded and Left are bytes; nothing is left for a seed.
	Uploaded, Downloaded, Left int64
	Event                      Event
	// Want is how many addresses the peer would like; zero leaves it to the tracker.
	Want int
	// Dictionary asks for peers as dictionaries (BEP 3) in place of the compact form of BEP 23. ParseRequest sets it;
	// Query never asks for it.
	Dictionary bool
}

// Query returns the request as the query of an announce URL, without question mark.
func (r Request) Query() string {
	v := url.Values{
		"info_hash": {string(r.InfoHash[:])}, "peer_id": {string(r.PeerID[:])}, "port": {strconv.Itoa(int(r.Port))},
		"uploaded": {strconv.FormatInt(r.Uploaded, 10)}, "downloaded": {strconv.FormatInt(r.Downloaded, 10)},
		"left": {strconv.FormatInt(r.Left, 10)}, "compact": {"1"},
	}
	if r.Event != Regular {
		v.Set("event", string(r.Event))
	}
	if r.Want > 0 {
		v.Set("numwant", strconv.Itoa(r.Want))
	}
	return v.Encode()
}

// ParseRequest reads the query of an announce. The error is a sentence for the peer.
func ParseRequest(query string) (r Request, err error) {
	v, err := url.ParseQuery(query)
	if err != nil {
		return r, errors.New("the query cannot be read")
	}
	id := func(name string, to *[20]byte) {
		if s := v.Get(name); err == nil && copy(to[:], s) != len(s) || len(s) != len(to) {
			err = fmt.Errorf("%s has %d bytes, want %d", name, len(s), len(to))
		}
	}
	number := func(name string, limit int64) int64 {
		s := v.Get(name)
		if s == "" || err != nil {
			return 0
		}
		n, bad := strconv.ParseInt(s, 10, 64)
		if bad != nil || n < 0 || n > limit {
			err = fmt.Errorf("%s is not a number from 0 to %d", name, limit)
		}
		return n
	}
	id("info_hash", &r.InfoHash)
	id("peer_id", &r.PeerID)
	r.Port = uint16(number("port", 65535))
	r.Uploaded, r.Downloaded, r.Left = number("uploaded", 1<<62), number("downloaded", 1<<62), number("left", 1<<62)
	r.Want = int(number("numwant", 1<<20))
	r.Dictionary = v.Get("compact") == "0"
	switch r.Event = Event(v.Get("event")); r.Event {
	case Regular, Started, Completed, Stopped:
	default:
		r.Event = Regular // BEP 3 names no others; clients send "paused" and the like
	}
	if err == nil && r.Port == 0 && r.Event != Stopped {
		err = errors.New("port is missing")
	}
	return r, err
}

// Response is what a tracker answers.
type Response struct {
	// Failure, where set, is a sentence and the rest is empty.
	Failure string
	// Interval is how long the peer should wait before it announces again.
	Interval time.Duration
	// Seeds and Leechers count the peers known.
	Seeds, Leechers int
	Peers           []netip.AddrPort
	// Dictionary makes Encode list Peers as dictionaries, with the IDs of those that are in IDs.
	Dictionary bool
	IDs        map[netip.AddrPort][20]byte
	// Links says what Peers are to the one who asks, and that they are all; nil says that there may be more. Not encoded
	// with Dictionary. What was decoded is in the order in which the peers travelled.
	Links *Links
}

// Encode returns the bencoded answer.
func (r Response) Encode() []byte {
	if r.Failure != "" {
		return bencode.Encode(map[string]any{"failure reason": r.Failure})
	}
	d := map[string]any{"interval": int64(r.Interval / time.Second), "complete": r.Seeds, "incomplete": r.Leechers}
	if r.Dictionary {
		d["peers"] = r.dictionaries()
		return bencode.Encode(d)
	}
	var v4, v6 []byte
	var order, sixes []int
	for i, p := range r.Peers {
		if a := p.Addr().Unmap(); a.Is4() {
			v4, order = binary.BigEndian.AppendUint16(append(v4, a.AsSlice()...), p.Port()), append(order, i)
		} else if a.Is6() {
			v6, sixes = binary.BigEndian.AppendUint16(append(v6, a.AsSlice()...), p.Port()), append(sixes, i)
		}
	}
	if r.Links != nil {
		d["seedbed"] = r.Links.encode(append(order, sixes...))
	}
	d["peers"] = v4
	if len(v6) > 0 {
		d["peers6"] = v6
	}
	return bencode.Encode(d)
}

// dictionaries returns the peers as BEP 3 has them.
func (r Response) dictionaries() []any {
	list := make([]any, 0, len(r.Peers))
	for _, p := range r.Peers {
		d := map[string]any{"ip": p.Addr().Unmap().String(), "port": int(p.Port())}
		if id, ok := r.IDs[p]; ok {
			d["peer id"] = string(id[:])
		}
		list = append(list, d)
	}
	return list
}

// MaxResponse bounds an answer in bytes: some ten thousand addresses.
const MaxResponse = 256 << 10

// DecodeResponse reads an answer; peers come in compact form only.
func DecodeResponse(b []byte) (r Response, err error) {
	if len(b) > MaxResponse {
		return r, fmt.Errorf("tracker's answer of %d bytes, more than %d", len(b), MaxResponse)
	}
	v, err := bencode.Decode(b)
	if err != nil {
		return r, fmt.Errorf("tracker's answer: %w", err)
	}
	d, ok := v.(map[string]any)
	if !ok {
		return r, errors.New("tracker's answer is no dictionary")
	}
	if s, ok := d["failure reason"].(string); ok {
		return Response{Failure: clip(s)}, nil
	}
	interval, ok := d["interval"].(int64)
	if !ok || interval < 0 || interval > int64(24*time.Hour/time.Second) {
		return r, errors.New("tracker's answer has no interval of up to a day")
	}
	r.Interval = time.Duration(interval) * time.Second
	seeds, _ := d["complete"].(int64)
	leechers, _ := d["incomplete"].(int64)
	r.Seeds, r.Leechers = int(seeds), int(leechers)
	for _, length := range []int{4, 16} {
		key := "peers"
		if length == 16 {
			key = "peers6"
		}
		s, ok := d[key].(string)
		if _, there := d[key]; (there && !ok) || len(s)%(length+2) != 0 {
			return Response{}, fmt.Errorf("tracker's answer: %s is not in compact form", key)
		}
		for ; len(s) > 0; s = s[length+2:] {
			a, _ := netip.AddrFromSlice([]byte(s[:length]))
			r.Peers = append(r.Peers, netip.AddrPortFrom(a, binary.BigEndian.Uint16([]byte(s[length:length+2]))))
		}
	}
	if v, ok := d["seedbed"]; ok {
		if r.Links, err = decodeLinks(v, len(r.Peers)); err != nil {
			return Response{}, err
		}
	}
	return r, nil
}

// clip bounds a sentence from outside.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}
