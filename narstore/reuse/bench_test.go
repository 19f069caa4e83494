package reuse_test

import (
	"crypto/sha256"
	"testing"

	"github.com/nar-p2p/nar-p2p/narstore/reuse"
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
