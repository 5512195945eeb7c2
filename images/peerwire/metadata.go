package peerwire

import (
	"fmt"

	"seedbed/images/bencode"
)

// MetadataPieceLength is how much of an info dictionary one ut_metadata message carries, in bytes (BEP 9).
const MetadataPieceLength = 16 << 10

// Types of ut_metadata messages.
const (
	metadataRequest = 0
	metadataData    = 1
	metadataReject  = 2
)

// DecodeMetadataRequest reads a ut_metadata message; ok is false for one that is no request.
func DecodeMetadataRequest(payload []byte) (piece int, ok bool, err error) {
	if len(payload) > 1<<10 {
		return 0, false, nil // data, which nobody asked for
	}
	v, err := bencode.Decode(payload)
	d, isDict := v.(map[string]any)
	if err != nil || !isDict {
		return 0, false, fmt.Errorf("ut_metadata message cannot be read: %v", err)
	}
	kind, there := d["msg_type"].(int64)
	n, _ := d["piece"].(int64)
	if n < 0 || n > 1<<20 {
		return 0, false, fmt.Errorf("ut_metadata message about piece %d", n)
	}
	return int(n), there && kind == metadataRequest, nil
}

// MetadataReply returns the payload that answers a request for a piece of an info dictionary: the piece, or a refusal where
// there is none.
func MetadataReply(info []byte, piece int) []byte {
	at := piece * MetadataPieceLength
	if at >= len(info) {
		return bencode.Encode(map[string]any{"msg_type": metadataReject, "piece": piece})
	}
	head := bencode.Encode(map[string]any{"msg_type": metadataData, "piece": piece, "total_size": len(info)})
	return append(head, info[at:min(at+MetadataPieceLength, len(info))]...)
}
