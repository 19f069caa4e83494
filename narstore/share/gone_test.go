package share_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"go.uber.org/zap/zapcore"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/share"
)

// shareOne runs a node that shares one path of several chunks.
func shareOne(t *testing.T) (*node, *path) {
	t.Helper()
	key := secretKey(t, "test-1")
	p := newPath(t, "large", large("bytes"), key)
	return start(t, &share.Policy{Keys: []narinfo.PublicKey{key.Public()}}, p), p
}

func read(nar narstore.NAR) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(nar, 0, nar.Size()))
}

// All who read a NAR at the same time share it.
func TestOpenedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, p := shareOne(t)
		defer n.stop()
		var nars [3]narstore.NAR
		for i := range nars {
			var err error
			if nars[i], err = n.Open(t.Context(), p.hash()); err != nil {
				t.Fatal(err)
			}
		}
		if got := n.store.openNow(); got != 1 {
			t.Errorf("%d NARs are open, want 1", got)
		}
		for _, nar := range nars {
			if got, err := read(nar); err != nil || !bytes.Equal(got, p.nar) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
			for range 2 { // the second time does nothing
				if err := nar.Close(); err != nil {
					t.Error(err)
				}
			}
		}
		if got := n.store.openNow(); got != 0 {
			t.Errorf("%d NARs are open after all were closed", got)
		}
		n.provides(t, p, true)
	})
}

// Whoever loses patience while a NAR is opened leaves the others theirs.
func TestOpenImpatiently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, p := shareOne(t)
		defer n.stop()
		n.store.hold = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		opened := make(chan error, 2)
		open := func(ctx context.Context) {
			nar, err := n.Open(ctx, p.hash())
			if err == nil {
				err = nar.Close()
			}
			opened <- err
		}
		go open(ctx)
		synctest.Wait() // the first one opens it
		go open(t.Context())
		synctest.Wait()
		cancel()
		if err := <-opened; !errors.Is(err, context.Canceled) {
			t.Errorf("Open() = %v, want cancelled", err)
		}
		close(n.store.hold)
		if err := <-opened; err != nil {
			t.Errorf("Open() = %v", err)
		}
		synctest.Wait()
		if got := n.store.openNow(); got != 0 {
			t.Errorf("%d NARs are open after all were closed", got)
		}
	})
}

// A path whose files have gone is no longer offered from the first read on that
// finds it out.
func TestFilesGone(t *testing.T) {
	for _, how := range []string{"run", "manifest"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, p := shareOne(t)
				defer n.stop()
				nar, err := n.Open(t.Context(), p.hash())
				if err != nil {
					t.Fatal(err)
				}
				n.store.damaged = p.info.NARSize / 2
				if how == "manifest" {
					_, err = n.Manifest(t.Context(), p.hash(), func([]byte) error { return nil })
				} else {
					_, err = read(nar)
				}
				if !errors.Is(err, narstore.ErrChanged) {
					t.Errorf("reading it: %v, want ErrChanged", err)
				}
				if err := nar.Close(); err != nil {
					t.Error(err)
				}
				n.provides(t, p, false)
				n.shares(t, p, false)
				if n.logs.FilterMessageSnippet("gone or changed").Len() != 1 {
					t.Errorf("the owner was not told once: %v", n.logs.All())
				}
				n.store.damaged = 0
				if err := n.Restore(t.Context(), p.info.Path); err != nil {
					t.Fatal(err)
				}
				n.provides(t, p, true)
				n.shares(t, p, true)
			})
		})
	}
}

// A path that was collected is no longer offered from the first request on,
// before the store tells of it.
func TestCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, p := shareOne(t)
		defer n.stop()
		n.store.alter(p.part(), nil)
		if _, err := n.Open(t.Context(), p.hash()); !isNotFound(err) {
			t.Errorf("Open() = %v, want ErrNotFound", err)
		}
		n.provides(t, p, false)
		if got := n.logs.FilterLevelExact(zapcore.ErrorLevel).Len(); got != 0 {
			t.Errorf("%d errors were logged about a path that was collected", got)
		}
		n.store.add(p)
		synctest.Wait()
		n.provides(t, p, true)
	})
}
