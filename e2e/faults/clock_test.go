package faults

import (
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
	"github.com/nar-p2p/nar-p2p/internal/control"
)

// year is about that.
const year = 365 * 24 * time.Hour

// clockSet sets the clock of a daemon while it runs, and then right again.
//
// Before, it has read back from the disk what it keeps times of: that a peer has
// failed, that an upstream wants to be left alone, that somebody is banned and sharing
// is paused for an hour.
func clockSet(wrong time.Duration) func(t *testing.T, c *trial) string {
	return func(t *testing.T, c *trial) string {
		t.Helper()
		provider, d := c.withTimes()
		clock := d.Clock()
		clock.Set(wrong)
		if off := time.Until(c.date(d)); (off - wrong).Abs() > time.Hour {
			t.Fatalf("its clock is wrong by %v, want %v", off, wrong)
		}
		c.wantEnds(d)
		if !d.Speaks(provider) {
			t.Error("it has lost its peer")
		}
		// The upstream has the records alone.
		c.upstream.Hold(lab.NAR)
		c.realise(c.nix("wrong", nil, d.URL()), c.ground.small.Root().StorePath)
		needs(t, d, "peer")
		c.wantDoctor(d, "clock", "warning", "differs by")
		c.upstream.Release()

		clock.Set(0)
		c.wantDoctor(d, "clock", "ok", "")
		c.wantEnds(d)
		c.realise(c.nix("right", nil, d.URL()), c.ground.single.Root().StorePath)
		return givers(d) + "; doctor: clock"
	}
}

// withTimes returns a consumer that was started with such times on the disk, and its
// provider. The first of its two upstreams is the one that is left alone.
func (c *trial) withTimes() (provider, d *lab.Daemon) {
	c.t.Helper()
	_, text, err := net.SplitHostPort(c.Port())
	if err != nil {
		c.t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		c.t.Fatal(err)
	}
	provider = c.Daemon("provider", lab.DaemonConfig{Cache: c.ground.cache, Keys: c.ground.keys, Port: port})
	provider.WaitShared(1 + smallPaths)
	w := c.Wire(net.JoinHostPort("127.0.0.1", text))
	overburdened := c.Upstream(c.ground.cache)
	d, store := c.consumer(lab.DaemonConfig{
		Known:     []string{knownAt(c.t, w, provider)},
		Upstreams: []string{overburdened.URL, c.upstream.URL},
	})
	speaks := func() bool { return d.Speaks(provider) }
	c.WaitFor("the consumer to speak with the provider", speaks)
	for _, u := range []*lab.Upstream{overburdened, c.upstream} {
		u.Hold(lab.NAR)
	}
	record := c.ground.single.Root()
	w.After(record.NARSize/2, lab.Carry, func() {
		provider.Kill()
		overburdened.Release()
		c.upstream.Release()
	})
	c.realise(store, record.StorePath)
	tripped(c.t, w)
	provider.Start()
	provider.WaitShared(1 + smallPaths)

	overburdened.Fail(lab.Unavailable, lab.Everything)
	c.WaitFor("the upstream to be left alone", func() bool {
		_, _ = c.get(d, "0123456789abcdfghijklmnpqrsvwxyz.narinfo") // which none has
		return !d.Status().Upstreams[0].Reachable
	})
	for _, args := range [][]string{{"peers", "ban", c.ground.provider.PeerID(), "--for", "1h"}, {"pause", "1h"}} {
		if out, err := d.Ctl(args...); err != nil {
			c.t.Fatalf("%v: %s", err, out)
		}
	}
	if err := d.Stop(); err != nil {
		c.t.Fatal(err)
	}
	d.Start()
	c.WaitFor("the consumer to speak with the provider again", speaks)
	return provider, d
}

// date is what a daemon's clock shows.
func (c *trial) date(d *lab.Daemon) time.Time {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.Context(), http.MethodGet, d.URL()+"/nix-cache-info", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	_ = resp.Body.Close()
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		c.t.Fatal(err)
	}
	return date
}

// wantEnds checks that what ends in an hour or in two minutes still does, by the
// daemon's clock.
func (c *trial) wantEnds(d *lab.Daemon) {
	c.t.Helper()
	out, err := d.Ctl("peers", "banned", "--json")
	var bans []control.Ban
	if err == nil {
		err = json.Unmarshal([]byte(out), &bans)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	now, status := c.date(d), d.Status()
	within := func(what string, end time.Time, most time.Duration) {
		if left := end.Sub(now); left <= 0 || left > most+time.Second {
			c.t.Errorf("%s ends in %v, want within %v", what, left, most)
		}
	}
	if len(bans) != 1 {
		c.t.Errorf("banned are %v, want one peer", bans)
	} else {
		within("the ban", bans[0].Until, time.Hour)
	}
	if !status.Sharing.Paused {
		c.t.Error("sharing is not paused any more")
	} else {
		within("the pause", status.Sharing.Until, time.Hour)
	}
	if u := status.Upstreams[0]; !u.Reachable {
		within("the upstream's rest", u.OpenUntil, 2*time.Minute)
	}
	if up := now.Sub(status.Started); up < -time.Second || up > time.Hour {
		c.t.Errorf("it says that it runs for %v", up)
	}
}
