package state_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/narstore/state"
)

func TestManyKeys(t *testing.T) {
	db, err := state.Open(t.TempDir()+"/db", zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	b, other := db.Bucket("a"), db.Bucket("b")
	put := func(from, to int, value string) {
		t.Helper()
		err := b.Change(func(yield func(key, value []byte) bool) {
			for i := from; i < to; i++ {
				var v []byte
				if value != "" {
					v = fmt.Append(nil, value, i)
				}
				if !yield(fmt.Append(nil, "key", i), v) {
					return
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	get := func(b *state.Bucket, keys ...int) map[int]string {
		t.Helper()
		var all [][]byte
		for _, k := range keys {
			all = append(all, fmt.Append(nil, "key", k))
		}
		got := make(map[int]string)
		if err := b.GetAll(all, func(i int, value []byte) { got[i] = string(value) }); err != nil {
			t.Fatal(err)
		}
		return got
	}
	const many = 20_000 // more than fit into one transaction
	put(0, many, "first")
	put(5, 10, "second")
	put(8, 9, "")
	want := map[int]string{0: "first0", 1: "second7", 3: fmt.Sprint("first", many-1)}
	if diff := cmp.Diff(want, get(b, 0, 7, 8, many-1, many)); diff != "" {
		t.Errorf("GetAll (-want +got):\n%s", diff)
	}
	if got := get(other, 0, 7); len(got) > 0 {
		t.Errorf("another bucket has %v", got)
	}
	put(0, 0, "none")
	for name, key := range map[string][]byte{"empty": nil, "too long": make([]byte, state.MaxKey+1)} {
		err := b.Change(func(yield func(key, value []byte) bool) { yield(key, []byte("value")) })
		if err == nil {
			t.Errorf("a key that is %s is accepted", name)
		}
	}
}
