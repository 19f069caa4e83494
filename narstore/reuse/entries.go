package reuse

import (
	"bytes"
	"context"
	"encoding/binary"
	"iter"
	"sync/atomic"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/state"
)

// Keys: one of these, and the first keyedBytes of the sum. More are not needed,
// as what is found is checked; and who makes two chunks that begin alike gains
// nothing but that one of them is fetched.
const (
	bySum      = 's'
	byMasked   = 'm'
	keyedBytes = 16
)

func key(kind byte, sum chunk.Sum) []byte { return append([]byte{kind}, sum[:keyedBytes]...) }

// Place is where a chunk lies. The zero Place is nowhere.
type Place struct {
	part   nix.HashPart
	offset int64
	length int
	// masked says that it was found by the masked sum.
	masked bool
	// named says that it was guessed, and has other names of paths.
	named bool
}

// Found reports whether it is a place at all.
func (p Place) Found() bool { return p.length > 0 }

// encode returns the value of an entry: the hash part of the path, and offset
// and length in its NAR, as varints.
func (p Place) encode() []byte {
	b := append(make([]byte, 0, len(p.part)+8), p.part[:]...)
	b = binary.AppendUvarint(b, uint64(p.offset))
	return binary.AppendUvarint(b, uint64(p.length))
}

func decodePlace(b []byte) (p Place, ok bool) {
	if len(b) < len(p.part) {
		return p, false
	}
	b = b[copy(p.part[:], b):]
	offset, n := binary.Uvarint(b)
	if n <= 0 || offset > chunk.MaxNARSize {
		return p, false
	}
	length, m := binary.Uvarint(b[n:])
	if m <= 0 || n+m != len(b) || length == 0 || length > chunk.MaxLength {
		return p, false
	}
	p.offset, p.length = int64(offset), int(length)
	return p, true
}

// entries say where chunks lie.
type entries struct {
	bucket *state.Bucket
	// room is what the filters are made for, in bytes of the bucket.
	room int64
	// known has all entries; nil where it is not known yet which there are. While
	// these are read coming is made to take its place, and is nil else.
	known, coming atomic.Pointer[filter]
}

// located is what an entry is made of.
type located struct {
	sum, masked chunk.Sum
	isMasked    bool
	offset      int64
	length      int
}

func locatedOf(c *chunk.Chunk) located {
	return located{sum: c.Sum, masked: c.MaskedSum, isMasked: c.Masked, offset: c.Offset, length: c.Length}
}

// count is how many entries there are of a chunk.
func (l *located) count() int64 {
	if l.isMasked {
		return 2
	}
	return 1
}

// add adds the chunks of a path, in the place of others with the same sums: what
// came last is likely to stay longest.
func (e *entries) add(part nix.HashPart, chunks iter.Seq[located]) error {
	for l := range chunks {
		e.note(l.sum[:])
		if l.isMasked {
			e.note(l.masked[:])
		}
	}
	return e.bucket.Change(func(yield func(key, value []byte) bool) {
		for l := range chunks {
			value := Place{part: part, offset: l.offset, length: l.length}.encode()
			if !yield(key(bySum, l.sum), value) || l.isMasked && !yield(key(byMasked, l.masked), value) {
				return
			}
		}
	})
}

// note adds a sum to the filters. The one to come is looked at first: what was
// put into its place since is then seen as known.
func (e *entries) note(sum []byte) {
	for _, f := range []*filter{e.coming.Load(), e.known.Load()} {
		if f != nil {
			f.add(sum)
		}
	}
}

// may reports whether there may be an entry with this sum.
func (e *entries) may(sum []byte) bool {
	f := e.known.Load()
	return f == nil || f.has(sum)
}

// forget deletes entries.
func (e *entries) forget(keys [][]byte) error {
	return e.bucket.Change(func(yield func(key, value []byte) bool) {
		for _, key := range keys {
			if !yield(key, nil) {
				return
			}
		}
	})
}

// sweepBatch is how many entries are deleted at once.
const sweepBatch = 4096

// sweep deletes the entries of paths that have no record, and makes a filter of
// those that are left.
func (e *entries) sweep(ctx context.Context, rs *records) (dropped int, err error) {
	var dead [][]byte
	flush := func() error {
		dropped += len(dead)
		err := e.forget(dead)
		dead = dead[:0]
		return err
	}
	rs.swept()
	kept := newFilter(e.room)
	e.coming.Store(kept)
	defer e.coming.Store(nil)
	err = e.bucket.Each(ctx, func(key, value []byte) error {
		if p, ok := decodePlace(value); ok {
			if _, ok = rs.get(p.part); ok && len(key) == 1+keyedBytes {
				kept.add(key[1:])
				return nil
			}
		}
		dead = append(dead, bytes.Clone(key))
		if len(dead) < sweepBatch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return dropped, err
	}
	e.known.Store(kept)
	return dropped, flush()
}

// find puts into places where the chunks lie, by their sums or, where masked is
// set, by their masked sums; usable says of which paths.
func (e *entries) find(chunks []chunk.Chunk, places []Place, masked bool, usable func(Place) (ok, dead bool)) {
	var keys [][]byte
	var of []int
	for i := range chunks {
		c := &chunks[i]
		if e.may(c.Sum[:]) {
			keys, of = append(keys, key(bySum, c.Sum)), append(of, i)
		}
		if masked && c.Masked && e.may(c.MaskedSum[:]) {
			keys, of = append(keys, key(byMasked, c.MaskedSum)), append(of, i)
		}
	}
	if len(keys) == 0 {
		return
	}
	var dead [][]byte
	// An error is logged by the bucket, and then nothing is found.
	_ = e.bucket.GetAll(keys, func(i int, value []byte) {
		p, ok := decodePlace(value)
		gone := !ok
		if ok {
			ok, gone = usable(p)
		}
		switch {
		case gone:
			dead = append(dead, keys[i])
		case ok && p.length == chunks[of[i]].Length && !places[of[i]].Found():
			p.masked = keys[i][0] == byMasked
			places[of[i]] = p
		}
	})
	if len(dead) > 0 {
		_ = e.forget(dead)
	}
}

// all is the chunks of a list.
func all(chunks []chunk.Chunk) iter.Seq[located] {
	return func(yield func(located) bool) {
		for i := range chunks {
			if !yield(locatedOf(&chunks[i])) {
				return
			}
		}
	}
}

// countAll is how many entries there are of all of them.
func countAll(chunks iter.Seq[located]) (n int64) {
	for l := range chunks {
		n += l.count()
	}
	return n
}
