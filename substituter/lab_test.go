package substituter_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/nar-p2p/nar-p2p/narstore"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/substituter"
	"github.com/nar-p2p/nar-p2p/substituter/explain"
	"github.com/nar-p2p/nar-p2p/substituter/trust"
	"github.com/nar-p2p/nar-p2p/substituter/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lab is a substituter with one upstream and peers, all in this process.
type lab struct {
	t     testing.TB
	key   narinfo.SecretKey
	cache *cache // the upstream
	peers *network
	cfg   substituter.Config
	deps  substituter.Deps

	server *substituter.Server
	url    string
	client *http.Client
}

func newLab(tb testing.TB) *lab {
	tb.Helper()
	key, err := narinfo.GenerateSecretKey("test-1")
	if err != nil {
		tb.Fatal(err)
	}
	l := &lab{t: tb, key: key, cache: newCache(tb), peers: newNetwork(), client: &http.Client{}}
	tb.Cleanup(l.client.CloseIdleConnections)
	l.cfg = substituter.Config{
		Upstreams: []upstream.Config{{URL: l.cache.url}},
		Trust:     trust.Keys{Trusted: []narinfo.PublicKey{key.Public()}},
		SpoolDir:  tb.TempDir(),
	}
	l.deps = substituter.Deps{
		Log: zaptest.NewLogger(tb), Records: newBucket(), Peers: l.peers,
		Askable: func(*narinfo.Info) bool { return true },
	}
	return l
}

// start starts the substituter, or another one that knows only what the bucket
// holds.
func (l *lab) start() *lab {
	l.t.Helper()
	server, err := substituter.New(l.cfg, l.deps)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	front := httptest.NewUnstartedServer(nil)
	front.Config = substituter.NewHTTPServer(server.Handler(), l.deps.Log)
	front.Start()
	l.t.Cleanup(func() {
		l.client.CloseIdleConnections()
		front.CloseClientConnections()
		front.Close()
		cancel()
		if err := <-done; err != nil {
			l.t.Error(err)
		}
	})
	l.server, l.url = server, front.URL
	return l
}

// path is a signed record and its bytes. They need not be a NAR: the
// substituter knows them by their hash alone.
type path struct {
	info *narinfo.Info
	nar  []byte
}

// path makes the bytes from the name, and so the same for the same name.
func (l *lab) path(name string, size int) *path {
	l.t.Helper()
	nar := make([]byte, size)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(name))).Read(nar)
	return l.sign(name, nar)
}

func (l *lab) sign(name string, nar []byte) *path {
	l.t.Helper()
	digest := sha256.Sum256([]byte("part of " + name))
	storePath, err := nix.NewStorePath(nix.HashPart(digest[:20]), name)
	if err != nil {
		l.t.Fatal(err)
	}
	info := &narinfo.Info{
		StorePath: storePath, URL: "nar/" + name + ".nar", Compression: "none",
		NARHash: sha256.Sum256(nar), NARSize: int64(len(nar)),
	}
	info.Signatures = []narinfo.Signature{l.key.Sign(info.Fingerprint())}
	return &path{info, nar}
}

// refer makes p refer to others.
func (l *lab) refer(p *path, others ...*path) *path {
	for _, other := range others {
		p.info.References = append(p.info.References, other.info.StorePath)
	}
	p.info.Signatures = []narinfo.Signature{l.key.Sign(p.info.Fingerprint())}
	return p
}

func (p *path) part() nix.HashPart { return p.info.StorePath.HashPart() }
func (p *path) narinfoURL() string { return "/" + p.part().String() + ".narinfo" }
func (p *path) narURL() string     { return "/" + narinfo.NARURL(p.part(), p.info.NARHash) }

// flipped returns the NAR with one early bit wrong.
func (p *path) flipped() []byte {
	b := bytes.Clone(p.nar)
	b[5] ^= 1
	return b
}

// do sends a request and returns the response, the body and the body's error.
func (l *lab) do(method, target string, header ...string) (*http.Response, []byte, error) {
	l.t.Helper()
	req, err := http.NewRequestWithContext(l.t.Context(), method, l.url+target, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

// get is a GET that must end with this status and a complete body.
func (l *lab) get(target string, status int, header ...string) (http.Header, []byte) {
	l.t.Helper()
	resp, body, err := l.do(http.MethodGet, target, header...)
	if err != nil {
		l.t.Fatalf("GET %s: %v", target, err)
	}
	if resp.StatusCode != status {
		l.t.Fatalf("GET %s %q = %d, want %d", target, header, resp.StatusCode, status)
	}
	return resp.Header, body
}

// getNAR fetches the NAR and compares it, after Nix's way: narinfo first.
func (l *lab) getNAR(p *path) {
	l.t.Helper()
	l.get(p.narinfoURL(), http.StatusOK)
	_, body := l.get(p.narURL(), http.StatusOK)
	if !bytes.Equal(body, p.nar) {
		l.t.Fatalf("%s: %d bytes, which are not the %d signed ones", p.info.StorePath, len(body), len(p.nar))
	}
}

// getFrom fetches the NAR from an offset on.
func (l *lab) getFrom(p *path, offset int) {
	l.t.Helper()
	_, body := l.get(p.narURL(), http.StatusPartialContent, "Range", fmt.Sprintf("bytes=%d-", offset))
	if !bytes.Equal(body, p.nar[offset:]) {
		l.t.Fatalf("%s from %d: %d bytes, which are not the right ones", p.info.StorePath, offset, len(body))
	}
}

// cache is an HTTP binary cache.
type cache struct {
	url   string
	mu    sync.Mutex
	files map[string][]byte
	fault http.HandlerFunc // in the place of all files
	cutAt int              // of a body, once, if not 0
	asked []string
}

func newCache(tb testing.TB) *cache {
	tb.Helper()
	c := &cache{files: make(map[string][]byte)}
	server := httptest.NewServer(c)
	tb.Cleanup(server.Close)
	c.url = server.URL
	return c
}

func (c *cache) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	c.mu.Lock()
	c.asked = append(c.asked, name)
	file, ok := c.files[name]
	fault, cut := c.fault, c.cutAt
	if strings.HasPrefix(name, "nar/") {
		c.cutAt = 0
	}
	c.mu.Unlock()
	switch {
	case fault != nil:
		fault(w, r)
	case !ok:
		http.NotFound(w, r)
	case cut > 0 && strings.HasPrefix(name, "nar/"):
		w.Header().Set("Content-Length", fmt.Sprint(len(file)))
		_, _ = w.Write(file[:cut])
		panic(http.ErrAbortHandler)
	default:
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file))
	}
}

func (c *cache) add(p *path) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files[p.narinfoURL()[1:]] = p.info.Bytes()
	c.files[p.info.URL] = p.nar
}

func (c *cache) remove(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.files, name)
}

// fail makes every answer that of h, or genuine again.
func (c *cache) fail(h http.HandlerFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = h
}

func (c *cache) cut(at int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cutAt = at
}

func (c *cache) requests(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, a := range c.asked {
		if a == name {
			n++
		}
	}
	return n
}

func reset(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// network is peers: some allowed, some strangers.
type network struct {
	mu        sync.Mutex
	records   map[nix.HashPart][]*narinfo.Info
	nars      map[nix.NARHash]*holding
	expected  map[nix.NARHash]bool // by whether strangers were told
	expects   int                  // calls of Expect
	glanced   []nix.NARHash
	narinfos  []bool         // calls, by whether strangers were asked
	asked     []nix.HashPart // the same calls
	slow      map[nix.HashPart]time.Duration
	dismissed chan nix.NARHash
	wants     []substituter.Want
	verdicts  []bool
	reluctant bool   // answers for narinfos go to strangers only
	inquiries []bool // calls, by whether strangers were told
}

// holding is what peers deliver for a NAR hash.
type holding struct {
	nar    []byte
	earned bool
	// earnsAt is the offset from which on it has earned it, if not 0.
	earnsAt int64
	known   bool
	rate    int // bytes a second, if not 0
	// estimate is given while its providers are not 0.
	estimate substituter.Estimate
	// local is how many of the first bytes lie in the local store.
	local int64
	// opening is how long it takes until a transfer is open.
	opening time.Duration
	cutAt   int64    // offset at which transfers break, if not 0
	silent  bool     // nothing comes
	stall   int64    // offset at which the first transfer falls silent, if not 0
	next    *holding // takes its place after the first transfer, if not nil
}

var (
	_ substituter.Estimator = (*network)(nil)
	_ substituter.Glancer   = (*network)(nil)
)

var errPeersGone = errors.New("all peers have gone")

func newNetwork() *network {
	return &network{
		records: make(map[nix.HashPart][]*narinfo.Info), nars: make(map[nix.NARHash]*holding),
		expected: make(map[nix.NARHash]bool), slow: make(map[nix.HashPart]time.Duration),
		dismissed: make(chan nix.NARHash, 1000),
	}
}

func (n *network) add(info *narinfo.Info) {
	n.mu.Lock()
	defer n.mu.Unlock()
	part := info.StorePath.HashPart()
	n.records[part] = append(n.records[part], info)
}

func (n *network) hold(hash nix.NARHash, h holding) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nars[hash] = &h
}

func (n *network) Narinfos(ctx context.Context, part nix.HashPart, strangers bool) iter.Seq[*narinfo.Info] {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.narinfos = append(n.narinfos, strangers)
	n.asked = append(n.asked, part)
	if n.reluctant && !strangers {
		return slices.Values([]*narinfo.Info{})
	}
	records, slow := slices.Clone(n.records[part]), n.slow[part]
	return func(yield func(*narinfo.Info) bool) {
		if slow > 0 {
			select {
			case <-time.After(slow):
			case <-ctx.Done():
				return
			}
		}
		slices.Values(records)(yield)
	}
}

func (n *network) Expect(hash nix.NARHash, strangers bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expected[hash] = strangers
	n.expects++
}

// Glance implements substituter.Glancer.
func (n *network) Glance(hash nix.NARHash, _ bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.glanced = append(n.glanced, hash)
}

func (n *network) Dismiss(hash nix.NARHash) {
	select {
	case n.dismissed <- hash:
	default: // nobody looks at so many
	}
}

func (n *network) Known(hash nix.NARHash) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.nars[hash]
	return h != nil && h.known
}

// Saving implements substituter.Saver.
func (n *network) Saving(_ nix.StorePath, hash nix.NARHash, size int64) float64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.nars[hash]; h != nil {
		return float64(h.local) / float64(size)
	}
	return 0
}

// Estimate implements substituter.Estimator.
func (n *network) Estimate(hash nix.NARHash) substituter.Estimate {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := n.nars[hash]; h != nil {
		return h.estimate
	}
	return substituter.Estimate{}
}

func (n *network) Open(ctx context.Context, want substituter.Want) (substituter.Transfer, error) {
	n.mu.Lock()
	n.wants = append(n.wants, want)
	var opening time.Duration
	if h := n.nars[want.Hash]; h != nil {
		opening = h.opening
	}
	n.mu.Unlock()
	select {
	case <-time.After(opening):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.nars[want.Hash]
	if h == nil {
		return nil, errPeersGone
	}
	copied := *h
	h.stall = 0
	if h.next != nil {
		n.nars[want.Hash] = h.next
	}
	return &transfer{network: n, holding: copied, done: ctx.Done(), offset: want.Offset}, nil
}

// Inquire implements substituter.Inquirer.
func (n *network) Inquire(_ context.Context, hash nix.NARHash, strangers bool) *explain.Peers {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.inquiries = append(n.inquiries, strangers)
	h := n.nars[hash]
	return &explain.Peers{Connected: 2, LAN: 1, Answers: []explain.PeerAnswer{
		{ID: "neighbour", LAN: true, Connected: true, Holds: h != nil}, {ID: "other", Connected: true},
	}}
}

// calls returns what was asked so far, and forgets it.
func (n *network) calls() (narinfos []bool, wants []substituter.Want, verdicts []bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	narinfos, wants, verdicts = n.narinfos, n.wants, n.verdicts
	n.narinfos, n.wants, n.verdicts = nil, nil, nil
	return narinfos, wants, verdicts
}

type transfer struct {
	*network
	holding
	done   <-chan struct{}
	offset int64
	given  atomic.Int64
	taken  int64
}

var _ substituter.Reuser = (*transfer)(nil)

func (x *transfer) Read(p []byte) (int, error) {
	if x.silent || x.stall > 0 && x.offset >= x.stall {
		<-x.done
		return 0, context.Canceled
	}
	end := int64(len(x.nar))
	if x.cutAt > 0 {
		end = x.cutAt
	}
	if x.offset >= end {
		if x.cutAt > 0 {
			return 0, errPeersGone
		}
		return 0, io.EOF
	}
	n := copy(p, x.nar[x.offset:end])
	if x.rate > 0 {
		time.Sleep(time.Duration(n) * time.Second / time.Duration(x.rate))
	}
	x.offset += int64(n)
	x.given.Add(int64(n))
	return n, nil
}

// Reused implements substituter.Reuser.
func (x *transfer) Reused() (bySum, byMaskedSum int64) {
	local := min(x.given.Load(), x.local)
	return local / 4, local - local/4
}

func (x *transfer) Close() error { return nil }
func (x *transfer) Earned() bool { return x.earned || x.earnsAt > 0 && x.offset >= x.earnsAt }

func (x *transfer) Sources() []substituter.Source {
	return []substituter.Source{{Peer: "neighbour", Bytes: x.given.Load()}}
}

// Handed names two peers, the second for what came since the last call.
func (x *transfer) Handed() []substituter.Source {
	n := x.given.Load() - x.taken
	x.taken += n
	if x.taken == n && n > 1 {
		return []substituter.Source{{Peer: "first", Bytes: 1, Via: "lan"}, {Peer: "neighbour", Bytes: n - 1}}
	}
	return []substituter.Source{{Peer: "neighbour", Bytes: n}}
}

func (x *transfer) Verdict(ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.verdicts = append(x.verdicts, ok)
}

// bucket is a substituter.Bucket in memory.
type bucket struct {
	mu     sync.Mutex
	values map[string][]byte
}

var errNoValue = errors.New("no value")

func newBucket() *bucket { return &bucket{values: make(map[string][]byte)} }

func (b *bucket) Get(key []byte) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if v, ok := b.values[string(key)]; ok {
		return bytes.Clone(v), nil
	}
	return nil, errNoValue
}

func (b *bucket) Put(key, value []byte, _ time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.values[string(key)] = bytes.Clone(value)
	return nil
}

func (b *bucket) Delete(key []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.values, string(key))
	return nil
}

func (b *bucket) Each(ctx context.Context, f func(key, value []byte) error) error {
	b.mu.Lock()
	values := maps.Clone(b.values)
	b.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f([]byte(key), values[key]); err != nil {
			return err
		}
	}
	return nil
}

// change rewrites all values.
func (b *bucket) change(f func([]byte) []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, v := range b.values {
		b.values[k] = f(v)
	}
}

// store is a narstore.Store in memory.
type store struct {
	paths map[nix.HashPart]*path
}

func (s store) Info(_ context.Context, part nix.HashPart) (*narstore.PathInfo, error) {
	p, ok := s.paths[part]
	if !ok {
		return nil, narstore.ErrNotFound
	}
	return &narstore.PathInfo{
		Path: p.info.StorePath, NARHash: p.info.NARHash, NARSize: p.info.NARSize,
		References: p.info.References, Signatures: p.info.Signatures,
	}, nil
}

func (s store) Open(_ context.Context, info *narstore.PathInfo) (narstore.NAR, error) {
	return memoryNAR{bytes.NewReader(s.paths[info.Path.HashPart()].nar)}, nil
}

func (store) Follow(ctx context.Context, _ func(narstore.Update) error) error {
	<-ctx.Done()
	return ctx.Err()
}

type memoryNAR struct{ *bytes.Reader }

func (memoryNAR) Close() error { return nil }
