package swarm_test

import (
	"crypto/sha256"
	"io"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/narstore/reuse"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
)

// timed fetches a NAR and returns how long that took, and what came from peers.
func timed(b *testing.B, s *swarm.Swarm, want swarm.Want) (time.Duration, swarm.Progress) {
	b.Helper()
	begun := time.Now()
	tr, err := s.Open(b.Context(), want)
	if err != nil {
		b.Fatal(err)
	}
	defer tr.Close()
	if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, tr, make([]byte, 128<<10)); err != nil || n != want.Size {
		b.Fatalf("read %d bytes, %v", n, err)
	}
	return time.Since(begun), tr.Progress()
}

// cpu is what f takes of both cores, which others that use them change less than
// the time.
func cpu(b *testing.B, f func()) float64 {
	b.Helper()
	used := func() float64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return float64(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	f()
	return used() - before
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// BenchmarkAllLocal takes a NAR of which all is in the store but for hash parts.
// The share is that of what one core hashes with sha-256 in the same time.
func BenchmarkAllLocal(b *testing.B) {
	const size = 128 << 20
	content := exchangetest.Bytes(1, size)
	old, fresh := rebuild(content, 20_000, 1), rebuild(content, 20_000, 2)
	x := index(b, reuse.Config{}, localOf(b, 1, old))
	s, hash := reuser(b, x, fresh)
	want := swarm.Want{Hash: hash, Path: hello(b, 2), Size: size}
	indexRelatives(b, x, want)
	b.SetBytes(size)
	var shares []float64
	for b.Loop() {
		took, p := timed(b, s, want)
		if p.Verified > 0 {
			b.Fatalf("%d bytes were fetched", p.Verified)
		}
		begun := time.Now()
		_ = sha256.Sum256(fresh)
		shares = append(shares, time.Since(begun).Seconds()/took.Seconds())
	}
	b.ReportMetric(median(shares), "share")
}

// BenchmarkNothingLocal fetches a NAR of which nothing is in the store, with and
// without an index of what is, in turns. The overhead is what the index costs, of
// the time and of the bytes.
func BenchmarkNothingLocal(b *testing.B) {
	const size = 128 << 20
	fresh := rebuild(exchangetest.Bytes(1, size), 20_000, 2)
	var others []*localPath
	for i := range byte(4) {
		others = append(others, localOf(b, i, rebuild(exchangetest.Bytes(2+i, 32<<20), 20_000, 1)))
	}
	x := index(b, reuse.Config{}, others...)
	indexRelatives(b, x, swarm.Want{Path: hello(b, 99), Size: size})
	path, err := nix.NewStorePath(nix.HashPart{1}, "no-relative-1.0")
	if err != nil {
		b.Fatal(err)
	}
	with, hash := reuser(b, x, fresh)
	without, _ := reuser(b, nil, fresh)
	want := swarm.Want{Hash: hash, Path: path, Size: size}
	timed(b, with, want)
	timed(b, without, want)
	var times, cpus, bytes []float64
	for b.Loop() {
		var w, wo time.Duration
		var p, q swarm.Progress
		var c, co float64
		turns := []func(){
			func() { c = cpu(b, func() { w, p = timed(b, with, want) }) },
			func() { co = cpu(b, func() { wo, q = timed(b, without, want) }) },
		}
		turns[len(times)%2]() // who comes second finds the machine otherwise
		turns[1-len(times)%2]()
		times = append(times, float64(w)/float64(wo)-1)
		cpus = append(cpus, c/co-1)
		bytes = append(bytes, float64(p.Verified+p.Wasted)/float64(q.Verified+q.Wasted)-1)
	}
	b.ReportMetric(100*median(times), "overhead-%")
	b.ReportMetric(100*median(cpus), "cpu-%")
	b.ReportMetric(100*median(bytes), "bytes-%")
}
