package routing_test

import (
	"context"
	"iter"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/routing"
)

// paced is a router that finds one provider after each pause, and notes whether
// it was stopped.
type paced struct {
	pause   time.Duration
	infos   []peer.AddrInfo
	stopped bool
}

func (p *paced) Size() int { return len(p.infos) }

func (p *paced) FindProviders(ctx context.Context, _ cid.Cid) iter.Seq[peer.AddrInfo] {
	return func(yield func(peer.AddrInfo) bool) {
		for _, info := range p.infos {
			select {
			case <-time.After(p.pause):
			case <-ctx.Done():
				p.stopped = true
				return
			}
			if !yield(info) {
				return
			}
		}
	}
}

func at(p peer.ID, addrs ...string) peer.AddrInfo {
	info := peer.AddrInfo{ID: p}
	for _, a := range addrs {
		info.Addrs = append(info.Addrs, ma.StringCast(a))
	}
	return info
}

func TestMerge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const addr = "/ip4/11.0.0.1/tcp/1"
		fast := &paced{pause: time.Second, infos: []peer.AddrInfo{at("a", addr), at("bare"), at("known elsewhere"), at("a", addr)}}
		slow := &paced{pause: time.Minute, infos: []peer.AddrInfo{at("known elsewhere", addr), at("a", addr), at("b", addr)}}
		both := routing.Merge(fast, slow)
		if both.Size() != 7 {
			t.Errorf("Size() = %d, want 7", both.Size())
		}
		got := slices.Collect(both.FindProviders(t.Context(), routing.ContentKey(nix.NARHash{1})))
		want := []peer.AddrInfo{at("a", addr), at("known elsewhere", addr), at("b", addr), at("bare")}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("providers (-want +got)\n%s", diff)
		}

		// Who has enough does not wait for the slow one.
		start := time.Now()
		for range both.FindProviders(t.Context(), routing.ContentKey(nix.NARHash{1})) {
			break
		}
		if took := time.Since(start); took != time.Second || !slow.stopped {
			t.Errorf("the first took %v, and the slow one was stopped: %v", took, slow.stopped)
		}
		if one := routing.Merge(slow); one != routing.Router(slow) {
			t.Error("one router alone is not left as it is")
		}
	})
}

func TestDigest(t *testing.T) {
	h := nix.NARHash{1, 2, 3}
	if got, ok := routing.Digest(routing.ContentKey(h)); !ok || got != h {
		t.Errorf("Digest(ContentKey(h)) = %x, %v", got, ok)
	}
	sum := routing.ContentKey(h).Hash()
	for name, key := range map[string]cid.Cid{
		"nothing":      {},
		"version 0":    cid.NewCidV0(sum),
		"a directory":  cid.NewCidV1(cid.DagProtobuf, sum),
		"another hash": cid.NewCidV1(cid.Raw, []byte("\x00\x03abc")),
	} {
		if _, ok := routing.Digest(key); ok {
			t.Errorf("%s has a digest", name)
		}
	}
}
