package swarm

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	ds "github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/test"
)

// recalled returns a standing that begins with what is in the store.
func recalled(t *testing.T, store ds.Batching) *Standing {
	t.Helper()
	s := NewStanding()
	if err := s.Recall(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRecords has a standing go through a restart, and then a month.
func TestRecords(t *testing.T) {
	good, bad := test.RandPeerIDFatal(t), test.RandPeerIDFatal(t)
	synctest.Test(t, func(t *testing.T) {
		store := dssync.MutexWrap(ds.NewMapDatastore())
		s := recalled(t, store)
		s.proved(good)
		s.delivered(good, pace{rate: 1e6, rtt: 20 * time.Millisecond, firstByte: time.Second, lan: true})
		s.delivered(good, pace{rate: 2e6})
		time.Sleep(time.Minute)
		s.lied(bad)
		if err := s.keep(t.Context()); err != nil {
			t.Fatal(err)
		}
		again := recalled(t, store)
		if diff := cmp.Diff(s.Peers(), again.Peers()); diff != "" {
			t.Errorf("after a restart (-want +got)\n%s", diff)
		}
		if got := again.Peers(); len(got) != 2 || got[0].Peer != bad || got[1].Rate != 1.25e6 {
			t.Errorf("Peers() = %+v", got)
		}
		if again.Usable(bad) || !again.Honest(good) {
			t.Error("a restart changed a standing")
		}
		time.Sleep(2 * time.Hour)
		if !again.Usable(bad) {
			t.Error("a ban does not expire")
		}
		time.Sleep(keepTime)
		if got := recalled(t, store).Peers(); len(got) != 0 {
			t.Errorf("after a month %+v", got)
		}
	})
}

// A clock that is set back after a restart makes a penalty neither infinite nor
// everlasting: what was read back goes by the clock that nobody sets.
func TestRecordsGoByTheOtherClock(t *testing.T) {
	store := dssync.MutexWrap(ds.NewMapDatastore())
	s := recalled(t, store)
	id := test.RandPeerIDFatal(t)
	s.failed(id)
	s.delivered(id, pace{rate: 1})
	if err := s.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := recalled(t, store).Peers()[0]
	for name, at := range map[string]time.Time{"at": r.At, "success": r.Success, "failure": r.Failure} {
		if !strings.Contains(at.String(), " m=") {
			t.Errorf("%s: %s goes by the clock on the wall", name, at)
		}
	}
}

// TestRecordsAreBounded has more peers than are remembered, and what nobody has
// written.
func TestRecordsAreBounded(t *testing.T) {
	store := dssync.MutexWrap(ds.NewMapDatastore())
	s := recalled(t, store)
	id := func(i int) peer.ID { return peer.ID([]byte{0, 2, byte(i >> 8), byte(i)}) }
	for i := range maxStandings + 10 {
		s.lied(id(i))
	}
	if err := s.keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{
		"nobody":       `{}`,
		id(0).String(): `{"rate":1`,
		id(1).String(): `{"rate":-1}`,
		id(2).String(): `{"penalty":1,"at":"2999-01-01T00:00:00Z"}`,
	} {
		if err := store.Put(t.Context(), ds.NewKey(key), []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(recalled(t, store).Peers()); got != maxStandings {
		t.Errorf("%d peers are remembered, want %d", got, maxStandings)
	}
}
