package share

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// testKey returns the nth key; hashes is how many NAR hashes there are.
func testKey(n, hashes int) Key {
	part := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))
	hash := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("NAR"), uint64(n%hashes)))
	return Key{HashPart: nix.HashPart(part[:20]), NARHash: hash, NARSize: int64(n%hashes) + 1}
}

func TestIndexAgainstMaps(t *testing.T) {
	const keys, hashes = 3000, 1000
	random := rand.New(rand.NewPCG(1, 2))
	var x index
	held := make(map[nix.HashPart]Key)
	for round := range 20000 {
		k := testKey(random.IntN(keys), hashes)
		at := x.find(k.HashPart)
		if _, ok := held[k.HashPart]; ok != (at != none) {
			t.Fatalf("round %d: find = %d, held = %t", round, at, ok)
		}
		switch {
		case at == none:
			x.add(k, 1, shared)
			held[k.HashPart] = k
		case round%3 != 0:
			x.remove(at)
			delete(held, k.HashPart)
		}
		if x.len != len(held) {
			t.Fatalf("round %d: len = %d, want %d", round, x.len, len(held))
		}
		if round%500 != 0 {
			continue
		}
		got := make(map[nix.HashPart]Key)
		for i := range hashes {
			hash := testKey(i, hashes).NARHash
			for at := range x.withHash(hash) {
				if got[x.rows[at].part] = x.rows[at].key(); x.rows[at].hash != hash {
					t.Fatalf("round %d: withHash(%s) yields %s", round, hash, x.rows[at].hash)
				}
			}
		}
		if !maps.Equal(got, held) {
			t.Fatalf("round %d: withHash yields %d paths in all, want %d", round, len(got), len(held))
		}
	}
}

func TestEmptyIndex(t *testing.T) {
	var x index
	k := testKey(0, 1)
	if x.find(k.HashPart) != none || len(slices.Collect(x.withHash(k.NARHash))) != 0 {
		t.Error("an empty index finds a key")
	}
	x.add(k, 1, shared)
	x.remove(x.find(k.HashPart))
	if x.find(k.HashPart) != none || len(slices.Collect(x.withHash(k.NARHash))) != 0 {
		t.Error("an emptied index finds a key")
	}
}

// A workstation's store has 100,000 paths, and little memory to spare for them.
func TestIndexMemory(t *testing.T) {
	const paths, limit = 100_000, 15_000_000 // bytes
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	x := &index{}
	for i := range paths {
		x.add(testKey(i, paths), 1, shared)
	}
	used := heap() - before
	runtime.KeepAlive(x)
	t.Logf("%d paths take %d bytes", paths, used)
	if used > limit {
		t.Errorf("%d paths take %d bytes, more than %d", paths, used, limit)
	}
}
