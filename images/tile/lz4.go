package tile

import (
	"sync"

	"github.com/pierrec/lz4/v4"

	"seedbed/images"
)

// scratch holds buffers that any encoded tile fits into.
var scratch = sync.Pool{New: func() any {
	b := make([]byte, 0, lz4.CompressBlockBound(images.TileLength))
	return &b
}}

var lz4Fast = sync.Pool{New: func() any { return new(lz4.Compressor) }}

// encodeLZ4 returns nothing where the tile does not shrink. The bytes are the caller's.
func encodeLZ4(level int, raw []byte) ([]byte, error) {
	buf := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	dst := (*buf)[:cap(*buf)]
	var n int
	var err error
	if level <= 0 {
		c := lz4Fast.Get().(*lz4.Compressor)
		n, err = c.CompressBlock(raw, dst)
		lz4Fast.Put(c)
	} else {
		// The library's levels are 1<<9 to 1<<17.
		hc := lz4.CompressorHC{Level: lz4.CompressionLevel(1 << (8 + min(level, 9)))}
		n, err = hc.CompressBlock(raw, dst)
	}
	if err != nil || n == 0 {
		return nil, err
	}
	return append([]byte(nil), dst[:n]...), nil
}

func decodeLZ4(dst, b []byte) error {
	n, err := lz4.UncompressBlock(b, dst)
	if err == nil && n != len(dst) {
		err = errLength
	}
	return err
}
