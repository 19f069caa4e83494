package substituter

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/substituter/plan"
	"github.com/nar-p2p/nar-p2p/substituter/verify"
)

// paced is a source that delivers so many bytes each second.
type paced struct {
	of   kind
	nar  []byte
	rate int
}

func (p paced) kind() kind { return p.of }

func (p paced) open(_ context.Context, digest *verify.Digest) (*stream, error) {
	return &stream{body: &pacedBody{paced: p, offset: int(digest.Offset())}}, nil
}

type pacedBody struct {
	paced
	offset int
}

func (b *pacedBody) Read(p []byte) (int, error) {
	if b.offset == len(b.nar) {
		return 0, io.EOF
	}
	n := copy(p, b.nar[b.offset:])
	time.Sleep(time.Duration(n) * time.Second / time.Duration(b.rate))
	b.offset += n
	return n, nil
}

func (*pacedBody) Close() error { return nil }

// Peers that are slow must not keep the NAR from a source that may be faster;
// where there is none, slow is better than nothing.
func TestSlowPeersGiveWay(t *testing.T) {
	nar := make([]byte, 4<<20)
	const slow, fast = 20 << 10, 1 << 20
	for _, tt := range []struct {
		name    string
		sources []paced
		atMost  time.Duration
	}{
		{"to a fast upstream", []paced{{fromPeers, nar, slow}, {fromUpstream, nar, fast}}, 20 * time.Second},
		{"to nobody", []paced{{fromPeers, nar, slow}}, 4 * time.Minute},
		{"to an upstream that is no faster", []paced{{fromPeers, nar, slow}, {fromUpstream, nar, slow}}, 4 * time.Minute},
		{"not where they are fast", []paced{{fromPeers, nar, fast}, {fromUpstream, nar, slow}}, 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				target := verify.Target{Hash: sha256.Sum256(nar), Size: int64(len(nar))}
				p := &fetchPlan{Decision: plan.Decision{Reason: plan.HolderKnown, PeersFirst: true}}
				for _, src := range tt.sources {
					p.entries = append(p.entries, &entry{source: src, after: 500 * time.Millisecond})
				}
				s := &Server{log: zap.NewNop(), tasks: newTasks(), counters: newCounters(), plans: newPlanMetrics()}
				gate := verify.NewGate(&out, verify.NewDigest(target), verify.Range{From: 0, To: target.Size}, holdBack)
				f := s.newFetch(p, gate, &report{begun: time.Now()})
				begin := time.Now()
				if err := f.fetch(t.Context()); err != nil || !bytes.Equal(out.Bytes(), nar) {
					t.Errorf("%d bytes, %v", out.Len(), err)
				}
				if took := time.Since(begin); took > tt.atMost {
					t.Errorf("took %v, want at most %v", took, tt.atMost)
				}
				_ = s.tasks.wait(t.Context()) // these sources do not end with their context
			})
		})
	}
}
