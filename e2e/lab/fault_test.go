package lab

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// body is long enough to arrive in several pieces.
var body = bytes.Repeat([]byte("0123456789abcdef"), 1<<16)

// newUpstream serves a cache of three files.
func newUpstream(t *testing.T) *Upstream {
	t.Helper()
	l := New(t)
	dir := l.Dir("cache")
	l.write(filepath.Join(dir, "nix-cache-info"), cacheInfo)
	l.write(filepath.Join(dir, "x.narinfo"), string(body))
	l.write(filepath.Join(dir, "nar", "x.nar"), string(body))
	return l.Upstream(dir)
}

// fetched is what a client saw of an answer.
type fetched struct {
	status int
	body   []byte
	// err is that of the request, bodyErr that of reading the body.
	err, bodyErr error
}

// fetch gets a file and waits no longer than patience. The client uses no
// connection twice and follows no redirect for ever.
func fetch(t *testing.T, url string, patience time.Duration) fetched {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fetched{err: err}
	}
	defer resp.Body.Close()
	got := fetched{status: resp.StatusCode}
	got.body, got.bodyErr = io.ReadAll(resp.Body)
	return got
}

func TestFaults(t *testing.T) {
	// A hang can only be seen by waiting. This long is enough for everything
	// that does not hang, and what hangs does so however slow the machine is.
	const hang = 500 * time.Millisecond
	half := body[:len(body)/2]
	isStatus := func(status int) func(fetched) bool {
		return func(got fetched) bool { return got.err == nil && got.bodyErr == nil && got.status == status }
	}
	sent := func(want []byte) func(fetched) bool {
		return func(got fetched) bool { return isStatus(http.StatusOK)(got) && bytes.Equal(got.body, want) }
	}
	timesOut := func(got fetched) bool { return errors.Is(got.err, context.DeadlineExceeded) }
	for _, tt := range []struct {
		fault    Fault
		patience time.Duration
		want     func(fetched) bool
	}{
		{Healthy, Patience, sent(body)},
		{HangBeforeHeaders, hang, timesOut},
		{HangInBody, hang, func(got fetched) bool {
			return got.status == http.StatusOK && errors.Is(got.bodyErr, context.DeadlineExceeded) && len(got.body) <= len(half)
		}},
		{Slow, Patience, sent(body)},
		{ServerError, Patience, isStatus(http.StatusInternalServerError)},
		{Unavailable, Patience, isStatus(http.StatusServiceUnavailable)},
		{TooManyRequests, Patience, isStatus(http.StatusTooManyRequests)},
		{RedirectLoop, Patience, func(got fetched) bool { return got.err != nil && strings.Contains(got.err.Error(), "redirects") }},
		{ResetBeforeHeaders, Patience, func(got fetched) bool { return errors.Is(got.err, syscall.ECONNRESET) }},
		{ResetInBody, Patience, func(got fetched) bool { return errors.Is(got.bodyErr, syscall.ECONNRESET) }},
		{LengthTooLarge, Patience, func(got fetched) bool {
			return errors.Is(got.bodyErr, io.ErrUnexpectedEOF) && bytes.Equal(got.body, half)
		}},
		{LengthTooSmall, Patience, sent(half)},
		{Truncated, Patience, sent(half)},
		{Binary, Patience, func(got fetched) bool {
			return isStatus(http.StatusOK)(got) && len(got.body) == len(body) && !bytes.Equal(got.body, body)
		}},
		{CaptivePortal, Patience, func(got fetched) bool {
			return isStatus(http.StatusOK)(got) && bytes.Contains(got.body, []byte("<html>"))
		}},
		{Refused, Patience, func(got fetched) bool { return errors.Is(got.err, syscall.ECONNREFUSED) }},
		{BlackHole, hang, timesOut},
		{Empty, Patience, sent(nil)},
		{Trickly, hang, func(got fetched) bool { return errors.Is(got.bodyErr, context.DeadlineExceeded) && len(got.body) == 1 }},
		{Endless, hang, func(got fetched) bool {
			return errors.Is(got.bodyErr, context.DeadlineExceeded) && len(got.body) > len(junk)
		}},
		{NoHTTP, Patience, func(got fetched) bool { return got.err != nil && strings.Contains(got.err.Error(), "malformed HTTP") }},
	} {
		t.Run(string(tt.fault), func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t)
			u.Fail(tt.fault, Everything)
			began := time.Now()
			got := fetch(t, u.URL+"/x.narinfo", tt.patience)
			if !tt.want(got) {
				t.Errorf("status %d, %d bytes, %v, %v", got.status, len(got.body), got.err, got.bodyErr)
			}
			if took := time.Since(began); tt.fault == Slow && took < slowness {
				t.Errorf("took %v", took)
			}
			u.Fail(Healthy, Everything)
			if got := fetch(t, u.URL+"/x.narinfo", Patience); !sent(body)(got) {
				t.Errorf("healthy again: status %d, %d bytes, %v, %v", got.status, len(got.body), got.err, got.bodyErr)
			}
		})
	}
	if listed := len(Faults()); listed != 20 {
		t.Errorf("%d faults are listed", listed)
	}
}

func TestOnlySomeFilesFail(t *testing.T) {
	u := newUpstream(t)
	status := func(file string) int { return fetch(t, u.URL+file, Patience).status }
	u.Fail(ServerError, NAR)
	u.Fail(Unavailable, CacheInfo)
	if cacheInfo, narinfo, nar := status("/nix-cache-info"), status("/x.narinfo"), status("/nar/x.nar"); cacheInfo != 503 || narinfo != 200 || nar != 500 {
		t.Errorf("cache info %d, narinfo %d, NAR %d, want 503, 200, 500", cacheInfo, narinfo, nar)
	}
	if failed, served := u.Failed(Everything), u.Served(Everything); failed != 2 || served != 1 {
		t.Errorf("%d failed and %d served, want 2 and 1", failed, served)
	}
	if failed, served := u.Failed(NAR), u.Served(NAR); failed != 1 || served != 0 {
		t.Errorf("of the NARs %d failed and %d served, want 1 and 0", failed, served)
	}
}

func TestFaultsThatBeginLater(t *testing.T) {
	for _, fault := range []Fault{ServerError, Refused} {
		u := newUpstream(t)
		u.FailAfter(2, fault, Everything)
		for i := range 4 {
			got := fetch(t, u.URL+"/x.narinfo", Patience)
			if good := got.err == nil && got.status == http.StatusOK; good != (i < 2) {
				t.Errorf("%s: request %d: status %d, %v", fault, i+1, got.status, got.err)
			}
		}
	}
}

func TestDelay(t *testing.T) {
	u := newUpstream(t)
	u.SetDelay(80 * time.Millisecond)
	began := time.Now()
	if got := fetch(t, u.URL+"/x.narinfo", Patience); got.status != http.StatusOK || time.Since(began) < 80*time.Millisecond {
		t.Errorf("status %d after %v", got.status, time.Since(began))
	}
}

// The port of a cache that is off must not go to another server.
func TestAPortStaysReserved(t *testing.T) {
	u := newUpstream(t)
	u.Stop()
	for range 64 {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if "http://"+l.Addr().String() == u.URL {
			t.Fatal("another server has the port of one that is stopped")
		}
	}
	if got := fetch(t, u.URL+"/x.narinfo", Patience); !errors.Is(got.err, syscall.ECONNREFUSED) {
		t.Errorf("%v, want a refusal", got.err)
	}
}

func TestTapShowsWhatPasses(t *testing.T) {
	u := newUpstream(t)
	tap := u.lab.Tap(u.URL)
	see := func(fault Fault) Exchange {
		t.Helper()
		u.Fail(fault, Everything)
		fetch(t, tap.URL+"/nar/x.nar", Patience)
		seen := tap.Exchanges(NAR)
		return seen[len(seen)-1]
	}
	if e := see(Healthy); e.Method != http.MethodGet || e.Path != "/nar/x.nar" || e.Status != 200 || e.Bytes != int64(len(body)) || e.Broken {
		t.Errorf("healthy: %+v", e)
	}
	if e := see(LengthTooLarge); e.Status != 200 || e.Bytes != int64(len(body)/2) || !e.Broken {
		t.Errorf("cut: %+v", e)
	}
	if e := see(ServerError); e.Status != 500 || e.Broken {
		t.Errorf("error: %+v", e)
	}
	if e := see(Refused); e.Status != 0 {
		t.Errorf("refused: %+v", e)
	}
	if got := tap.Exchanges(Narinfo); len(got) != 0 {
		t.Errorf("narinfos: %v", got)
	}
}

func TestLeftoversOfTheDeadAreRemoved(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	alive, err := newHome()
	if err != nil {
		t.Fatal(err)
	}
	defer alive.lock.Close()
	dead, err := newHome()
	if err != nil {
		t.Fatal(err)
	}
	ns := filepath.Base(dead.dir)
	dead.noteNamespace(ns)
	l := &Lab{t: t}
	l.ip("netns", "add", ns)
	readOnly := filepath.Join(dead.dir, "store", "path")
	if err := os.MkdirAll(readOnly, 0o755); err != nil {
		t.Fatal(err)
	}
	l.write(filepath.Join(readOnly, "file"), "")
	if err := os.Chmod(readOnly, 0o555); err != nil {
		t.Fatal(err)
	}
	dead.lock.Close() // As the kernel does when a process dies.

	sweep()
	if _, err := os.Stat(dead.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of the dead: %v", err)
	}
	if _, err := os.Stat("/run/netns/" + ns); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the namespace of the dead: %v", err)
	}
	if _, err := os.Stat(alive.dir); err != nil {
		t.Errorf("the folder of the living: %v", err)
	}
}
