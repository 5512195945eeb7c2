package tile

import (
	"sync"

	"github.com/klauspost/compress/zstd"

	"seedbed/images"
)

// zstdEncoders holds one encoder per speed of the library, made at its first use; each serves all goroutines.
// The window is the tile; no checksum, because the tile's hash says more.
var zstdEncoders = func() (list [zstd.SpeedBestCompression + 1]func() (*zstd.Encoder, error)) {
	for speed := range list {
		list[speed] = sync.OnceValues(func() (*zstd.Encoder, error) {
			return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevel(speed)), zstd.WithEncoderCRC(false),
				zstd.WithWindowSize(images.TileLength), zstd.WithSingleSegment(true))
		})
	}
	return list
}()

// encodeZstd returns how many bytes of dst the tile takes; 0 where it does not fit.
func encodeZstd(level int, dst, raw []byte) (int, error) {
	speed := zstd.SpeedFastest
	if level > 0 {
		speed = zstd.EncoderLevelFromZstd(level)
	}
	enc, err := zstdEncoders[speed]()
	if err != nil {
		return 0, err
	}
	b := enc.EncodeAll(raw, dst[:0])
	if len(b) > len(dst) {
		return 0, nil
	}
	return len(b), nil
}

// zstdDecoder serves all goroutines. It writes no further than the capacity of the slice that it is given and refuses
// frames that ask for a larger window than a tile.
var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(images.TileLength), zstd.WithDecoderMaxWindow(images.TileLength))
})

func decodeZstd(dst, b []byte) error {
	dec, err := zstdDecoder()
	if err != nil {
		return err
	}
	out, err := dec.DecodeAll(b, dst[:0:len(dst)])
	if err == nil && len(out) != len(dst) {
		err = errLength
	}
	return err
}
