package substituter_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

// run starts the substituter anew and returns how many conflicts it counts, by
// what they are in.
func (b *builders) run() func() map[string]float64 {
	registry := prometheus.NewPedanticRegistry()
	b.deps.Metrics = registry
	b.start()
	return func() map[string]float64 {
		b.t.Helper()
		families, err := registry.Gather()
		if err != nil {
			b.t.Fatal(err)
		}
		counts := map[string]float64{}
		for _, f := range families {
			if f.GetName() != "nar_p2p_conflicts_total" {
				continue
			}
			for _, m := range f.GetMetric() {
				if v := m.GetCounter().GetValue(); v > 0 {
					counts[m.GetLabel()[0].GetValue()] = v
				}
			}
		}
		return counts
	}
}

// age has all records be revalidated when they are next asked for.
func (b *builders) age() {
	b.deps.Records.(*bucket).change(func(v []byte) []byte {
		var stored map[string]any
		if err := json.Unmarshal(v, &stored); err != nil {
			b.t.Fatal(err)
		}
		stored["fetched"] = time.Unix(1e9, 0)
		delete(stored, "checked")
		v, err := json.Marshal(stored)
		if err != nil {
			b.t.Fatal(err)
		}
		return v
	})
	b.start()
}

// renewed waits until all current records have been revalidated.
func (b *builders) renewed() {
	b.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for old := true; old; {
		if time.Now().After(deadline) {
			b.t.Fatal("records are not revalidated")
		}
		old = false
		_ = b.deps.Records.Each(b.t.Context(), func(key, value []byte) error {
			old = old || bytes.HasPrefix(key, []byte("current/")) && bytes.Contains(value, []byte(`"fetched":"2001-`)) &&
				!bytes.Contains(value, []byte(`"checked"`))
			return nil
		})
	}
}

// conflicting waits until a conflict is reported.
func (b *builders) conflicting() {
	b.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for b.warned.FilterMessageSnippet("contradict").Len() == 0 {
		if time.Now().After(deadline) {
			b.t.Fatal("no conflict is reported")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestContradictionIsReportedOnce(t *testing.T) {
	b := newBuilders(t, 2)
	p := b.built("p", "a", b.keys[0])
	b.cache.add(p)
	b.second.add(b.built("p", "b", b.keys[1]))
	counts := b.run()
	for range 3 {
		b.get(p.narinfoURL(), http.StatusNotFound)
	}
	if diff := cmp.Diff(map[string]float64{"narHash": 1}, counts()); diff != "" {
		t.Error(diff)
	}
	counts = b.run() // after a restart
	b.get(p.narinfoURL(), http.StatusNotFound)
	if n := b.warned.FilterMessageSnippet("contradict").Len(); n != 1 || len(counts()) != 0 {
		t.Errorf("reported %d times, counted again: %v", n, counts())
	}
}

// References are signed too.
func TestContradictionInReferences(t *testing.T) {
	b := newBuilders(t, 2)
	p := b.built("p", "a", b.keys[0])
	other := b.built("p", "a")
	other.info.References = []nix.StorePath{p.info.StorePath}
	other.info.Signatures = []narinfo.Signature{b.keys[1].Sign(other.info.Fingerprint())}
	b.cache.add(p)
	b.second.add(other)
	counts := b.run()
	b.get(p.narinfoURL(), http.StatusNotFound)
	if diff := cmp.Diff(map[string]float64{"references": 1}, counts()); diff != "" {
		t.Error(diff)
	}
}

// Anybody can make records that contradict others.
func TestWhatNoTrustedKeySignedIsNoEvidence(t *testing.T) {
	b := newBuilders(t, 2)
	stranger := newKey(t, b.keys[1].Name)
	p := b.built("p", "a", b.keys[0])
	b.cache.add(p)
	b.second.add(b.built("p", "b", stranger))
	b.peers.add(b.built("p", "c").info)
	counts := b.run()
	b.get(p.narinfoURL(), http.StatusNotFound)
	if got := counts(); len(got) != 0 || len(b.deps.Conflicts.(*bucket).values) != 0 {
		t.Errorf("counted %v, kept %q", got, b.deps.Conflicts.(*bucket).values)
	}
}

// What Nix has got first stays, though another key says otherwise.
func TestTheLoserIsNeverServed(t *testing.T) {
	b := newBuilders(t, 1)
	first, other := b.built("p", "a", b.keys[0]), b.built("p", "b", b.keys[1])
	b.cache.add(first)
	b.second.add(other)
	b.peers.hold(other.info.NARHash, holding{nar: other.nar, known: true})
	b.start()
	b.getNAR(first)
	b.age()
	b.cache.fail(http.NotFound)
	b.get(first.narinfoURL(), http.StatusOK) // and is revalidated behind this
	b.conflicting()
	_, body := b.get(first.narinfoURL(), http.StatusOK)
	if !bytes.Contains(body, []byte(first.info.NARHash.String())) {
		t.Errorf("the record is replaced by that of another cache:\n%s", body)
	}
	b.get(other.narURL(), http.StatusNotFound)
	b.cache.fail(nil)
	b.getNAR(first)
}

// A record gives way where the cache that it came from has none like it.
func TestWhatGivesWay(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*builders, *path)
	}{
		{"the cache replaces it", func(b *builders, p *path) { b.cache.add(p) }},
		{"the cache is no longer asked", func(b *builders, p *path) {
			b.second.add(p)
			b.cfg.Upstreams = b.cfg.Upstreams[1:]
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBuilders(t, 1)
			old, fresh := b.built("p", "a", b.keys[0]), b.built("p", "b", b.keys[1])
			b.cache.add(old)
			b.start()
			b.getNAR(old)
			tt.change(b, fresh)
			b.age()
			b.get(old.narinfoURL(), http.StatusOK)
			b.conflicting()
			for body := []byte(nil); !bytes.Contains(body, []byte(fresh.info.NARHash.String())); {
				_, body = b.get(old.narinfoURL(), http.StatusOK)
			}
			b.get(fresh.narURL(), http.StatusOK)
		})
	}
}

func TestStoreThatContradictsAnUpstream(t *testing.T) {
	b := newBuilders(t, 1)
	local, p := b.built("p", "a", b.keys[0]), b.built("p", "b", b.keys[1])
	b.cache.add(p)
	b.start()
	b.get(p.narinfoURL(), http.StatusOK)
	b.deps.Store = store{map[nix.HashPart]*path{local.part(): local}}
	b.start()
	b.getNAR(p)
	b.conflicting()
}

// What is signed wins over what is not, whoever came first.
func TestSignedWinsOverUnsigned(t *testing.T) {
	b := newBuilders(t, 1)
	unsigned := addressedPath(t, "text:sha256:", "text", bytes.Repeat([]byte("text"), 100))
	signed := unsigned.falsified()
	signed.info.URL = "nar/signed.nar"
	signed.info.Signatures = []narinfo.Signature{b.keys[0].Sign(signed.info.Fingerprint())}
	b.cache.add(unsigned)
	b.second.add(signed)
	b.start()
	b.getNAR(unsigned)
	b.cache.fail(http.NotFound)
	b.age()
	for body := []byte(nil); !bytes.Contains(body, []byte(signed.info.NARHash.String())); {
		_, body = b.get(signed.narinfoURL(), http.StatusOK)
	}
	b.cache.fail(nil)
	b.second.fail(http.NotFound)
	b.age()
	b.get(signed.narinfoURL(), http.StatusOK)
	b.renewed()
	b.second.fail(nil)
	b.getNAR(signed)
}

func TestEvidenceIsBounded(t *testing.T) {
	b := newBuilders(t, 2)
	b.start()
	for i := range 300 {
		p := b.built(fmt.Sprint("p", i), "a", b.keys[0])
		b.cache.add(p)
		b.second.add(b.built(fmt.Sprint("p", i), "b", b.keys[1]))
		b.get(p.narinfoURL(), http.StatusNotFound)
	}
	if n := len(b.deps.Conflicts.(*bucket).values); n != 256 {
		t.Errorf("evidence of %d paths is kept, want 256", n)
	}
	for i := range 20 {
		p := b.built("p0", fmt.Sprint(i), b.keys[1])
		b.second.add(p)
		b.get(p.narinfoURL(), http.StatusNotFound)
	}
	var found int
	for _, value := range b.deps.Conflicts.(*bucket).values {
		var evidence struct{ Statements []json.RawMessage }
		if err := json.Unmarshal(value, &evidence); err != nil {
			t.Fatal(err)
		}
		found = max(found, len(evidence.Statements))
	}
	if found != 8 {
		t.Errorf("%d statements about one path are kept, want 8", found)
	}
}
