package exchange

import (
	"fmt"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/wirepb"
)

// fixed are the types that travel as a fixed number of bytes.
type fixed interface {
	nix.NARHash | nix.HashPart | chunk.Root
}

// oneFromWire checks a single value.
func oneFromWire[T fixed](b []byte) (T, error) {
	var v T
	if len(b) != len(v) {
		return v, fmt.Errorf("%w: %d bytes, want %d", ErrProtocol, len(b), len(v))
	}
	for i := range len(v) {
		v[i] = b[i]
	}
	return v, nil
}

// fixedFromWire checks a list of 1 to limit values.
func fixedFromWire[T fixed](list [][]byte, limit int) ([]T, error) {
	if len(list) == 0 || len(list) > limit {
		return nil, fmt.Errorf("%w: %d entries, want 1 to %d", ErrProtocol, len(list), limit)
	}
	values := make([]T, len(list))
	for i, b := range list {
		v, err := oneFromWire[T](b)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		values[i] = v
	}
	return values, nil
}

// fixedToWire is the inverse of fixedFromWire.
func fixedToWire[T fixed](values []T) [][]byte {
	list := make([][]byte, len(values))
	for i, v := range values {
		list[i] = oneToWire(v)
	}
	return list
}

func oneToWire[T fixed](v T) []byte {
	b := make([]byte, len(v))
	for i := range len(v) {
		b[i] = v[i]
	}
	return b
}

// rootFromWire checks a manifest's root, which may be empty.
func rootFromWire(b []byte) (root chunk.Root, known bool, err error) {
	if len(b) == 0 {
		return root, false, nil
	}
	root, err = oneFromWire[chunk.Root](b)
	return root, err == nil, err
}

func rootToWire(root chunk.Root, known bool) []byte {
	if !known {
		return nil
	}
	return root[:]
}

func (h Holding) toWire() *wirepb.Holding {
	if !h.Held {
		return &wirepb.Holding{}
	}
	return &wirepb.Holding{Held: true, ManifestRoot: rootToWire(h.Root, h.RootKnown)}
}

func holdingFromWire(m *wirepb.Holding) (Holding, error) {
	root, known, err := rootFromWire(m.GetManifestRoot())
	switch {
	case err != nil:
		return Holding{}, fmt.Errorf("manifest root: %w", err)
	case known && !m.GetHeld():
		return Holding{}, fmt.Errorf("%w: manifest root of what is not held", ErrProtocol)
	}
	return Holding{Held: m.GetHeld(), Root: root, RootKnown: known}, nil
}

// refusal turns a refusing status into an error.
func refusal(status wirepb.Status, retryAfterMS uint32) error {
	switch status {
	case wirepb.Status_STATUS_NOT_HELD:
		return ErrNotHeld
	case wirepb.Status_STATUS_BUSY:
		return &BusyError{RetryAfter: min(time.Duration(retryAfterMS)*time.Millisecond, maxRetryAfter)}
	default:
		return fmt.Errorf("%w: status %d", ErrProtocol, status)
	}
}

// span is a checked run: where it begins and the lengths of its chunks, in
// bytes.
type span struct {
	offset  int64
	lengths []uint32
}

func spanFromWire(m *wirepb.Run) (span, error) {
	lengths := m.GetLengths()
	if len(lengths) == 0 || len(lengths) > MaxRunChunks {
		return span{}, fmt.Errorf("%w: run of %d chunks, want 1 to %d", ErrProtocol, len(lengths), MaxRunChunks)
	}
	if m.GetOffset() >= chunk.MaxNARSize {
		return span{}, fmt.Errorf("%w: run at %d", ErrProtocol, m.GetOffset())
	}
	for _, n := range lengths {
		if n == 0 || n > chunk.MaxLength {
			return span{}, fmt.Errorf("%w: chunk of %d bytes, want 1 to %d", ErrProtocol, n, chunk.MaxLength)
		}
	}
	return span{offset: int64(m.GetOffset()), lengths: lengths}, nil
}

// end is where the run ends, in bytes.
func (r span) end() int64 {
	end := r.offset
	for _, n := range r.lengths {
		end += int64(n)
	}
	return end
}

func spanToWire(chunks []chunk.Chunk) *wirepb.Run {
	m := &wirepb.Run{Offset: uint64(chunks[0].Offset), Lengths: make([]uint32, len(chunks))}
	for i, c := range chunks {
		m.Lengths[i] = uint32(c.Length)
	}
	return m
}
