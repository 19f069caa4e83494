package reuse_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/reuse"
)

// scene is a NAR of which another build, as large, is in the store.
type scene struct {
	store      *memoryStore
	old, fresh []byte
	want       reuse.Want
	local      nix.HashPart
}

func newScene(tb testing.TB, size int) *scene {
	tb.Helper()
	content := random(1, size)
	sc := &scene{store: newStore(), old: built(content, 30_000, 1), fresh: built(content, 30_000, 2)}
	sc.local = sc.store.add(tb, "hello-1.0", 1, sc.old).Path.HashPart()
	sc.want = target(tb, "hello-1.0", 2, sc.fresh)
	return sc
}

// assess returns how many bytes the index says are local.
func (l *lab) assess(tb testing.TB, want reuse.Want, nar []byte) int64 {
	tb.Helper()
	a, err := l.Assess(tb.Context(), want, manifestOf(tb, nar))
	if err != nil {
		tb.Fatal(err)
	}
	return a.BySum + a.ByMaskedSum
}

func TestIndexIsKept(t *testing.T) {
	sc := newScene(t, 2<<20)
	db := open(t)
	l := newLab(t, sc.store, db, reuse.Config{})
	l.relate(t, sc.want)
	if got := l.assess(t, sc.want, sc.fresh); got != sc.want.Size {
		t.Fatalf("%d of %d bytes are local", got, sc.want.Size)
	}
	l.stop()
	opens := sc.store.opens
	l = newLab(t, sc.store, db, reuse.Config{})
	l.relate(t, sc.want)
	if got := l.assess(t, sc.want, sc.fresh); got != sc.want.Size || sc.store.opens != opens {
		t.Errorf("after a restart %d of %d bytes are local, and %d paths were read again", got, sc.want.Size, sc.store.opens-opens)
	}
	l.stop()
	// What is lost is made anew.
	l = newLab(t, sc.store, open(t), reuse.Config{})
	l.relate(t, sc.want)
	if got := l.assess(t, sc.want, sc.fresh); got != sc.want.Size {
		t.Errorf("after a loss %d of %d bytes are local", got, sc.want.Size)
	}
}

// A path that leaves the store is forgotten, also while nobody looks; an older
// relative, whose entries it had taken, is of use again.
func TestPathThatIsGone(t *testing.T) {
	for name, tells := range map[string]bool{"told": true, "not told": false} {
		t.Run(name, func(t *testing.T) {
			sc := newScene(t, 2<<20)
			l := newLab(t, sc.store, open(t), reuse.Config{})
			l.relate(t, sc.want)
			if got := l.assess(t, sc.want, sc.fresh); got != sc.want.Size {
				t.Fatalf("%d of %d bytes are local", got, sc.want.Size)
			}
			newer := sc.store.add(t, "hello-1.1", 3, built(random(1, 2<<20), 30_000, 3))
			newerWant := wantOf(newer)
			newerWant.Path = sc.want.Path
			eventually(t, "the newer one is indexed", func() bool {
				_ = l.assess(t, target(t, "hello-1.1", 9, sc.fresh), sc.fresh)
				sum, _, _ := l.take(t, newerWant, built(random(1, 2<<20), 30_000, 3))
				return sum == newer.NARSize
			})
			sc.store.remove(newer.Path.HashPart(), tells)
			eventually(t, "the older one is of use again", func() bool {
				_, masked, missing := l.take(t, sc.want, sc.fresh)
				return missing == 0 && masked > 0
			})
			sc.store.remove(sc.local, tells)
			eventually(t, "nothing is of use", func() bool {
				sum, masked, _ := l.take(t, sc.want, sc.fresh)
				return sum+masked == 0
			})
		})
	}
}

func TestFetchedPathIsIndexedUnread(t *testing.T) {
	sc := newScene(t, 2<<20)
	store := newStore()
	l := newLab(t, store, open(t), reuse.Config{})
	path := pathOf(t, "other-1.0", 1)
	l.Fetched(path, reuse.Want{}.Hash, manifestOf(t, sc.old).Chunks) // of another build
	l.Fetched(pathOf(t, "hello-1.0", 1), manifestOf(t, sc.old).NARHash, manifestOf(t, sc.old).Chunks)
	store.add(t, "other-1.0", 1, sc.old)
	store.add(t, "hello-1.0", 1, sc.old)
	want := target(t, "unlike-2.0", 1, sc.fresh)
	eventually(t, "the fetched path is indexed", func() bool { return l.assess(t, want, sc.fresh) == want.Size })
	if store.opens > 0 {
		t.Errorf("%d paths were read", store.opens)
	}
}

// The index stays within its bounds, and what it drops is what was not used.
func TestIndexIsBounded(t *testing.T) {
	const limit = 64 << 10
	store := newStore()
	registry := prometheus.NewRegistry()
	db := open(t)
	l := newLab(t, store, db, reuse.Config{MaxBytes: limit, Registerer: registry})
	var last reuse.Want
	var fresh []byte
	for i := range 16 {
		content := random(uint64(i), 3<<20)
		name := fmt.Sprintf("path%d-1.0", i)
		store.add(t, name, 1, built(content, 30_000, 1))
		fresh = built(content, 30_000, 2)
		last = target(t, name, 2, fresh)
		l.relate(t, last)
		if got := l.assess(t, last, fresh); got != last.Size {
			t.Fatalf("path %d: %d of %d bytes are local", i, got, last.Size)
		}
	}
	eventually(t, "the index is swept", func() bool { return gauge(t, registry, "nar_p2p_reuse_index_bytes") <= limit })
	if got := l.assess(t, last, fresh); got != last.Size {
		t.Errorf("of the last path %d of %d bytes are local", got, last.Size)
	}
	eventually(t, "entries are deleted", func() bool {
		entries := 0
		err := db.Bucket("reuse").Each(t.Context(), func([]byte, []byte) error { entries++; return nil })
		if err != nil {
			t.Fatal(err)
		}
		return entries*60 < limit
	})
}

func gauge(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// Large paths are indexed in the background, while the machine is on mains.
func TestBackground(t *testing.T) {
	sc := newScene(t, 2<<20)
	small := random(5, 100_000)
	sc.store.add(t, "small-1.0", 1, small)
	var mains atomic.Bool
	asked := make(chan struct{}, 1)
	l := newLab(t, sc.store, open(t), reuse.Config{Background: reuse.Background{
		Pause: time.Millisecond, Rate: 1 << 30,
		OnMains: func() bool {
			select {
			case asked <- struct{}{}:
			default:
			}
			return mains.Load()
		},
	}})
	unlike := target(t, "unlike-1.0", 1, sc.fresh)
	for range 3 {
		<-asked
	}
	if got := l.assess(t, unlike, sc.fresh); got > 0 {
		t.Errorf("%d bytes are local of what was not to be indexed on a battery", got)
	}
	mains.Store(true)
	eventually(t, "the large path is indexed", func() bool { return l.assess(t, unlike, sc.fresh) == unlike.Size })
	if got := l.assess(t, target(t, "unlike-2.0", 1, small), small); got > 0 {
		t.Errorf("%d bytes are local of a small path that nobody wanted", got)
	}
}

// What is read in the background takes its time. How much longer it takes is the
// machine's affair.
func TestBackgroundIsSlow(t *testing.T) {
	sc := newScene(t, 2<<20)
	began := time.Now()
	l := newLab(t, sc.store, open(t), reuse.Config{Background: reuse.Background{
		Pause: time.Millisecond, Rate: 4 << 20, OnMains: func() bool { return true },
	}})
	unlike := target(t, "unlike-1.0", 1, sc.fresh)
	eventually(t, "the path is indexed", func() bool { return l.assess(t, unlike, sc.fresh) == unlike.Size })
	// A burst of 256 KiB is free.
	if took := time.Since(began); took < 400*time.Millisecond {
		t.Errorf("2 MiB at 4 MiB/s took %v", took)
	}
}

// Sessions that want the same relative have it indexed once, and an index that
// stops ends what is under way.
func TestManySessions(t *testing.T) {
	sc := newScene(t, 8<<20)
	l := newLab(t, sc.store, open(t), reuse.Config{})
	l.relate(t, sc.want)
	m := manifestOf(t, sc.fresh)
	var sessions sync.WaitGroup
	for range 20 {
		sessions.Go(func() {
			if a, err := l.Assess(t.Context(), sc.want, m); err != nil || a.BySum+a.ByMaskedSum != sc.want.Size {
				t.Errorf("Assess() = %+v, %v", a, err)
			}
		})
	}
	sessions.Wait()
	if sc.store.opens != 1 {
		t.Errorf("the relative was opened %d times", sc.store.opens)
	}
	ctx, cancel := context.WithCancel(t.Context())
	other := newScene(t, 16<<20)
	l = newLab(t, other.store, open(t), reuse.Config{})
	l.relate(t, other.want)
	s := l.Begin(ctx, other.want)
	cancel()
	l.stop()
	s.Close()
	if s := l.Begin(t.Context(), other.want); s != nil {
		s.Close()
	}
}

func TestExpect(t *testing.T) {
	sc := newScene(t, 1<<20)
	l := newLab(t, sc.store, open(t), reuse.Config{})
	l.relate(t, sc.want)
	first := l.Expect(sc.want.Path, sc.want.Hash, sc.want.Size)
	for range 10 {
		l.take(t, sc.want, sc.fresh)
	}
	learnt := l.Expect(sc.want.Path, sc.want.Hash, sc.want.Size)
	if first < 0.5 || learnt < 0.95 || learnt <= first {
		t.Errorf("of a rebuild %v is expected, and %v after ten that were local", first, learnt)
	}
	if other := l.Expect(pathOf(t, "hello-2.0", 1), nix.NARHash{}, sc.want.Size); other <= 0 || other >= first {
		t.Errorf("of another version %v is expected, of a rebuild %v", other, first)
	}
	if larger := l.Expect(sc.want.Path, nix.NARHash{}, 4*sc.want.Size); larger > 0.25 {
		t.Errorf("of a NAR four times as large %v is expected", larger)
	}
	if none := l.Expect(pathOf(t, "unlike-1.0", 1), nix.NARHash{}, 1<<20); none != 0 {
		t.Errorf("of a path without a relative %v is expected", none)
	}
	// What was found out counts more than what is usual.
	unlike := random(9, 1<<20)
	want := target(t, "hello-1.0", 5, unlike)
	l.assess(t, want, unlike)
	if known := l.Expect(want.Path, want.Hash, want.Size); known != 0 {
		t.Errorf("of a NAR that is known to be another %v is expected", known)
	}
}

func TestMains(t *testing.T) {
	type supply struct{ kind, online, scope string }
	for name, tt := range map[string]struct {
		supplies []supply
		want     bool
	}{
		"none":             {nil, true},
		"on mains":         {[]supply{{"Battery", "", "System"}, {"Mains", "1", ""}}, true},
		"on the battery":   {[]supply{{"Battery", "", ""}, {"Mains", "0", ""}}, false},
		"charged by USB":   {[]supply{{"Mains", "0", ""}, {"Battery", "", ""}, {"USB", "1", ""}}, true},
		"a mouse's":        {[]supply{{"Battery", "", "Device"}}, true},
		"of no known kind": {[]supply{{"", "", ""}}, true},
	} {
		dir := t.TempDir()
		for i, s := range tt.supplies {
			at := filepath.Join(dir, string(rune('a'+i)))
			if err := os.Mkdir(at, 0o755); err != nil {
				t.Fatal(err)
			}
			for file, text := range map[string]string{"type": s.kind, "online": s.online, "scope": s.scope} {
				if text != "" {
					if err := os.WriteFile(filepath.Join(at, file), []byte(text+"\n"), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		if got := reuse.OnMains(dir); got != tt.want {
			t.Errorf("%s: on mains = %t, want %t", name, got, tt.want)
		}
	}
	if !reuse.OnMains(filepath.Join(t.TempDir(), "absent")) {
		t.Error("where nothing is known of supplies the machine is on a battery")
	}
}

func TestFamilies(t *testing.T) {
	for name, want := range map[string][2]string{
		"hello-2.12.1":               {"hello", ""},
		"glibc-2.40-66-bin":          {"glibc", "bin"},
		"openssl-3.0.14-dev":         {"openssl", "dev"},
		"python3.12-requests-2.32.3": {"python3.12-requests", ""},
		"source":                     {"source", ""},
		"nixos-system-host-24.11":    {"nixos-system-host", ""},
		"unit-dbus.service":          {"unit-dbus.service", ""},
		"x-":                         {"x-", ""},
		"-1":                         {"-1", ""},
		"a--1":                       {"a", ""},
	} {
		family, output := reuse.FamilyOf(name)
		if family != want[0] || output != want[1] {
			t.Errorf("%s is of %q, output %q, want %q", name, family, output, want)
		}
	}
}
