package substituter_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

func (l *lab) explain(p *path) *explain.Path {
	l.t.Helper()
	told, err := l.server.Explain(l.t.Context(), p.part())
	if err != nil {
		l.t.Fatal(err)
	}
	return told
}

// says wants these words in the verdict or the notes.
func says(t *testing.T, told *explain.Path, words ...string) {
	t.Helper()
	text := strings.Join(append([]string{told.Verdict}, told.Notes...), "\n")
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("no %q in:\n%s", w, text)
		}
	}
}

func TestExplainAPathThatIsServed(t *testing.T) {
	l := newLab(t)
	p := l.path("p", 1000)
	p.info.References = []nix.StorePath{p.info.StorePath}
	p.info.Signatures = []narinfo.Signature{l.key.Sign(p.info.Fingerprint()), newKey(t, "foreign").Sign(p.info.Fingerprint())}
	l.cache.add(p)
	l.start()
	record := explain.Record{
		Source: l.cache.url, NARHash: p.info.NARHash.String(), NARSize: 1000, References: 1, Strangers: true,
		Proof: explain.BySignatures, Signers: 1, Threshold: 1,
		Signatures: []explain.Signature{{Key: "test-1", Verdict: explain.Trusted}, {Key: "foreign", Verdict: explain.UnknownKey}},
	}
	for _, kept := range []bool{false, true} {
		told := l.explain(p)
		record.Kept = kept
		if diff := cmp.Diff(&record, told.Record, cmpopts.IgnoreFields(explain.Record{}, "AgeSeconds", "TookSeconds")); diff != "" {
			t.Errorf("record (-want +got):\n%s", diff)
		}
		if told.State != explain.StateFound || told.StorePath != p.info.StorePath.String() || told.Fetch != nil ||
			len(told.Upstreams) != 1 || told.Upstreams[0].Standing != explain.StandingFound || told.Upstreams[0].TookSeconds <= 0 {
			t.Errorf("%+v", told)
		}
		says(t, told, "Would be served from "+l.cache.url, "Of 2 peers that were asked none says that it holds the NAR")
		l.get(p.narinfoURL(), http.StatusOK)
	}
	l.peers.hold(p.info.NARHash, holding{nar: p.nar, known: true})
	says(t, l.explain(p), "Would be served from peers", "1 peer holds the NAR", l.cache.url+" in reserve")
}

func TestExplainWhyNot(t *testing.T) {
	for _, tt := range []struct {
		name     string
		prepare  func(*lab, *path)
		state    explain.State
		standing string
		want     []string
	}{
		{"absent", func(*lab, *path) {}, explain.StateAbsent, "absent", []string{"says that there is no such path"}},
		{"a path that was absent a moment ago", func(l *lab, p *path) {
			l.start().get(p.narinfoURL(), http.StatusNotFound)
			l.cache.add(p)
		}, explain.StateAbsent, "found", []string{"which is remembered for a moment", "requests get a 404 without anybody being asked"}},
		{"broken", func(l *lab, _ *path) { l.cache.fail(reset) }, explain.StateUnknown, "unreachable", []string{"does not answer (", "EOF"}},
		{"hanging", func(l *lab, _ *path) { l.cache.fail(hang) }, explain.StateUnknown, "unreachable", []string{"does not answer ("}},
		{"overloaded before", func(l *lab, p *path) {
			l.cache.fail(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", "600")
				w.WriteHeader(http.StatusServiceUnavailable)
			})
			l.start().get(p.narinfoURL(), http.StatusNotFound)
		}, explain.StateUnknown, "left alone", []string{"is left alone for a moment, since it failed (", "503"}},
		{"wants a password", func(l *lab, _ *path) {
			l.cfg.Upstreams[0].Private = true
			l.cache.fail(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
		}, explain.StateUnknown, "refused", []string{"does not let this node in"}},
		{"unsigned", func(l *lab, p *path) {
			p.info.Signatures = nil
			l.cache.add(p)
		}, explain.StateUnknown, "not believed", []string{"has a record, but 0 of 1 trusted keys needed have signed it"}},
		{"one signature of two", func(l *lab, p *path) {
			l.cfg.Trust.Threshold = 2
			l.cache.add(p)
		}, explain.StateUnknown, "not believed", []string{"1 of 2 trusted keys needed"}},
		{"no upstream", func(l *lab, _ *path) { l.cfg.Upstreams = nil }, explain.StateUnknown, "", []string{"there is no upstream to ask"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			l.cfg.Deadline = time.Second
			p := l.path("p", 1000)
			tt.prepare(l, p)
			if l.server == nil {
				l.start()
			}
			told := l.explain(p)
			says(t, told, append(tt.want, "Would be 404: ")...)
			standing := ""
			for _, a := range told.Upstreams {
				standing += a.Standing
			}
			if told.State != tt.state || standing != tt.standing || told.Record != nil {
				t.Errorf("state %q, upstream %q, record %+v; want %q, %q", told.State, standing, told.Record, tt.state, tt.standing)
			}
		})
	}
}

// What is wrong with signatures is seen only where they come from: what is kept
// has been cleaned.
func TestExplainSignatures(t *testing.T) {
	b := newBuilders(t, 1)
	p := b.built("p", "a", b.keys[0])
	other := b.built("p", "b", b.keys[1])
	record := strings.Replace(string(p.info.Bytes()), "Sig: ", "Sig: test-2\nSig: "+other.info.Signatures[0].String()+"\nSig: ", 1)
	b.cache.fail(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(record)) })
	b.start()
	got := b.explain(p).Upstreams[0]
	want := []explain.Signature{{Key: "test-2", Verdict: explain.Invalid}, {Key: "test-1", Verdict: explain.Trusted}}
	if diff := cmp.Diff(want, got.Signatures); diff != "" || got.Malformed != 1 {
		t.Errorf("%d malformed, verdicts (-want +got):\n%s", got.Malformed, diff)
	}
}

// Asking is telling, for whoever wants an explanation too.
func TestExplainDoesNotTellStrangers(t *testing.T) {
	for name, private := range map[string]bool{"private": true, "public": false} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.cfg.Upstreams[0].Private = private
			p := l.path("p", 1000)
			l.cache.add(p)
			l.start()
			told := l.explain(p)
			if told.Record.Strangers == private || !slices.Equal(l.peers.inquiries, []bool{!private}) {
				t.Errorf("strangers may be asked: %v; asked: %v", told.Record.Strangers, l.peers.inquiries)
			}
			if private && told.Record.NoStrangers == "" {
				t.Error("it is not said why not")
			}
			if private { // else strangers may be asked while it is down
				l.cache.fail(reset)
			}
			l.explain(l.path("absent", 1))
			if narinfos, _, _ := l.peers.calls(); slices.Contains(narinfos, true) {
				t.Error("strangers are asked for a record")
			}
		})
	}
}

func TestExplainConflict(t *testing.T) {
	b := newBuilders(t, 1)
	first, other := b.built("p", "a", b.keys[0]), b.built("p", "b", b.keys[1])
	b.cache.add(first)
	b.second.add(other)
	b.start()
	b.get(first.narinfoURL(), http.StatusOK)
	b.explain(first) // asks the second one too
	told := b.start().explain(first)
	says(t, told, "Trusted keys have signed 2 different NARs")
	hashes := map[string]string{}
	for _, s := range told.Conflict.Statements {
		hashes[s.NARHash] = strings.Join(s.Sources, " ")
	}
	want := map[string]string{first.info.NARHash.String(): b.cache.url, other.info.NARHash.String(): b.second.url}
	if diff := cmp.Diff(want, hashes); diff != "" {
		t.Error(diff)
	}
	if told.Record.NARHash != first.info.NARHash.String() {
		t.Error("the record that Nix has is not the one that is served")
	}
}

func TestExplainLocalStore(t *testing.T) {
	b := newBuilders(t, 1)
	local, p := b.built("p", "a", b.keys[0]), b.built("p", "b", b.keys[1])
	b.cache.add(p)
	b.deps.Store = store{map[nix.HashPart]*path{local.part(): local}}
	b.start()
	told := b.explain(local)
	says(t, told, "Would be served from the local store", "peers do not get it: this node shares nothing")
	if told.Record.Source != "store" || told.Record.Strangers || !told.Store.Trusted || told.Conflict == nil {
		t.Errorf("%+v, %+v, conflict %+v", told.Record, told.Store, told.Conflict)
	}
	b.deps.Shared = func(_ context.Context, path nix.StorePath) error {
		if path == local.info.StorePath {
			return nil
		}
		return errors.New("not that one")
	}
	b.start()
	says(t, b.explain(local), "peers may have it")
	if got := b.explain(b.built("q", "a")); got.Store != nil {
		t.Errorf("store has %+v", got.Store)
	}
}

func TestExplainRefusedContent(t *testing.T) {
	l := newLab(t)
	p := addressedPath(t, "text:sha256:", "text", []byte(strings.Repeat("text", 100)))
	wrong := p.falsified()
	l.cache.add(wrong)
	l.start()
	if told := l.explain(p); told.Record.Proof != explain.ByContent {
		t.Errorf("proof %q", told.Record.Proof)
	}
	l.getNARFails(wrong)
	told := l.explain(p)
	says(t, told, "Would be 404: the content of its unsigned record was not what its content address says")
	if told.Ban == nil || !told.Ban.Refused {
		t.Errorf("ban %+v", told.Ban)
	}
}

// attempts is the ends of a source's attempts.
func attempts(s explain.Source) (ends []explain.End) {
	for _, a := range s.Attempts {
		ends = append(ends, a.End)
	}
	return ends
}

func TestExplainTheLastFetch(t *testing.T) {
	const size = 18 << 20
	for _, tt := range []struct {
		name    string
		prepare func(*lab, *path)
		want    map[explain.Kind][]explain.End
		bytes   map[explain.Kind]int64
		order   string
		words   []string
	}{
		{
			"peers alone", func(l *lab, p *path) {
				l.peers.hold(p.info.NARHash, holding{nar: p.nar, known: true, earned: true})
				l.cache.remove(p.info.URL)
			},
			map[explain.Kind][]explain.End{"peer": {"complete"}},
			map[explain.Kind]int64{"peer": size},
			explain.HolderKnown,
			[]string{"18.0 MiB from peers"},
		},
		{
			"upstream alone", func(*lab, *path) {},
			map[explain.Kind][]explain.End{"upstream": {"complete"}},
			map[explain.Kind]int64{"upstream": size},
			explain.NoHolderKnown,
			[]string{"18.0 MiB from upstreams", "Nothing came from peers: none that holds it was known"},
		},
		{
			"peers spooled", func(l *lab, p *path) {
				l.peers.hold(p.info.NARHash, holding{nar: p.nar, known: true})
			},
			map[explain.Kind][]explain.End{"peer": {"complete"}},
			map[explain.Kind]int64{"peer": size},
			explain.HolderKnown,
			[]string{"18.0 MiB from peers"},
		},
		{
			"peers that break off", func(l *lab, p *path) {
				l.peers.hold(p.info.NARHash, holding{nar: p.nar, known: true, earned: true, cutAt: 1 << 20})
			},
			map[explain.Kind][]explain.End{"peer": {"broke off"}, "upstream": {"complete"}},
			map[explain.Kind]int64{"peer": 1 << 20, "upstream": size - 1<<20},
			explain.HolderKnown,
			[]string{"1.0 MiB from peers and 17.0 MiB from upstreams"},
		},
		{
			"peers that have gone", func(l *lab, p *path) {
				l.peers.hold(p.info.NARHash, holding{nar: nil, known: true, earned: true})
			},
			map[explain.Kind][]explain.End{"peer": {"failed"}, "upstream": {"complete"}},
			map[explain.Kind]int64{"upstream": size},
			explain.HolderKnown,
			[]string{"Nothing came from peers: unexpected EOF"},
		},
		{
			"silent peers", func(l *lab, p *path) {
				l.peers.hold(p.info.NARHash, holding{nar: p.nar, known: true, earned: true, silent: true})
			},
			map[explain.Kind][]explain.End{"peer": {"late"}, "upstream": {"complete"}},
			map[explain.Kind]int64{"upstream": size},
			explain.HolderKnown,
			[]string{"Nothing came from peers: another source was quicker"},
		},
		{
			"local store", func(l *lab, p *path) {
				l.deps.Store = store{map[nix.HashPart]*path{p.part(): p}}
			},
			map[explain.Kind][]explain.End{"store": {"complete"}},
			map[explain.Kind]int64{"store": size},
			explain.NoHolderKnown,
			[]string{"18.0 MiB from the local store", "Nothing came from peers: the local store had it"},
		},
		{
			"no peers", func(l *lab, _ *path) { l.deps.Peers = nil },
			map[explain.Kind][]explain.End{"upstream": {"complete"}},
			map[explain.Kind]int64{"upstream": size},
			explain.NoPeers,
			[]string{"Nothing came from peers: this node has no peers"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t)
				b.cache = b.far("a", upstream.Config{}).cache
				p := b.path("p", size)
				b.cache.add(p)
				b.deps.Fetches = newBucket()
				tt.prepare(b.lab, p)
				b.start()
				for _, url := range []string{p.narinfoURL(), p.narURL()} {
					if resp, _ := b.ask(url); resp.Code != http.StatusOK {
						t.Fatalf("%s: %d", url, resp.Code)
					}
				}
				for range 2 { // from memory, and after a restart
					told := b.explain(p)
					says(t, told, tt.words...)
					if f := told.Fetch; f == nil || f.Result != explain.Served || f.Order != tt.order || f.Error != "" {
						t.Fatalf("last fetch %+v", f)
					}
					checkSources(t, told.Fetch.Sources, tt.want, tt.bytes)
					b.start()
				}
			})
		})
	}
}

func checkSources(t *testing.T, sources []explain.Source, wantEnds map[explain.Kind][]explain.End, wantBytes map[explain.Kind]int64) {
	t.Helper()
	ends, bytes := map[explain.Kind][]explain.End{}, map[explain.Kind]int64{}
	for _, s := range sources {
		if len(s.Attempts) > 0 {
			ends[s.Kind] = attempts(s)
		}
		if s.Bytes > 0 {
			bytes[s.Kind] = s.Bytes
		}
		if s.Kind == "peer" && s.Bytes > 0 && !cmp.Equal(s.Peers, []explain.Part{{Peer: "neighbour", Bytes: s.Bytes}}) {
			t.Errorf("peers' parts of %d bytes: %+v", s.Bytes, s.Peers)
		}
		if s.Kind == "upstream" && s.Name != "http://a.example" {
			t.Errorf("upstream %q", s.Name)
		}
	}
	if diff := cmp.Diff(wantEnds, ends); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantBytes, bytes); diff != "" {
		t.Errorf("bytes (-want +got):\n%s", diff)
	}
}

// After peers that lied the upstream comes first, and peers are left out for a while
// where a client has got some of it. Either is said.
func TestExplainWrongBytes(t *testing.T) {
	l := newLab(t)
	p, streamed := l.path("p", 1000), l.path("streamed", large)
	for _, p := range []*path{p, streamed} {
		l.cache.add(p)
		l.peers.hold(p.info.NARHash, holding{nar: p.flipped(), known: true, earned: true})
	}
	l.start()
	l.getNAR(p)
	if _, _, err := l.do(http.MethodGet, streamed.narURL()); err == nil {
		t.Fatal("wrong bytes were served")
	}
	if err := l.server.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	told := l.explain(p)
	says(t, told, "Would be served from "+l.cache.url)
	if told.Plan.Order != explain.PeersLied || told.Ban != nil {
		t.Errorf("order %q, ban %+v", told.Plan.Order, told.Ban)
	}
	told = l.explain(streamed)
	says(t, told, "Would be served from "+l.cache.url, "the NAR is not taken from peers: wrong bytes have come from there")
	if told.Ban == nil || !slices.Equal(told.Ban.Excluded, []explain.Kind{"peer"}) || told.Ban.LeftSeconds < 3000 {
		t.Errorf("ban %+v", told.Ban)
	}
	if got := attempts(told.Fetch.Sources[0]); !slices.Equal(got, []explain.End{"wrong"}) {
		t.Errorf("attempts at peers: %v", got)
	}
}

// An explanation changes nothing.
func TestExplainKeepsNothing(t *testing.T) {
	l := newLab(t)
	p := l.path("p", 1000)
	l.start()
	l.explain(p)
	l.cache.add(p)
	l.get(p.narinfoURL(), http.StatusOK) // no absence was remembered
	q := l.path("q", 1000)
	l.cache.add(q)
	l.explain(q)
	l.cache.remove(q.narinfoURL()[1:])
	l.get(q.narinfoURL(), http.StatusNotFound) // nor a record
}

// A second upstream is told of although a request would not need it.
func TestExplainAsksAllUpstreams(t *testing.T) {
	l := newLab(t)
	second := newCache(t)
	l.cfg.Upstreams = append(l.cfg.Upstreams, upstream.Config{URL: second.url})
	p := l.path("p", 1000)
	l.cache.add(p)
	l.start()
	told := l.explain(p)
	got := map[string]string{}
	for _, a := range told.Upstreams {
		got[a.Upstream] = a.Standing
	}
	if diff := cmp.Diff(map[string]string{l.cache.url: "found", second.url: "absent"}, got); diff != "" {
		t.Error(diff)
	}
}
