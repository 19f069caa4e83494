package swarm_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/internal/budget"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p/exchange"
	"github.com/nar-p2p/nar-p2p/p2p/exchange/exchangetest"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
)

// far is a lab whose providers are beyond the local network, each at the end of
// a line.
type far struct {
	*swarm.Swarm
	memory    *budget.Budget
	providers []host.Host
}

func newFar(t *testing.T, shelf exchange.Shelf, window int64, lines ...*link) *far {
	t.Helper()
	f := &far{memory: budget.New(0)}
	found := &finder{}
	for _, line := range lines {
		h := provide(t, shelf, exchange.ServerConfig{})
		f.providers = append(f.providers, h)
		found.providers = append(found.providers, line.to(t, h))
	}
	log := zaptest.NewLogger(t)
	// Nobody counts as dead before the test has failed.
	client := exchange.NewClient(exchangetest.NewHost(t), exchange.ClientConfig{StallTimeout: 2 * patience}, log)
	f.Swarm = swarm.New(client, found, swarm.NewStanding(), swarm.Config{
		LAN: func(ma.Multiaddr) bool { return false }, Memory: f.memory, Window: window,
		Trusted: func(peer.ID, ma.Multiaddr) bool { return true },
	}, log)
	return f
}

// patience only decides how long a broken test takes to fail.
const patience = time.Minute

// fetch reads all of a NAR, and returns the transfer closed.
func (f *far) fetch(t *testing.T, hash nix.NARHash, nar []byte) *swarm.Transfer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tr, err := f.Open(ctx, swarm.Want{Hash: hash, Size: int64(len(nar))})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if got, err := io.ReadAll(tr); err != nil || !bytes.Equal(got, nar) {
		t.Fatalf("read %d bytes of %d, %v", len(got), len(nar), err)
	}
	return tr
}

// gave returns what each provider gave, in the order of the lines.
func (f *far) gave(tr *swarm.Transfer) []int64 {
	gave := make([]int64, len(f.providers))
	for _, s := range tr.Sources() {
		for i, h := range f.providers {
			if h.ID().String() == s.Peer {
				gave[i] = s.Bytes
			}
		}
	}
	return gave
}

// TestSeveralProviders has four providers of the same rate: each gives its part,
// and next to nothing comes twice.
func TestSeveralProviders(t *testing.T) {
	nar := exchangetest.Bytes(1, 12<<20)
	shelf, hash := shelve(nar)
	settle(t, shelf, hash)
	line := func() *link { return &link{rate: 4e6, rtt: 10 * time.Millisecond} }
	f := newFar(t, shelf, 0, line(), line(), line(), line())
	tr := f.fetch(t, hash, nar)
	for i, n := range f.gave(tr) {
		if n < int64(len(nar))/8 {
			t.Errorf("provider %d gave %d bytes of %d", i, n, len(nar))
		}
	}
	if p := tr.Progress(); p.Verified != int64(len(nar)) || p.Wasted > int64(len(nar))/20 {
		t.Errorf("Progress() = %+v of %d bytes", p, len(nar))
	}
	for _, use := range []budget.Use{budget.Least, budget.Window} {
		if n := f.memory.Used(use); n != 0 {
			t.Errorf("%d bytes of memory for %s are still taken", n, use)
		}
	}
}

// TestMemory has several transfers that nobody reads: all of them together take
// what is allowed, each no more than its window, and all get to their end.
func TestMemory(t *testing.T) {
	const size, window, total = 6 << 20, 4 << 20, 16 << 20
	shelf := &exchangetest.Shelf{}
	h := provide(t, shelf, exchange.ServerConfig{Sessions: 100, SessionsPerPeer: 100})
	memory := budget.New(total)
	client := exchange.NewClient(exchangetest.NewHost(t), exchange.ClientConfig{}, zaptest.NewLogger(t))
	s := swarm.New(client, &finder{providers: []peer.AddrInfo{exchangetest.Info(h)}}, swarm.NewStanding(),
		swarm.Config{Memory: memory, Window: window}, zaptest.NewLogger(t))
	type fetched struct {
		*swarm.Transfer
		nar []byte
	}
	var transfers []fetched
	for i := range byte(8) {
		nar := exchangetest.Bytes(i, size)
		hash := shelf.Add(nar)
		settle(t, shelf, hash)
		tr, err := s.Open(t.Context(), swarm.Want{Hash: hash, Size: size})
		if err != nil {
			t.Fatal(err)
		}
		defer tr.Close()
		transfers = append(transfers, fetched{tr, nar})
	}
	for memory.Used(budget.Window) < total/4 { // what windows can get beside the others' least
		time.Sleep(time.Millisecond)
	}
	if p := transfers[0].Progress(); p.Verified > window {
		t.Errorf("%d bytes came for a reader that has read none, with a window of %d", p.Verified, window)
	}
	if used := memory.Used(budget.Window) + memory.Used(budget.Least); used > total {
		t.Errorf("%d bytes of memory are used, %d allowed", used, total)
	}
	for _, tr := range transfers {
		if got, err := io.ReadAll(tr); err != nil || !bytes.Equal(got, tr.nar) {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
		tr.Close()
	}
	if used := memory.Used(budget.Window) + memory.Used(budget.Least); used != 0 {
		t.Errorf("%d bytes of memory are still taken", used)
	}
}

// TestSlowProvider has one provider that is a thousand times slower than the
// other, and first: what it is slow with comes from the other one, although the
// window is small. If each gave in turn, it would have to give two MiB, for which
// nobody has the patience.
func TestSlowProvider(t *testing.T) {
	nar := exchangetest.Bytes(1, 24<<20)
	shelf, hash := shelve(nar)
	settle(t, shelf, hash)
	slow, quick := &link{rate: 20e3, rtt: 10 * time.Millisecond}, &link{rate: 20e6, rtt: 20 * time.Millisecond}
	f := newFar(t, shelf, 4<<20, slow, quick)
	tr := f.fetch(t, hash, nar)
	if gave := f.gave(tr); gave[1] < int64(len(nar))/2 {
		t.Errorf("the quick provider gave %d bytes of %d", gave[1], len(nar))
	}
}

// TestStalledProvider has one of two providers fall silent in the middle. The
// other one sends what it owes, although the session does not count as dead.
func TestStalledProvider(t *testing.T) {
	nar := exchangetest.Bytes(1, 24<<20)
	shelf, hash := shelve(nar)
	settle(t, shelf, hash)
	dying, living := &link{rate: 8e6, rtt: 10 * time.Millisecond}, &link{rate: 8e6, rtt: 10 * time.Millisecond}
	f := newFar(t, shelf, 0, dying, living)
	go func() {
		for dying.carried.Load() < 4<<20 && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		dying.cut.Store(true)
	}()
	t.Cleanup(func() { dying.cut.Store(false) })
	tr := f.fetch(t, hash, nar)
	if gave := f.gave(tr); gave[0] == 0 || gave[1] < int64(len(nar))/2 {
		t.Errorf("the providers gave %v bytes", gave)
	}
}
