package substituter_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter"
)

const (
	small = 100_000
	large = 20 << 20
)

func TestRanges(t *testing.T) {
	l := newLab(t)
	p := l.path("p", 1000)
	l.cache.add(p)
	l.start()
	etag := `"` + p.info.NARHash.Base32() + `"`
	for _, tt := range []struct {
		name, header, ifRange string
		status, from, to      int
	}{
		{"none", "", "", 200, 0, 1000},
		{"resume at 0", "bytes=0-", "", 206, 0, 1000},
		{"resume", "bytes=999-", "", 206, 999, 1000},
		{"part", "bytes=10-19", "", 206, 10, 20},
		{"beyond the end", "bytes=10-5000", "", 206, 10, 1000},
		{"last bytes", "bytes=-7", "", 206, 993, 1000},
		{"more than all", "bytes=-7000", "", 206, 0, 1000},
		{"blanks", "bytes= 10-19 ", "", 206, 10, 20},
		{"a huge number", "bytes=0-99999999999999999999", "", 206, 0, 1000},
		{"behind the end", "bytes=1000-", "", 416, 0, 0},
		{"far behind the end", "bytes=99999999999999999999-", "", 416, 0, 0},
		{"last no bytes", "bytes=-0", "", 416, 0, 0},
		{"several", "bytes=0-1,5-6", "", 200, 0, 1000},
		{"backwards", "bytes=20-10", "", 200, 0, 1000},
		{"negative", "bytes=--5", "", 200, 0, 1000},
		{"words", "bytes=a-b", "", 200, 0, 1000},
		{"another unit", "lines=1-2", "", 200, 0, 1000},
		{"unchanged", "bytes=10-", etag, 206, 10, 1000},
		{"changed", "bytes=10-", `"other"`, 200, 0, 1000},
		{"weak tag", "bytes=10-", "W/" + etag, 200, 0, 1000},
		{"since a date", "bytes=10-", "Mon, 01 Jan 2024 00:00:00 GMT", 200, 0, 1000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l.t = t
			var header []string
			if tt.header != "" {
				header = append(header, "Range", tt.header)
			}
			if tt.ifRange != "" {
				header = append(header, "If-Range", tt.ifRange)
			}
			h, body := l.get(p.narURL(), tt.status, header...)
			if tt.status == 416 {
				if got := h.Get("Content-Range"); got != "bytes */1000" {
					t.Errorf("Content-Range = %q", got)
				}
				return
			}
			want := http.Header{
				"Content-Type": {"application/x-nix-nar"}, "Accept-Ranges": {"bytes"}, "Etag": {etag},
				"Content-Length": {fmt.Sprint(tt.to - tt.from)},
			}
			if tt.status == 206 {
				want.Set("Content-Range", fmt.Sprintf("bytes %d-%d/1000", tt.from, tt.to-1))
			}
			h.Del("Date")
			if diff := cmp.Diff(want, h); diff != "" {
				t.Error(diff)
			}
			if !bytes.Equal(body, p.nar[tt.from:tt.to]) {
				t.Errorf("%d bytes, want those from %d to %d", len(body), tt.from, tt.to)
			}
		})
	}
}

func TestHead(t *testing.T) {
	l := newLab(t)
	p := l.path("p", 1000)
	l.cache.add(p)
	l.start()
	h, _ := l.get(p.narURL(), http.StatusOK)
	before := l.cache.requests(p.info.URL)
	for _, ranged := range []string{"", "bytes=10-"} {
		resp, body, err := l.do(http.MethodHead, p.narURL(), "Range", ranged)
		if err != nil || resp.StatusCode != http.StatusOK || len(body) != 0 {
			t.Fatalf("HEAD = %v, %d bytes, %v", resp, len(body), err)
		}
		h.Del("Date")
		resp.Header.Del("Date")
		if diff := cmp.Diff(h, resp.Header); diff != "" {
			t.Error(diff)
		}
	}
	if l.cache.requests(p.info.URL) != before {
		t.Error("HEAD fetched the NAR")
	}
	resp, _, err := l.do(http.MethodHead, l.path("absent", 10).narURL())
	if err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("HEAD of an absent NAR = %v, %v", resp, err)
	}
}

// Nix keeps narinfos for 30 days and then goes straight to the NAR.
func TestStateLost(t *testing.T) {
	l := newLab(t)
	p := l.path("p", small)
	l.cache.add(p)
	l.start()
	l.getNAR(p)
	l.deps.Records = newBucket()
	l.start()
	if _, body := l.get(p.narURL(), http.StatusOK); !bytes.Equal(body, p.nar) {
		t.Errorf("%d bytes", len(body))
	}
}

func TestNobodyIsAskedForAnUnknownHash(t *testing.T) {
	l := newLab(t)
	p := l.path("p", small)
	q := l.sign("p", []byte("not what the record names"))
	l.cache.add(p)
	l.peers.hold(q.info.NARHash, holding{nar: q.nar, known: true})
	l.start()
	l.get(q.narURL(), http.StatusNotFound)
	l.get(p.narinfoURL(), http.StatusOK)
	l.get(q.narURL(), http.StatusNotFound)
	l.get("/nar/"+p.part().String()+".nar", http.StatusNotFound)
	if narinfos, wants, _ := l.peers.calls(); len(narinfos)+len(wants) != 0 {
		t.Errorf("peers were asked: %v, %v", narinfos, wants)
	}
}

// anyVerdicts stands for verdicts that depend on who is faster.
var anyVerdicts = []bool{}

// fetchTest is a NAR, who has it in what shape, and what comes of it.
type fetchTest struct {
	name     string
	size     int
	peers    *holding // nil: none; its nar is filled in
	wrong    bool     // the peers' bytes are wrong
	upstream bool     // has the NAR
	cut      int      // the upstream's first transfer ends here
	status   int      // 0: the body is broken off
	verdicts []bool
	// from says which kinds of source supplied bytes.
	from map[string]bool
}

func TestSources(t *testing.T) {
	peer, up := map[string]bool{"peer": true}, map[string]bool{"upstream": true}
	both := map[string]bool{"peer": true, "upstream": true}
	earned := &holding{known: true, earned: true}
	unearned := &holding{known: true}
	for _, tt := range []fetchTest{
		{"upstream alone", small, nil, false, true, 0, 200, nil, up},
		{"nobody", small, nil, false, false, 0, 404, nil, nil},
		{"known peers come first", small, unearned, false, true, 0, 200, []bool{true}, peer},
		{"unknown peers come second", small, &holding{}, false, true, 0, 200, nil, up},
		{"unknown peers where the upstream has no NAR", small, &holding{}, false, false, 0, 200, []bool{true}, peer},
		{"silent peers", small, &holding{known: true, silent: true}, false, true, 0, 200, nil, up},
		{"peers end in the middle", small, &holding{known: true, cutAt: 50_000}, false, true, 0, 200, []bool{true}, both},
		{"upstream ends in the middle", small, &holding{}, false, true, 50_000, 200, []bool{true}, both},
		{"wrong bytes, unseen", small, unearned, true, true, 0, 200, []bool{false}, both},
		{"wrong bytes alone", small, unearned, true, false, 0, 404, []bool{false, false, false, false}, peer},
		{"nothing", small, &holding{known: true, cutAt: -1}, false, true, 0, 200, nil, up},

		{"large: upstream alone", large, nil, false, true, 0, 200, nil, up},
		{"large: upstream ends in the middle", large, nil, false, true, 10 << 20, 200, nil, up},
		{"large: streamed", large, earned, false, true, 0, 200, []bool{true}, peer},
		{"large: peers end in the middle", large, &holding{known: true, earned: true, cutAt: 10 << 20}, false, true, 0, 200, []bool{true}, both},
		{"large: spooled", large, unearned, false, false, 0, 200, []bool{true}, peer},
		// The upstream joins after a second, and may win before the spool is full.
		{"large: wrong bytes spooled, unseen", large, unearned, true, true, 0, 200, anyVerdicts, up},
		{"large: wrong bytes spooled, alone", large, unearned, true, false, 0, 404, []bool{false, false, false}, nil},
		{"large: earned on the way", large, &holding{known: true, earnsAt: 5 << 20}, false, false, 0, 200, []bool{true}, peer},
		{"large: earned on the way, and cut", large, &holding{known: true, earnsAt: 5 << 20, cutAt: 10 << 20}, false, false, 0, 0, nil, peer},
		{"large: wrong bytes streamed", large, earned, true, true, 0, 0, []bool{false}, peer},
	} {
		t.Run(tt.name, func(t *testing.T) { testFetch(t, tt) })
	}
}

func testFetch(t *testing.T, tt fetchTest) {
	t.Helper()
	l := newLab(t)
	p := l.path("p", tt.size)
	l.cache.add(p)
	l.cache.cut(tt.cut)
	if !tt.upstream {
		l.cache.remove(p.info.URL)
	}
	if tt.peers != nil {
		h := *tt.peers
		if h.nar = p.nar; tt.wrong {
			h.nar = p.flipped()
		}
		if h.cutAt < 0 {
			h.nar, h.cutAt = nil, 0
		}
		l.peers.hold(p.info.NARHash, h)
	}
	l.start()
	l.get(p.narinfoURL(), http.StatusOK)
	resp, body, err := l.do(http.MethodGet, p.narURL())
	switch {
	case tt.status == 0:
		if err == nil || len(body) >= len(p.nar) {
			t.Errorf("GET = %d, %d bytes, want it broken off", resp.StatusCode, len(body))
		}
	case err != nil:
		t.Fatal(err)
	case resp.StatusCode != tt.status:
		t.Fatalf("GET = %d, want %d", resp.StatusCode, tt.status)
	case tt.status == 200 && !bytes.Equal(body, p.nar):
		t.Errorf("%d bytes, which are wrong", len(body))
	}
	_, _, verdicts := l.peers.calls()
	if diff := cmp.Diff(tt.verdicts, verdicts); diff != "" && !cmp.Equal(tt.verdicts, anyVerdicts) {
		t.Errorf("verdicts: %s", diff)
	}
	from := map[string]bool{}
	for source, n := range l.server.Stats().NARBytes {
		if n > 0 {
			from[source] = true
		}
	}
	if len(from)+len(tt.from) > 0 {
		if diff := cmp.Diff(tt.from, from); diff != "" {
			t.Errorf("sources: %s", diff)
		}
	}
}

// One early bit is wrong under a manifest that has earned its trust: Nix has
// it before the end shows it, and would resume behind it.
func TestLargeLie(t *testing.T) {
	l := newLab(t)
	const size = 40 << 20
	p := l.path("p", size)
	l.cache.add(p)
	l.peers.hold(p.info.NARHash, holding{nar: p.flipped(), known: true, earned: true})
	l.start()
	l.get(p.narinfoURL(), http.StatusOK)
	_, body, err := l.do(http.MethodGet, p.narURL())
	if err == nil || len(body) >= size {
		t.Fatalf("%d bytes, %v: not broken off", len(body), err)
	}
	for range 2 {
		l.get(p.narURL(), http.StatusNotFound, "Range", fmt.Sprintf("bytes=%d-", len(body)))
	}
	l.peers.calls()
	l.getNAR(p)
	if _, wants, _ := l.peers.calls(); len(wants) != 0 {
		t.Errorf("peers were asked again: %v", wants)
	}
}

// The lie was cut short by something else, and Nix resumes.
func TestResumeBehindALie(t *testing.T) {
	l := newLab(t)
	p := l.path("p", large)
	l.cache.add(p)
	l.cache.remove(p.info.URL)
	const cut = 10 << 20
	lie := holding{nar: p.flipped(), known: true, earned: true, cutAt: cut}
	l.peers.hold(p.info.NARHash, lie)
	l.start()
	l.get(p.narinfoURL(), http.StatusOK)
	_, body, err := l.do(http.MethodGet, p.narURL())
	if err == nil || len(body) < cut-1<<20 {
		t.Fatalf("%d bytes, %v", len(body), err)
	}
	l.peers.calls()
	l.peers.hold(p.info.NARHash, holding{nar: p.nar, known: true, earned: true}) // now honest
	_, rest, err := l.do(http.MethodGet, p.narURL(), "Range", fmt.Sprintf("bytes=%d-", len(body)))
	if err == nil {
		t.Fatalf("resumed: %d bytes", len(rest))
	}
	if _, _, verdicts := l.peers.calls(); len(verdicts) != 0 {
		t.Errorf("verdicts %v on peers that are not to blame", verdicts)
	}
	l.get(p.narURL(), http.StatusNotFound, "Range", fmt.Sprintf("bytes=%d-", len(body)+len(rest)))
}

// The lie shows when another peer's bytes are spooled behind it. Whoever lied,
// the client has the beginning.
func TestSpoolBehindALie(t *testing.T) {
	l := newLab(t)
	p := l.path("p", large)
	l.cache.add(p)
	l.cache.remove(p.info.URL)
	honest := holding{nar: p.nar, known: true}
	l.peers.hold(p.info.NARHash, holding{nar: p.flipped(), known: true, earned: true, cutAt: 10 << 20, next: &honest})
	l.start()
	l.get(p.narinfoURL(), http.StatusOK)
	_, body, err := l.do(http.MethodGet, p.narURL())
	if err == nil || len(body) == 0 {
		t.Fatalf("%d bytes, %v", len(body), err)
	}
	l.cache.add(p) // and others would complete it
	l.get(p.narURL(), http.StatusNotFound, "Range", fmt.Sprintf("bytes=%d-", len(body)))
	l.getNAR(p)
}

// A stranger who lies must not discredit the upstream, whose line broke.
func TestSpooledLieBehindAnUpstream(t *testing.T) {
	l := newLab(t)
	p := l.path("p", large)
	l.cache.add(p)
	l.peers.hold(p.info.NARHash, holding{nar: l.path("other", large).nar})
	l.start()
	l.get(p.narinfoURL(), http.StatusOK)
	l.cache.fail(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") == "" && strings.HasSuffix(r.URL.Path, ".nar") {
			w.Header().Set("Content-Length", fmt.Sprint(large))
			_, _ = w.Write(p.nar[:10<<20])
		}
		panic(http.ErrAbortHandler)
	})
	_, body, err := l.do(http.MethodGet, p.narURL())
	if err == nil || len(body) == 0 {
		t.Fatalf("%d bytes, %v", len(body), err)
	}
	l.cache.fail(nil)
	l.getFrom(p, len(body))
	l.getNAR(p)
}

// A resumed request continues the hash where one is kept, and reads the prefix
// again where not. Where the bytes go on after an honest cut is not visible.
func TestResume(t *testing.T) {
	l := newLab(t)
	p := l.path("p", large)
	l.cache.add(p)
	l.cache.remove(p.info.URL)
	const cut = 15<<20 + 12345
	l.peers.hold(p.info.NARHash, holding{nar: p.nar, known: true, earned: true, cutAt: cut})
	l.start()
	_, body, err := l.do(http.MethodGet, p.narURL())
	if err == nil {
		t.Fatalf("%d bytes of a cut transfer", len(body))
	}
	l.peers.hold(p.info.NARHash, holding{nar: p.nar, known: true, earned: true})
	l.peers.calls()
	l.getFrom(p, len(body))
	_, wants, _ := l.peers.calls()
	if len(wants) != 1 || wants[0].Offset < int64(len(body))-1<<20 || wants[0].Offset > int64(len(body)) {
		t.Errorf("resuming at %d asked for %+v", len(body), wants)
	}
	l.start() // which has no states
	l.getFrom(p, len(body))
	_, wants, _ = l.peers.calls()
	want := []substituter.Want{{Hash: p.info.NARHash, Path: p.info.StorePath, References: p.info.References, Size: large, Offset: 0, Strangers: true}}
	if !reflect.DeepEqual(want, wants) {
		t.Errorf("asked for %+v, want %+v", wants, want)
	}
	l.getFrom(p, large-1)
	if _, part := l.get(p.narURL(), http.StatusPartialContent, "Range", "bytes=1000000-2000000"); !bytes.Equal(part, p.nar[1_000_000:2_000_001]) {
		t.Error("a part in the middle is wrong")
	}
}

func TestDamagedSources(t *testing.T) {
	l := newLab(t)
	for _, size := range []int{small, large} {
		p := l.path(fmt.Sprint("p", size), size)
		damaged := &path{p.info, p.flipped()}
		l.deps.Store = store{map[nix.HashPart]*path{p.part(): damaged}}
		l.cache.add(p)
		l.start()
		_, body, err := l.do(http.MethodGet, p.narURL())
		if err == nil && !bytes.Equal(body, p.nar) {
			t.Errorf("wrong bytes from a damaged store path of %d bytes", size)
		}
		l.getNAR(p) // the store is not asked any more
	}
	p := l.path("both", small)
	damaged := &path{p.info, p.flipped()}
	l.deps.Store = store{map[nix.HashPart]*path{p.part(): damaged}}
	l.cache.add(damaged)
	l.start()
	l.get(p.narURL(), http.StatusNotFound)
}

// The upstream has moved the NAR since its record was kept.
func TestMovedNAR(t *testing.T) {
	l := newLab(t)
	p := l.path("p", small)
	l.cache.add(p)
	l.start()
	l.get(p.narinfoURL(), http.StatusOK)
	l.cache.remove(p.info.URL)
	moved := *p.info
	moved.URL = "nar/elsewhere.nar"
	l.cache.add(&path{&moved, p.nar})
	l.getNAR(p)
}

// The record came from a peer while the upstream was away.
func TestUpstreamComesBack(t *testing.T) {
	l := newLab(t)
	p := l.path("p", small)
	l.peers.add(fromPeer(p))
	l.cache.fail(reset)
	l.start()
	l.get(p.narinfoURL(), http.StatusOK)
	l.cache.fail(nil)
	l.cache.add(p)
	l.getNAR(p)
	if n := l.server.Stats().NARBytes["upstream"]; n != small {
		t.Errorf("%d bytes from the upstream, want %d", n, small)
	}
}

func TestManyClients(t *testing.T) {
	l := newLab(t)
	var paths []*path
	for i, size := range []int{1, small, 3 << 20, 17 << 20} {
		p := l.path(fmt.Sprint("p", i), size)
		l.cache.add(p)
		l.peers.hold(p.info.NARHash, holding{nar: p.nar, known: i%2 == 0, earned: true, cutAt: int64(size / 2)})
		paths = append(paths, p)
	}
	l.start()
	var clients sync.WaitGroup
	for range 24 {
		clients.Go(func() {
			p := paths[rand.IntN(len(paths))]
			from := rand.IntN(len(p.nar))
			resp, body, err := l.do(http.MethodGet, p.narURL(), "Range", fmt.Sprintf("bytes=%d-", from))
			if err != nil || resp.StatusCode != http.StatusPartialContent || !bytes.Equal(body, p.nar[from:]) {
				t.Errorf("%s from %d: %v, %d bytes, %v", p.info.StorePath, from, resp, len(body), err)
			}
		})
	}
	clients.Wait()
}

// A client that goes away costs nothing: no verdict, no ban.
func TestClientGoesAway(t *testing.T) {
	l := newLab(t)
	p := l.path("p", large)
	l.cache.add(p)
	l.peers.hold(p.info.NARHash, holding{nar: p.nar, known: true, earned: true})
	l.start()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.url+p.narURL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := l.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 5<<20)
	if _, err := io.ReadFull(resp.Body, head); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	l.getFrom(p, len(head))
	if _, _, verdicts := l.peers.calls(); !cmp.Equal(verdicts, []bool{true}) {
		t.Errorf("verdicts %v, want [true]", verdicts)
	}
}

// A look-up of providers ends when the NAR has arrived, wherever from.
func TestWhatHasArrivedIsNotExpectedAnyMore(t *testing.T) {
	l := newLab(t)
	p := l.path("p", small)
	l.cache.add(p)
	l.start()
	l.get(p.narinfoURL(), http.StatusOK)
	select {
	case hash := <-l.peers.dismissed:
		t.Errorf("%v is not expected although only its narinfo was asked for", hash)
	default:
	}
	l.get(p.narURL(), http.StatusOK)
	if hash := <-l.peers.dismissed; hash != p.info.NARHash {
		t.Errorf("%v is not expected any more, want %v", hash, p.info.NARHash)
	}
}
