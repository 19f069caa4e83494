package substituter_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"go.uber.org/zap"
)

// BenchmarkNAR fetches NARs of each size over a real socket.
func BenchmarkNAR(b *testing.B) {
	for _, size := range []int{small, 10 << 20, 256 << 20} {
		for _, from := range []string{"peers", "upstream"} {
			b.Run(fmt.Sprintf("%s/%d", from, size), func(b *testing.B) {
				l := newLab(b)
				p := l.path("p", size)
				l.cache.add(p)
				if from == "peers" {
					l.peers.hold(p.info.NARHash, holding{nar: p.nar, known: true, earned: true})
				}
				benchmarkNAR(b, l, p)
			})
		}
	}
	for _, method := range compressions[1:] {
		b.Run("upstream/"+method, func(b *testing.B) {
			l := newLab(b)
			p := l.repetitive()
			l.compressed(p, method)
			benchmarkNAR(b, l, p)
		})
	}
}

func benchmarkNAR(b *testing.B, l *lab, p *path) {
	b.Helper()
	l.deps.Log = zap.NewNop()
	size := len(p.nar)
	l.start()
	l.get(p.narinfoURL(), http.StatusOK)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		resp, err := l.client.Get(l.url + p.narURL())
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(size) {
			b.Fatal(n, err)
		}
		resp.Body.Close()
	}
}

// BenchmarkNarinfo asks over 25 connections per processor for a record that was
// asked for before.
func BenchmarkNarinfo(b *testing.B) {
	l := newLab(b)
	l.deps.Log = zap.NewNop()
	p := l.path("p", small)
	l.cache.add(p)
	l.client.Transport = &http.Transport{MaxIdleConnsPerHost: 1000}
	l.start()
	l.get(p.narinfoURL(), http.StatusOK)
	b.SetParallelism(25)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			resp, err := l.client.Get(l.url + p.narinfoURL())
			if err != nil {
				b.Error(err)
				return
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
				b.Error(resp.Status, err)
			}
			resp.Body.Close()
		}
	})
}
