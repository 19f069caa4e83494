package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/internal/control"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
)

// foresees reports whether upgrade-plan has a release cost next to nothing.
func foresees(t *testing.T, d *lab.Daemon, c *closure.Closure) bool {
	t.Helper()
	out, err := d.Ctl("upgrade-plan", "--json", c.Root().StorePath.String())
	var plan struct {
		Total struct{ Paths, NARSize, BySum, ByMaskedSum, Transfer int64 }
		Paths []control.UpgradePath
	}
	if err != nil || json.Unmarshal([]byte(out), &plan) != nil || plan.Total.Paths != int64(len(c.Records)) {
		t.Fatalf("upgrade-plan: %v\n%s", err, out)
	}
	return plan.Total.Transfer < plan.Total.NARSize/20 && plan.Total.ByMaskedSum > 0
}

// TestAnUpgradeTransfersOnlyWhatChanged substitutes a closure, and then the same
// with other hash parts, with real Nix from a peer. Of the second next to nothing
// but manifests is to be transferred.
func TestAnUpgradeTransfersOnlyWhatChanged(t *testing.T) {
	l := lab.New(t)
	key, err := narinfo.GenerateSecretKey("team-1")
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{key.Public().String()}
	dir := l.Dir("cache")
	var releases []*closure.Closure
	for rebuild := range uint64(2) {
		c, err := closure.Generate(t.Context(), dir, closure.Config{
			Paths: 20, Seed: 1, Rebuild: rebuild, Key: key, MaxFileSize: 1 << 20, LargeSize: 30 << 20,
		})
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, c)
	}
	bootstrap := l.Daemon("bootstrap", lab.DaemonConfig{})
	provider := l.Daemon("provider", lab.DaemonConfig{Bootstrap: bootstrap, Cache: dir, Keys: keys})
	provider.WaitAnnounced(2 * len(releases[0].Records))

	store := l.Nix("consumer", lab.NixConfig{TrustedKeys: keys})
	store.Init()
	consumer := l.Daemon("consumer", lab.DaemonConfig{Bootstrap: bootstrap, Peer: provider, StoreRoot: store.Root, Keys: keys})
	store.Use(consumer.URL())
	l.WaitFor("the consumer to know the provider", func() bool { return consumer.Speaks(provider) })

	var size, fetched, reused []uint64
	for i, c := range releases {
		if i == 1 {
			// The index hears of what Nix has registered within a second or so.
			l.WaitFor("upgrade-plan to foresee that little is transferred", func() bool { return foresees(t, consumer, c) })
		}
		before := consumer.Status().NARBytes
		if err := store.Realise(c.Root().StorePath); err != nil {
			t.Fatal(err)
		}
		store.Verify(c.Root().StorePath)
		after := consumer.Status().NARBytes
		bytes := uint64(0)
		for _, r := range c.Records {
			bytes += uint64(r.NARSize)
		}
		size = append(size, bytes)
		fetched = append(fetched, after["peer"]-before["peer"])
		reused = append(reused, after["reuse"]-before["reuse"])
	}
	t.Logf("NAR bytes %d, fetched %d, reused %d", size, fetched, reused)
	if fetched[0] < size[0]*9/10 {
		t.Errorf("the first release: %d of %d bytes were fetched", fetched[0], size[0])
	}
	if fetched[1] > size[1]/20 || fetched[1]+reused[1] < size[1] {
		t.Errorf("the second release: %d of %d bytes were fetched, %d reused", fetched[1], size[1], reused[1])
	}
	// Of what nobody has a record, nothing is foreseen.
	nowhere := "/nix/store/" + strings.Repeat("0", 32) + "-nowhere"
	for _, command := range []string{"upgrade-plan", "health"} {
		if out, err := consumer.Ctl(command, nowhere); err == nil || !strings.Contains(err.Error(), "exit status 4") || !strings.Contains(err.Error(), "explain "+nowhere) {
			t.Errorf("%s of a path that is nowhere: %v\n%s", command, err, out)
		}
	}
	told, err := consumer.Ctl("explain", releases[1].Records[0].StorePath.String())
	if err != nil || !strings.Contains(told, "from other paths of the store") {
		t.Errorf("explain does not tell of the saving: %v\n%s", err, told)
	}
}
