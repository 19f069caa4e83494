package manifests

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/state"
)

const (
	// maxKept bounds what is kept in all, in bytes. It is the manifests of about
	// a terabyte of NARs.
	maxKept = 512 << 20
	// recordCost is what a manifest takes beside its encoding, about, in bytes.
	recordCost = 256
	// useGrain is how exactly the last use is known: it is not written at every
	// use.
	useGrain = 24 * time.Hour
	// unknown stands for a total that was not summed up yet.
	unknown = -1
)

// Keys: recordKey and NAR hash for a record; partKey, NAR hash and a four byte
// number for each state.MaxValue bytes of the encoding. Records come first.
const (
	recordKey = 'm'
	partKey   = 'p'
)

// record is what is known of a kept manifest: root, length of the encoding in
// bytes and time of last use in seconds since 1970, the latter two as eight
// bytes in big endian.
type record struct {
	root   chunk.Root
	length int64
	used   time.Time
}

const recordSize = len(chunk.Root{}) + 8 + 8

func (r *record) encode() []byte {
	b := binary.BigEndian.AppendUint64(r.root[:], uint64(r.length))
	return binary.BigEndian.AppendUint64(b, uint64(r.used.Unix()))
}

func decodeRecord(b []byte) (record, bool) {
	if len(b) != recordSize {
		return record{}, false
	}
	n := len(chunk.Root{})
	r := record{
		root:   chunk.Root(b[:n]),
		length: int64(binary.BigEndian.Uint64(b[n:])),
		used:   time.Unix(int64(binary.BigEndian.Uint64(b[n+8:])), 0),
	}
	return r, r.length > 0 && r.length <= chunk.MaxEncodedSize(chunk.MaxNARSize)
}

func (r *record) cost() int64 { return r.length + recordCost }

// parts is the number of parts of the encoding.
func (r *record) parts() int { return int((r.length + state.MaxValue - 1) / state.MaxValue) }

func keyOfRecord(h nix.NARHash) []byte { return append([]byte{recordKey}, h[:]...) }

func keyOfPart(h nix.NARHash, i int) []byte {
	return binary.BigEndian.AppendUint32(append([]byte{partKey}, h[:]...), uint32(i))
}

// kept is the manifests in the bucket. Where the bucket fails it acts as if
// nothing were kept: bucket errors are logged there.
type kept struct {
	log    *zap.Logger
	bucket *state.Bucket
	limit  int64
	now    func() time.Time

	mu sync.Mutex // serialises what changes the total
	// bytes is what all manifests cost, or unknown.
	bytes int64
}

func (k *kept) record(h nix.NARHash) (record, bool) {
	b, err := k.bucket.Get(keyOfRecord(h))
	if err != nil {
		return record{}, false
	}
	return decodeRecord(b)
}

// stream emits a kept encoding, if there is one. At its end it is checked
// against its root.
func (k *kept) stream(h nix.NARHash, emit func(piece []byte) error) (root chunk.Root, ok bool, err error) {
	r, ok := k.record(h)
	if !ok {
		return chunk.Root{}, false, nil
	}
	sum := sha256.New()
	for i := range r.parts() {
		part, err := k.bucket.Get(keyOfPart(h, i))
		if err != nil {
			k.discard(h)
			return chunk.Root{}, true, fmt.Errorf("manifests: NAR %s: %w", h, err)
		}
		sum.Write(part)
		if err := emitPieces(part, emit); err != nil {
			return chunk.Root{}, true, err
		}
	}
	if chunk.Root(sum.Sum(nil)) != r.root {
		k.discard(h)
		return chunk.Root{}, true, fmt.Errorf("manifests: NAR %s: the manifest that was kept is damaged", h)
	}
	k.touch(h)
	return r.root, true, nil
}

// touch notes a use.
func (k *kept) touch(h nix.NARHash) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r, ok := k.record(h); ok && k.now().Sub(r.used).Abs() > useGrain {
		r.used = k.now()
		_ = k.bucket.Put(keyOfRecord(h), r.encode(), 0) // a use less is no loss
	}
}

// discard removes a manifest that is damaged.
func (k *kept) discard(h nix.NARHash) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r, ok := k.record(h); ok {
		k.drop(h, &r)
	}
}

// put keeps an encoding, and drops others where there is no room.
func (k *kept) put(h nix.NARHash, root chunk.Root, encoded []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := record{root: root, length: int64(len(encoded)), used: k.now()}
	if r.cost() > k.limit {
		return
	}
	old, replaced := k.record(h)
	for i := range r.parts() {
		part := encoded[i*state.MaxValue : min((i+1)*state.MaxValue, len(encoded))]
		if k.bucket.Put(keyOfPart(h, i), part, 0) != nil {
			return
		}
	}
	if k.bucket.Put(keyOfRecord(h), r.encode(), 0) != nil {
		return
	}
	if replaced {
		k.count(-old.cost())
	}
	k.count(r.cost())
	if k.bytes == unknown || k.bytes > k.limit {
		k.evict()
	}
}

// count adds to the total, if it is known.
func (k *kept) count(cost int64) {
	if k.bytes != unknown {
		k.bytes += cost
	}
}

// evict sums up what is kept and, where that is above the limit, drops what was
// not used for longest until a tenth is free.
func (k *kept) evict() {
	type entry struct {
		hash nix.NARHash
		record
	}
	var entries []entry
	total := int64(0)
	errDone := errors.New("all records seen")
	err := k.bucket.Each(context.Background(), func(key, value []byte) error {
		if key[0] != recordKey {
			return errDone
		}
		if r, ok := decodeRecord(value); ok && len(key) == 1+len(nix.NARHash{}) {
			entries = append(entries, entry{nix.NARHash(key[1:]), r})
			total += r.cost()
		}
		return nil
	})
	if err != nil && !errors.Is(err, errDone) {
		return
	}
	k.bytes = total
	if total <= k.limit {
		return
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(a.used.Compare(b.used), slices.Compare(a.hash[:], b.hash[:]))
	})
	dropped := 0
	for _, e := range entries {
		if k.bytes <= k.limit/10*9 {
			break
		}
		k.drop(e.hash, &e.record)
		dropped++
	}
	k.log.Info("dropped manifests that were not used for long", zap.Int("count", dropped), zap.Int64("keptBytes", k.bytes))
}

// drop removes a manifest.
func (k *kept) drop(h nix.NARHash, r *record) {
	// The record goes first: without it nobody looks for the parts.
	if k.bucket.Delete(keyOfRecord(h)) != nil {
		return
	}
	for i := range r.parts() {
		_ = k.bucket.Delete(keyOfPart(h, i)) // the bucket logs what fails
	}
	k.count(-r.cost())
}
