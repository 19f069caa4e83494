package exchange

import (
	"crypto/sha256"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
)

// Parcel is a chunk that has come in and was not looked at.
type Parcel struct {
	peer  peer.ID
	chunk *chunk.Chunk
	dst   []byte
	// compressed is what has come in where that is not the chunk itself.
	compressed []byte
	decoder    *zstd.Decoder
}

// Check decompresses the chunk, where need be, to where Take was told it
// belongs, and checks its sum. Where that is not right the error is
// ErrWrongBytes. It may run on any goroutine.
func (p *Parcel) Check() error {
	if p.compressed != nil {
		if err := decompress(p.decoder, p.dst, p.compressed); err != nil {
			return fmt.Errorf("exchange: chunk: %s: %w", p.peer, err)
		}
		p.compressed = nil
	}
	if sha256.Sum256(p.dst) != p.chunk.Sum {
		return fmt.Errorf("exchange: chunk: %s: %w: %d at %d", p.peer, ErrWrongBytes, p.chunk.Length, p.chunk.Offset)
	}
	return nil
}
