package substituter

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/state"
	"github.com/nar-p2p/nar-p2p/substituter/trust"
)

// archive is a real database for records, and a key that has signed them.
type archive struct {
	t   *testing.T
	key narinfo.SecretKey
	db  *state.DB
}

func newArchive(t *testing.T) *archive {
	t.Helper()
	key, err := narinfo.GenerateSecretKey("test-1")
	if err != nil {
		t.Fatal(err)
	}
	db, err := state.Open(filepath.Join(t.TempDir(), "db"), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return &archive{t, key, db}
}

// open returns a cache that knows only what is on the disk.
func (a *archive) open(limit int) *recordCache {
	keys := &trust.Keys{Trusted: []narinfo.PublicKey{a.key.Public()}}
	believe := func(info *narinfo.Info, _ string) error { return keys.Check(info) }
	return newRecordCache(a.db.Bucket("narinfo"), believe, limit, zap.NewNop())
}

// record makes the n-th path's record, fetched so many minutes after the first.
func (a *archive) record(n, minutes int) *record {
	a.t.Helper()
	part := sha256.Sum256(fmt.Append(nil, n))
	path, err := nix.NewStorePath(nix.HashPart(part[:20]), fmt.Sprint(n))
	if err != nil {
		a.t.Fatal(err)
	}
	info := &narinfo.Info{StorePath: path, URL: "nar/x", Compression: "none", NARHash: part, NARSize: 1}
	info.Signatures = []narinfo.Signature{a.key.Sign(info.Fingerprint())}
	return &record{info: info, fetched: time.Unix(1e9, 0).Add(time.Duration(minutes) * time.Minute)}
}

func (a *archive) part(n int) nix.HashPart { return a.record(n, 0).info.StorePath.HashPart() }

// left returns which of the first n records are on the disk.
func (a *archive) left(n int) (left []int) {
	c := a.open(n)
	for i := range n {
		if c.current(a.part(i)) != nil {
			left = append(left, i)
		}
	}
	return left
}

func makeRoom(t *testing.T, c *recordCache) {
	t.Helper()
	if err := c.makeRoom(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func crowded(c *recordCache) bool {
	select {
	case <-c.crowded:
		return true
	default:
		return false
	}
}

func TestRouteIsKept(t *testing.T) {
	a := newArchive(t)
	r := a.record(1, 0)
	r.upstream, r.private, r.took = "https://cache.example.org", true, 80*time.Millisecond
	r.checked = r.fetched.Add(time.Hour)
	a.open(10).put(r)
	got := a.open(10).current(a.part(1))
	if got == nil {
		t.Fatal("the record is not on the disk")
	}
	if got.upstream != r.upstream || got.private != r.private || got.took != r.took ||
		!got.fetched.Equal(r.fetched) || !got.checked.Equal(r.checked) {
		t.Errorf("kept %+v, want %+v", got.record, r)
	}
	if got.info.Fingerprint() != r.info.Fingerprint() {
		t.Errorf("kept %s, want %s", got.info.Fingerprint(), r.info.Fingerprint())
	}
}

func TestPublicStaysPublic(t *testing.T) {
	a := newArchive(t)
	public, private := a.record(1, 0), a.record(1, 1)
	private.private = true
	c := a.open(10)
	c.put(public)
	if c.put(private).private || a.open(10).current(a.part(1)).private {
		t.Error("a private upstream has made a secret of what was public")
	}
}

func TestLeastRecentlyUsedGoFirst(t *testing.T) {
	a := newArchive(t)
	c := a.open(16)
	makeRoom(t, c)
	for range 2 {
		for i := range 16 {
			c.put(a.record(i, 100-i)) // the last ones are the oldest
		}
	}
	if crowded(c) {
		t.Error("16 records are too many, of 16")
	}
	c = a.open(16)
	makeRoom(t, c)
	if left := a.left(17); len(left) != 16 {
		t.Errorf("left are %v, want all 16", left)
	}
	c.current(a.part(15)) // the oldest is of use still
	c.put(a.record(16, 0))
	if !crowded(c) {
		t.Error("17 records are not too many, of 16")
	}
	makeRoom(t, c)
	// One is too many, and an eighth of 16 makes room for what comes next.
	want := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 16}
	if diff := cmp.Diff(want, a.left(17)); diff != "" {
		t.Errorf("left on the disk (-want +got):\n%s", diff)
	}
	c.put(a.record(17, 0))
	c.put(a.record(18, 0))
	if crowded(c) {
		t.Error("there is no room")
	}
}

// Nix knows the NAR URLs of superseded records for 30 days. Current records,
// however many, must not push them out.
func TestSupersededRecordsOutliveCrowding(t *testing.T) {
	a := newArchive(t)
	c := a.open(8)
	old, again := a.record(0, 0), a.record(0, 1)
	again.info.NARHash[0]++
	again.info.Signatures = []narinfo.Signature{a.key.Sign(again.info.Fingerprint())}
	c.put(old)
	c.put(again)
	for i := range 40 {
		c.put(a.record(1+i, 2))
	}
	makeRoom(t, c)
	c = a.open(8)
	if c.naming(a.part(0), again.info.NARHash) != nil {
		t.Error("the current record, used least recently, has not gone")
	}
	if c.naming(a.part(0), old.info.NARHash) == nil {
		t.Error("the superseded record has gone")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	a := newArchive(t)
	m := newMemory(1 << 20)
	cost := 0
	for i := range 2000 {
		r := a.record(i, 0)
		for range i % 50 {
			r.info.References = append(r.info.References, r.info.StorePath)
		}
		m.put(render(r))
		cost += m.put(render(r)).cost() // in its own place
		if m.size > 1<<20 {
			t.Fatalf("%d bytes are held, want at most %d", m.size, 1<<20)
		}
	}
	held, size := 0, 0
	for i := range 2000 {
		if r := m.get(a.part(i)); r != nil {
			held++
			size += r.cost()
		}
	}
	if size != m.size || size < 1<<19 || cost < 2<<20 {
		t.Errorf("%d records of %d bytes are held, counted as %d; all have %d bytes", held, size, m.size, cost)
	}
	if m.get(a.part(1999)) == nil || m.get(a.part(0)) != nil {
		t.Error("not the latest are held")
	}
}

// A record that was read before another took its place must not come back.
func TestReadingDoesNotUndoReplacing(t *testing.T) {
	a := newArchive(t)
	m := newMemory(1 << 20)
	before := m.now()
	old, fresh := render(a.record(1, 0)), render(a.record(1, 1))
	m.put(fresh)
	if got := m.add(old, before); got != fresh || m.get(a.part(1)) != fresh {
		t.Error("the old record has replaced the fresh one")
	}
	m.lru.Remove(a.part(1)) // there was no room for it
	m.add(old, before)
	before = m.now()
	m.drop(a.part(1))
	m.add(old, before)
	if m.get(a.part(1)) != nil {
		t.Error("the old record is held")
	}
	if m.add(fresh, m.now()); m.get(a.part(1)) != fresh {
		t.Error("a record that was just read is not held")
	}
}

// A record that was believed by rules of the past is judged by those of now.
func TestPutDoubtsWhatIsOld(t *testing.T) {
	a := newArchive(t)
	c := a.open(10)
	old := a.record(1, 0)
	old.generation = c.generation
	if c.put(old) == nil {
		t.Fatal("a record of now is not kept")
	}
	c.doubt(c.generation+1, func() { c.believe = func(*narinfo.Info, string) error { return errors.New("not trusted") } })
	if c.put(old) != nil || c.current(a.part(1)) != nil {
		t.Error("a record of the past is kept")
	}
}
