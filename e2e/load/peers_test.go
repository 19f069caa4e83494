package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
	"github.com/nar-p2p/nar-p2p/p2p"
	"github.com/nar-p2p/nar-p2p/p2p/swarm"
)

// taskVariable holds what the test program is to do on a host of the lab.
const taskVariable = "NAR_P2P_LOAD"

// task is one of them.
type task struct {
	// Dir is a folder to be served by HTTP at Addr. Once that is so, the URL is printed.
	Dir, Addr string
	// Peers is how many nodes are to fetch a NAR from the provider, and Time how long
	// it is counted what they get.
	Peers    int
	Provider *peer.AddrInfo `json:",omitempty"`
	Hash     nix.NARHash
	Size     int64
	Time     time.Duration
}

// perform is the test program on a host.
func perform(text string) int {
	var todo task
	err := json.Unmarshal([]byte(text), &todo)
	switch {
	case err != nil:
	case todo.Dir != "":
		err = todo.serve()
	default:
		err = todo.fetch()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// serve is an upstream.
func (d *task) serve() error {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", d.Addr)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(os.Stdout, "http://%s\n", listener.Addr()); err != nil {
		return err
	}
	return http.Serve(listener, http.FileServer(http.Dir(d.Dir))) //nolint:gosec // For as long as the test lasts.
}

// upstream starts one in a process of its own, and returns its URL: it is to answer in
// time, however much this process has to do.
func upstream(t *testing.T, at *lab.Host, dir, addr string) string {
	t.Helper()
	url, err := start(t, at, &task{Dir: dir, Addr: addr}).out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(url)
}

// fetch runs the peers. Once all get something it says so; told to go on it counts
// what comes, and prints it.
func (d *task) fetch() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	counts := make([]atomic.Int64, d.Peers)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for i := range counts {
		node, err := lab.NewPeer(p2p.Config{Profile: p2p.Consume, Bootstrap: []peer.AddrInfo{*d.Provider}}, nil)
		if err != nil {
			return err
		}
		running.Go(func() { _ = node.Run(ctx) }) // It ends with ctx.
		running.Go(func() { d.drain(ctx, node, &counts[i]) })
	}
	for i := range counts {
		for counts[i].Load() == 0 {
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				return fmt.Errorf("peer %d gets nothing", i)
			}
		}
	}
	if _, err := fmt.Fprintln(os.Stdout, "ready"); err != nil {
		return err
	}
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	before := make([]int64, d.Peers)
	for i := range counts {
		before[i] = counts[i].Load()
	}
	began := time.Now()
	time.Sleep(d.Time) // That is what is measured.
	all := share{Bytes: make([]int64, d.Peers)}
	for i := range counts {
		all.Bytes[i] = counts[i].Load() - before[i]
	}
	all.Took = time.Since(began)
	return json.NewEncoder(os.Stdout).Encode(all)
}

// share is what the peers of a host have got, each, and in what time.
type share struct {
	Bytes []int64
	Took  time.Duration
}

// drain fetches the NAR again and again.
func (d *task) drain(ctx context.Context, node *p2p.Node, count *atomic.Int64) {
	<-node.Ready()
	for ctx.Err() == nil {
		if err := d.once(ctx, node, count); err != nil {
			select {
			case <-time.After(50 * time.Millisecond): // It is not connected yet, or the provider has no room.
			case <-ctx.Done():
			}
		}
	}
}

func (d *task) once(ctx context.Context, node *p2p.Node, count *atomic.Int64) error {
	t, err := node.Open(ctx, swarm.Want{Hash: d.Hash, Size: d.Size})
	if err != nil {
		return err
	}
	_, err = io.Copy(counter{count}, t)
	return errors.Join(err, t.Close())
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

const (
	// lineRate is that of the node's line, in bits per second, both directions
	// together, and uploadLimit, in bytes, what with all that is sent around it is a
	// bit less than half of that: 64 peers get 80 KiB/s each, and below 64 they would
	// be sent away.
	lineRate    = 100_000_000
	uploadLimit = 5 << 20
	// unfair is by what part of the mean the share of a peer may differ from it.
	unfair = 0.2
	// above is by what part of the upload limit all of them together may be above it:
	// what was under way when the clock was started is counted too.
	above = 0.1
	// ownSize is that of what the local user fetches, in bytes.
	ownSize = 24 << 20
)

// host is one with some peers.
type host struct {
	in  io.Writer
	out *bufio.Reader
}

// Peers that all want something of a node with an upload limit get the same, together
// what the limit says, and the local user's own fetch has at least half of the line
// beside them. In the short run it is the processor that decides how long it takes, and
// so all that is looked at is what is left to it.
func TestPeersGetTheSame(t *testing.T) {
	l := lab.New(t)
	// In the full run everyone is in a network of its own: those of one address group
	// may not have all of the places.
	hosts, perHost := lab.Scale(2, 64), lab.Scale(8, 1)
	key, err := narinfo.GenerateSecretKey("load-1")
	if err != nil {
		t.Fatal(err)
	}
	generate := func(name string, seed uint64, size int64) (string, *narinfo.Info) {
		dir := l.Dir(name)
		c, err := closure.Generate(t.Context(), dir, closure.Config{Paths: 1, Seed: seed, Key: key, LargeSize: size})
		if err != nil {
			t.Fatal(err)
		}
		return dir, c.Root()
	}
	held, wanted := generate("held", 1, int64(lab.Scale(64, 256))<<20)
	cache, own := generate("upstream", 2, ownSize)
	network := l.Net()
	home := network.Host("11.0.1.1", lab.Line{Rate: lineRate, Shared: true, Delay: 5 * time.Millisecond})
	far := network.Host("11.0.2.1", lab.Line{Delay: 5 * time.Millisecond})
	node := l.Daemon("node", lab.DaemonConfig{
		Host: home, Cache: held, Keys: []string{key.Public().String()}, Upstreams: []string{upstream(t, far, cache, "11.0.2.1:8000")},
		Flags: []string{fmt.Sprintf("--p2p-upload-limit=%dB/s", uploadLimit)},
	})
	node.WaitShared(1)
	// fetch returns the median of some times. It is the processor that decides how long
	// one takes now and then.
	fetch := func() time.Duration {
		took := make([]time.Duration, lab.Scale(1, 5))
		for i := range took {
			began := time.Now()
			cmd := home.Command(l.Context(), "curl", "-sSf", "-o", "/dev/null", node.URL()+"/"+narinfo.NARURL(own.StorePath.HashPart(), own.NARHash))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			took[i] = time.Since(began)
		}
		slices.Sort(took)
		return took[len(took)/2]
	}
	alone := fetch()

	provider := node.AddrInfo()
	all := make([]*host, hosts)
	for i := range all {
		at := network.Host(fmt.Sprintf("11.0.%d.1", 10+i), lab.Line{Delay: 5 * time.Millisecond})
		all[i] = start(t, at, &task{
			Peers: perHost, Provider: &provider, Hash: wanted.NARHash, Size: wanted.NARSize,
			Time: time.Duration(lab.Scale(10, 60)) * time.Second,
		})
	}
	for _, h := range all {
		if line, err := h.out.ReadString('\n'); line != "ready\n" {
			t.Fatalf("peers are not ready: %q, %v", line, err)
		}
	}
	for _, h := range all {
		if _, err := io.WriteString(h.in, "go\n"); err != nil {
			t.Fatal(err)
		}
	}
	beside := fetch()
	var got []int64
	var rate float64
	for _, h := range all {
		var some share
		if err := json.NewDecoder(h.out).Decode(&some); err != nil {
			t.Fatal(err)
		}
		got = append(got, some.Bytes...)
		for _, n := range some.Bytes {
			rate += float64(n) / some.Took.Seconds()
		}
	}
	var sum int64
	for _, n := range got {
		sum += n
	}
	mean := float64(sum) / float64(len(got))
	for i, n := range got {
		if float64(n) < mean*(1-unfair) || float64(n) > mean*(1+unfair) {
			t.Errorf("peer %d has got %d bytes, the mean is %.0f", i, n, mean)
		}
	}
	t.Logf("%d peers, from %d to %d KiB each, the mean is %.0f; %.2f MiB/s together; the own fetch takes %v beside them, %v alone",
		len(got), slices.Min(got)>>10, slices.Max(got)>>10, mean/1024, rate/(1<<20), beside, alone)
	if rate > uploadLimit*(1+above) {
		t.Errorf("all peers together get %.0f bytes per second, of which the limit is %d", rate, uploadLimit)
	}
	if lab.Scale(0, 1) == 1 && beside > 2*alone {
		t.Errorf("the own fetch takes %v beside the peers, %v alone", beside, alone)
	}
}

// start runs the test program on a host, until the test ends.
func start(t *testing.T, at *lab.Host, todo *task) *host {
	t.Helper()
	text, err := json.Marshal(todo)
	if err != nil {
		t.Fatal(err)
	}
	cmd := at.Command(context.Background(), os.Args[0])
	cmd.Env = append(os.Environ(), taskVariable+"="+string(text))
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Cancel() // It may have ended.
		if _ = cmd.Wait(); t.Failed() {
			t.Log(said.String())
		}
	})
	return &host{in, bufio.NewReader(out)}
}
