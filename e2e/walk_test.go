package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

// BenchmarkWalk times real Nix as it walks through a closure of 200 paths on a
// cache that is 80 ms away: directly, and through a daemon that knows none of
// them yet, without and with looking ahead. The Nix is the one in $PATH.
func BenchmarkWalk(b *testing.B) {
	for _, protocol := range []string{"http1", "http2"} {
		b.Run(protocol, func(b *testing.B) { benchmarkWalks(b, protocol == "http2") })
	}
}

func benchmarkWalks(b *testing.B, secure bool) {
	b.Helper()
	key, err := narinfo.GenerateSecretKey("far-1")
	if err != nil {
		b.Fatal(err)
	}
	l := lab.New(b)
	dir := l.Dir("cache")
	made, err := closure.Generate(b.Context(), dir, closure.Config{Paths: 200, Depth: 12, Seed: 1, Key: key, MaxFileSize: 1 << 10})
	if err != nil {
		b.Fatal(err)
	}
	root := made.Root().StorePath.String()
	upstream := l.Far(dir, 80*time.Millisecond, secure)
	keys := []string{key.Public().String()}
	daemons := 0
	daemon := func(ahead bool) string {
		daemons++
		d := l.Daemon(fmt.Sprintf("daemon-%d", daemons), lab.DaemonConfig{
			Upstreams: []string{upstream}, Keys: keys, NoPrefetch: !ahead,
		})
		return d.URL()
	}
	clients := 0
	for _, walk := range []struct {
		// Nix walks in parallel; or one by one.
		name string
		args func(store string) []string
	}{
		{"dry-run", func(string) []string { return []string{"nix-store", "--realise", "--dry-run", root} }},
		{"path-info", func(store string) []string {
			return []string{"nix", "path-info", "--recursive", "--store", store, root}
		}},
	} {
		for _, through := range []struct {
			name  string
			store func() string
		}{
			{"direct", func() string { return upstream }},
			{"daemon", func() string { return daemon(false) }},
			{"ahead", func() string { return daemon(true) }},
		} {
			b.Run(walk.name+"/"+through.name, func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					clients++
					store := through.store()
					client := l.Nix(fmt.Sprintf("client-%d", clients), lab.NixConfig{Substituters: []string{store}, TrustedKeys: keys})
					client.Init()
					args := walk.args(store)
					b.StartTimer()
					if _, err := client.Run(b.Context(), args[0], args[1:]...); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
