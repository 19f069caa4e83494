package banned_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	ds "github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/p2p/banned"
)

func decode(t *testing.T, text string) peer.ID {
	t.Helper()
	p, err := peer.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestBansEndAndOutliveARestart(t *testing.T) {
	for1, ever := decode(t, "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"), decode(t, "12D3KooWA4htBzrXcmca9U5cvLFy7vB4XbAN5Dqr3GKpKrJKsifj")
	synctest.Test(t, func(t *testing.T) {
		ctx, store := t.Context(), ds.NewMapDatastore()
		open := func() *banned.List {
			l, err := banned.Open(ctx, store)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		l := open()
		until := time.Now().Add(time.Hour)
		if err := errors.Join(l.Add(ctx, banned.Ban{Peer: for1, Until: until}), l.Add(ctx, banned.Ban{Peer: ever})); err != nil {
			t.Fatal(err)
		}
		for _, l := range []*banned.List{l, open()} {
			if !l.Banned(for1) || !l.Banned(ever) || l.Banned("x") {
				t.Error("others are banned than those that were")
			}
			want := []banned.Ban{{Peer: ever}, {Peer: for1, Until: until}}
			if diff := cmp.Diff(want, l.All()); diff != "" {
				t.Errorf("All() (-want +got):\n%s", diff)
			}
		}
		time.Sleep(time.Hour + time.Second)
		if l.Banned(for1) || !l.Banned(ever) || len(l.All()) != 1 {
			t.Error("a ban does not end when it should")
		}
		for _, tt := range []struct {
			p    peer.ID
			want bool
		}{{for1, false}, {ever, true}, {ever, false}} {
			if was, err := l.Remove(ctx, tt.p); was != tt.want || err != nil {
				t.Errorf("Remove(%s) = %v, %v, want %v", tt.p, was, err, tt.want)
			}
		}
		if all := open().All(); len(all) != 0 {
			t.Errorf("after all were removed there are %v", all)
		}
	})
}

func TestDamageAndBounds(t *testing.T) {
	store := ds.NewMapDatastore()
	l, err := banned.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Put(t.Context(), ds.NewKey("banned"), []byte("[{]")); err != nil {
		t.Fatal(err)
	}
	if _, err := banned.Open(t.Context(), store); err == nil {
		t.Error("a damaged list was opened")
	}
	if err := l.Add(t.Context(), banned.Ban{Peer: decode(t, "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")}); err != nil {
		t.Fatal(err)
	}
	if _, err := banned.Open(t.Context(), store); err != nil {
		t.Errorf("a damaged list was not overwritten: %v", err)
	}
}
