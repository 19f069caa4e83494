package main

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/nar-p2p/nar-p2p/internal/config"
	"github.com/nar-p2p/nar-p2p/p2p"
)

// What the documentation calls live is what the daemon can change.
func TestLiveSettingsAreDocumented(t *testing.T) {
	d := &daemon{settings: newReloader(&config.Config{}, nil, zap.NewNop()), node: new(p2p.Node)}
	d.addReloadable()
	got := []string{"log.level"} // by main
	for _, part := range d.settings.parts {
		got = append(got, part.keys...)
	}
	want := config.Live()
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("live (-documented +real):\n%s", diff)
	}
}
