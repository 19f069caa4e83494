package follow_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/internal/follow"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

func parse(t *testing.T, base string) nix.StorePath {
	t.Helper()
	path, err := nix.ParseBaseName(base)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestListings: listings in, changes out.
func TestListings(t *testing.T) {
	one := parse(t, "00000000000000000000000000000001-one")
	two := parse(t, "00000000000000000000000000000002-two")
	type state map[nix.StorePath]uint64
	var got []narstore.Update
	f := follow.New(func(u narstore.Update) error { got = append(got, u); return nil }, zap.NewNop())
	list := func(paths state) {
		t.Helper()
		f.Ledger.Begin()
		p := follow.Page{Complete: true, End: true}
		for _, path := range []nix.StorePath{one, two} {
			if sum, ok := paths[path]; ok && !f.Ledger.Seen(path.HashPart(), sum) {
				p.Records = append(p.Records, follow.Record{Info: &narstore.PathInfo{Path: path}, Sum: sum})
			}
		}
		if err := f.Tell(p); err != nil {
			t.Fatal(err)
		}
	}
	added := func(paths ...nix.StorePath) []*narstore.PathInfo {
		infos := []*narstore.PathInfo{}
		for _, p := range paths {
			infos = append(infos, &narstore.PathInfo{Path: p})
		}
		return infos
	}
	for _, step := range []struct {
		name  string
		paths state
		want  []narstore.Update
	}{
		{"nothing, which settles", nil, []narstore.Update{{Added: added(), Settled: true}}},
		{"nothing again", nil, nil},
		{"two paths", state{one: 1, two: 1}, []narstore.Update{{Added: added(one, two), Settled: true}}},
		{"no change", state{one: 1, two: 1}, nil},
		{"a change", state{one: 2, two: 1}, []narstore.Update{{Added: added(one), Settled: true}}},
		{"a removal", state{one: 2}, []narstore.Update{{Added: added(), Removed: []nix.HashPart{two.HashPart()}, Settled: true}}},
		{"both", state{two: 1}, []narstore.Update{{Added: added(two), Removed: []nix.HashPart{one.HashPart()}, Settled: true}}},
	} {
		got = nil
		list(step.paths)
		if diff := cmp.Diff(step.want, got, cmp.AllowUnexported(nix.StorePath{})); diff != "" {
			t.Errorf("%s: updates differ (-want +got):\n%s", step.name, diff)
		}
	}
}

func TestMalformedAreNamedOnce(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	f := follow.New(func(narstore.Update) error { return nil }, zap.New(core))
	page := follow.Page{End: true}
	for _, label := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		page.Records = append(page.Records, follow.Record{Label: label, Err: errors.New("bad")})
	}
	for range 2 {
		if err := f.Tell(page); err != nil {
			t.Fatal(err)
		}
	}
	entries := logs.All()
	if len(entries) != 1 {
		t.Fatalf("%d warnings, want 1", len(entries))
	}
	fields := entries[0].ContextMap()
	if diff := cmp.Diff([]any{"a", "b", "c", "d", "e"}, fields["records"]); diff != "" || fields["count"] != int64(7) {
		t.Errorf("the warning is %v", fields)
	}
}

// TestRun: errors make it rarer, success makes it regular, and a Stop ends it.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad, end := errors.New("bad"), errors.New("end")
		answers := []error{nil, bad, bad, bad, bad, bad, bad, bad, bad, nil, bad, follow.Stop{Err: end}}
		want := []int{0, 1, 1, 2, 4, 8, 16, 32, 60, 60, 1, 1}
		f := follow.New(func(narstore.Update) error { return nil }, zap.NewNop())
		last := time.Now()
		calls := 0
		err := f.Run(t.Context(), func() time.Duration { return time.Second }, func(context.Context) error {
			if got := time.Since(last); got != time.Duration(want[calls])*time.Second {
				t.Errorf("call %d comes after %v, want %d s", calls, got, want[calls])
			}
			last = time.Now()
			calls++
			return answers[calls-1]
		})
		if !errors.Is(err, end) || calls != len(answers) {
			t.Errorf("Run = %v after %d calls, want %v after %d", err, calls, end, len(answers))
		}
	})
}

// TestPaced: a listing rests for 20 times what it took, its receiver's time
// apart, and for a minute at most.
func TestPaced(t *testing.T) {
	for _, test := range []struct{ took, receiver, rest time.Duration }{
		{time.Second, 0, 20 * time.Second},
		{time.Second, time.Hour, 20 * time.Second},
		{time.Minute, 0, time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := follow.New(func(narstore.Update) error { time.Sleep(test.receiver); return nil }, zap.NewNop())
			if !f.Pace.Due() {
				t.Error("the first listing is not due")
			}
			if err := f.Paced(func() error { time.Sleep(test.took); return f.Tell(follow.Page{End: true}) }); err != nil {
				t.Fatal(err)
			}
			time.Sleep(test.rest - time.Nanosecond)
			if f.Pace.Due() {
				t.Errorf("after %v of work the next is due before %v", test.took, test.rest)
			}
			time.Sleep(time.Nanosecond)
			if !f.Pace.Due() {
				t.Errorf("after %v of work the next is not due after %v", test.took, test.rest)
			}
		})
	}
}
