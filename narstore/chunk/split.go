package chunk

import (
	"context"
	"fmt"
	"io"
	"sync"
)

// splitBuffers are those of Split, which is called for one small NAR after the
// other.
var splitBuffers = sync.Pool{New: func() any { return new([2][bufferSize]byte) }}

// Split calls f with the chunks of the NAR of size bytes that r reads, in order
// and some at a time. They are those of its manifest, but for Runs, which are
// left out, and that no manifest can grow too long for a masked sum. Nothing says
// whether they are those of a certain NAR: whoever uses one checks its sum.
//
// It takes some 2 MiB of memory.
func Split(ctx context.Context, r io.Reader, size int64, f func(chunks []Chunk) error) error {
	if size <= 0 || size > MaxNARSize {
		return fmt.Errorf("chunk: no NAR of %d bytes is exchanged", size)
	}
	buffers, ok := splitBuffers.Get().(*[2][bufferSize]byte)
	if !ok {
		panic("chunk: pool of buffers holds something else")
	}
	defer splitBuffers.Put(buffers)
	offset := int64(0)
	var chunks []Chunk
	b := builder{
		r: r, rest: size, buf: buffers[0][:], other: buffers[1][:], found: new(batch), hashed: new(batch),
		take: func(found []pending) error {
			chunks = chunks[:0]
			for i := range found {
				p := &found[i]
				c := Chunk{Offset: offset, Length: len(p.data), Sum: p.sum, Masked: p.masked, MaskedSum: p.maskedSum}
				chunks = append(chunks, c)
				offset += int64(c.Length)
			}
			if len(chunks) == 0 {
				return nil
			}
			return f(chunks)
		},
	}
	return b.run(ctx)
}
