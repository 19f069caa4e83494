package control_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// UpgradePlan tells of each path, and twice as much unless alone is set. It fails
// at a derivation.
func (n *node) UpgradePlan(_ context.Context, paths []nix.StorePath, alone bool) iter.Seq2[*control.UpgradePath, error] {
	return func(yield func(*control.UpgradePath, error) bool) {
		if !alone {
			paths = append(paths, paths...)
		}
		for i, path := range paths {
			if path.IsDerivation() {
				yield(nil, errors.New("no plan for a derivation"))
				return
			}
			if !yield(&control.UpgradePath{StorePath: path.String(), NARSize: 100, Transfer: int64(i)}, nil) {
				return
			}
		}
	}
}

func TestUpgradePlan(t *testing.T) {
	client := newClient(t, &node{})
	var paths []nix.StorePath
	for i := range 1500 {
		path, err := nix.NewStorePath(nix.HashPart{byte(i), byte(i >> 8)}, fmt.Sprint("x-", i))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	ask := func(alone bool, paths ...nix.StorePath) (told []*control.UpgradePath, err error) {
		err = client.UpgradePlan(t.Context(), paths, alone, func(p *control.UpgradePath) error {
			told = append(told, p)
			return nil
		})
		return told, err
	}
	told, err := ask(true, paths...)
	if err != nil || len(told) != len(paths) {
		t.Fatalf("UpgradePlan() = %d paths, %v", len(told), err)
	}
	if diff := cmp.Diff(&control.UpgradePath{StorePath: paths[7].String(), NARSize: 100, Transfer: 7}, told[7]); diff != "" {
		t.Errorf("UpgradePlan() (-want +got):\n%s", diff)
	}
	if told, err := ask(false, paths[0]); err != nil || len(told) != 2 {
		t.Errorf("UpgradePlan() of a closure = %d paths, %v", len(told), err)
	}
	drv, err := nix.NewStorePath(nix.HashPart{1}, "x.drv")
	if err != nil {
		t.Fatal(err)
	}
	if told, err := ask(true, paths[0], drv); len(told) != 1 || err == nil || err.Error() != "no plan for a derivation" {
		t.Errorf("UpgradePlan() that fails = %d paths, %v", len(told), err)
	}
	if _, err := ask(true, make([]nix.StorePath, 1)...); err == nil {
		t.Error("UpgradePlan() of no path is answered")
	}
}
