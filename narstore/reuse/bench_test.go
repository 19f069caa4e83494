package reuse_test

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/reuse"
	"github.com/nar-p2p/nar-p2p/narstore/state"
)

// BenchmarkIndex indexes a relative of 64 MiB on demand.
func BenchmarkIndex(b *testing.B) {
	const size = 64 << 20
	old := built(random(1, size), 20_000, 1)
	b.SetBytes(size)
	for b.Loop() {
		b.StopTimer()
		store := newStore()
		store.add(b, "hello-1.0", 1, old)
		l := newLab(b, store, open(b), reuse.Config{})
		want := reuse.Want{Path: pathOf(b, "hello-1.0", 2), Size: size}
		l.relate(b, want)
		b.StartTimer()
		s := l.Begin(b.Context(), want)
		for {
			settled, later := s.Settled(size)
			if settled {
				break
			}
			<-later
		}
		s.Close()
		b.StopTimer()
		l.stop()
		b.StartTimer()
	}
}

// BenchmarkTake takes a NAR of 64 MiB from a relative that is indexed. What
// sha-256 makes of the same bytes is beside it.
func BenchmarkTake(b *testing.B) {
	const size = 64 << 20
	content := random(1, size)
	old, fresh := built(content, 20_000, 1), built(content, 20_000, 2)
	store := newStore()
	store.add(b, "hello-1.0", 1, old)
	l := newLab(b, store, open(b), reuse.Config{})
	want := reuse.Want{Path: pathOf(b, "hello-1.0", 2), Hash: sha256.Sum256(fresh), Size: size}
	l.relate(b, want)
	l.take(b, want, fresh)
	m := manifestOf(b, fresh)
	b.Run("sha256", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			_ = sha256.Sum256(fresh)
		}
	})
	b.Run("masked", func(b *testing.B) {
		b.SetBytes(size)
		places, buf := make([]reuse.Place, len(m.Chunks)), make([]byte, 1<<20)
		for b.Loop() {
			s := l.Begin(b.Context(), want)
			s.Find(m.Chunks, places)
			for i := range m.Chunks {
				c := &m.Chunks[i]
				if _, err := s.Take(b.Context(), places[i], c, m.HashParts, buf[:c.Length]); err != nil {
					b.Fatal(err)
				}
			}
			s.Close()
		}
	})
}

// drawn is a NAR that is made while it is read: noise that depends on its seed,
// and in every 64 KiB but each fourth a store path.
type drawn struct {
	seed uint64
	size int64
}

func (d drawn) Size() int64  { return d.size }
func (d drawn) Close() error { return nil }

func (d drawn) ReadAt(b []byte, off int64) (int, error) {
	n := int(min(int64(len(b)), d.size-off))
	for i := 0; i < n; {
		at := off + int64(i)
		// splitmix64 of the place, eight bytes at a time.
		z := d.seed + uint64(at/8)*0x9e3779b97f4a7c15
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
		for skip := at % 8; skip < 8 && i < n; skip++ {
			b[i] = byte(z >> (8 * skip))
			i++
		}
	}
	run := "/" + partOf(1, int(d.seed%100)).String() + "-"
	for block := off &^ (64<<10 - 1); block < off+int64(n); block += 64 << 10 {
		if at := block + 1000 - off; block>>16%4 != 0 && at >= 0 && at+int64(len(run)) <= int64(n) {
			copy(b[at:], run)
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// drawnStore is a store of drawn NARs.
type drawnStore struct{ infos []*narstore.PathInfo }

func (s *drawnStore) at(part nix.HashPart) int {
	return int(binary.BigEndian.Uint64(part[:]))
}

func (s *drawnStore) Info(_ context.Context, part nix.HashPart) (*narstore.PathInfo, error) {
	return s.infos[s.at(part)], nil
}

func (s *drawnStore) Open(_ context.Context, info *narstore.PathInfo) (narstore.NAR, error) {
	return drawn{uint64(s.at(info.Path.HashPart())) + 1, info.NARSize}, nil
}

func (s *drawnStore) Follow(ctx context.Context, f func(narstore.Update) error) error {
	for infos := range slices.Chunk(s.infos, 1000) {
		if err := f(narstore.Update{Added: infos}); err != nil {
			return err
		}
	}
	if err := f(narstore.Update{Settled: true}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// BenchmarkStore indexes all of a store, of STORE_GIB GiB (1 where it is not
// set): half of it in NARs of 100 MiB, the other in NARs of 90 KiB. It says what
// that costs of time, disk and memory.
func BenchmarkStore(b *testing.B) {
	gib, err := strconv.Atoi(cmp.Or(os.Getenv("STORE_GIB"), "1"))
	if err != nil {
		b.Fatal(err)
	}
	store := &drawnStore{}
	var total int64
	for size := int64(gib) << 30; total < size; {
		nar := int64(90 << 10)
		if total < size/2 {
			nar = 100 << 20
		}
		var part nix.HashPart
		binary.BigEndian.PutUint64(part[:], uint64(len(store.infos)))
		path, err := nix.NewStorePath(part, fmt.Sprintf("package-%d-1.0", len(store.infos)))
		if err != nil {
			b.Fatal(err)
		}
		store.infos = append(store.infos, &narstore.PathInfo{Path: path, NARHash: nix.NARHash{1}, NARSize: nar})
		total += nar
	}
	for b.Loop() {
		dir := b.TempDir() + "/state"
		db, err := state.Open(dir, zap.NewNop())
		if err != nil {
			b.Fatal(err)
		}
		registry := prometheus.NewRegistry()
		var before, during runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		x := reuse.New(store, reuse.Buckets{Chunks: db.Bucket("reuse"), Paths: db.Bucket("reuse-paths")}, reuse.Config{
			Registerer: registry,
			Background: reuse.Background{MinSize: 1, Rate: 1 << 40, Pause: time.Millisecond, OnMains: func() bool { return true }},
		}, zap.NewNop())
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		begun := time.Now()
		go func() { done <- x.Run(ctx) }()
		peak := uint64(0)
		for counter(b, registry, "nar_p2p_reuse_indexed_bytes_total") < float64(total) {
			runtime.ReadMemStats(&during)
			peak = max(peak, during.HeapInuse)
			time.Sleep(50 * time.Millisecond)
		}
		took := time.Since(begun)
		runtime.GC()
		runtime.ReadMemStats(&during)
		b.ReportMetric(float64(during.HeapAlloc-min(during.HeapAlloc, before.HeapAlloc))/1e6, "MB-live")
		cancel()
		<-done
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(took.Seconds()*float64(1<<30)/float64(total), "s/GiB")
		b.ReportMetric(float64(sizeOf(b, dir))/1e6*float64(1<<30)/float64(total), "MB/GiB")
		b.ReportMetric(float64(peak-min(peak, before.HeapInuse))/1e6, "MB-heap")
		b.ReportMetric(0, "ns/op")
	}
}

func counter(tb testing.TB, registry *prometheus.Registry, name string) (sum float64) {
	tb.Helper()
	families, err := registry.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func sizeOf(tb testing.TB, dir string) (bytes int64) {
	tb.Helper()
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return bytes
}
