package swarm

import (
	"sync"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
)

// bufferStep is what sizes of buffers are multiples of, in bytes.
const bufferStep = 16 << 10

// buffers keeps buffers of chunks for use again.
type buffers struct {
	pools [(chunk.MaxLength + bufferStep - 1) / bufferStep]sync.Pool
}

// room is what the buffer of a chunk of this length takes, in bytes.
func room(length int) int64 { return int64((length + bufferStep - 1) / bufferStep * bufferStep) }

// get returns a buffer for a chunk of this length.
func (b *buffers) get(length int) []byte {
	size := room(length)
	if buf, ok := b.pools[size/bufferStep-1].Get().(*[]byte); ok {
		return (*buf)[:length]
	}
	return make([]byte, length, size)
}

// put gives a buffer back.
func (b *buffers) put(buf []byte) {
	buf = buf[:cap(buf)]
	b.pools[len(buf)/bufferStep-1].Put(&buf)
}
