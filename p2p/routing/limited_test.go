package routing

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	dssync "github.com/ipfs/go-datastore/sync"
)

// Whoever announces without end fills a bounded part of the disk. What was there
// before can be announced again, and room that comes free is used.
func TestRecordsForOthersAreBounded(t *testing.T) {
	const limit = 10
	store := dssync.MutexWrap(ds.NewMapDatastore())
	now := time.Unix(1e9, 0)
	open := func() *limited {
		l := newLimited(store, limit)
		l.now = func() time.Time { return now }
		return l
	}
	l := open()
	key := func(n int) ds.Key { return ds.NewKey(fmt.Sprintf("/providers/key/peer-%d", n)) }
	put := func(from, to int) {
		t.Helper()
		for n := from; n < to; n++ {
			if err := l.Put(t.Context(), key(n), []byte{byte(n)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	kept := func(want int) {
		t.Helper()
		if got, err := countKeys(t.Context(), store); err != nil || got != want {
			t.Errorf("%d records are kept, %v, want %d", got, err, want)
		}
	}
	put(0, 30)
	kept(limit)
	if err := l.Put(t.Context(), key(3), []byte("anew")); err != nil {
		t.Fatal(err)
	}
	if got, err := store.Get(t.Context(), key(3)); err != nil || string(got) != "anew" {
		t.Errorf("a record that was announced again is %q, %v", got, err)
	}

	for n := range 4 {
		if err := l.Delete(t.Context(), key(n)); err != nil {
			t.Fatal(err)
		}
	}
	kept(limit - 4)
	put(100, 110)
	kept(limit)

	l = open() // after a restart
	batch, err := l.Batch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for n := 200; n < 220; n++ {
		if err := batch.Put(t.Context(), key(n), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	kept(limit)

	// What was announced again was counted again: after a while it is found out how
	// many there are.
	for n := range 5 {
		if err := store.Delete(t.Context(), key(100+n)); err != nil { // behind its back
			t.Fatal(err)
		}
	}
	before, err := countKeys(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	put(300, 301)
	kept(before)
	now = now.Add(recountAfter)
	put(301, 330)
	kept(limit)
}

// Records that were put in while the clock was years ahead do not stay for so many
// years; a clock that has not been set since the start says nothing of them.
func TestRecordsOfATimeToComeAreOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		at := func(d time.Duration) []byte { return binary.AppendVarint(nil, now.Add(d).UnixNano()) }
		l := newLimited(dssync.MutexWrap(ds.NewMapDatastore()), 10)
		for name, value := range map[string][]byte{"old": at(-time.Hour), "soon": at(80 * time.Minute), "years": at(10 * 365 * 24 * time.Hour)} {
			if err := l.Put(t.Context(), ds.NewKey("/providers/key/"+name), value); err != nil {
				t.Fatal(err)
			}
		}
		over := func() (names []string) {
			for e, err := range ds.QueryIter(t.Context(), l, query.Query{Prefix: "/providers/key"}) {
				if err != nil {
					t.Fatal(err)
				}
				if at, _ := binary.Varint(e.Value); at == 0 {
					names = append(names, e.Key)
				}
			}
			return names
		}
		if got := over(); got != nil {
			t.Errorf("just after the start %v are over", got)
		}
		time.Sleep(clockSettled)
		if got := over(); !slices.Equal(got, []string{"/providers/key/years"}) {
			t.Errorf("an hour later %v are over", got)
		}
	})
}

// Every table of a node has such a limit.
func TestTablesAreLimited(t *testing.T) {
	for network, want := range map[string]int{PublicNetwork: maxPublicRecords, "team": maxRecords} {
		d := &DHT{network: network}
		cfg := &Config{Datastore: func(string) ds.Batching { return dssync.MutexWrap(ds.NewMapDatastore()) }}
		if l, ok := d.datastore(cfg, "").(*limited); !ok || l.limit != want {
			t.Errorf("the datastore of network %s is %+v, want one of at most %d", network, l, want)
		}
	}
}
