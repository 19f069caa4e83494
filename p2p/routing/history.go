package routing

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	mh "github.com/multiformats/go-multihash"
)

// historyPrefix is where the provider notes which regions it has announced, and
// when: as "/history/<seconds since 1970, hexadecimal>/<bits of the region>".
const historyPrefix = "/history"

// widenHistory makes the provider find, in what it remembers, all of the keys that
// an earlier run has announced.
//
// After a restart the provider announces the regions of which it does not remember
// all. But its regions are others then: the size of the network is measured anew,
// and a key that was alone in its region is remembered with as small a one as the
// servers allowed. The rest, where there was no key, counts as not announced, and
// so the key would be announced again. widenHistory adds the largest regions in
// which all keys have been announced, as of the time of the oldest.
//
// It drops what was noted while the clock was ahead: for the provider, which compares no
// time that it finds there, those regions would have been announced until then.
func (s *sweeper) widenHistory(ctx context.Context, keys []mh.Multihash) error {
	h := history{places: make([]place, len(keys)), at: make([]int64, len(keys)), latest: time.Now().Add(cycle).Unix()}
	for i, key := range keys {
		h.places[i] = placeOf(string(key))
	}
	slices.SortFunc(h.places, func(a, b place) int { return slices.Compare(a[:], b[:]) })
	for entry, err := range ds.QueryIter(ctx, s.store, query.Query{Prefix: historyPrefix, KeysOnly: true}) {
		if err != nil {
			return fmt.Errorf("routing: %w", err)
		}
		h.note(entry.Key)
	}
	h.widen(0, len(keys), "")
	batch, err := s.store.Batch(ctx)
	for _, entry := range h.ahead {
		if err == nil {
			err = batch.Delete(ctx, ds.RawKey(entry))
		}
	}
	for _, entry := range h.wide {
		if err == nil {
			err = batch.Put(ctx, ds.NewKey(entry), nil)
		}
	}
	if err == nil {
		err = batch.Commit(ctx)
	}
	if err != nil {
		return fmt.Errorf("routing: %w", err)
	}
	return nil
}

// history is when keys were announced.
type history struct {
	// places are those of the keys, in order, and at is when each was announced,
	// in seconds since 1970; 0 if it is not known to have been.
	places []place
	at     []int64
	// latest is the last time that can be right, and ahead holds the entries of later
	// ones.
	latest int64
	ahead  []string
	// wide holds the entries for the largest regions.
	wide []string
}

// note takes over an entry of the provider's. It leaves out what it does not
// understand: that costs an announcement.
func (h *history) note(entry string) {
	when, region, _ := strings.Cut(strings.TrimPrefix(entry, historyPrefix+"/"), "/")
	at, err := strconv.ParseInt(when, 16, 64)
	if err != nil || len(region) > len(place{})*8 || strings.Trim(region, "01") != "" {
		return
	}
	if at > h.latest {
		h.ahead = append(h.ahead, entry)
		return
	}
	lo, hi := h.find(region)
	for i := lo; i < hi; i++ {
		h.at[i] = max(h.at[i], at)
	}
}

// find returns where the places of a region begin and end.
func (h *history) find(region string) (lo, hi int) {
	compare := func(p place) int {
		for i := range len(region) {
			bit := byte('0')
			if p.bit(i) {
				bit = '1'
			}
			if c := cmp.Compare(bit, region[i]); c != 0 {
				return c
			}
		}
		return 0
	}
	lo = sort.Search(len(h.places), func(i int) bool { return compare(h.places[i]) >= 0 })
	hi = sort.Search(len(h.places), func(i int) bool { return compare(h.places[i]) > 0 })
	return lo, hi
}

// widen notes the largest regions in one whose places begin at lo and end at hi.
func (h *history) widen(lo, hi int, region string) {
	if lo == hi {
		return
	}
	if oldest := slices.Min(h.at[lo:hi]); oldest > 0 {
		h.wide = append(h.wide, fmt.Sprintf("%s/%08x/%s", historyPrefix, oldest, region))
		return
	}
	if hi-lo == 1 {
		return
	}
	middle := lo + sort.Search(hi-lo, func(i int) bool { return h.places[lo+i].bit(len(region)) })
	h.widen(lo, middle, region+"0")
	h.widen(middle, hi, region+"1")
}
