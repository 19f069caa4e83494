package lab

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Upstream is a static binary cache over HTTP: a folder made by `nix copy`. It
// can be made to fail in every way of Fault, and to be slow, while it runs.
type Upstream struct {
	// URL of the cache. It stays the same when the cache is stopped.
	URL string
	// Dir is the folder that is served.
	Dir string

	lab   *Lab
	files http.Handler

	mu       sync.Mutex
	requests []string
	served   map[Kind]int
	failed   map[Kind]int
	faults   map[Kind]Fault
	later    *later
	delay    time.Duration
	// held are the kinds of files whose requests wait until gate is closed.
	held     Kind
	gate     chan struct{}
	port     *port
	listener net.Listener
	server   *http.Server
}

// later is a fault that begins after some requests more.
type later struct {
	requests int
	fault    Fault
	kinds    Kind
}

// Kind is a set of kinds of files of a binary cache.
type Kind int

// The kinds of files, and all of them.
const (
	CacheInfo Kind = 1 << iota
	Narinfo
	NAR
	Everything = CacheInfo | Narinfo | NAR
)

// kindOf returns the kind of the file at path, or 0.
func kindOf(path string) Kind {
	switch {
	case path == "/nix-cache-info":
		return CacheInfo
	case strings.HasSuffix(path, ".narinfo"):
		return Narinfo
	case strings.HasPrefix(path, "/nar/"):
		return NAR
	}
	return 0
}

// Upstream serves dir on loopback.
func (l *Lab) Upstream(dir string) *Upstream {
	l.t.Helper()
	port, err := newPort()
	if err != nil {
		l.t.Fatalf("lab: %v", err)
	}
	u := &Upstream{
		URL: "http://" + port.addr, Dir: dir, lab: l, port: port,
		files: http.FileServer(http.Dir(dir)), faults: make(map[Kind]Fault),
		served: make(map[Kind]int), failed: make(map[Kind]int),
	}
	l.t.Cleanup(func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.stop()
		u.port.close()
	})
	u.Fail(Healthy, Everything)
	return u
}

// start serves, where it does not yet. The caller holds the mutex.
func (u *Upstream) start() error {
	if u.server != nil {
		return nil
	}
	var err error
	if u.listener, err = u.port.listen(); err != nil {
		return err
	}
	u.server = &http.Server{Handler: http.HandlerFunc(u.serve)}
	go func(server *http.Server, listener net.Listener) {
		_ = server.Serve(listener) // Ends when stopped.
	}(u.server, u.listener)
	return nil
}

// stop refuses connections and breaks those that there are. The caller holds
// the mutex.
func (u *Upstream) stop() {
	if u.server == nil {
		return
	}
	// The server may not have begun with the listener.
	_ = u.listener.Close()
	_ = u.server.Close()
	u.server = nil
}

// Stop switches the cache off: connections are refused from now on.
func (u *Upstream) Stop() { u.Fail(Refused, Everything) }

// Fail makes the files of these kinds fail from now on; Healthy ends it. That a
// server cannot be reached at all concerns Everything.
func (u *Upstream) Fail(fault Fault, kinds Kind) {
	u.lab.t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.later = nil
	if err := u.fail(fault, kinds); err != nil {
		u.lab.t.Fatalf("lab: %v", err)
	}
}

// FailAfter is Fail once some more files of these kinds were asked for.
func (u *Upstream) FailAfter(requests int, fault Fault, kinds Kind) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.later = &later{requests, fault, kinds}
}

// fail is Fail for who holds the mutex.
func (u *Upstream) fail(fault Fault, kinds Kind) error {
	if !fault.Reachable() && kinds != Everything {
		return fmt.Errorf("%s is not possible for some files only", fault)
	}
	for _, kind := range []Kind{CacheInfo, Narinfo, NAR} {
		if kinds&kind != 0 {
			u.faults[kind] = fault
		}
	}
	if fault.Reachable() {
		return u.start()
	}
	u.stop()
	if fault == BlackHole {
		return u.port.swallow()
	}
	return nil
}

// SetDelay makes every answer begin this much later than it would.
func (u *Upstream) SetDelay(delay time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.delay = delay
}

// Hold lets requests for files of these kinds wait until Release.
func (u *Upstream) Hold(kinds Kind) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.held, u.gate = kinds, make(chan struct{})
}

// Release answers what Hold lets wait, and what comes.
func (u *Upstream) Release() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.held != 0 {
		u.held = 0
		close(u.gate)
	}
}

// waits reports whether a request is held, and until when.
func (u *Upstream) waits(r *http.Request) (until <-chan struct{}, held bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.gate, u.held&kindOf(r.URL.Path) != 0
}

func (u *Upstream) serve(w http.ResponseWriter, r *http.Request) {
	if until, held := u.waits(r); held {
		select {
		case <-until:
		case <-r.Context().Done():
			return
		}
	}
	fault, delay := u.note(r)
	if delay > 0 && !wait(r, delay) {
		return
	}
	fault.serve(w, r, u.files)
}

// note writes a request down, and returns how it is to be answered.
func (u *Upstream) note(r *http.Request) (Fault, time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.requests = append(u.requests, r.Method+" "+r.URL.Path)
	kind := kindOf(r.URL.Path)
	if u.later != nil && u.later.kinds&kind != 0 {
		if u.later.requests--; u.later.requests < 0 {
			if err := u.fail(u.later.fault, u.later.kinds); err != nil {
				u.lab.t.Logf("lab: %v", err) // The test sees it stay healthy.
			}
			u.later = nil
		}
	}
	if u.faults[kind] == Healthy {
		u.served[kind]++
	} else {
		u.failed[kind]++
	}
	return u.faults[kind], u.delay
}

// RemoveNARs deletes the NARs and leaves the narinfos.
func (u *Upstream) RemoveNARs() {
	u.lab.t.Helper()
	if err := os.RemoveAll(filepath.Join(u.Dir, "nar")); err != nil {
		u.lab.t.Fatalf("lab: %v", err)
	}
}

// Requests returns "METHOD /path" of the requests so far that have part in
// their path.
func (u *Upstream) Requests(part string) []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var found []string
	for _, r := range u.requests {
		if strings.Contains(r, part) {
			found = append(found, r)
		}
	}
	return found
}

// Served counts the requests for files of these kinds that no fault spoilt,
// Failed those that one did.
func (u *Upstream) Served(kinds Kind) int { return u.count(u.served, kinds) }

// Failed is told of at Served.
func (u *Upstream) Failed(kinds Kind) int { return u.count(u.failed, kinds) }

func (u *Upstream) count(counts map[Kind]int, kinds Kind) (n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for kind, m := range counts {
		if kinds&kind != 0 {
			n += m
		}
	}
	return n
}

// Hide moves a file or folder out of the way, Unhide back.
func (l *Lab) Hide(path string) {
	l.t.Helper()
	if err := os.Rename(path, path+".hidden"); err != nil {
		l.t.Fatalf("lab: %v", err)
	}
}

// Unhide undoes Hide.
func (l *Lab) Unhide(path string) {
	l.t.Helper()
	if err := os.Rename(path+".hidden", path); err != nil {
		l.t.Fatalf("lab: %v", err)
	}
}
