package substituter_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/internal/cachetest"
	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

func TestCacheInfo(t *testing.T) {
	l := newLab(t)
	l.cache.fail(hang)
	l.start()
	_, body := l.get("/nix-cache-info", http.StatusOK)
	if want := "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n"; string(body) != want {
		t.Errorf("nix-cache-info = %q, want %q", body, want)
	}
}

// Every genuine record survives the rewriting with its signature.
func TestGenuineNarinfos(t *testing.T) {
	l := newLab(t)
	key, err := narinfo.ParsePublicKey(cachetest.Key)
	if err != nil {
		t.Fatal(err)
	}
	l.cfg.Trust.Trusted = []narinfo.PublicKey{key}
	l.start()
	files, err := fs.Glob(cachetest.FS, "narinfo/*.narinfo")
	if err != nil || len(files) != 200 {
		t.Fatalf("%d records, %v", len(files), err)
	}
	for _, file := range files {
		text, err := cachetest.FS.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(file, "narinfo/")
		l.cache.mu.Lock()
		l.cache.files[name] = text
		l.cache.mu.Unlock()
		header, body := l.get("/"+name, http.StatusOK)
		got, err := narinfo.Parse(body)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want, err := narinfo.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got.Fingerprint() != want.Fingerprint() || len(got.SignedBy(l.cfg.Trust.Trusted)) != 1 {
			t.Errorf("%s: signed part changed", name)
		}
		if got.URL != narinfo.NARURL(got.StorePath.HashPart(), got.NARHash) || got.Compression != "none" ||
			got.FileHash != got.NARHash.String() || got.FileSize != got.NARSize {
			t.Errorf("%s: not rewritten:\n%s", name, body)
		}
		resp, none, err := l.do(http.MethodHead, "/"+name)
		if err != nil || resp.StatusCode != http.StatusOK || len(none) != 0 ||
			resp.Header.Get("Content-Length") != header.Get("Content-Length") {
			t.Errorf("HEAD %s: %v, %v, want the length %s", name, resp, err, header.Get("Content-Length"))
		}
	}
}

func TestOnly200And404(t *testing.T) {
	l := newLab(t)
	l.deps.Peers = nil
	l.cfg.Deadline = 200 * time.Millisecond
	p := l.path("p", 1000)
	other := l.path("other", 1000)
	unsigned := *p.info
	unsigned.Signatures = nil
	forged := *p.info
	forged.NARSize++
	body := func(b []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) }
	}
	for _, tt := range []struct {
		name  string
		fault http.HandlerFunc
	}{
		{"hangs", hang},
		{"hangs in the body", func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(p.info.Bytes()[:10])
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}},
		{"resets", reset},
		{"404", http.NotFound},
		{"500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }},
		{"429", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }},
		{"garbage", body([]byte("\x00\xff<html>\n"))},
		{"bad final newline", body(bytes.TrimSuffix(p.info.Bytes(), []byte("\n")))},
		{"another path", body(other.info.Bytes())},
		{"unsigned", body(unsigned.Bytes())},
		{"forged", body(forged.Bytes())},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l.t = t
			l.cache.fail(tt.fault)
			l.deps.Records = newBucket()
			l.start()
			l.get(p.narinfoURL(), http.StatusNotFound)
			l.cache.fail(nil)
		})
	}
	t.Run("not a hash part", func(t *testing.T) {
		l.t = t
		l.start()
		for _, name := range []string{"x", strings.Repeat("e", 32), strings.Repeat("0", 33), "../" + p.part().String()} {
			l.get("/"+name+".narinfo", http.StatusNotFound)
		}
	})
}

// A store whose database is locked must not stop Nix either.
func TestDeadlineHoldsWhateverHangs(t *testing.T) {
	l := newLab(t)
	l.cfg.Deadline = 50 * time.Millisecond
	release := make(chan struct{})
	l.deps.Records = stuckBucket{newBucket(), release}
	l.start()
	l.get(l.path("p", 10).narinfoURL(), http.StatusNotFound)
	close(release)
}

type stuckBucket struct {
	*bucket
	release chan struct{}
}

func (b stuckBucket) Get(key []byte) ([]byte, error) {
	<-b.release
	return b.bucket.Get(key)
}

// A database that is locked, or a nix-daemon that hangs, must not stand before
// the upstreams.
func TestStoreThatHangs(t *testing.T) {
	l := newLab(t)
	p := l.path("p", 10)
	l.cache.add(p)
	release := make(chan struct{})
	l.deps.Store = stuckStore{release: release}
	l.start()
	l.getNAR(p)
	close(release)
}

type stuckStore struct {
	store
	release chan struct{}
}

func (s stuckStore) Info(ctx context.Context, part nix.HashPart) (*narstore.PathInfo, error) {
	<-s.release
	return s.store.Info(ctx, part)
}

func TestWhoIsAsked(t *testing.T) {
	known, all := []bool{false}, []bool{true}
	for _, tt := range []struct {
		name    string
		public  http.HandlerFunc // of the public upstream; nil: it says 404
		private http.HandlerFunc // of the private one
		without bool             // no private one is configured
		want    []bool           // Narinfos' strangers
	}{
		{"public says 404", nil, nil, true, known},
		{"public is down", reset, nil, true, all},
		{"public hangs", hang, nil, true, all},
		{"both say 404", nil, nil, false, known},
		{"public is down, private says 404", reset, nil, false, all},
		{"public is down, private too", reset, reset, false, known},
		{"public is down, private hangs", reset, hang, false, known},
		{"public is down, private wants another password", reset, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
		}, false, known},
		{"public says 404, private is down", nil, reset, false, known},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			l.cfg.Deadline = 2 * time.Second
			private := newCache(t)
			l.cache.fail(tt.public)
			private.fail(tt.private)
			if !tt.without {
				l.cfg.Upstreams = append(l.cfg.Upstreams, upstream.Config{URL: private.url, Private: true})
			}
			l.start()
			l.get(l.path("p", 10).narinfoURL(), http.StatusNotFound)
			got, wants, _ := l.peers.calls()
			if slices.Contains(got, true) != slices.Contains(tt.want, true) || len(got) == 0 || len(wants) != 0 {
				t.Errorf("peers asked, strangers too: %v, want %v; NARs: %v", got, tt.want, wants)
			}
		})
	}
}

func TestRecordsFromPeers(t *testing.T) {
	l := newLab(t)
	p := l.path("p", 10)
	forged := *p.info
	forged.NARSize++
	l.peers.add(l.path("other", 10).info)
	l.peers.add(&forged)
	l.peers.add(fromPeer(p))
	l.peers.reluctant = true
	l.start()
	l.get(p.narinfoURL(), http.StatusNotFound) // the upstream says 404: no stranger is asked

	l.cache.fail(reset)
	l.deps.Records = newBucket()
	l.start()
	_, body := l.get(p.narinfoURL(), http.StatusOK)
	got, err := narinfo.Parse(body)
	if err != nil || got.Fingerprint() != p.info.Fingerprint() {
		t.Errorf("got %s, %v", body, err)
	}
}

// A path that is named after its NAR hash needs no signature; but then its size
// is the word of a peer, and must not be kept if it was wrong.
func TestWrongSizeFromPeer(t *testing.T) {
	l := newLab(t)
	p := l.path("p", small)
	hash := sha256.Sum256(fmt.Appendf(nil, "source:sha256:%x:%s:p", p.info.NARHash[:], nix.StoreDir))
	var part nix.HashPart
	for i, b := range hash {
		part[i%len(part)] ^= b
	}
	var err error
	if p.info.StorePath, err = nix.NewStorePath(part, "p"); err != nil {
		t.Fatal(err)
	}
	p.info.CA, p.info.Signatures = "fixed:r:"+p.info.NARHash.String(), nil
	wrong := *fromPeer(p)
	wrong.NARSize++
	l.peers.hold(p.info.NARHash, holding{nar: p.nar})
	l.peers.add(&wrong)
	l.start()
	l.get(p.narinfoURL(), http.StatusOK)
	l.get(p.narURL(), http.StatusNotFound)
	l.peers.mu.Lock()
	l.peers.records[part] = []*narinfo.Info{fromPeer(p)}
	l.peers.mu.Unlock()
	l.getNAR(p)
}

// fromPeer returns the record as a peer sends it.
func fromPeer(p *path) *narinfo.Info {
	info := *p.info
	info.URL = narinfo.NARURL(p.part(), p.info.NARHash)
	return &info
}

// Two keys must have signed; the upstream has one signature, a peer the other.
func TestSignaturesAddUp(t *testing.T) {
	l := newLab(t)
	second, err := narinfo.GenerateSecretKey("test-2")
	if err != nil {
		t.Fatal(err)
	}
	l.cfg.Trust.Trusted = append(l.cfg.Trust.Trusted, second.Public())
	l.cfg.Trust.Threshold = 2
	p := l.path("p", 10)
	l.cache.add(p)
	l.start()
	l.get(p.narinfoURL(), http.StatusNotFound)

	other := *p.info
	other.Signatures = []narinfo.Signature{second.Sign(other.Fingerprint())}
	l.peers.add(&other)
	_, body := l.get(p.narinfoURL(), http.StatusOK)
	got, err := narinfo.Parse(body)
	if err != nil || len(got.SignedBy(l.cfg.Trust.Trusted)) != 2 {
		t.Errorf("%v:\n%s", err, body)
	}
	l.getNAR(p) // and the URL is still the upstream's
}

func TestPathsOfPrivateUpstreams(t *testing.T) {
	for _, tt := range []struct {
		name      string
		configure func(*lab, *upstream.Config)
		strangers bool
	}{
		{"public", func(*lab, *upstream.Config) {}, true},
		{"private", func(_ *lab, c *upstream.Config) { c.Private = true }, false},
		{"with a password", func(_ *lab, c *upstream.Config) { c.URL = strings.Replace(c.URL, "//", "//me:pw@", 1) }, false},
		{"with a key of its own", func(l *lab, c *upstream.Config) { c.Keys, l.cfg.Trust.Trusted = l.cfg.Trust.Trusted, nil }, false},
		{"with a key that is trusted anyway", func(l *lab, c *upstream.Config) { c.Keys = l.cfg.Trust.Trusted }, true},
		{"not askable", func(l *lab, _ *upstream.Config) { l.deps.Askable = func(*narinfo.Info) bool { return false } }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			tt.configure(l, &l.cfg.Upstreams[0])
			p := l.path("p", 100)
			l.cache.add(p)
			l.cache.remove(p.info.URL) // only peers have the bytes
			l.peers.hold(p.info.NARHash, holding{nar: p.nar, known: true})
			l.start()
			for range 2 { // fresh, and from the cache
				l.getNAR(p)
				narinfos, wants, _ := l.peers.calls()
				l.peers.mu.Lock()
				expected, told := l.peers.expected[p.info.NARHash]
				l.peers.mu.Unlock()
				if len(narinfos) != 0 || !told || expected != tt.strangers || len(wants) != 1 || wants[0].Strangers != tt.strangers {
					t.Errorf("narinfos %v, expected %v (%v), NARs %+v; want strangers: %v", narinfos, expected, told, wants, tt.strangers)
				}
				l.start()
			}
		})
	}
}

func TestRecordsAreKept(t *testing.T) {
	l := newLab(t)
	p := l.path("p", 10)
	l.cache.add(p)
	l.start()
	var clients sync.WaitGroup
	for range 20 {
		clients.Go(func() { l.get(p.narinfoURL(), http.StatusOK) })
	}
	clients.Wait()
	if n := l.cache.requests(p.narinfoURL()[1:]); n != 1 {
		t.Errorf("20 clients made %d requests to the upstream, want 1", n)
	}
	l.cache.fail(reset)
	l.start()
	l.get(p.narinfoURL(), http.StatusOK)

	l.cfg.Trust.Trusted = nil // the key is not trusted any more
	l.start()
	l.get(p.narinfoURL(), http.StatusNotFound)
}

func TestAbsenceIsRememberedShortly(t *testing.T) {
	l := newLab(t)
	p := l.path("p", 10)
	l.start()
	for range 3 {
		l.get(p.narinfoURL(), http.StatusNotFound)
	}
	if n := l.cache.requests(p.narinfoURL()[1:]); n != 1 {
		t.Errorf("%d requests to the upstream, want 1", n)
	}
	// What could not be asked is not remembered.
	q := l.path("q", 10)
	l.cache.fail(reset)
	l.get(q.narinfoURL(), http.StatusNotFound)
	l.cache.fail(nil)
	l.cache.add(q)
	l.get(q.narinfoURL(), http.StatusOK)
}

// A path was built again, with other bytes. Nix may still ask for the old ones.
func TestSupersededRecord(t *testing.T) {
	l := newLab(t)
	old, fresh := l.path("p", 1000), l.sign("p", []byte("built again"))
	l.cache.add(old)
	l.start()
	l.get(old.narinfoURL(), http.StatusOK)

	l.deps.Records.(*bucket).change(func(v []byte) []byte { // years later
		var stored map[string]any
		if err := json.Unmarshal(v, &stored); err != nil {
			t.Fatal(err)
		}
		stored["fetched"] = time.Unix(1e9, 0)
		v, err := json.Marshal(stored)
		if err != nil {
			t.Fatal(err)
		}
		return v
	})
	l.start() // it knows the record in its memory
	fresh.info.URL = "nar/fresh.nar"
	l.cache.add(fresh)
	_, body := l.get(old.narinfoURL(), http.StatusOK) // revalidated behind this answer
	for !bytes.Contains(body, []byte(fresh.info.NARHash.String())) {
		_, body = l.get(old.narinfoURL(), http.StatusOK)
	}
	l.peers.hold(old.info.NARHash, holding{nar: old.nar})
	for _, p := range []*path{old, fresh} {
		if _, got := l.get(p.narURL(), http.StatusOK); !bytes.Equal(got, p.nar) {
			t.Errorf("%d bytes, want %d", len(got), len(p.nar))
		}
	}
}

func TestLocalStore(t *testing.T) {
	l := newLab(t)
	l.cache.fail(reset)
	signed, unsigned := l.path("signed", 1000), l.path("unsigned", 1000)
	unsigned.info.Signatures = nil
	l.deps.Store = store{map[nix.HashPart]*path{signed.part(): signed, unsigned.part(): unsigned}}
	l.start()
	l.getNAR(signed)
	l.get(unsigned.narinfoURL(), http.StatusNotFound)
	l.get(unsigned.narURL(), http.StatusNotFound)
	if _, wants, _ := l.peers.calls(); len(wants) != 0 {
		t.Errorf("peers were asked for %v", wants)
	}
	if diff := cmp.Diff(map[string]uint64{"store": 1000, "peer": 0, "upstream": 0, "reuse": 0}, l.server.Stats().NARBytes); diff != "" {
		t.Error(diff)
	}
}
