package exchange

import (
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
)

// window is the zstd window in bytes: the power of two that holds the longest
// chunk.
const window = 512 << 10

// newEncoder returns an encoder for EncodeAll. The fastest level makes 276 MB/s
// of one core at 3.5 : 1 on programs and libraries; higher ones fall behind a
// gigabit line. The chunk's sum is its checksum.
func newEncoder() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(window),
		zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("exchange: zstd encoder: " + err.Error())
	}
	return e
}

// newDecoder returns a decoder for DecodeAll into slices of limited capacity,
// which it never exceeds.
func newDecoder() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderMaxWindow(window), zstd.WithDecoderLowmem(true),
		zstd.WithDecodeAllCapLimit(true), zstd.IgnoreChecksum(true))
	if err != nil {
		panic("exchange: zstd decoder: " + err.Error())
	}
	return d
}

// worthwhile reports whether compression saves enough to be undone at the other
// end: a tenth.
func worthwhile(compressed, raw int) bool { return compressed <= raw-raw/10 }

// decompress fills dst with the one chunk that b holds compressed.
func decompress(d *zstd.Decoder, dst, b []byte) error {
	out, err := d.DecodeAll(b, dst[:0:len(dst)])
	if err != nil {
		return fmt.Errorf("%w: zstd: %w", ErrProtocol, err)
	}
	if len(out) != len(dst) {
		return fmt.Errorf("%w: zstd: %d bytes of a chunk of %d", ErrProtocol, len(out), len(dst))
	}
	copy(dst, out) // no-op unless the decoder went to a slice of its own
	return nil
}

// newBuffer makes a buffer that holds any chunk.
func newBuffer() any {
	b := make([]byte, chunk.MaxLength)
	return &b
}
