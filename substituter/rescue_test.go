package substituter_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/nar-p2p/nar-p2p/substituter/explain"
)

// compressions are those of upstreams that matter.
var compressions = []string{"none", "zstd", "xz"}

// repetitive is a path of a large NAR that is soon compressed.
func (l *lab) repetitive() *path {
	var nar []byte
	for block := range slices.Chunk(l.path("blocks", large/16).nar, 8<<10) {
		nar = append(nar, bytes.Repeat(block, 16)...)
	}
	return l.sign("p", nar)
}

// compressed adds the path to the cache in this compression, and returns what
// the cache has.
func (l *lab) compressed(p *path, method string) []byte {
	l.t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch method {
	case "none":
		l.cache.add(p)
		return p.nar
	case "zstd":
		w, err = zstd.NewWriter(&out)
	case "xz":
		w, err = xz.WriterConfig{DictCap: 1 << 20}.NewWriter(&out)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := w.Write(p.nar); err != nil {
		l.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		l.t.Fatal(err)
	}
	p.info.Compression, p.info.URL = method, p.info.URL+"."+method
	l.cache.add(&path{p.info, out.Bytes()})
	return out.Bytes()
}

// got returns how many bytes each kind of source has brought that were of use.
func (l *lab) got(p *path) map[explain.Kind]int64 {
	l.t.Helper()
	told := l.explain(p)
	if told.Fetch == nil {
		l.t.Fatal("nothing is known of the fetch")
	}
	got := map[explain.Kind]int64{}
	for _, s := range told.Fetch.Sources {
		if s.Bytes > 0 {
			got[s.Kind] += s.Bytes
		}
	}
	return got
}

// All peers vanish in the middle: the upstream goes on with the same response.
func TestUpstreamRescuesPeers(t *testing.T) {
	for _, method := range compressions {
		t.Run(method, func(t *testing.T) {
			l := newLab(t)
			p := l.repetitive()
			l.compressed(p, method)
			l.peers.hold(p.info.NARHash, holding{nar: p.nar, known: true, earned: true, cutAt: large / 2, next: &holding{known: true, earned: true}})
			l.start()
			l.getNAR(p)
			want := map[explain.Kind]int64{explain.FromPeers: large / 2, explain.FromUpstream: large / 2}
			if diff := cmp.Diff(want, l.got(p)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// And the other way round.
func TestPeersRescueUpstream(t *testing.T) {
	for _, method := range compressions {
		t.Run(method, func(t *testing.T) {
			l := newLab(t)
			p := l.repetitive()
			file := l.compressed(p, method)
			l.cache.fail(func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasPrefix(r.URL.Path, "/nar/") {
					_, _ = w.Write(p.info.Bytes())
					return
				}
				if r.Header.Get("Range") == "" {
					w.Header().Set("Content-Length", fmt.Sprint(len(file)))
					_, _ = w.Write(file[:len(file)/2])
				}
				panic(http.ErrAbortHandler) // and for good
			})
			l.peers.hold(p.info.NARHash, holding{nar: p.nar, earned: true})
			l.start()
			l.getNAR(p)
			got := l.got(p)
			if got[explain.FromUpstream]+got[explain.FromPeers] != large || got[explain.FromUpstream] < large/4 || got[explain.FromPeers] < large/4 {
				t.Errorf("%v", got)
			}
			if _, _, verdicts := l.peers.calls(); !slices.Equal(verdicts, []bool{true}) {
				t.Errorf("verdicts %v", verdicts)
			}
		})
	}
}

// What a client has it does not get again, and nobody is asked for it: but for a
// file that is compressed, which must be read from its beginning.
func TestResumeAtAnUpstream(t *testing.T) {
	for _, method := range compressions {
		t.Run(method, func(t *testing.T) {
			l := newLab(t)
			p := l.repetitive()
			file := l.compressed(p, method)
			var mu sync.Mutex
			var ranges []string
			broken := false
			l.cache.fail(func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasPrefix(r.URL.Path, "/nar/") {
					_, _ = w.Write(p.info.Bytes())
					return
				}
				mu.Lock()
				ranges = append(ranges, r.Header.Get("Range"))
				breaks := broken
				mu.Unlock()
				switch {
				case breaks && r.Header.Get("Range") == "":
					w.Header().Set("Content-Length", fmt.Sprint(len(file)))
					_, _ = w.Write(file[:len(file)/2])
					panic(http.ErrAbortHandler)
				case breaks:
					panic(http.ErrAbortHandler)
				}
				serveRange(w, r, file)
			})
			l.start()
			l.get(p.narinfoURL(), http.StatusOK)
			broken = true
			_, body, err := l.do(http.MethodGet, p.narURL())
			if err == nil || len(body) == 0 {
				t.Fatalf("%d bytes, %v: not broken off", len(body), err)
			}
			mu.Lock()
			broken, ranges = false, nil
			mu.Unlock()
			l.getFrom(p, len(body))
			want := ""
			if method == "none" {
				want = fmt.Sprintf("bytes=%d-", len(body)>>20<<20)
			}
			if diff := cmp.Diff([]string{want}, ranges); diff != "" {
				t.Errorf("asked for: %s", diff)
			}
		})
	}
}

func serveRange(w http.ResponseWriter, r *http.Request, file []byte) {
	var from int
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(file)-1, len(file)))
		w.WriteHeader(http.StatusPartialContent)
	}
	_, _ = w.Write(file[from:])
}
