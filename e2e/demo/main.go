// Command demo shows the main job on one machine: a bootstrap node, a provider
// with genuine NARs of cache.nixos.org, and a consumer whose upstream has lost
// its NARs. With Nix installed, Nix substitutes the paths itself.
//
// It ends by itself: with exit code 0, or 1 and a reason.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/cachetest"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// patience bounds the whole demo.
const patience = 3 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, patience)
	err := lab.Play(ctx, demo)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

func demo(l *lab.Lab) error {
	cache := l.Dir("cache")
	records := l.GenuineCache(cache)
	upstreamDir := l.Dir("upstream")
	l.GenuineCache(upstreamDir)
	upstream := l.Upstream(upstreamDir)
	upstream.RemoveNARs()
	fmt.Printf("upstream:  %s has %d genuine narinfos of cache.nixos.org, and no NARs\n", upstream.URL, len(records))

	bootstrap := l.Daemon("bootstrap", lab.DaemonConfig{})
	fmt.Printf("bootstrap: %s\n", bootstrap.PeerID())
	provider := l.Daemon("provider", lab.DaemonConfig{Bootstrap: bootstrap, Cache: cache})
	provider.WaitAnnounced(len(records))
	fmt.Printf("provider:  %s announces %d store paths\n", provider.PeerID(), len(records))
	consumer := l.Daemon("consumer", lab.DaemonConfig{Bootstrap: bootstrap, Upstreams: []string{upstream.URL}})
	fmt.Printf("consumer:  %s is a substituter at %s\n\n", consumer.PeerID(), consumer.URL())

	largest := records[0]
	for _, r := range records {
		if r.NARSize > largest.NARSize {
			largest = r
		}
	}
	if err := fetch(l.Context(), consumer.URL(), largest.StorePath); err != nil {
		return err
	}
	if _, err := exec.LookPath("nix-store"); err == nil {
		return substitute(l, consumer.URL(), records)
	}
	fmt.Println("\nNix is not installed here, so it does not substitute.")
	return nil
}

// fetch gets one path's narinfo and NAR as Nix would, and checks both.
func fetch(ctx context.Context, url string, path nix.StorePath) error {
	text, err := get(ctx, url+"/"+path.HashPart().String()+".narinfo")
	if err != nil {
		return err
	}
	info, err := narinfo.Parse(text)
	if err != nil {
		return err
	}
	key, err := narinfo.ParsePublicKey(cachetest.Key)
	if err != nil {
		return err
	}
	if len(info.SignedBy([]narinfo.PublicKey{key})) == 0 {
		return fmt.Errorf("narinfo of %s: %s has not signed it", path, key.Name)
	}
	nar, err := get(ctx, url+"/"+info.URL)
	if err != nil {
		return err
	}
	got := nix.NARHash(sha256.Sum256(nar))
	fmt.Printf("path:      %s\nsigned by: %s\nsigned:    %s, %d bytes\nreceived:  %s, %d bytes\n",
		path, key.Name, info.NARHash, info.NARSize, got, len(nar))
	if got != info.NARHash {
		return errors.New("the NAR is not the one that was signed")
	}
	return nil
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", url, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// substitute lets real Nix substitute every path without references, into a
// store of its own and with its built-in key.
func substitute(l *lab.Lab, url string, records []*narinfo.Info) error {
	store := l.Nix("nix", lab.NixConfig{Substituters: []string{url}})
	paths := 0
	for _, r := range records {
		if len(r.References) > 0 {
			continue
		}
		if err := store.Realise(r.StorePath); err != nil {
			return err
		}
		store.Verify(r.StorePath)
		paths++
	}
	fmt.Printf("\nNix has substituted %d paths through the consumer, and agrees with every signature.\n", paths)
	return nil
}
