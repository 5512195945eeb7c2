package peerwire

import (
	"fmt"

	"seedbed/images/bencode"
)

// ExtendedHandshake is the first message of the extension protocol (BEP 10).
type ExtendedHandshake struct {
	// Tile is the number under which the sender wants sb_tile messages; zero means that it does not speak it.
	Tile byte
	// Version is the name and version of the sender's program ("v").
	Version string
	// Port is the TCP port on which the sender accepts connections ("p"); zero means none.
	Port uint16
	// Metadata is the number under which the sender wants ut_metadata messages (BEP 9), zero where it does not speak it, and
	// MetadataSize the length of the info dictionary that it gives to others, in bytes ("metadata_size").
	Metadata     byte
	MetadataSize int
	// Part says that the sender wants a part of the content only and tells who hands out which, see Wants ("sb_part").
	Part bool
	// Requests is how many requests of blocks the sender lets wait ("reqq"); zero means that it does not say.
	Requests int
}

// Names of extensions in the dictionary m of the handshake.
const (
	TileExtension     = "sb_tile"
	MetadataExtension = "ut_metadata" // BEP 9
)

// maxVersion bounds Version in bytes.
const maxVersion = 64

// Message returns the handshake as a message.
func (h ExtendedHandshake) Message() Extended {
	m := map[string]any{}
	if h.Tile != 0 {
		m[TileExtension] = int(h.Tile)
	}
	if h.Metadata != 0 {
		m[MetadataExtension] = int(h.Metadata)
	}
	d := map[string]any{"m": m, "v": h.Version}
	if h.MetadataSize > 0 {
		d["metadata_size"] = h.MetadataSize
	}
	if h.Part {
		d["sb_part"] = 1
	}
	if h.Requests > 0 {
		d["reqq"] = h.Requests
	}
	if h.Port != 0 {
		d["p"] = int(h.Port)
	}
	return Extended{Kind: 0, Payload: bencode.Encode(d)}
}

// DecodeExtendedHandshake reads the payload of an Extended of Kind 0. Unknown keys are left alone.
func DecodeExtendedHandshake(payload []byte) (h ExtendedHandshake, err error) {
	if len(payload) > 16<<10 {
		return h, fmt.Errorf("extended handshake of %d bytes", len(payload))
	}
	v, err := bencode.Decode(payload)
	if err != nil {
		return h, fmt.Errorf("extended handshake: %w", err)
	}
	d, ok := v.(map[string]any)
	if !ok {
		return h, fmt.Errorf("extended handshake is no dictionary")
	}
	m, _ := d["m"].(map[string]any)
	number, _ := m[TileExtension].(int64)
	port, _ := d["p"].(int64)
	if number < 0 || number > 255 || port < 0 || port > 65535 {
		return h, fmt.Errorf("extended handshake: %s %d, port %d", TileExtension, number, port)
	}
	h.Tile, h.Port = byte(number), uint16(port)
	if n, ok := m[MetadataExtension].(int64); ok && n > 0 && n <= 255 {
		h.Metadata = byte(n)
	}
	if n, ok := d["reqq"].(int64); ok && n > 0 && n <= 1<<20 {
		h.Requests = int(n)
	}
	part, _ := d["sb_part"].(int64)
	h.Part = part == 1
	h.Version, _ = d["v"].(string)
	if len(h.Version) > maxVersion {
		h.Version = h.Version[:maxVersion]
	}
	return h, nil
}
