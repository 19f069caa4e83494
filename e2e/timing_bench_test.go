package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

const (
	// privatePaths are held and may not be shared: so many that no single one decides.
	privatePaths = 32
	// timingPairs is how often each question is asked about both.
	timingPairs = 4000
)

// subject is what is asked about: a path that is there, or one that is not.
type subject struct {
	part nix.HashPart
	hash nix.NARHash
}

// BenchmarkPrivateAgainstAbsent measures whether the time that an answer takes tells a
// path that a node holds and may not share from one that nobody has. Questions about
// the one and the other come by turns; what is reported is the median of each, and
// between what the median of their difference lies, with a probability of 95 %.
func BenchmarkPrivateAgainstAbsent(b *testing.B) {
	l := lab.New(b)
	key, err := narinfo.GenerateSecretKey("share-1")
	if err != nil {
		b.Fatal(err)
	}
	store, private := privateStore(b, l)
	shared := newPath(b, l, store, store.MustRun("nix-store", "--add", l.File("shared", "content of shared")), key)
	keys := []string{key.Public().String()}
	d := l.Daemon("holder", lab.DaemonConfig{StoreRoot: store.Root, ShareKeys: keys, TrustKeys: keys})
	d.WaitShared(1)
	p := newProber(b, d)
	protocols := exchange.Protocols(routing.Prefix("lab"))
	if answer, _ := p.ask(protocols[1], narinfoOf(shared.path.HashPart())...); !bytes.Contains(answer, []byte("StorePath")) {
		b.Fatalf("what is shared is answered by %q", answer)
	}
	peer := func(protocol int, messages func(s subject) []proto.Message) func(s subject) []byte {
		return func(s subject) []byte {
			answer, _ := p.ask(protocols[protocol], messages(s)...)
			return answer
		}
	}
	get := func(url func(s subject) string) func(s subject) []byte {
		return func(s subject) []byte {
			resp, err := http.Get(d.URL() + "/" + url(s))
			if err != nil {
				b.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				b.Fatal(err)
			}
			return fmt.Append(body, resp.StatusCode)
		}
	}
	for _, question := range []struct {
		name string
		ask  func(s subject) []byte
	}{
		{"have", peer(0, func(s subject) []proto.Message { return haveOf(s.hash) })},
		{"narinfo", peer(1, func(s subject) []proto.Message { return narinfoOf(s.part) })},
		{"nar", peer(2, func(s subject) []proto.Message { return sessionOf(s.hash) })},
		{"http-narinfo", get(func(s subject) string { return s.part.String() + ".narinfo" })},
		{"http-nar", get(func(s subject) string { return narinfo.NARURL(s.part, s.hash) })},
	} {
		b.Run(question.name, func(b *testing.B) {
			for b.Loop() {
				compare(b, private, question.ask)
			}
		})
	}
}

// privateStore returns a store with paths that a key has signed which the node knows
// nothing of.
func privateStore(b *testing.B, l *lab.Lab) (*lab.Nix, []*narinfo.Info) {
	b.Helper()
	key, err := narinfo.GenerateSecretKey("private-1")
	if err != nil {
		b.Fatal(err)
	}
	cache := l.Dir("cache")
	c, err := closure.Generate(b.Context(), cache, closure.Config{Paths: privatePaths, Key: key})
	if err != nil {
		b.Fatal(err)
	}
	store := l.Nix("holder", lab.NixConfig{TrustedKeys: []string{key.Public().String()}})
	store.Init()
	store.Use(l.Upstream(cache).URL)
	if err := store.Realise(c.Root().StorePath); err != nil {
		b.Fatal(err)
	}
	return store, c.Records
}

// compare asks about private paths and absent ones by turns, which of them first by
// chance, and reports how long the answers took.
func compare(b *testing.B, private []*narinfo.Info, ask func(s subject) []byte) {
	b.Helper()
	took := [2][]float64{make([]float64, timingPairs), make([]float64, timingPairs)}
	differences := make([]float64, timingPairs)
	var want []byte
	for i := range timingPairs {
		held := private[i%len(private)]
		nobody := sha256.Sum256(fmt.Append(nil, "a path that nobody has", i%len(private)))
		pair := [2]subject{{held.StorePath.HashPart(), held.NARHash}, {nix.HashPart(nobody[:len(nix.HashPart{})]), nobody}}
		first := rand.IntN(2)
		for _, which := range []int{first, 1 - first} {
			begin := time.Now()
			answer := ask(pair[which])
			took[which][i] = float64(time.Since(begin).Nanoseconds()) / 1e3
			if want == nil {
				want = answer
			}
			if !bytes.Equal(answer, want) {
				b.Fatalf("the answer is %x, to others it was %x", answer, want)
			}
		}
		differences[i] = took[0][i] - took[1][i]
	}
	for _, x := range append(took[:], differences) {
		slices.Sort(x)
	}
	// How many of the differences lie below their median follows the binomial
	// distribution.
	margin := int(0.98 * math.Sqrt(timingPairs))
	b.ReportMetric(took[0][timingPairs/2], "µs-private")
	b.ReportMetric(took[1][timingPairs/2], "µs-absent")
	b.ReportMetric(took[1][timingPairs*3/4]-took[1][timingPairs/4], "µs-spread")
	b.ReportMetric(differences[timingPairs/2-margin], "µs-more-from")
	b.ReportMetric(differences[timingPairs/2+margin], "µs-more-to")
}
