package chunk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"sync/atomic"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// bufferSize is the length in bytes of each of the two buffers of a Build: some
// chunks more than lookahead, so that little is copied from one to the other.
const bufferSize = 1 << 20

// lookahead is how many bytes must follow a chunk's start, unless the NAR ends
// before, for its end to be known: a run may begin with its last byte.
const lookahead = MaxSize + runLength

// Build chunks the NAR that r reads, which should have this hash and this size
// in bytes. It calls emit with successive pieces of the canonical encoding while
// it goes, so these are provisional until Build returns without error; a piece
// is emit's only during the call. Where the NAR is not the one wanted the error
// is ErrCorrupt.
//
// It takes some 2 MiB of memory beside the manifest.
func Build(ctx context.Context, r io.Reader, want nix.NARHash, size int64, emit func(piece []byte) error) (*Manifest, error) {
	if size <= 0 || size > MaxNARSize {
		return nil, fmt.Errorf("chunk: no NAR of %d bytes is exchanged", size)
	}
	b := builder{
		r:      r,
		rest:   size,
		buf:    make([]byte, min(size, bufferSize)),
		found:  new(batch),
		hashed: new(batch),
		whole:  sha256.New(),
	}
	encoder := newEncoder(want, size)
	b.take = func(chunks []pending) error {
		for i := range chunks {
			encoder.add(&chunks[i])
		}
		return encoder.flush(emit)
	}
	if err := b.run(ctx); err != nil {
		return nil, err
	}
	if nix.NARHash(b.whole.Sum(nil)) != want {
		return nil, ErrCorrupt
	}
	if size <= ImplicitSize {
		return implicit(want, size), nil
	}
	return encoder.manifest, nil
}

// expectEnd returns an error unless r is at its end.
func expectEnd(r io.Reader) error {
	switch n, err := io.ReadFull(r, make([]byte, 1)); {
	case n > 0:
		return ErrCorrupt
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("chunk: reading: %w", err)
	}
	return nil
}

// builder cuts a stream into chunks. Hashing takes most of the time, so while
// the chunks of one buffer are hashed the next ones are looked for in another.
type builder struct {
	r    io.Reader
	rest int64 // bytes still to read

	// The bytes at hand are buf[start:end], masked up to masked. The runs are
	// those at or behind start. A chunk is unmasked, in place, once its masked
	// bytes have served. other is the buffer of the chunks that are being hashed.
	buf, other         []byte
	start, masked, end int
	runs               []run

	// found are the chunks of buf; hashed are those of other, which the
	// goroutines of hashing hash, each for itself and all into whole.
	// whole is nil where nobody wants to know it.
	found, hashed *batch
	hashing       sync.WaitGroup
	whole         hash.Hash

	// take is called with the chunks, in order and with their sums.
	take func(chunks []pending) error
}

// run cuts all of the stream.
func (b *builder) run(ctx context.Context) error {
	defer b.hashing.Wait()
	for !b.done() {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("chunk: %w", err)
		}
		if err := b.fill(); err != nil {
			return err
		}
		b.cut()
		if err := b.turn(); err != nil {
			return err
		}
	}
	if err := expectEnd(b.r); err != nil {
		return err
	}
	return b.turn() // for the chunks still being hashed
}

func (b *builder) done() bool { return b.rest == 0 && b.start == b.end }

// fill reads as much as fits and masks it.
func (b *builder) fill() error {
	n := int(min(b.rest, int64(len(b.buf)-b.end)))
	_, err := io.ReadFull(b.r, b.buf[b.end:b.end+n])
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return ErrCorrupt
	case err != nil:
		return fmt.Errorf("chunk: reading: %w", err)
	}
	b.end += n
	b.rest -= int64(n)
	b.runs, b.masked = maskRuns(b.buf[:b.end], b.masked, b.runs)
	return nil
}

// cut finds all chunks whose end is certain.
func (b *builder) cut() {
	for b.start < b.end && (b.rest == 0 || b.end-b.start >= lookahead) {
		end := b.start + cut(b.buf[b.start:b.end])
		count := 0 // of runs in the chunk
		for count < len(b.runs) && b.runs[count].at < end {
			end = max(end, b.runs[count].end())
			count++
		}
		c := pending{data: b.buf[b.start:end], runs: b.runs[:count]}
		if c.masked = count > 0 && count <= MaxRuns; c.masked {
			c.maskedSum = sha256.Sum256(c.data)
		}
		for i := range c.runs {
			c.runs[i].restore(b.buf)
		}
		b.found.chunks = append(b.found.chunks, c)
		b.start, b.runs = end, b.runs[count:]
	}
}

// turn passes on the chunks that were being hashed, begins to hash those found
// since, and changes the buffers.
func (b *builder) turn() error {
	b.hashed.sums() // rather than wait idly
	b.hashing.Wait()
	if err := b.take(b.hashed.chunks); err != nil {
		return err
	}
	found := b.found
	b.hashed, b.found = found, new(batch)
	b.hashing.Go(found.sums)
	if b.whole != nil {
		b.hashing.Go(func() { found.writeTo(b.whole) })
	}
	if b.rest > 0 {
		b.move()
	}
	return nil
}

// move continues in the other buffer with the bytes that belong to no chunk yet.
func (b *builder) move() {
	if b.other == nil {
		b.other = make([]byte, len(b.buf))
	}
	b.buf, b.other = b.other, b.buf
	copy(b.buf, b.other[b.start:b.end])
	for i := range b.runs {
		b.runs[i].at -= b.start
	}
	b.masked -= b.start
	b.end -= b.start
	b.start = 0
}

// pending is a chunk without its sum.
type pending struct {
	data      []byte
	runs      []run
	masked    bool
	maskedSum Sum
	sum       Sum
}

// batch is the chunks found in one buffer.
type batch struct {
	chunks []pending
	taken  atomic.Int64 // how many are hashed or being hashed
}

// sums hashes chunks until all are taken. Several goroutines may do so.
func (b *batch) sums() {
	for {
		i := int(b.taken.Add(1)) - 1
		if i >= len(b.chunks) {
			return
		}
		b.chunks[i].sum = sha256.Sum256(b.chunks[i].data)
	}
}

func (b *batch) writeTo(whole hash.Hash) {
	for i := range b.chunks {
		whole.Write(b.chunks[i].data)
	}
}
