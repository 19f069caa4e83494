package p2p_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/internal/throttle"
	"github.com/nar-p2p/nar-p2p/p2p"
)

func TestBench(t *testing.T) {
	held := newShelf(t, 10<<10, 1<<20, 6<<20)
	provider := start(t, p2p.Config{Profile: p2p.Private, Network: "team"}, held)
	other := start(t, p2p.Config{Profile: p2p.Private, Network: "team"}, newShelf(t))
	node := start(t, p2p.Config{Profile: p2p.Private, Network: "team", Peers: infos(provider, other)}, newShelf(t))
	await(t, "connections", func() bool { return node.connected(provider) && node.connected(other) })
	var nars []p2p.MeasuredNAR
	for hash, nar := range held.nars {
		nars = append(nars, p2p.MeasuredNAR{Hash: hash, Size: int64(len(nar))})
	}
	for _, tt := range []struct {
		name       string
		want, size int64
		nar        int64 // which it is
	}{
		{"less than a small one", 500 << 10, 500 << 10, 1 << 20},
		{"more than a small one", 2 << 20, 2 << 20, 6 << 20},
		{"more than there is", 100 << 20, 6 << 20, 6 << 20},
	} {
		got, err := node.Bench(t.Context(), provider.id, p2p.Measurement{NARs: nars, Bytes: tt.want, Time: time.Minute})
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		// Requests are of whole chunks, up to a mebibyte of them.
		if got.NAR.Size != tt.nar || got.Bytes < tt.size || got.Bytes > tt.size+1<<20+256<<10 {
			t.Errorf("%s: %d bytes of a NAR of %d", tt.name, got.Bytes, got.NAR.Size)
		}
		if got.RTT <= 0 || got.FirstByte <= 0 || got.Took < got.FirstByte || got.Path != "direct" || !got.LAN {
			t.Errorf("%s: %+v", tt.name, got)
		}
	}
	if got, err := node.Bench(t.Context(), other.id, p2p.Measurement{NARs: nars, Bytes: 1, Time: time.Minute}); !errors.Is(err, p2p.ErrNothingInCommon) {
		t.Errorf("of one that holds nothing: %+v, %v", got, err)
	}
	if got, err := node.Bench(t.Context(), provider.id, p2p.Measurement{NARs: nars, Bytes: 1 << 30, Time: 0}); err != nil || got.Bytes != 0 {
		t.Errorf("in no time: %+v, %v", got, err)
	}
	line := throttle.New(2 << 20).Line()
	if got, err := node.Bench(t.Context(), provider.id, p2p.Measurement{NARs: nars, Bytes: 2 << 20, Time: time.Minute, Line: line}); err != nil || got.Took < 500*time.Millisecond {
		t.Errorf("under a limit: %+v, %v", got, err)
	}
	if err := node.Ban(t.Context(), provider.id, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := node.Bench(t.Context(), provider.id, p2p.Measurement{NARs: nars, Bytes: 1, Time: time.Minute}); !errors.Is(err, p2p.ErrBanned) {
		t.Errorf("of one that is banned: %v", err)
	}
}
