package known_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	ds "github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/test"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/nar-p2p/nar-p2p/p2p/known"
)

// peers makes up n peers with one address each.
func peers(t *testing.T, n int) []peer.AddrInfo {
	t.Helper()
	infos := make([]peer.AddrInfo, n)
	for i := range infos {
		id, err := test.RandPeerID()
		if err != nil {
			t.Fatal(err)
		}
		infos[i] = peer.AddrInfo{ID: id, Addrs: []ma.Multiaddr{ma.StringCast(fmt.Sprintf("/ip4/11.0.0.1/tcp/%d", i+1))}}
	}
	return infos
}

// want wants these peers and no others of the book in a store.
func want(t *testing.T, store ds.Datastore, want []peer.AddrInfo) {
	t.Helper()
	got, err := known.New(store).Peers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ids(want), ids(got)); diff != "" {
		t.Errorf("Peers() (-want +got)\n%s", diff)
	}
}

func ids(infos []peer.AddrInfo) []peer.ID {
	ids := []peer.ID{}
	for _, info := range infos {
		ids = append(ids, info.ID)
	}
	return ids
}

func met(t *testing.T, store ds.Datastore, infos []peer.AddrInfo) {
	t.Helper()
	if err := known.New(store).Met(t.Context(), infos); err != nil {
		t.Fatal(err)
	}
}

func TestLatestPeersComeFirstAndAreForgottenLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := ds.NewMapDatastore()
		want(t, store, nil)
		a := peers(t, 60)
		met(t, store, a)
		want(t, store, a)

		time.Sleep(20 * 24 * time.Hour)
		b := append(peers(t, 9), a[50])
		met(t, store, b)
		want(t, store, slices.Concat(b, a[:50], a[51:55]))
		met(t, store, nil)

		time.Sleep(20 * 24 * time.Hour)
		want(t, store, b)
		met(t, store, peers(t, 100)[:70])
		if got, err := known.New(store).Peers(t.Context()); err != nil || len(got) != 64 {
			t.Errorf("%d peers remembered (%v), want 64", len(got), err)
		}
	})
}

// A peer says itself what its addresses are.
func TestAddressesAreBounded(t *testing.T) {
	store := ds.NewMapDatastore()
	infos := peers(t, 3)
	for i := range 1000 {
		infos[0].Addrs = append(infos[0].Addrs, ma.StringCast(fmt.Sprintf("/ip4/11.0.0.1/tcp/%d", i+1)))
	}
	infos[1].Addrs = nil
	long := ma.StringCast("/ip4/11.0.0.1/tcp/1")
	for range 100 {
		long = long.Encapsulate(ma.StringCast("/ip4/11.0.0.1/tcp/1"))
	}
	infos[2].Addrs = append([]ma.Multiaddr{long}, infos[2].Addrs...)
	met(t, store, infos)
	got, err := known.New(store).Peers(t.Context())
	if err != nil || len(got) != 2 || len(got[0].Addrs) != 8 || len(got[1].Addrs) != 1 {
		t.Errorf("Peers() = %v, %v; want 8 addresses of the first and 1 of the last", got, err)
	}
}

func TestDamageIsReportedAndOverwritten(t *testing.T) {
	store := ds.NewMapDatastore()
	if err := store.Put(context.Background(), ds.NewKey("peers"), []byte(`[{"peer":{"ID":"x"}}]`)); err != nil {
		t.Fatal(err)
	}
	if got, err := known.New(store).Peers(t.Context()); err == nil {
		t.Errorf("Peers() of a damaged book = %v", got)
	}
	a := peers(t, 2)
	met(t, store, a)
	want(t, store, a)
}
