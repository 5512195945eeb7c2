package tile

import (
	"sync"

	"github.com/pierrec/lz4/v4"

	"seedbed/images"
)

// scratch holds buffers that any encoded tile fits into.
var scratch = sync.Pool{New: func() any {
	b := make([]byte, lz4.CompressBlockBound(images.TileLength))
	return &b
}}

var lz4Fast = sync.Pool{New: func() any { return new(lz4.Compressor) }}

// encodeLZ4 returns how many bytes of dst the tile takes; 0 where it does not shrink.
func encodeLZ4(level int, dst, raw []byte) (n int, err error) {
	if level <= 0 {
		c := lz4Fast.Get().(*lz4.Compressor)
		defer lz4Fast.Put(c)
		return c.CompressBlock(raw, dst)
	}
	// The library's levels are 1<<9 to 1<<17.
	hc := lz4.CompressorHC{Level: lz4.CompressionLevel(1 << (8 + min(level, 9)))}
	return hc.CompressBlock(raw, dst)
}

func decodeLZ4(dst, b []byte) error {
	n, err := lz4.UncompressBlock(b, dst)
	if err == nil && n != len(dst) {
		err = errLength
	}
	return err
}
