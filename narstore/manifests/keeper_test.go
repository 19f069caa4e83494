package manifests_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/chunk"
	"github.com/nar-p2p/nar-p2p/narstore/manifests"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memoryNAR is a NAR in memory that counts its reads and can hold them up.
type memoryNAR struct {
	*bytes.Reader
	reads  atomic.Int64
	closed atomic.Bool
	// gate, if not nil, lets reads at or behind half of the NAR through once it is
	// closed. reached is closed when the first one waits.
	gate    chan struct{}
	reached chan struct{}
	once    sync.Once
	late    func() // called where a read comes after Close
}

var _ narstore.NAR = (*memoryNAR)(nil)

func newNAR(t *testing.T, content []byte) *memoryNAR {
	t.Helper()
	return &memoryNAR{
		Reader:  bytes.NewReader(content),
		reached: make(chan struct{}),
		late:    func() { t.Error("a NAR is read after Stream has returned") },
	}
}

func (n *memoryNAR) ReadAt(p []byte, off int64) (int, error) {
	n.reads.Add(1)
	if n.closed.Load() {
		n.late()
	}
	if n.gate != nil && off >= n.Size()/2 {
		n.once.Do(func() { close(n.reached) })
		<-n.gate
	}
	return n.Reader.ReadAt(p, off)
}

func (n *memoryNAR) Close() error {
	n.closed.Store(true)
	return nil
}

func random(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func open(t *testing.T, dir string) *state.DB {
	t.Helper()
	db, err := state.Open(dir, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func newKeeper(t *testing.T) *manifests.Keeper {
	t.Helper()
	return manifests.New(open(t, t.TempDir()+"/state").Bucket("manifests"), zaptest.NewLogger(t))
}

// stream returns what Stream emits.
func stream(ctx context.Context, k *manifests.Keeper, h nix.NARHash, nar *memoryNAR) ([]byte, chunk.Root, error) {
	defer nar.Close()
	var encoded []byte
	root, err := k.Stream(ctx, h, nar, func(piece []byte) error {
		if len(piece) > manifests.MaxPiece {
			return errors.New("the piece is too long")
		}
		encoded = append(encoded, piece...)
		return nil
	})
	return encoded, root, err
}

// expected returns a NAR's hash, and its manifest's encoding and root.
func expected(t *testing.T, content []byte) (nix.NARHash, []byte, chunk.Root) {
	t.Helper()
	h := nix.NARHash(sha256.Sum256(content))
	m, err := chunk.Build(t.Context(), bytes.NewReader(content), h, int64(len(content)), func([]byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return h, m.Encode(), m.Root()
}

func TestComputedOnceAndKept(t *testing.T) {
	content := random(1, 3<<20)
	h, encoded, root := expected(t, content)
	dir := t.TempDir() + "/state"
	db := open(t, dir)
	k := manifests.New(db.Bucket("manifests"), zaptest.NewLogger(t))
	if _, ok := k.Root(h); ok {
		t.Error("a root is known before anything")
	}
	if _, ok := k.Get(h); ok {
		t.Error("a manifest is kept before anything")
	}
	got, gotRoot, err := stream(t.Context(), k, h, newNAR(t, content))
	if err != nil || !bytes.Equal(got, encoded) || gotRoot != root {
		t.Fatalf("Stream = %d bytes, %s, %v; want %d bytes, %s", len(got), gotRoot, err, len(encoded), root)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	k = manifests.New(open(t, dir).Bucket("manifests"), zaptest.NewLogger(t))
	if got, ok := k.Root(h); !ok || got != root {
		t.Errorf("Root after a restart = %s, %t", got, ok)
	}
	if got, ok := k.Get(h); !ok || !bytes.Equal(got, encoded) {
		t.Errorf("Get after a restart = %d bytes, %t", len(got), ok)
	}
	again := newNAR(t, content)
	got, gotRoot, err = stream(t.Context(), k, h, again)
	if err != nil || !bytes.Equal(got, encoded) || gotRoot != root {
		t.Errorf("Stream after a restart = %d bytes, %s, %v", len(got), gotRoot, err)
	}
	if n := again.reads.Load(); n > 0 {
		t.Errorf("a NAR whose manifest is kept was read %d times", n)
	}
}

func TestSmallNARHasNoManifest(t *testing.T) {
	k := newKeeper(t)
	content := random(1, chunk.ImplicitSize)
	h, _, root := expected(t, content)
	got, gotRoot, err := stream(t.Context(), k, h, newNAR(t, content))
	if err != nil || len(got) > 0 || gotRoot != root {
		t.Errorf("Stream = %d bytes, %s, %v", len(got), gotRoot, err)
	}
	content[0] ^= 1
	if _, _, err := stream(t.Context(), k, h, newNAR(t, content)); !errors.Is(err, chunk.ErrCorrupt) {
		t.Errorf("Stream of a corrupt one = %v, want ErrCorrupt", err)
	}
}

func TestCorrupt(t *testing.T) {
	k := newKeeper(t)
	content := random(1, 2<<20)
	h, encoded, _ := expected(t, content)
	bad := bytes.Clone(content)
	bad[len(bad)-1] ^= 1
	if _, _, err := stream(t.Context(), k, h, newNAR(t, bad)); !errors.Is(err, chunk.ErrCorrupt) {
		t.Errorf("Stream = %v, want ErrCorrupt", err)
	}
	if _, ok := k.Root(h); ok {
		t.Error("the manifest of a corrupt NAR is kept")
	}
	if got, _, err := stream(t.Context(), k, h, newNAR(t, content)); err != nil || !bytes.Equal(got, encoded) {
		t.Errorf("once the NAR is right: Stream = %d bytes, %v", len(got), err)
	}
}

func TestTooLarge(t *testing.T) {
	k := newKeeper(t)
	nar := huge{newNAR(t, nil)}
	if _, err := k.Stream(t.Context(), nix.NARHash{}, nar, func([]byte) error { return nil }); err == nil || nar.reads.Load() > 0 {
		t.Errorf("Stream = %v after %d reads", err, nar.reads.Load())
	}
}

type huge struct{ *memoryNAR }

func (huge) Size() int64 { return chunk.MaxNARSize + 1 }

func TestEmitError(t *testing.T) {
	k := newKeeper(t)
	content := random(1, 2<<20)
	h, _, _ := expected(t, content)
	broken := errors.New("broken")
	for range 2 { // computed, kept
		nar := newNAR(t, content)
		if _, err := k.Stream(t.Context(), h, nar, func([]byte) error { return broken }); !errors.Is(err, broken) {
			t.Errorf("Stream = %v", err)
		}
		nar.Close()
		if _, _, err := stream(t.Context(), k, h, newNAR(t, content)); err != nil {
			t.Error(err)
		}
	}
}

// The first caller leaves in the middle. Others, who came before and after, get
// all of the manifest, and the first caller's NAR is left alone.
func TestFirstCallerLeaves(t *testing.T) {
	k := newKeeper(t)
	content := random(1, 8<<20)
	h, encoded, root := expected(t, content)

	first := newNAR(t, content)
	first.gate = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	firstErr := make(chan error, 1)
	go func() {
		_, _, err := stream(ctx, k, h, first)
		firstErr <- err
	}()
	<-first.reached

	const others = 5
	results := make(chan error, others)
	for range others {
		joined := make(chan struct{})
		go func() {
			var got []byte
			nar := newNAR(t, content)
			defer nar.Close()
			gotRoot, err := k.Stream(t.Context(), h, nar, func(piece []byte) error {
				if got == nil {
					close(joined)
				}
				got = append(got, piece...)
				return nil
			})
			if err == nil && (!bytes.Equal(got, encoded) || gotRoot != root) {
				err = errors.New("a wrong manifest")
			}
			results <- err
		}()
		<-joined // it has what the first caller's NAR gave so far
	}
	cancel()
	close(first.gate)
	if err := <-firstErr; !errors.Is(err, context.Canceled) {
		t.Errorf("first caller: %v", err)
	}
	for range others {
		if err := <-results; err != nil {
			t.Errorf("another caller: %v", err)
		}
	}
}

// When all have left, the computation ends, and the next caller has one anew.
func TestAllLeave(t *testing.T) {
	k := newKeeper(t)
	content := random(1, 8<<20)
	h, encoded, _ := expected(t, content)
	for range 5 {
		nar := newNAR(t, content)
		nar.gate = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-nar.reached
			cancel()
			close(nar.gate)
		}()
		if _, _, err := stream(ctx, k, h, nar); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Stream = %v", err)
		}
	}
	if got, _, err := stream(t.Context(), k, h, newNAR(t, content)); err != nil || !bytes.Equal(got, encoded) {
		t.Errorf("Stream = %d bytes, %v", len(got), err)
	}
}

// busyNAR counts the NARs that are being read: from their first to their last
// byte.
type busyNAR struct {
	*memoryNAR
	busy, most *atomic.Int64
}

func (n busyNAR) ReadAt(p []byte, off int64) (int, error) {
	if off == 0 {
		now := n.busy.Add(1)
		for seen := n.most.Load(); now > seen && !n.most.CompareAndSwap(seen, now); seen = n.most.Load() {
		}
	}
	if off+int64(len(p)) >= n.Size() {
		defer n.busy.Add(-1)
	}
	return n.memoryNAR.ReadAt(p, off)
}

func TestComputationsAreBounded(t *testing.T) {
	k := newKeeper(t)
	k.Patience(time.Minute)
	var busy, most atomic.Int64
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			content := random(byte(i), 4<<20)
			nar := busyNAR{newNAR(t, content), &busy, &most}
			if _, err := k.Stream(t.Context(), sha256.Sum256(content), nar, func([]byte) error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := most.Load(); got > 3 {
		t.Errorf("%d manifests were computed at once, want at most 3", got)
	}
}

// Whoever waits for its turn can leave.
func TestLeaveWhileWaiting(t *testing.T) {
	k := newKeeper(t)
	k.Patience(time.Minute)
	gate := make(chan struct{})
	results := make(chan error)
	for i := range 2 {
		content := random(byte(i), 9<<20)
		nar := newNAR(t, content)
		nar.gate = gate
		go func() {
			_, _, err := stream(t.Context(), k, sha256.Sum256(content), nar)
			results <- err
		}()
		<-nar.reached
	}
	content := random(3, 9<<20)
	nar := newNAR(t, content)
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	if _, _, err := stream(ctx, k, sha256.Sum256(content), nar); !errors.Is(err, context.Canceled) || nar.reads.Load() > 0 {
		t.Errorf("Stream = %v after %d reads", err, nar.reads.Load())
	}
	close(gate)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	k := newKeeper(t)
	k.Patience(time.Minute)
	var wg sync.WaitGroup
	for i := range 40 {
		content := random(byte(i%4), 2<<20)
		h := nix.NARHash(sha256.Sum256(content))
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%3)*2*time.Millisecond+time.Minute*time.Duration(i%2))
		wg.Go(func() {
			defer cancel()
			got, root, err := stream(ctx, k, h, newNAR(t, content))
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) || i%2 == 1 {
					t.Error(err)
				}
				return
			}
			if root != sha256.Sum256(got) {
				t.Error("root is not that of the pieces")
			}
			if _, err := chunk.Decode(got, h, int64(len(content))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// Who finds too much being computed is told when to come back, but small NARs
// do not wait for large ones.
func TestBusy(t *testing.T) {
	k := newKeeper(t)
	k.Patience(10 * time.Millisecond)
	const large = 16 << 20
	gate := make(chan struct{})
	nars := make([]*memoryNAR, 2)
	var wg sync.WaitGroup
	for i := range nars {
		content := random(byte(i), large)
		nars[i] = newNAR(t, content)
		nars[i].gate = gate
		wg.Go(func() {
			if _, _, err := stream(t.Context(), k, sha256.Sum256(content), nars[i]); err != nil {
				t.Error(err)
			}
		})
		<-nars[i].reached
	}
	if got := k.Computing(); got != len(nars) {
		t.Errorf("Computing() = %d, want %d", got, len(nars))
	}
	content := random(9, large)
	_, _, err := stream(t.Context(), k, sha256.Sum256(content), newNAR(t, content))
	if busy := (*narstore.BusyError)(nil); !errors.As(err, &busy) || busy.RetryAfter <= 0 || busy.RetryAfter > time.Minute {
		t.Errorf("a third large NAR: %v, want busy", err)
	}
	k.Patience(time.Minute)
	for i := range byte(3) {
		content := random(10+i, 1<<20)
		if _, _, err := stream(t.Context(), k, sha256.Sum256(content), newNAR(t, content)); err != nil {
			t.Errorf("small NAR: %v", err)
		}
	}
	close(gate)
	wg.Wait()
	if _, _, err := stream(t.Context(), k, sha256.Sum256(content), newNAR(t, content)); err != nil {
		t.Errorf("large NAR later: %v", err)
	}
}

func TestEviction(t *testing.T) {
	k := newKeeper(t)
	now := time.Unix(1_700_000_000, 0)
	k.Bound(5_000, func() time.Time { return now })
	var hashes []nix.NARHash
	add := func(i int) {
		t.Helper()
		content := random(byte(i), 600_000) // a manifest of some 400 bytes
		h := nix.NARHash(sha256.Sum256(content))
		if _, _, err := stream(t.Context(), k, h, newNAR(t, content)); err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, h)
		now = now.Add(48 * time.Hour)
	}
	add(0)
	for i := 1; i < 40; i++ {
		add(i)
		if _, ok := k.Get(hashes[0]); !ok {
			t.Fatalf("after %d manifests the one always in use is gone", i)
		}
	}
	kept := 0
	for i, h := range hashes {
		_, ok := k.Root(h)
		if _, whole := k.Get(h); whole != ok {
			t.Errorf("manifest %d: root known is %t, kept is %t", i, ok, whole)
		}
		if ok {
			kept++
		}
	}
	if kept < 4 || kept > 8 {
		t.Errorf("%d manifests are kept", kept)
	}
	if _, ok := k.Root(hashes[len(hashes)-1]); !ok {
		t.Error("the latest is not kept")
	}
}

// A manifest of several parts, one of which gets lost.
func TestLostPart(t *testing.T) {
	db := open(t, t.TempDir()+"/state")
	bucket := db.Bucket("manifests")
	k := manifests.New(bucket, zaptest.NewLogger(t))
	content := random(1, 64<<20)
	for i, at := 0, 0; at+34 <= len(content); i, at = i+1, at+100 {
		sum := sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
		copy(content[at:], "/"+nix.EncodeBase32(sum[:20])+"-")
	}
	h, encoded, _ := expected(t, content)
	if len(encoded) <= state.MaxValue {
		t.Fatalf("the manifest has %d bytes only", len(encoded))
	}
	if _, _, err := stream(t.Context(), k, h, newNAR(t, content)); err != nil {
		t.Fatal(err)
	}
	if got, ok := k.Get(h); !ok || !bytes.Equal(got, encoded) {
		t.Fatalf("Get = %d bytes, %t", len(got), ok)
	}
	var last []byte
	if err := bucket.Each(t.Context(), func(key, _ []byte) error { last = bytes.Clone(key); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := bucket.Put(last, []byte("something else"), 0); err != nil {
		t.Fatal(err)
	}
	if _, ok := k.Get(h); ok {
		t.Error("a damaged manifest is given")
	}
	if _, ok := k.Root(h); ok {
		t.Error("a damaged manifest is not forgotten")
	}
	if got, _, err := stream(t.Context(), k, h, newNAR(t, content)); err != nil || !bytes.Equal(got, encoded) {
		t.Errorf("Stream = %d bytes, %v", len(got), err)
	}
}

func TestClosedDatabase(t *testing.T) {
	db := open(t, t.TempDir()+"/state")
	k := manifests.New(db.Bucket("manifests"), zaptest.NewLogger(t))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	content := random(1, 1<<20)
	h, encoded, _ := expected(t, content)
	if got, _, err := stream(t.Context(), k, h, newNAR(t, content)); err != nil || !bytes.Equal(got, encoded) {
		t.Errorf("Stream = %d bytes, %v", len(got), err)
	}
}

func TestReadError(t *testing.T) {
	k := newKeeper(t)
	content := random(1, 2<<20)
	h, _, _ := expected(t, content)
	broken := errors.New("broken")
	_, err := k.Stream(t.Context(), h, failing{newNAR(t, content), broken}, func([]byte) error { return nil })
	if !errors.Is(err, broken) || errors.Is(err, chunk.ErrCorrupt) {
		t.Errorf("Stream = %v", err)
	}
}

type failing struct {
	*memoryNAR
	err error
}

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

var _ io.ReaderAt = failing{}
