// Package load tests a node that many want something of: Nix on its own machine, and
// peers. `make load` does so for ten minutes and with 64 peers, `make test` for some
// seconds and with a few.
package load

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/closure"
	"github.com/nar-p2p/nar-p2p/narstore/narinfo"
	"github.com/nar-p2p/nar-p2p/narstore/nix"
)

func TestMain(m *testing.M) {
	if task := os.Getenv(taskVariable); task != "" {
		os.Exit(perform(task))
	}
	os.Exit(lab.Main(m))
}

const (
	// clients ask at once.
	clients = 200
	// largeSize is more than is held until it is verified, in bytes.
	largeSize = 17 << 20
	// largeEvery is how many NARs are asked for until one is the large one.
	largeEvery = 200
	paths      = 40
)

// loadTime is how long it lasts.
func loadTime() time.Duration { return time.Duration(lab.Scale(8, 600)) * time.Second }

// Two hundred clients ask for narinfos, there and not, and NARs: each gets the right
// answer, and the daemon is afterwards as it was before.
func TestTwoHundredClients(t *testing.T) {
	l := lab.New(t)
	key, err := narinfo.GenerateSecretKey("load-1")
	if err != nil {
		t.Fatal(err)
	}
	cache := l.Dir("cache")
	c, err := closure.Generate(t.Context(), cache, closure.Config{Paths: paths, Seed: 1, Key: key, LargeSize: largeSize, Compression: "zstd"})
	if err != nil {
		t.Fatal(err)
	}
	d := l.Daemon("daemon", lab.DaemonConfig{Upstreams: []string{upstream(t, nil, cache, "127.0.0.1:0")}, Keys: []string{key.Public().String()}})
	transport := &http.Transport{MaxIdleConnsPerHost: clients, DisableCompression: true}
	u := &users{daemon: d, closure: c, http: &http.Client{Transport: transport, Timeout: lab.Patience}}

	// Everything once, so that what is kept is there before.
	u.everything(t)
	transport.CloseIdleConnections()
	before := u.settled(l)

	ctx, cancel := context.WithTimeout(t.Context(), loadTime())
	defer cancel()
	var running sync.WaitGroup
	for i := range clients {
		running.Go(func() { u.ask(ctx, t, rand.New(rand.NewPCG(1, uint64(i)))) })
	}
	running.Wait()
	transport.CloseIdleConnections()
	if u.narinfos.Load() < clients || u.nars.Load() < clients {
		t.Errorf("%d narinfos and %d NARs in %v: hardly a load", u.narinfos.Load(), u.nars.Load(), loadTime())
	}
	// The machine may have so much to do that a cache does not answer in time. Then,
	// and only then, a NAR may not be there.
	if u.elsewhere.Load() > 0 && !strings.Contains(d.Log(), "timeout") {
		t.Errorf("%d NARs were not there, although the upstream answers", u.elsewhere.Load())
	}
	peak, _ := d.Memory()
	t.Logf("%d narinfos, %d NARs of %d MiB in %v, and %d that the upstream did not send in time; %.0f MiB of memory at the most",
		u.narinfos.Load(), u.nars.Load(), u.bytes.Load()>>20, loadTime(), u.elsewhere.Load(), peak)
	l.WaitLonger("the daemon to be as before", idleFor+lab.Patience, func() bool {
		now := u.now()
		return now.descriptors <= before.descriptors+slack && now.goroutines <= before.goroutines+2*slack
	})
}

// idleFor is how long connections to an upstream wait for the next request.
const idleFor = 90 * time.Second

// slack is what stays open for a while: connections to the upstream, of which up to 96
// wait for the next request, with two goroutines each. The clients had more than that.
const slack = 96 + 16

// users ask one daemon.
type users struct {
	daemon  *lab.Daemon
	closure *closure.Closure
	http    *http.Client

	narinfos, nars, bytes atomic.Int64
	// elsewhere counts the NARs for which Nix would have gone to its next cache.
	elsewhere atomic.Int64
}

// everything asks for every narinfo and NAR once.
func (u *users) everything(t *testing.T) {
	t.Helper()
	for _, r := range u.closure.Records {
		for _, err := range []error{u.narinfo(t.Context(), r), u.nar(t.Context(), r)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// ask asks until ctx ends, and reports what was not right.
func (u *users) ask(ctx context.Context, t *testing.T, random *rand.Rand) {
	t.Helper()
	for ctx.Err() == nil {
		record := u.closure.Records[1+random.IntN(paths-1)]
		var err error
		switch kind := random.IntN(10); {
		case kind < 5:
			err = u.narinfo(ctx, record)
		case kind < 7:
			err = u.absent(ctx, random)
		case random.IntN(largeEvery) == 0:
			err = u.nar(ctx, u.closure.Records[0])
		default:
			err = u.nar(ctx, record)
		}
		if err != nil && ctx.Err() == nil {
			t.Error(err)
			return
		}
	}
}

func (u *users) narinfo(ctx context.Context, want *narinfo.Info) error {
	text, status, err := u.get(ctx, want.StorePath.HashPart().String()+".narinfo")
	if err != nil {
		return err
	}
	u.narinfos.Add(1)
	if status != http.StatusOK {
		return fmt.Errorf("narinfo of %s: status %d", want.StorePath, status)
	}
	got, err := narinfo.Parse(text)
	if err == nil && got.NARHash != want.NARHash {
		err = fmt.Errorf("narinfo of %s: NAR hash %s, want %s", want.StorePath, got.NARHash, want.NARHash)
	}
	return err
}

// absent asks for one of a few paths that do not exist.
func (u *users) absent(ctx context.Context, random *rand.Rand) error {
	part := nix.HashPart{0: byte(random.IntN(100)), 1: 1}
	_, status, err := u.get(ctx, part.String()+".narinfo")
	u.narinfos.Add(1)
	if err == nil && status != http.StatusNotFound {
		err = fmt.Errorf("narinfo of %s, which is not there: status %d", part, status)
	}
	return err
}

func (u *users) nar(ctx context.Context, want *narinfo.Info) error {
	text, status, err := u.get(ctx, narinfo.NARURL(want.StorePath.HashPart(), want.NARHash))
	switch {
	case err != nil:
		return err
	case status == http.StatusNotFound:
		u.elsewhere.Add(1)
		return nil
	case status != http.StatusOK:
		return fmt.Errorf("NAR of %s: status %d", want.StorePath, status)
	}
	u.nars.Add(1)
	u.bytes.Add(int64(len(text)))
	if got := nix.NARHash(sha256.Sum256(text)); got != want.NARHash {
		return fmt.Errorf("NAR of %s: %s, want %s", want.StorePath, got, want.NARHash)
	}
	return nil
}

func (u *users) get(ctx context.Context, name string) (body []byte, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.daemon.URL()+"/"+name, nil)
	if err != nil {
		return nil, 0, err
	}
	resp, err := u.http.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return body, resp.StatusCode, err
}

// usage is what a daemon has in use.
type usage struct{ descriptors, goroutines int }

func (u *users) now() usage {
	m := u.daemon.Metrics()
	return usage{int(m["process_open_fds"]), int(m["go_goroutines"])}
}

// settled waits until the usage is the same twice in a row, a second apart.
func (u *users) settled(l *lab.Lab) usage {
	last := u.now()
	looked := time.Now()
	l.WaitFor("the daemon to settle", func() bool {
		if time.Since(looked) < time.Second {
			return false
		}
		looked = time.Now()
		was := last
		last = u.now()
		return last.descriptors <= was.descriptors && last.goroutines <= was.goroutines
	})
	return last
}
