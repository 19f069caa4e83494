package faults

import (
	"net/http"
	"testing"
	"time"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

const (
	// grace is what a slow machine may add to the daemon's deadline. Without a
	// deadline a client would wait for minutes.
	grace = 10 * time.Second
	// lateAnswers is how many narinfos may take the daemon the whole deadline
	// before it knows of an upstream that hangs. Nix asks for the root alone; that
	// it is late must be nearly the end of it. Midway all may be under way.
	lateAnswers = 3
	// triesEach is how often a failing upstream may be asked for one narinfo: an
	// HTTP client tries once more where an idle connection has gone. A redirect
	// counts as a try.
	triesEach    = 2
	maxRedirects = 5
)

// check checks what came of an experiment with a daemon.
func (s *scene) check(t *testing.T, o outcome) {
	t.Helper()
	if o.err != nil {
		t.Errorf("the build does not go on: %v", o.err)
	}
	s.checkAnswers(t)
	s.checkGivers(t, o)
}

// checkAnswers checks what Nix saw of the daemon, and the upstream of it.
func (s *scene) checkAnswers(t *testing.T) {
	t.Helper()
	asked := make(map[string]bool)
	late := 0
	for _, e := range s.tap.Exchanges(lab.Narinfo) {
		if e.Status != http.StatusOK && e.Status != http.StatusNotFound {
			t.Errorf("%s was answered with %d", e.Path, e.Status)
		}
		if asked[e.Path] {
			t.Errorf("%s was asked for again", e.Path)
		}
		asked[e.Path] = true
		if e.Took > s.deadline()+grace {
			t.Errorf("%s took %v", e.Path, e.Took)
		}
		if e.Took >= s.deadline() {
			late++
		}
	}
	if len(asked) == 0 {
		t.Error("the daemon was asked for no narinfo")
	}
	// One that is only slow is waited for where there is no other.
	waitedFor := s.fault == lab.Slow && s.help == secondSubstituter
	if s.scope != midway && !waitedFor && late > lateAnswers {
		t.Errorf("%d narinfos took the whole deadline, want at most %d", late, lateAnswers)
	}
	tries := triesEach * len(asked)
	if s.fault == lab.RedirectLoop {
		tries *= 1 + maxRedirects
	}
	if got := s.faulty.Failed(lab.Narinfo); got > tries {
		t.Errorf("the upstream failed %d times for %d narinfos", got, len(asked))
	}
}

// checkGivers checks where the NARs came from.
func (s *scene) checkGivers(t *testing.T, o outcome) {
	t.Helper()
	given := s.daemon.Status().NARBytes
	all, direct := s.narBytes(), s.healthy.Served(lab.NAR)
	switch s.help {
	case secondUpstream:
		if !o.healthy || given["upstream"] < all {
			t.Errorf("the daemon gave %v bytes of NARs, want at least %d from upstreams; the healthy one gave %d NARs", given, all, direct)
		}
	case secondSubstituter:
		// One that is only slow is waited for: then Nix may need no other.
		if !o.healthy && s.fault != lab.Slow {
			t.Error("Nix did not go to its other substituter")
		}
		if s.scope == everything && s.fault != lab.Slow && direct != paths {
			t.Errorf("Nix's other substituter gave %d NARs, want %d", direct, paths)
		}
	case peer:
		if given["peer"]+given["upstream"] < all {
			t.Errorf("the daemon gave %v bytes of NARs, want at least %d", given, all)
		}
		if s.scope == everything && s.fault != lab.Slow && (given["upstream"] > 0 || given["peer"] < all) {
			t.Errorf("the daemon gave %v bytes of NARs, want at least %d from peers", given, all)
		}
	case noDaemon:
	}
}
