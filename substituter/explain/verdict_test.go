package explain_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

const cache = "https://cache.example.org"

// record is kept from the cache.
func record() *explain.Record {
	return &explain.Record{Source: cache, NARHash: "sha256:a", Kept: true, AgeSeconds: 90}
}

func answer(standing, hash string) explain.Answer {
	return explain.Answer{Upstream: cache, Standing: standing, NARHash: hash, Error: map[bool]string{true: "no route"}[standing == "unreachable"]}
}

func holders(n int) *explain.Peers {
	p := &explain.Peers{Connected: 3, Answers: []explain.PeerAnswer{{Connected: true}, {Connected: true, Error: "busy"}}}
	for range n {
		p.Answers = append(p.Answers, explain.PeerAnswer{Connected: true, Holds: true})
	}
	return p
}

func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		name string
		path explain.Path
		want string
	}{
		{
			"store",
			explain.Path{Record: record(), Store: &explain.Store{NARHash: "sha256:a"}, Peers: holders(1)},
			"Would be served from the local store: the record is kept, from https://cache.example.org 1min ago, and the store has this very NAR.",
		},
		{
			"another NAR in the store",
			explain.Path{Record: record(), Store: &explain.Store{NARHash: "sha256:b"}, Peers: holders(1)},
			"Would be served from peers: the record is kept, from https://cache.example.org 1min ago, and 1 peer holds the NAR.",
		},
		{
			"peers and cache",
			explain.Path{Record: record(), Peers: holders(2), Upstreams: []explain.Answer{answer("found", "sha256:a")}},
			"Would be served from peers: the record is kept, from https://cache.example.org 1min ago, and 2 peers hold the NAR, with https://cache.example.org in reserve.",
		},
		{
			"cache",
			explain.Path{Record: record(), Peers: holders(0), Upstreams: []explain.Answer{answer("found", "sha256:a")}},
			"Would be served from https://cache.example.org: the record is kept, from https://cache.example.org 1min ago, and no peer that holds the NAR is known.",
		},
		{
			"the cache has another NAR by now",
			explain.Path{Record: record(), Upstreams: []explain.Answer{answer("found", "sha256:b")}},
			"The narinfo would be served: the record is kept, from https://cache.example.org 1min ago. But the NAR would be 404: nobody who was asked has it.",
		},
		{"peers that lied", explain.Path{
			Record: record(), Peers: holders(1), Upstreams: []explain.Answer{answer("unreachable", "")},
			Ban: &explain.Ban{Excluded: []explain.Kind{explain.FromPeers}, LeftSeconds: 60},
		}, "The narinfo would be served: the record is kept, from https://cache.example.org 1min ago. But the NAR would be 404: what is left of its sources does not have it."},
		{
			"a record of a peer",
			explain.Path{Record: &explain.Record{Source: "peer", NARHash: "sha256:a"}, Peers: holders(1)},
			"Would be served from peers: the record is that of a peer, and 1 peer holds the NAR.",
		},
		{
			"absent and unreachable",
			explain.Path{Upstreams: []explain.Answer{answer("absent", ""), answer("unreachable", "")}},
			"Would be 404: https://cache.example.org does not answer (no route).",
		},
		{
			"absent everywhere",
			explain.Path{Upstreams: []explain.Answer{answer("absent", ""), answer("absent", "")}},
			"Would be 404: all upstreams say that there is no such path, and no peer that may be asked has a record that is believed.",
		},
		{
			"filtered",
			explain.Path{Upstreams: []explain.Answer{answer("filtered", "")}},
			"Would be 404: https://cache.example.org has it, but paths of this name are not wanted from there.",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.path.Conclude()
			if tt.path.Verdict != tt.want {
				t.Errorf("verdict %q\nwant %q", tt.path.Verdict, tt.want)
			}
		})
	}
}

func TestNotesOnPeers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		peers *explain.Peers
		want  string
	}{
		{"nobody there", &explain.Peers{}, "No peer that could be asked is connected."},
		{"nobody has it", holders(0), "Of 2 peers that were asked none says that it holds the NAR: it does not, or may not share it. 1 peer has not answered."},
		{"nobody may be asked", &explain.Peers{Connected: 5, Unasked: "strangers are not asked about it"}, "Strangers are not asked about it."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := explain.Path{Record: record(), Peers: tt.peers}
			p.Conclude()
			if got := strings.Join(p.Notes, "\n"); got != tt.want {
				t.Errorf("notes %q, want %q", got, tt.want)
			}
		})
	}
}

func TestWhyNotPeers(t *testing.T) {
	upstream := explain.Source{Kind: explain.FromUpstream, Bytes: 100}
	peers := func(bytes int64, attempts ...explain.Attempt) explain.Source {
		return explain.Source{Kind: explain.FromPeers, Bytes: bytes, Attempts: attempts}
	}
	for _, tt := range []struct {
		name  string
		fetch explain.Fetch
		want  string
	}{
		{"they delivered", explain.Fetch{Sources: []explain.Source{peers(1)}}, ""},
		{"store", explain.Fetch{Sources: []explain.Source{{Kind: explain.FromStore, Bytes: 1}, peers(0)}}, "the local store had it"},
		{
			"no turn",
			explain.Fetch{Order: explain.NoHolderKnown, Sources: []explain.Source{upstream, peers(0)}},
			"none that holds it was known, and the upstream delivered before they were asked",
		},
		{"late", explain.Fetch{Sources: []explain.Source{upstream, peers(0, explain.Attempt{End: explain.Late})}}, "another source was quicker"},
		{"failed", explain.Fetch{Sources: []explain.Source{peers(0, explain.Attempt{End: explain.Unavailable, Error: "no provider"}), upstream}}, "no provider"},
		{"excluded", explain.Fetch{Excluded: []explain.Kind{explain.FromPeers}, Sources: []explain.Source{upstream}}, "wrong bytes had come from them"},
		{"none", explain.Fetch{Sources: []explain.Source{upstream}}, explain.NoPeers},
		{"cancelled", explain.Fetch{Sources: []explain.Source{peers(0, explain.Attempt{End: explain.Stopped})}}, "they had not begun when the request ended"},
	} {
		if got := tt.fetch.WhyNotPeers(); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0ms", 10 * time.Microsecond: "<1ms", 12 * time.Millisecond: "12ms", 1500 * time.Millisecond: "1.5s",
		90 * time.Second: "1min", 47 * time.Hour: "47h", 50 * time.Hour: "2 days", -time.Second: "0ms",
	} {
		if got := explain.Span(d.Seconds()); got != want {
			t.Errorf("Span(%v) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 3 << 40: "3.0 TiB"} {
		if got := explain.Size(n); got != want {
			t.Errorf("Size(%d) = %q, want %q", n, got, want)
		}
	}
}
