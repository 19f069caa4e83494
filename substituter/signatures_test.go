package substituter_test

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

// builders is a lab with a second upstream and two trusted keys, each of which
// is one builder's.
type builders struct {
	*lab
	second *cache
	keys   [2]narinfo.SecretKey
	warned *observer.ObservedLogs
}

func newBuilders(t *testing.T, threshold int) *builders {
	t.Helper()
	l := newLab(t)
	b := &builders{lab: l, second: newCache(t)}
	l.cfg.Upstreams = append(l.cfg.Upstreams, upstream.Config{URL: b.second.url})
	b.keys = [2]narinfo.SecretKey{l.key, newKey(t, "test-2")}
	l.cfg.Trust.Trusted = []narinfo.PublicKey{b.keys[0].Public(), b.keys[1].Public()}
	l.cfg.Trust.Threshold = threshold
	l.deps.Conflicts = newBucket()
	core, warned := observer.New(zap.WarnLevel)
	l.deps.Log, b.warned = zap.New(core), warned
	return b
}

func newKey(t *testing.T, name string) narinfo.SecretKey {
	t.Helper()
	key, err := narinfo.GenerateSecretKey(name)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// built is the path as one builder made it, and signed it with these keys.
func (b *builders) built(name, contents string, keys ...narinfo.SecretKey) *path {
	p := b.sign(name, []byte(contents))
	p.info.URL = "nar/" + name + contents + ".nar"
	p.info.Signatures = nil
	for _, key := range keys {
		p.info.Signatures = append(p.info.Signatures, key.Sign(p.info.Fingerprint()))
	}
	return p
}

func TestIndependentBuilders(t *testing.T) {
	for _, tt := range []struct {
		name string
		// sources gives the records of the upstreams, and of a peer if there is
		// a third.
		sources func(*builders) []*path
		want    int
	}{
		{"each upstream has one signature", func(b *builders) []*path {
			return []*path{b.built("p", "a", b.keys[0]), b.built("p", "a", b.keys[1])}
		}, http.StatusOK},
		{"one upstream has both", func(b *builders) []*path {
			return []*path{b.built("p", "a", b.keys[0], b.keys[1]), nil}
		}, http.StatusOK},
		{"upstream and peer", func(b *builders) []*path {
			return []*path{b.built("p", "a", b.keys[0]), nil, b.built("p", "a", b.keys[1])}
		}, http.StatusOK},
		{"one signature twice", func(b *builders) []*path {
			return []*path{b.built("p", "a", b.keys[0]), b.built("p", "a", b.keys[0]), b.built("p", "a", b.keys[0])}
		}, http.StatusNotFound},
		{"different NARs", func(b *builders) []*path {
			return []*path{b.built("p", "a", b.keys[0]), b.built("p", "b", b.keys[1])}
		}, http.StatusNotFound},
		{"different NARs, and a peer that has both signatures", func(b *builders) []*path {
			return []*path{b.built("p", "a", b.keys[0]), b.built("p", "b", b.keys[1]), b.built("p", "b", b.keys[0], b.keys[1])}
		}, http.StatusOK},
		{"a signature of something else", func(b *builders) []*path {
			p := b.built("p", "a", b.keys[0])
			p.info.Signatures = append(p.info.Signatures, b.built("p", "b", b.keys[1]).info.Signatures...)
			return []*path{p, nil}
		}, http.StatusNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBuilders(t, 2)
			sources := tt.sources(b)
			for i, c := range []*cache{b.cache, b.second} {
				if sources[i] != nil {
					c.add(sources[i])
				}
			}
			if len(sources) > 2 {
				b.peers.add(sources[2].info)
				b.peers.hold(sources[2].info.NARHash, holding{nar: sources[2].nar})
			}
			b.start()
			_, body := b.get(sources[0].narinfoURL(), tt.want)
			if tt.want == http.StatusNotFound {
				for _, p := range sources {
					if p != nil {
						b.get(p.narURL(), http.StatusNotFound)
					}
				}
				return
			}
			served, err := narinfo.Parse(body)
			if err != nil || len(served.SignedBy(b.cfg.Trust.Trusted)) != 2 {
				t.Fatalf("%v:\n%s", err, body)
			}
			b.get("/"+served.URL, http.StatusOK)
		})
	}
}

// The same key under two names is one builder.
func TestOneKeyUnderTwoNames(t *testing.T) {
	b := newBuilders(t, 2)
	_, data, _ := strings.Cut(b.keys[0].Text(), ":")
	alias, err := narinfo.ParseSecretKey("alias:" + data)
	if err != nil {
		t.Fatal(err)
	}
	// Whether it is named by the node or by an upstream.
	b.cfg.Trust.Trusted = append(b.cfg.Trust.Trusted, alias.Public())
	b.cfg.Upstreams[1].Keys = []narinfo.PublicKey{alias.Public()}
	b.cache.add(b.built("p", "a", b.keys[0]))
	b.second.add(b.built("p", "a", alias))
	b.start()
	b.get(b.built("p", "a").narinfoURL(), http.StatusNotFound)
}

// An upstream's own key counts as any other.
func TestKeyOfAnUpstream(t *testing.T) {
	b := newBuilders(t, 2)
	b.cfg.Trust.Trusted = b.cfg.Trust.Trusted[:1]
	b.cfg.Upstreams[1].Keys = []narinfo.PublicKey{b.keys[1].Public()}
	p := b.built("p", "a", b.keys[1])
	b.cache.add(b.built("p", "a", b.keys[0]))
	b.second.add(p)
	b.start()
	b.getNAR(p)
}

// Nix 2.34 fails on a malformed signature, and every Nix on one that is too
// short. Those of keys that this node does not know may be known to Nix.
func TestSignaturesThatNixGets(t *testing.T) {
	b := newBuilders(t, 1)
	p := b.built("p", "a", b.keys[0])
	other := b.built("p", "b", b.keys[0], b.keys[1])
	good := p.info.Signatures[0].String()
	foreign := newKey(t, "foreign").Sign(p.info.Fingerprint()).String()
	record := string(p.info.Bytes())
	lines := []string{
		"test-1", "test-1:", ":" + strings.TrimPrefix(good, "test-1:"), "test-1:AAAA", "te st:" + strings.TrimPrefix(good, "test-1:"), good + "=",
		other.info.Signatures[0].String(), good, foreign, good, other.info.Signatures[1].String(), foreign,
	}
	record = strings.Replace(record, "Sig: "+good+"\n", "Sig: "+strings.Join(lines, "\nSig: ")+"\n", 1)
	b.cache.fail(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(record)) })
	b.start()
	_, body := b.get(p.narinfoURL(), http.StatusOK)
	var got []string
	for line := range bytes.Lines(body) {
		if signature, ok := bytes.CutPrefix(line, []byte("Sig: ")); ok {
			got = append(got, strings.TrimSpace(string(signature)))
		}
	}
	slices.Sort(got)
	want := []string{foreign, good}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("signatures (-want +got):\n%s", diff)
	}
}
